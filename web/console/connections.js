/** Who is connected: since when, from where and with what; and a way to end it. */
import { ask, byName, create, empty, lasting, number, page, plural, quiet, sentence, Unauthorized, write } from './dom.js';

const COLUMNS = ['Socket id', 'User', 'Client', 'Address', 'Connected', 'Channels', ''];
const LISTED = 500;      // as many as the server lists
const SHOWN = 6;         // channels of one connection
const TRANSPORTS = { websocket: 'WebSocket', 'websocket with TLS': 'WebSocket, TLS', HTTP: 'HTTP fallback' };

let app = '';
let latest = { total: 0, connections: [] };
let asked = 0;
let actions = {};
const rows = new Map();  // socket id → {row, cells, since}: a row stays, with its focus, for as long as its connection

/** `watch` is called with the socket id of the connection whose events somebody wants to see. */
export function begin(given) {
  actions = given;
}

export function choose(id) {
  app = id;
  latest = { total: 0, connections: [] };
  rows.clear();
  body.replaceChildren();
}

export async function refresh() {
  if (!app) return show(empty('Choose an app', 'Connections belong to one app: choose it above.'), '');
  const turn = (asked += 1);
  // Of more than it lists, the server has to find those that are meant.
  const filter = latest.total > LISTED ? page['connection-filter'].value.trim() : '';
  try {
    const answer = await ask(`apps/${encodeURIComponent(app)}/connections?filter=${encodeURIComponent(filter)}`);
    if (turn !== asked) return; // a later one has been asked
    latest = answer;
    draw();
  } catch (error) {
    if (error instanceof Unauthorized) throw error;
    if (turn === asked) show(empty('Nothing to show', sentence(error)), '');
  }
}

page['connection-filter'].addEventListener('input', () => {
  draw();
  if (latest.total > LISTED) refresh().catch(() => {});
});

function draw() {
  const { total, connections } = latest;
  const text = page['connection-filter'].value.trim().toLowerCase();
  const found = connections.filter(({ socket_id, user_id, address, client, version, channels }) =>
    [socket_id, user_id, address, named(client, version), ...channels].some((part) => part?.toLowerCase().includes(text)));
  const some = found.length < total ? `${number(found.length)} of ` : '';
  const counted = `${some}${plural(total, 'connection')}`;
  if (found.length) show(table(found), counted);
  else if (total) show(empty('Nothing matches', 'No connection has such a socket id, user, channel, address or SDK.'), counted);
  else show(empty('Nobody is connected', 'Clients connect with the app’s key; each appears here with its channels.'), counted);
}

let drawn = '';

function show(content, total) {
  write(page['connection-total'], total);
  if (page['connection-rows'].firstChild === content) return;
  if (content.tagName !== 'TABLE') {
    if (content.textContent === drawn) return;
    drawn = content.textContent;
  } else {
    drawn = '';
  }
  page['connection-rows'].replaceChildren(content);
}

// The table is made once. Its parts say what they are, since on a phone they are laid out as no table is.

const body = part('tbody', 'rowgroup');
const whole = part('table', 'table', part('thead', 'rowgroup', part('tr', 'row', ...COLUMNS.map((text) => {
  const head = part('th', 'columnheader', text || create('span', 'unseen', 'Actions'));
  head.scope = 'col';
  return head;
}))), body);
whole.classList.add('connections');

function part(tag, role, ...content) {
  const element = create(tag, '', ...content);
  element.role = role;
  return element;
}

function table(connections) {
  const now = Date.now() / 1000;
  const shown = connections.map((connection) => {
    const known = rows.get(connection.socket_id) ?? begun(connection, now);
    fill(known, connection, now);
    return known;
  });
  const listed = new Set(connections.map(({ socket_id }) => socket_id));
  for (const [socket, { row }] of rows) {
    if (listed.has(socket)) continue;
    rows.delete(socket);
    row.remove();
  }
  // The newest first. Only what has to move is moved, and keeps its focus otherwise.
  shown.sort((one, other) => other.since - one.since);
  shown.forEach(({ row }, index) => body.children[index] !== row && body.insertBefore(row, body.children[index] ?? null));
  return whole;
}

function begun({ socket_id, age }, now) {
  const socket = part('th', 'rowheader', socket_id);
  socket.scope = 'row';
  socket.className = 'mono';
  const cells = COLUMNS.slice(1, -1).map((name) => {
    const cell = part('td', 'cell');
    cell.dataset.name = name;
    return cell;
  });
  const known = { since: now - age, cells };
  const end = quiet('Disconnect', () => confirm(socket_id, known.user));
  const watch = quiet('Events', () => actions.watch(socket_id));
  for (const button of [watch, end]) button.ariaLabel = `${button.textContent}${button === watch ? ' of' : ''} ${socket_id}`;
  known.row = part('tr', 'row', socket, ...cells, part('td', 'cell', create('div', 'actions', watch, end)));
  rows.set(socket_id, known);
  return known;
}

function fill(known, { user_id, address, client, version, transport, subscriptions, channels }, now) {
  const [user, agent, from, since, subscribed] = known.cells;
  known.user = user_id;
  user.dir = 'auto';
  say(user, user_id);
  const sdk = named(client, version);
  const text = `${sdk}|${transport}`;
  if (agent.dataset.text !== text) {
    agent.dataset.text = text;
    agent.replaceChildren(...(sdk ? [create('bdi', '', sdk), ' '] : []), create('span', 'more', TRANSPORTS[transport] ?? transport));
  }
  say(from, address);
  write(since, lasting(Math.max(0, Math.round(now - known.since))));
  since.title = `since ${new Date(known.since * 1000).toLocaleString()}`;
  const names = channels.sort(byName).slice(0, SHOWN);
  const list = `${names.join(' ')} ${subscriptions}`;
  if (subscribed.dataset.list === list) return;
  subscribed.dataset.list = list;
  const tags = names.map((channel) => create('bdi', 'tag', channel));
  if (subscriptions > tags.length) tags.push(create('span', 'more', `+ ${number(subscriptions - tags.length)}`));
  say(subscribed);
  if (tags.length) subscribed.replaceChildren(create('div', 'tags', ...tags));
}

/** Writes a text into a cell, or that there is none. */
function say(cell, text = '–') {
  cell.classList.toggle('none', text === '–');
  write(cell, text);
}

/** The SDK as people call it: pusher-js says `js` of itself. */
function named(client, version) {
  return [client === 'js' ? 'pusher-js' : client, version].filter(Boolean).join(' ');
}

// Ending one

let ending = null;

function confirm(socket, user) {
  ending = socket;
  write(page['confirm-text'], `${socket}${user ? ` of ${user}` : ''} leaves all its channels and is closed with code 4009, ` +
    'after which clients do not reconnect by themselves.');
  write(page['confirm-hint'], '');
  page['confirm-yes'].disabled = false;
  page.confirm.showModal();
}

page['confirm-no'].addEventListener('click', () => page.confirm.close());

page['confirm-yes'].addEventListener('click', async () => {
  page['confirm-yes'].disabled = true;
  try {
    await ask(`apps/${encodeURIComponent(app)}/connections/${encodeURIComponent(ending)}`, { method: 'DELETE' });
    page.confirm.close();
  } catch (error) {
    write(page['confirm-hint'], sentence(error));
  }
  refresh().catch(() => {});
});
