/** The events as they happen: filtered, paused, opened, published. */
import { ask, bytes, create, number, page, plural, pretty, quiet, sentence, write } from './dom.js';

const MOST_KEPT = 2000;
const MOST_SHOWN = 400;
const TRY_AGAIN = 3000;
const MOST_REASONS = 100;

/** What the page calls the kinds of the server, and in which group they are. */
const KINDS = {
  connected: ['Connected', 'connections'],
  disconnected: ['Disconnected', 'connections'],
  signed_in: ['Signed in', 'connections'],
  subscribed: ['Subscribed', 'subscriptions'],
  unsubscribed: ['Unsubscribed', 'subscriptions'],
  count: ['Count', 'subscriptions'],
  occupied: ['Occupied', 'channels'],
  vacated: ['Vacated', 'channels'],
  cache_miss: ['Cache miss', 'channels'],
  member_added: ['Member added', 'members'],
  member_removed: ['Member removed', 'members'],
  told: ['Told the backend', 'messages'],
  published: ['Published', 'messages'],
  client_event: ['Client event', 'messages'],
  refused: ['Refused', 'refused'],
};
const GROUPS = ['connections', 'subscriptions', 'channels', 'members', 'messages', 'refused'];

let kept = [];            // the newest last
let waiting = [];         // came since the last drawing
let total = 0;
let missed = 0;
let paused = false;
let behind = 0;           // came while paused
let app = '';
let several = false;
let drawing = false;
let source;
const off = new Set();    // groups that are not shown
const reasons = new Map(); // why something was refused, by app: reason → how often

// The stream

/** Connects, and tells how it goes: 'live', 'lost' with a reason, or 'closed' when one has to log in. */
export function follow(tell) {
  let lost = false;
  source = new EventSource('/console/api/events');
  source.onopen = () => {
    if (lost) note('The connection was lost. Events in between are not shown.');
    lost = false;
    tell('live');
  };
  source.onmessage = ({ data }) => came(JSON.parse(data));
  source.addEventListener('missed', ({ data }) => {
    missed += Number(data);
    note(`${plural(Number(data), 'event')} missed: there were more than this page could show.`);
  });
  source.onerror = async () => {
    lost = true;
    if (source.readyState !== EventSource.CLOSED) return tell('lost');
    // The server has said no: because of the login, or because too many watch.
    const session = await ask('session').catch(() => null);
    if (session && !session.admitted) return tell('closed');
    tell('lost', session ? 'Too many viewers' : undefined);
    setTimeout(() => follow(tell), TRY_AGAIN);
  };
}

export function unfollow() {
  source?.close();
}

export function choose(id, isOneOfSeveral) {
  app = id;
  several = isOneOfSeveral;
  redraw();
}

/** Shows only what happens in one channel, or what has this text, of these groups. */
export function only({ channel = '', text = '', groups = GROUPS }) {
  page['event-channel'].value = channel;
  page['event-text'].value = text;
  for (const chip of page.chips.children) show(chip, groups.includes(chip.dataset.group));
  redraw();
}

/** Why something was refused since the page was opened, as far as it is the same for several. */
export function refusals() {
  const chosen = [...reasons].filter(([name]) => !app || name === app);
  const sum = new Map();
  for (const [reason, count] of chosen.flatMap(([, counts]) => [...counts])) sum.set(reason, (sum.get(reason) ?? 0) + count);
  return sum;
}

/** What a reason has in common with others of its kind: what comes before names and numbers. */
function count({ app: id, reason }) {
  const kind = reason.split(/: (?:Expected|it is|at most)| to channel |[,.] |[.]$|[“"]/)[0] || reason;
  const counts = reasons.get(id) ?? new Map();
  if (!counts.has(kind) && counts.size >= MOST_REASONS) return;
  reasons.set(id, counts.set(kind, (counts.get(kind) ?? 0) + 1));
}

export function prepare(channel) {
  page.publish.open = true;
  if (channel) page['p-channel'].value = channel;
  page[channel ? 'p-event' : 'p-channel'].focus();
}

function came(row) {
  total += 1;
  if (row.reason) count(row);
  take(row);
}

function note(text) {
  take({ note: text });
}

function take(row) {
  if (paused) behind += 1;
  waiting.push(row);
  if (waiting.length > MOST_KEPT) waiting.shift();
  if (drawing) return;
  drawing = true;
  // A page in the background draws nothing, and does not need to.
  requestAnimationFrame(draw);
}

// Drawing

function draw() {
  drawing = false;
  if (paused) return tell();
  const fresh = waiting;
  waiting = [];
  kept.push(...fresh);
  if (kept.length > MOST_KEPT) kept = kept.slice(-MOST_KEPT);
  const shown = fresh.filter(matches).slice(-MOST_SHOWN);
  page.list.prepend(...shown.reverse().map(item));
  while (page.list.childElementCount > MOST_SHOWN) page.list.lastElementChild.remove();
  settle();
}

function redraw() {
  const shown = [];
  for (let index = kept.length - 1; index >= 0 && shown.length < MOST_SHOWN; index -= 1) {
    if (matches(kept[index])) shown.push(item(kept[index]));
  }
  page.list.replaceChildren(...shown);
  settle();
}

function settle() {
  if (!page.list.querySelector('summary[tabindex="0"]')) {
    const first = page.list.querySelector('summary');
    if (first) first.tabIndex = 0;
  }
  const nothing = page.list.childElementCount === 0;
  page['events-empty'].hidden = !nothing;
  if (nothing) {
    const [heading, text] = kept.length
      ? ['Nothing matches', 'Change the filters above, or wait for a matching event. Events before this page was opened are not kept.']
      : ['Listening', 'Connections, subscriptions and messages appear here the moment they happen.'];
    write(page['events-empty'].querySelector('h3'), heading);
    write(page['events-empty'].querySelector('p'), text);
  }
  tell();
}

function tell() {
  const parts = [plural(total, 'event')];
  if (page.list.childElementCount) parts.push(`${number(page.list.childElementCount)} shown`);
  if (paused) parts.push(`paused, ${number(behind)} waiting`);
  if (missed) parts.push(`${number(missed)} missed`);
  write(page['event-count'], parts.join(' · '));
}

function matches(row) {
  if (row.note) return true;
  if (app && row.app !== app) return false;
  if (off.has(KINDS[row.kind]?.[1])) return false;
  const channel = page['event-channel'].value.trim();
  if (channel && !row.channel?.includes(channel)) return false;
  const text = page['event-text'].value.trim().toLowerCase();
  return !text || [row.kind, row.channel, row.event, row.data, row.socket_id, row.user_id, row.reason].some((part) => part?.toLowerCase().includes(text));
}

function item(row) {
  if (row.note) return create('li', 'note', row.note);
  const [label, group] = KINDS[row.kind] ?? [row.kind, 'channels'];
  const details = create('details', 'event');
  const summary = create('summary', '', time(row.at), create('span', `kind ${group}`, label), about(row));
  summary.tabIndex = -1;
  details.append(summary);
  // What is inside is made when somebody looks.
  details.addEventListener('toggle', () => details.childElementCount > 1 || details.append(inside(row)));
  return create('li', '', details);
}

function time(at) {
  const date = new Date(at);
  const clock = date.toLocaleTimeString('en-GB', { hour12: false });
  const element = create('time', '', clock, create('small', '', `.${String(at % 1000).padStart(3, '0')}`));
  element.dateTime = date.toISOString();
  return element;
}

/** The one line that says what it was. */
function about(row) {
  const line = create('span', 'about');
  const add = (className, text) => text !== undefined && line.append(create('span', className, String(text)));
  if (several && !app) add('tag', row.app);
  add('channel', row.channel);
  add('name', row.event);
  add('reason', row.reason);
  add('user', row.user_id);
  if (row.count !== undefined) add('plain', plural(row.count, 'subscriber'));
  if (row.encrypted) line.append(create('span', 'badge encrypted', 'encrypted'));
  else add('data', row.data);
  if (row.event === undefined) add('socket', row.socket_id);
  if (row.code !== undefined) add('plain', row.code);
  return line;
}

function inside(row) {
  const facts = [
    ['App', row.app],
    ['Time', new Date(row.at).toISOString()],
    ['Channel', row.channel],
    ['Event', row.event],
    ['Socket id', row.socket_id],
    ['User', row.user_id],
    ['Close code', row.code],
    ['Subscribers', row.count],
    ['Reason', row.reason],
    ['Size', row.size === undefined ? undefined : bytes(row.size)],
  ].filter(([, value]) => value !== undefined);
  const list = create('dl', 'facts', ...facts.map(([name, value]) => create('div', '', create('dt', '', name), create('dd', '', String(value)))));
  const content = create('div', 'inside', list);
  if (row.encrypted) content.append(create('p', 'hint', 'The data is end-to-end encrypted: the server cannot read it.'));
  if (row.data) {
    const data = create('pre', '', pretty(row.data));
    data.tabIndex = 0;
    content.append(data);
    const held = new TextEncoder().encode(row.data).length;
    if (held < row.size) content.append(create('p', 'hint', `The first ${bytes(held)} of ${bytes(row.size)}.`));
  }
  if (row.channel) {
    content.append(create('div', 'actions',
      quiet('Only this channel', () => only({ channel: row.channel })),
      quiet('Publish to it', () => prepare(row.channel))));
  }
  return content;
}

// Filters and keys

for (const group of GROUPS) {
  const chip = quiet(group[0].toUpperCase() + group.slice(1), () => {
    show(chip, off.has(group));
    redraw();
  });
  chip.className = `chip ${group}`;
  chip.dataset.group = group;
  show(chip, true);
  page.chips.append(chip);
}

function show(chip, yes) {
  if (yes) off.delete(chip.dataset.group);
  else off.add(chip.dataset.group);
  chip.ariaPressed = String(yes);
}

for (const field of [page['event-text'], page['event-channel']]) field.addEventListener('input', redraw);

export function pause(yes = !paused) {
  paused = yes;
  behind = 0;
  page.pause.ariaPressed = String(paused);
  write(page.pause, paused ? 'Resume' : 'Pause');
  draw();
}

page.pause.addEventListener('click', () => pause());

page.clear.addEventListener('click', () => {
  kept = [];
  waiting = [];
  [total, missed, behind] = [0, 0, 0];
  redraw();
});

page.list.addEventListener('focusin', ({ target }) => {
  if (target.tagName !== 'SUMMARY') return;
  for (const other of page.list.querySelectorAll('summary[tabindex="0"]')) other.tabIndex = -1;
  target.tabIndex = 0;
});

/** One Tab leads into the list and one out of it; within, the arrows lead. */
page.list.addEventListener('keydown', (event) => {
  if (event.target.tagName !== 'SUMMARY') return;
  const all = [...page.list.querySelectorAll('summary')];
  const at = all.indexOf(event.target);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  all[Math.max(0, Math.min(all.length - 1, to))].focus();
});

// Publishing

page['p-data'].addEventListener('input', check);
check();

/** Any text may be sent; that it is JSON is what most subscribers expect. */
function check() {
  const text = page['p-data'].value;
  const size = bytes(new TextEncoder().encode(text).length);
  let wrong = '';
  try {
    JSON.parse(text);
  } catch (error) {
    wrong = text.trim() ? 'Not JSON; sent as plain text' : 'Empty text';
    page['p-check'].title = error.message;
  }
  page['p-check'].classList.toggle('wrong', Boolean(wrong));
  write(page['p-check'], `${wrong || 'Valid JSON'} · ${size}`);
}

page['p-data'].addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) page['publish-form'].requestSubmit();
});

page['publish-form'].addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = new FormData(page['publish-form']);
  if (!app) return say('Choose an app above first.', true);
  const body = { name: form.get('name'), channel: form.get('channel'), data: form.get('data') };
  if (form.get('socket_id')) body.socket_id = form.get('socket_id');
  page['p-send'].disabled = true;
  try {
    await ask(`apps/${encodeURIComponent(app)}/events`, { method: 'POST', body });
    say(`Published to ${body.channel}.`);
  } catch (error) {
    say(sentence(error), true);
  } finally {
    page['p-send'].disabled = false;
  }
});

function say(text, wrong = false) {
  write(page['p-hint'], text);
  page['p-hint'].classList.toggle('wrong', wrong);
}

// Where there is room for one thing only, that is the events.
if (matchMedia('(max-width: 64rem), (max-height: 30rem)').matches) page.publish.open = false;

settle();
