/** The chat page: what is on the screen, and what it does with `Taut` (see the head of taut.js for all that it uses). */
import { Taut } from './taut.js';

const MAX_SHOWN = 200;
const MAX_POSTING = 20;
const MAX_TEXT_BYTES = 1024;
const ECHO_WITHIN = 5000;
const PING_EVERY = 15_000;
const MOODS = ['Brave', 'Bright', 'Calm', 'Clever', 'Curious', 'Gentle', 'Happy', 'Keen', 'Kind', 'Lively', 'Merry', 'Quiet', 'Swift', 'Warm'];
const ANIMALS = ['Badger', 'Crane', 'Dolphin', 'Falcon', 'Fox', 'Hare', 'Heron', 'Lynx', 'Marten', 'Otter', 'Owl', 'Robin', 'Seal', 'Wren'];

const page = Object.fromEntries(Array.from(document.querySelectorAll('[id]'), (element) => [element.id, element]));
const TITLE = document.title;
const USUAL_HINT = page.hint.textContent;
const sent = new Map();      // id → {message, item, startedAt, overdue}: my messages whose frame has not come back
const seen = { in: 0, out: 0, connections: 0, unread: 0 };
let taut;
let ready = false;           // subscribed: what is sent now comes back
let posting = 0;             // requests on their way
let pinned = true;           // the log is scrolled to its end and stays there
let lostAt = null;
let ticking;

page.server.textContent = location.host;
start();

async function start() {
  showState('connecting', 'Connecting…');
  let config;
  try {
    const response = await fetch('/chat/config', { signal: AbortSignal.timeout(10_000) });
    if (response.status === 404) {
      showState('unavailable', 'No chat on this server');
      return explain('This server has no chat', 'The chat belongs to the development app, but this server was started with other apps. ' +
        'Run “taut serve” without an app to try it.');
    }
    if (!response.ok) throw new Error(await complaint(response));
    config = await response.json();
  } catch (error) {
    showState('unavailable', 'Not connected', 'Try again');
    page.connect.onclick = start;
    return explain('The server did not answer', `${sentence(error)} Is “taut serve” still running?`);
  }
  page.connect.onclick = () => taut.connect();
  page.channel.textContent = config.channel;
  taut = new Taut(config.key);
  taut.bind('state', changed);
  taut.bind('frame', ({ direction }) => count(direction));
  taut.bind('pong', ({ roundTrip }) => showTrip(roundTrip));
  taut.bind('error', ({ code, message }) => {
    // One that comes instead of a greeting is told by the state that follows it.
    if (taut.state === 'connected') hint(`The server says: ${message}${code ? ` (${code})` : ''}`, true);
  });
  const channel = taut.subscribe(config.channel);
  channel.bind('message', received);
  channel.bind('pusher:subscription_succeeded', () => {
    allowSending(true);
    taut.ping();
  });
  channel.bind('pusher:subscription_error', ({ error }) => hint(`The subscription was refused: ${error}`, true));
  setInterval(() => document.hidden || taut.ping(), PING_EVERY);
}

// The connection

function changed({ previous, current, retryIn, code, reason }) {
  clearInterval(ticking);
  page.countdown.textContent = '';
  page.socket.textContent = taut.socketId ?? '–';
  if (current !== 'connected') allowSending(false);
  if (previous === 'connected') lostAt = performance.now();
  if (current === 'connecting') showState(current, lostAt === null ? 'Connecting…' : 'Reconnecting…');
  if (current === 'connected') connected();
  if (current === 'disconnected') showState(current, 'Disconnected', 'Connect');
  if (current === 'refused') showState(current, `Refused: ${reason || 'no reason given'} (${code})`, 'Try again');
  if (current === 'waiting') {
    showState(current, lostAt === null ? 'No connection yet, next try' : 'Connection lost, next try', 'Try now');
    const until = performance.now() + retryIn;
    const tick = () => (page.countdown.textContent = `in ${Math.max(1, Math.ceil((until - performance.now()) / 1000))} s`);
    tick();
    ticking = setInterval(tick, 250);
  }
}

function connected() {
  showState('connected', 'Connected');
  page.connections.textContent = seen.connections += 1;
  if (lostAt !== null) {
    const seconds = Math.round((performance.now() - lostAt) / 1000);
    note(`Back after ${seconds < 1 ? 'less than a second' : seconds === 1 ? 'a second' : `${seconds} seconds`}. ` +
      'Messages in between are not shown.');
    lostAt = null;
  }
}

function showState(state, text, action) {
  page.link.dataset.state = state;
  page.state.textContent = text;
  page.connect.hidden = !action;
  if (action) page.connect.textContent = action;
}

function allowSending(yes) {
  ready = yes;
  page.send.disabled = !yes;
  if (yes) hint();
}

function count(direction) {
  seen[direction] += 1;
  page['frames-in'].textContent = seen.in;
  page['frames-out'].textContent = seen.out;
  const all = seen.in + seen.out;
  page['short-frames'].textContent = all === 1 ? '1 frame' : `${all} frames`;
}

function showTrip(milliseconds) {
  page.trip.textContent = duration(milliseconds);
  page['short-trip'].textContent = duration(milliseconds);
}

// Writing

page.composer.addEventListener('submit', (event) => {
  event.preventDefault();
  const text = page.text.value.trim();
  const excess = new TextEncoder().encode(text).length - MAX_TEXT_BYTES;
  if (!text) return;
  if (!ready) return hint('Not connected right now. Your text stays here until the connection is back.', true);
  if (excess > 0) return hint(`That is ${excess} ${excess === 1 ? 'byte' : 'bytes'} too long; the maximum is ${MAX_TEXT_BYTES}.`, true);
  if (posting >= MAX_POSTING) return hint(`${MAX_POSTING} messages are still on their way; wait for those first.`, true);
  hint();
  page.text.value = '';
  const message = { name: page.name.value, text, id: randomId() };
  const item = show(message, true);
  sent.set(message.id, { message, item });
  post(message.id);
});

page.text.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.composer.requestSubmit();
});

page.name.value = sessionStorage.getItem('taut.name') || friendlyName();
sessionStorage.setItem('taut.name', page.name.value);

page.name.addEventListener('change', () => {
  page.name.value = page.name.value.trim() || sessionStorage.getItem('taut.name');
  sessionStorage.setItem('taut.name', page.name.value);
});

page.name.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.isComposing) return;
  event.preventDefault();
  page.text.focus();
});

async function post(id) {
  const entry = sent.get(id);
  entry.startedAt = performance.now();
  fate(entry.item, 'pending', 'on its way');
  posting += 1;
  try {
    const response = await fetch('/chat/messages', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(entry.message),
      signal: AbortSignal.timeout(10_000),
    });
    if (!response.ok) throw new Error(await complaint(response));
    if (sent.has(id)) entry.overdue = setTimeout(() => fate(entry.item, 'pending', 'sent, but its frame has not arrived'), ECHO_WITHIN);
  } catch (error) {
    if (!sent.has(id)) return; // the frame has come back: it arrived, whatever became of the answer
    const again = document.createElement('button');
    again.type = 'button';
    again.textContent = 'Try again';
    again.onclick = () => post(id);
    fate(entry.item, 'failed', 'not sent', again);
    hint(`Not sent: ${sentence(error)}`, true);
  } finally {
    posting -= 1;
  }
}

/** A line below the text field, read out by screen readers; without a text, the usual one. */
function hint(text = USUAL_HINT, wrong = false) {
  if (page.hint.textContent !== text) page.hint.textContent = text;
  page.hint.classList.toggle('wrong', wrong);
}

// The messages. Whatever others wrote gets in through textContent alone, so it can never be markup.

function received(data) {
  if (typeof data?.name !== 'string' || typeof data.text !== 'string') return;
  const mine = sent.get(data.id);
  if (mine) {
    clearTimeout(mine.overdue);
    sent.delete(data.id);
    fate(mine.item, 'arrived', duration(performance.now() - mine.startedAt));
  } else {
    show(data, false);
    if (document.hidden) document.title = `(${(seen.unread += 1)}) ${TITLE}`;
  }
}

function show({ name, text, id }, mine) {
  const last = page.messages.lastElementChild;
  const time = Date.now();
  const item = create('li', `message${mine ? ' mine' : ''}`);
  const who = Array.from(name).slice(0, 40).join('');
  item.dataset.id = id;
  item.dataset.name = who;
  item.dataset.time = time;
  const follows = last?.dataset.name === who && last.classList.contains('mine') === mine && time - last.dataset.time < 120_000;
  item.classList.toggle('more', follows);
  item.style.setProperty('--hue', hue(who));
  const clock = create('time', '', new Date(time).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
  clock.dateTime = new Date(time).toISOString();
  const avatar = create('span', 'avatar', Array.from(who)[0]?.toUpperCase());
  avatar.ariaHidden = 'true';
  const about = create('p', 'about');
  about.append(create('bdi', 'name', mine ? 'You' : who), clock);
  const bubble = create('p', 'bubble', Array.from(text).slice(0, MAX_TEXT_BYTES).join(''));
  bubble.dir = 'auto';
  const said = create('div', 'said');
  if (mine) {
    const outcome = create('span', 'fate');
    outcome.ariaLive = 'off'; // the line below the text field tells what went wrong
    said.append(outcome);
  }
  said.append(bubble);
  item.append(avatar, about, said);
  add(item, mine);
  return item;
}

function fate(item, state, text, action) {
  item.classList.remove('pending', 'failed', 'arrived');
  item.classList.add(state);
  item.querySelector('.fate').replaceChildren(text, ...(action ? [action] : []));
}

function note(text) {
  add(create('li', 'note', text), false);
}

function add(item, mine) {
  page.empty.hidden = true;
  page.messages.append(item);
  while (page.messages.childElementCount > MAX_SHOWN) {
    const oldest = page.messages.firstElementChild;
    sent.delete(oldest.dataset.id);
    oldest.remove();
  }
  page.messages.firstElementChild.classList.remove('more');
  if (mine) pinned = true;
  if (pinned) toEnd();
  else page.latest.hidden = false;
}

function toEnd() {
  page.log.scrollTop = page.log.scrollHeight;
}

page.log.addEventListener('scroll', () => {
  pinned = page.log.scrollHeight - page.log.clientHeight - page.log.scrollTop < 40;
  if (pinned) page.latest.hidden = true;
});

page.latest.addEventListener('click', toEnd);

// The log shrinks when the text field grows or a phone's keyboard opens: its end must stay in view.
new ResizeObserver(() => pinned && toEnd()).observe(page.log);

document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  seen.unread = 0;
  document.title = TITLE;
});

function explain(heading, text) {
  page.empty.hidden = false;
  page.empty.querySelector('h2').textContent = heading;
  page.empty.querySelector('p').textContent = text;
}

// Small parts

function create(tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

async function complaint(response) {
  const body = await response.json().catch(() => null);
  return body?.error ?? `the server answered ${response.status} ${response.statusText}`.trim();
}

function sentence(error) {
  const text = error.name === 'TypeError' ? 'the server cannot be reached' : error.name === 'TimeoutError' ? 'no answer in time' : error.message || 'unknown error';
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}

function duration(milliseconds) {
  const [value, unit] = milliseconds < 10 ? [milliseconds.toFixed(1), 'ms'] : milliseconds < 1000 ? [Math.round(milliseconds), 'ms'] : [(milliseconds / 1000).toFixed(1), 's'];
  return `${value}\u00a0${unit}`; // a number stays with its unit
}

/** Not randomUUID, which a page from a plain http address in the local network does not have. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function friendlyName() {
  const one = (list) => list[Math.floor(Math.random() * list.length)];
  return `${one(MOODS)} ${one(ANIMALS)}`;
}

function hue(name) {
  let hash = 7;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 3600;
  return hash / 10;
}
