/** The occupied channels, and what there is to know about one of them. */
import { ask, badges, byName, bytes, create, empty, number, page, plural, pretty, quiet, seconds, sentence, Unauthorized, write } from './dom.js';

let app = '';
let chosen = null;
let actions = {};

/** `watch` and `publish` are called with a channel's name when somebody wants to see its events or to publish to it. */
export function begin(given) {
  actions = given;
}

export function choose(id) {
  app = id;
  close();
}

export async function refresh() {
  if (!app) return show(empty('Choose an app', 'Channels belong to one app: choose it above.'), '');
  try {
    const filter = page['channel-filter'].value.trim();
    const { total, channels } = await ask(`apps/${encodeURIComponent(app)}/channels?filter=${encodeURIComponent(filter)}`);
    page['known-channels'].replaceChildren(...channels.slice(0, 100).map(({ name }) => Object.assign(document.createElement('option'), { value: name })));
    const more = total > channels.length ? `the fullest ${number(channels.length)} of ` : '';
    if (channels.length) show(table(channels), `${more}${plural(total, 'channel')}`);
    else if (filter) show(empty('Nothing matches', 'No occupied channel has a name like that.'), plural(0, 'channel'));
    else show(empty('No occupied channels', 'A channel exists from its first subscriber until its last one leaves.'), plural(0, 'channel'));
    if (chosen) await showChosen();
  } catch (error) {
    if (error instanceof Unauthorized) throw error;
    show(empty('Nothing to show', sentence(error)), '');
  }
}

page['channel-filter'].addEventListener('input', () => refresh().catch(() => {}));

let drawn = '';

function show(content, total) {
  write(page['channel-total'], total);
  // What has the same text is left as it is, with its focus.
  const text = `${chosen}|${content.textContent}`;
  if (text === drawn) return;
  drawn = text;
  const focused = page['channel-rows'].contains(document.activeElement) ? document.activeElement.dataset.name : undefined;
  page['channel-rows'].replaceChildren(content);
  if (focused !== undefined) page['channel-rows'].querySelector(`[data-name="${CSS.escape(focused)}"]`)?.focus();
}

function table(channels) {
  const rows = channels.map(({ name, subscriptions, users }) => {
    const open = create('button', 'row-name', name);
    open.type = 'button';
    open.dataset.name = name;
    open.addEventListener('click', () => {
      chosen = name;
      refresh().catch(() => {});
    });
    const heading = create('th', '', create('div', 'cell', open, ...badges(name)));
    heading.scope = 'row';
    const row = create('tr', name === chosen ? 'chosen' : '', heading,
      create('td', 'number', users === undefined ? '' : number(users)),
      create('td', 'number', number(subscriptions)));
    return row;
  });
  const heads = [['Channel', ''], ['Users', 'number'], ['Subscriptions', 'number']].map(([text, className]) => {
    const head = create('th', className, text);
    head.scope = 'col';
    return head;
  });
  return create('table', '', create('thead', '', create('tr', '', ...heads)), create('tbody', '', ...rows));
}

let drawnDetail = '';

async function showChosen() {
  const name = chosen;
  const channel = await ask(`apps/${encodeURIComponent(app)}/channels/${encodeURIComponent(name)}`);
  if (name !== chosen) return;
  const content = [];
  const leave = quiet('Close', close);
  leave.classList.add('close');
  content.push(create('div', 'heading', create('h3', 'mono', name), leave), create('p', 'badges', ...badges(name)));
  const facts = [['Subscriptions', number(channel.subscriptions)]];
  if (channel.users !== undefined) facts.push(['Users', number(channel.users)]);
  content.push(create('dl', 'facts', ...facts.map(([term, value]) => create('div', '', create('dt', '', term), create('dd', '', value)))));
  content.push(create('div', 'actions', quiet('Show its events', () => actions.watch(name)), quiet('Publish to it', () => actions.publish(name))));
  if (channel.users !== undefined) {
    const rest = channel.users - channel.members.length;
    content.push(create('h4', '', 'Members'));
    const members = channel.members.sort((one, other) => byName(one.user_id, other.user_id)).map(member);
    if (rest > 0) members.push(create('li', 'rest', `and ${number(rest)} more`));
    content.push(members.length ? list(members) : create('p', 'hint', 'Nobody is in this channel.'));
  }
  if (channel.cached) {
    const { data, size, ttl } = channel.cached;
    content.push(create('h4', '', 'Cached event'));
    content.push(data === undefined ? create('p', 'hint', 'End-to-end encrypted.') : json(pretty(data)));
    content.push(create('p', 'hint', `${bytes(size)}, kept for ${seconds(ttl)} more`));
  } else if (name.includes('cache-')) {
    content.push(create('h4', '', 'Cached event'), create('p', 'hint', 'None yet. The next event will be kept.'));
  }
  const text = content.map((part) => part.textContent).join('|');
  page['channel-detail'].hidden = false;
  if (text === drawnDetail) return;
  drawnDetail = text;
  page['channel-detail'].replaceChildren(...content);
}

function close() {
  const name = chosen;
  chosen = null;
  drawnDetail = '';
  page['channel-detail'].hidden = true;
  drawn = '';
  if (name === null) return;
  refresh().then(() => page['channel-rows'].querySelector(`[data-name="${CSS.escape(name)}"]`)?.focus(), () => {});
}

function json(data) {
  const element = create('pre', '', data);
  element.tabIndex = 0; // it scrolls
  return element;
}

function list(members) {
  const element = create('ul', 'members', ...members);
  element.tabIndex = 0; // it scrolls
  element.ariaLabel = 'Members';
  return element;
}

/** A user, and what the user says of itself. */
function member({ user_id, user_info, connections }) {
  const name = create('bdi', 'user', user_id);
  const several = connections > 1 ? [create('span', 'more', plural(connections, 'connection'))] : [];
  return create('li', '', create('div', 'cell', name, ...several), ...(user_info ? [create('code', '', user_info)] : []));
}
