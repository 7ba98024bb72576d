<?php
/**
 * The page of the chat: plain PHP and plain JavaScript, nothing to build or install. chat.php answers for its server.
 * TAUT_URL in the environment says where `taut serve` is, for instance wss://chat.example.
 */
$server = rtrim(getenv('TAUT_URL') ?: '', '/');
?>
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content">
  <meta name="color-scheme" content="light dark">
  <title>Chat in PHP</title>
  <link rel="icon" href="data:,">
  <style>
    :root {
      --paper: #f6f4ef; --card: #fffefb; --ink: #1d2326; --soft: #586268; --line: #dedad0; --edge: #7d868b;
      --accent: #0b7268; --accent-ink: #ffffff; --mine: #d9efe9; --theirs: #f0eee8;
      --good: #0b6b57; --wait: #8a5200; --bad: #b3261e;
    }
    @media (prefers-color-scheme: dark) {
      :root {
        --paper: #12161a; --card: #1a2025; --ink: #e6eaea; --soft: #a0acb1; --line: #2b343a; --edge: #74818a;
        --accent: #56d3c0; --accent-ink: #06211d; --mine: #143f3a; --theirs: #262e34;
        --good: #4cd0a9; --wait: #f0b45b; --bad: #ff8f85;
      }
    }
    *, ::before, ::after { box-sizing: border-box; }
    [hidden] { display: none !important; }
    body {
      display: grid; grid-template: auto minmax(0, 1fr) / minmax(0, 1fr); height: 100vh; height: 100dvh;
      max-width: 46rem; margin: 0 auto; padding: 0 1rem 1rem; background: var(--paper); color: var(--ink);
      font: 1rem/1.5 "Inter", system-ui, sans-serif;
    }
    :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    button, input, textarea { font: inherit; color: inherit; }
    button, input, textarea { border: 1px solid var(--edge); border-radius: 0.6rem; }
    button { padding: 0.3rem 0.8rem; background: var(--card); color: var(--ink); cursor: pointer; }
    button.primary {
      padding: 0.55rem 1.2rem; border-color: transparent; background: var(--accent); color: var(--accent-ink);
      font-weight: 600;
    }
    input, textarea { width: 100%; min-width: 0; padding: 0.55rem 0.8rem; background: var(--paper); }
    :is(input, textarea):focus-visible { outline-offset: -1px; }
    ::placeholder { color: var(--soft); opacity: 1; }
    [aria-invalid="true"] { border-color: var(--bad); }
    .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    .wrong { color: var(--bad); }

    header { justify-content: space-between; gap: 0.25rem 1rem; padding: 0.8rem 0; }
    header, #link { display: flex; flex-wrap: wrap; align-items: center; }
    h1 { margin: 0; font-size: 1.15rem; }
    #link { --state: var(--soft); gap: 0.5rem; min-height: 2.1rem; color: var(--soft); font-size: 0.9rem; }
    #link::before { content: ""; width: 0.6rem; height: 0.6rem; border-radius: 50%; background: var(--state); }
    #link[data-state="online"] { --state: var(--good); }
    #link[data-state="connecting"] { --state: var(--wait); }
    #link[data-state="offline"] { --state: var(--bad); }
    #countdown { margin-left: -0.25rem; font-variant-numeric: tabular-nums; }
    #countdown:empty { display: none; }
    #link button { padding: 0.1rem 0.7rem; }

    main {
      display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr); min-height: 0; overflow: auto;
      border: 1px solid var(--line); border-radius: 1rem; background: var(--card);
    }
    #join { display: grid; gap: 1rem; width: 100%; max-width: 24rem; margin: auto; padding: 1.5rem 1rem; }
    #join h2 { margin: 0; font-size: 1.3rem; }
    #join p { margin: 0; }
    #join label { display: block; margin-bottom: 0.2rem; font-weight: 600; }
    #join .hint { margin-top: 0.3rem; }
    #refusal:empty { margin-top: -1rem; }
    .hint { color: var(--soft); font-size: 0.85rem; }
    #room-view { display: grid; grid-template: auto minmax(0, 1fr) auto / minmax(0, 1fr); }
    .about { display: flex; align-items: center; gap: 0.6rem; padding: 0.6rem 1rem; }
    .about, #log { border-bottom: 1px solid var(--line); }
    .about p { flex: 1; min-width: 0; max-height: 4.5em; margin: 0; overflow-y: auto; color: var(--soft); }
    .about, .note { font-size: 0.9rem; overflow-wrap: anywhere; }
    .about strong { color: var(--ink); }
    /* A column in reverse stays at its end, unless somebody scrolls up to read. */
    #log {
      display: flex; flex-direction: column-reverse; overflow: hidden auto; overscroll-behavior: contain; padding: 1rem;
    }
    #log:focus-visible { outline-offset: -2px; }
    #messages { display: flex; flex-direction: column; gap: 0.6rem; margin: 0; padding: 0; list-style: none; }
    .message { max-width: min(34rem, 88%); align-self: start; }
    .message p { margin: 0; }
    .who { color: var(--soft); font-size: 0.8rem; overflow-wrap: anywhere; }
    .who b { color: var(--ink); }
    .text {
      width: fit-content; padding: 0.4rem 0.8rem; border-radius: 0.3rem 1rem 1rem; background: var(--theirs);
      overflow-wrap: anywhere; white-space: pre-wrap;
    }
    .mine { align-self: end; }
    .mine .who { text-align: end; }
    .mine .text { margin-left: auto; border-radius: 1rem 0.3rem 1rem 1rem; background: var(--mine); }
    .pending .text { background: none; outline: 1px dashed var(--edge); }
    .note { align-self: center; color: var(--soft); text-align: center; }
    #composer { padding: 0.75rem 1rem 0.6rem; }
    .write { display: flex; align-items: end; gap: 0.6rem; }
    #text { min-height: 2.7rem; max-height: 8rem; resize: none; field-sizing: content; }
    #hint { min-height: 1.5em; margin: 0.3rem 0.1rem 0; }
  </style>
</head>
<body data-server="<?= htmlspecialchars($server) ?>">
  <header>
    <h1>Chat in PHP</h1>
    <div id="link" data-state="out">
      <span id="state" role="status">Not connected</span>
      <span id="countdown" aria-hidden="true"></span>
      <button type="button" id="now" hidden>Try now</button>
    </div>
  </header>

  <main>
    <form id="join" autocomplete="off">
      <h2>Join a room</h2>
      <div>
        <label for="room">Room</label>
        <input id="room" value="1" required maxlength="40" pattern="[A-Za-z0-9_\-]+" title="Letters, digits, - and _"
          spellcheck="false">
      </div>
      <div>
        <label for="token">Token</label>
        <input id="token" required maxlength="200" spellcheck="false" autocapitalize="none"
          aria-describedby="about-token refusal">
        <p class="hint" id="about-token">It says who you are. In this example it is “token-” and a name in small
          letters: token-ann.</p>
      </div>
      <p class="wrong" id="refusal" role="alert"></p>
      <button class="primary">Join</button>
    </form>

    <section id="room-view" aria-labelledby="where" hidden>
      <div class="about">
        <p><strong id="where"></strong> <span id="people"></span></p>
        <button type="button" id="leave">Leave</button>
      </div>
      <div id="log" role="log" aria-label="Messages" tabindex="0"><ol id="messages"></ol></div>
      <form id="composer" autocomplete="off">
        <div class="write">
          <label class="unseen" for="text">Message</label>
          <textarea id="text" rows="1" maxlength="2000" placeholder="Write a message" enterkeyhint="send"
            aria-describedby="hint"></textarea>
          <button class="primary">Send</button>
        </div>
        <p class="hint" id="hint" role="status"></p>
      </form>
    </section>
    <noscript><p class="wrong">This page uses a WebSocket, which needs JavaScript.</p></noscript>
  </main>

  <script type="module">
    const ANSWER_WITHIN = 15_000, QUIET = 25_000, LASTED = 5000, MAX_SHOWN = 200;
    const FIRST_WAIT = 1000, LONGEST_WAIT = 30_000;
    const USUAL_HINT = 'Enter sends, Shift + Enter starts a new line.';
    const page = Object.fromEntries(Array.from(document.querySelectorAll('[id]'), (each) => [each.id, each]));
    // With TLS it is the page's own host, behind one proxy; without, the port that Taut has by default.
    const server = document.body.dataset.server ||
      (location.protocol === 'https:' ? `wss://${location.host}` : `ws://${location.hostname}:6001`);

    let socket = null, isIn = false, wasIn = false, me = null;
    let failures = 0, openedAt = 0, heardAt = 0;
    let retry, deadline, ticking;
    let people = new Set();
    let unheard = [];  // own messages that have not come back: { text, item }

    // The connection. Taut pings it and the browser answers by itself, so the page has no heartbeat. It asks only when
    // there is a reason to doubt, and anything that the server sends is an answer.

    function connect() {
      stopWaiting();
      show('connecting', wasIn ? 'Reconnecting…' : 'Connecting…');
      const { room, token } = page;
      const query = new URLSearchParams({ token: token.value });
      socket = new WebSocket(`${server}/chat/${encodeURIComponent(room.value)}?${query}`);
      socket.onopen = opened;
      socket.onmessage = ({ data }) => heard(JSON.parse(data));
      socket.onclose = ({ code, reason }) => lost(reason || (code === 1006 ? '' : `code ${code}`));
      expectAnswer();
    }

    function opened() {
      openedAt = performance.now();
      show('online', 'Online');
      if (wasIn) note('You are back. What was said meanwhile is not shown.');
      else enter();
      isIn = wasIn = true;
      hint();
    }

    /** Ends a connection that is gone, or as good as gone, and plans the next. */
    function lost(reason = '') {
      drop();
      if (!wasIn) return refuse();
      if (isIn) {
        note(`The connection is lost${reason && ` (${reason})`}.`);
        // A connection that lasted clears the count, so a server that lets in and then drops is not hammered.
        if (performance.now() - openedAt > LASTED) failures = 0;
      }
      isIn = false;
      showPeople(new Set());
      takeBack();
      // Exponential backoff with full jitter: after a restart of the server, not everybody comes at the same moment.
      const wait = Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures);
      failures += 1;
      retry = setTimeout(connect, wait);
      show('offline', 'Offline. Next try', true);
      const until = performance.now() + wait;
      const tick = () => {
        page.countdown.textContent = `in ${Math.max(1, Math.ceil((until - performance.now()) / 1000))} s`;
      };
      tick();
      ticking = setInterval(tick, 250);
    }

    /** Lets go of the socket without waiting for its end, which takes minutes when the network is gone. */
    function drop() {
      stopWaiting();
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      socket = null;
    }

    function stopWaiting() {
      for (const timer of [retry, deadline]) clearTimeout(timer);
      clearInterval(ticking);
      deadline = undefined;
      page.countdown.textContent = '';
    }

    function expectAnswer() {
      deadline ??= setTimeout(() => lost('no answer'), ANSWER_WITHIN);
    }

    /** The network is back, or somebody looks at the page again: no more waiting, and no trust in an old silence. */
    function hurry() {
      if (document.hidden || !wasIn) return;
      if (!socket) return connect();
      if (!isIn || performance.now() - heardAt < QUIET) return;
      socket.send('');
      expectAnswer();
    }

    // What the server says: chat.php's own messages, and the events of the channels that it subscribes us to.

    function heard({ welcome, event, data }) {
      heardAt = performance.now();
      clearTimeout(deadline);
      deadline = undefined;
      if (welcome) me = welcome;
      else if (event === 'subscription_succeeded') showPeople(new Set(data.presence?.ids));
      else if (event === 'member_added') {
        showPeople(people.add(data.user_id));
        note(`${data.user_id} joined.`);
      } else if (event === 'member_removed') {
        people.delete(data.user_id);
        showPeople(people);
        note(`${data.user_id} left.`);
      } else if (event === 'message') said(data);
      if (unheard.length) expectAnswer();
    }

    function said({ from, text }) {
      const own = from === me ? unheard.findIndex((message) => message.text === text) : -1;
      if (own < 0) return add(message(from, text));
      const [{ item }] = unheard.splice(own, 1);
      item.classList.remove('pending');
    }

    // Writing

    page.composer.onsubmit = (event) => {
      event.preventDefault();
      const text = page.text.value.trim();
      if (!text) return;
      if (!isIn) return hint('Not sent: you are offline. Your message stays here.', true);
      socket.send(text);
      expectAnswer();
      const item = message(me, text);
      item.classList.add('pending');
      unheard.push({ text, item });
      add(item, true);
      page.text.value = '';
      hint();
    };

    page.text.onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      page.composer.requestSubmit();
    };

    /** Nobody knows whether these have arrived, so the writer decides. */
    function takeBack() {
      if (!unheard.length) return;
      page.text.value = [...unheard.map(({ text }) => text), page.text.value].filter(Boolean).join('\n');
      for (const { item } of unheard) item.remove();
      unheard = [];
      note('Perhaps your last message did not arrive. It is in the field again.');
    }

    // Joining and leaving

    page.join.onsubmit = (event) => {
      event.preventDefault();
      for (const name of ['room', 'token']) sessionStorage.setItem(`chat.${name}`, page[name].value);
      page.refusal.textContent = '';
      page.token.removeAttribute('aria-invalid');
      failures = 0;
      drop();
      connect();
    };

    /** A page is not told why its WebSocket was refused, nor whether somebody was there to refuse it. */
    function refuse() {
      show('out', 'Not connected');
      page.refusal.textContent = 'Not let in: check the token. If it is right, the server cannot be reached.';
      page.token.setAttribute('aria-invalid', 'true');
      page.token.focus();
    }

    function enter() {
      page.where.textContent = `Room ${page.room.value}.`;
      page.join.hidden = true;
      page['room-view'].hidden = false;
      page.text.focus();
      note('You joined.');
    }

    page.leave.onclick = () => {
      drop();
      isIn = wasIn = false;
      unheard = [];
      page.messages.replaceChildren();
      showPeople(new Set());
      show('out', 'Not connected');
      page['room-view'].hidden = true;
      page.join.hidden = false;
      page.token.focus();
    };

    // What is on the screen

    function show(state, text, canHurry = false) {
      page.link.dataset.state = state;
      page.state.textContent = text;
      page.now.hidden = !canHurry;
    }

    function hint(text = USUAL_HINT, isWrong = false) {
      page.hint.textContent = text;
      page.hint.classList.toggle('wrong', isWrong);
    }

    function showPeople(present) {
      people = present;
      const names = [...people].sort();
      page.people.textContent = names.length ? `Here: ${names.join(', ')}.` : '';
    }

    function note(text) {
      add(element('li', { className: 'note', textContent: text }));
    }

    function message(from, text) {
      const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
      const name = element('b', { textContent: from === me ? 'You' : from });
      const who = element('p', { className: 'who' }, name, ` ${time}`);
      const className = from === me ? 'message mine' : 'message';
      return element('li', { className }, who, element('p', { className: 'text', textContent: text }));
    }

    function add(item, isOwn = false) {
      page.messages.append(item);
      if (page.messages.children.length > MAX_SHOWN) page.messages.firstElementChild.remove();
      if (isOwn) page.log.scrollTop = 0;
    }

    function element(name, properties, ...children) {
      const made = Object.assign(document.createElement(name), properties);
      made.append(...children);
      return made;
    }

    page.now.onclick = () => {
      hurry();
      page.text.focus();
    };
    addEventListener('online', hurry);
    document.addEventListener('visibilitychange', hurry);
    hint();
    for (const name of ['room', 'token']) page[name].value = sessionStorage.getItem(`chat.${name}`) ?? page[name].value;
    page.token.focus();
  </script>
</body>
</html>
