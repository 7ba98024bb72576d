/** Who is connected. */
import { ask, create, empty, number, page, plural, sentence, Unauthorized, write } from './dom.js';

let app = '';
let latest = { total: 0, connections: [] };

export function choose(id) {
  app = id;
}

export async function refresh() {
  if (!app) return show(empty('Choose an app', 'Connections belong to one app: choose it above.'), '');
  try {
    latest = await ask(`apps/${encodeURIComponent(app)}/connections`);
    draw();
  } catch (error) {
    if (error instanceof Unauthorized) throw error;
    show(empty('Nothing to show', sentence(error)), '');
  }
}

page['connection-filter'].addEventListener('input', draw);

function draw() {
  const { total, connections } = latest;
  const text = page['connection-filter'].value.trim().toLowerCase();
  const found = connections.filter(({ socket_id, user_id, channels }) =>
    [socket_id, user_id, ...channels].some((part) => part?.toLowerCase().includes(text)));
  const some = total > connections.length ? `${number(connections.length)} of ` : '';
  const counted = `${some}${plural(total, 'connection')}`;
  if (found.length) show(table(found), counted);
  else if (connections.length) show(empty('Nothing matches', 'No connection has that socket id, user or channel.'), counted);
  else show(empty('Nobody is connected', 'Clients connect with the app’s key; each appears here with its channels.'), counted);
}

let drawn = '';

function show(content, total) {
  write(page['connection-total'], total);
  if (content.textContent === drawn) return;
  drawn = content.textContent;
  page['connection-rows'].replaceChildren(content);
}

function table(connections) {
  const rows = connections.map(({ socket_id, user_id, subscriptions, channels }) => {
    const socket = create('th', 'mono', socket_id);
    socket.scope = 'row';
    const tags = channels.slice(0, 6).map((channel) => create('span', 'tag', channel));
    const rest = subscriptions - tags.length;
    if (rest > 0) tags.push(create('span', 'more', `+ ${number(rest)}`));
    return create('tr', '', socket, create('td', user_id ? '' : 'none', user_id ?? '–'),
      create('td', tags.length ? '' : 'none', create('div', 'tags', ...(tags.length ? tags : ['–']))));
  });
  const heads = ['Socket id', 'User', 'Channels'].map((text) => {
    const head = create('th', '', text);
    head.scope = 'col';
    return head;
  });
  return create('table', 'connections', create('thead', '', create('tr', '', ...heads)), create('tbody', '', ...rows));
}
