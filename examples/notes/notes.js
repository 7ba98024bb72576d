/** The page: a text area, bound to the text of a Yjs document. */
import * as Y from 'yjs';
import { sync } from './sync.js';

const { host, port, key } = JSON.parse(document.getElementById('server').textContent);
const note = new URLSearchParams(location.search).get('note') ?? 'first';
const [area, field, state, people] = ['note', 'name', 'state', 'people'].map((id) => document.getElementById(id));
field.value = sessionStorage.getItem('name') ?? `Guest ${Math.ceil(Math.random() * 99)}`;

const doc = new Y.Doc();
const text = doc.getText('note');

// What the user typed: the part between the unchanged beginning and the unchanged end.
area.addEventListener('input', () => {
  const [before, after] = [text.toString(), area.value];
  const shorter = Math.min(before.length, after.length);
  let start = 0, end = 0;
  while (start < shorter && before[start] === after[start]) start += 1;
  if (isHalf(before, start) || isHalf(after, start)) start -= 1;
  while (end < shorter - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  if (isHalf(before, before.length - end) || isHalf(after, after.length - end)) end -= 1;
  doc.transact(() => {
    text.delete(start, before.length - end - start);
    text.insert(start, after.slice(start, after.length - end));
  }, area);
});

/** Whether this position splits a surrogate pair, such as an emoji. */
function isHalf(string, position) {
  return /^[\ud800-\udbff][\udc00-\udfff]$/.test(string.slice(position - 1, position + 1));
}

// What others typed. The cursor stays between the same characters.
text.observe(({ delta, transaction }) => {
  if (transaction.origin === area) return;
  const moved = (position) => {
    let at = 0, now = position;
    for (const { retain = 0, insert = '', delete: gone = 0 } of delta) {
      if (at < now) now += insert.length - Math.min(gone, now - at);
      at += retain + insert.length;
    }
    return now;
  };
  const { selectionStart, selectionEnd, selectionDirection, scrollTop } = area;
  area.value = text.toString();
  area.setSelectionRange(moved(selectionStart), moved(selectionEnd), selectionDirection);
  area.scrollTop = scrollTop;
});

const pusher = new globalThis.Pusher(key, {
  cluster: '', wsHost: host, wsPort: port, wssPort: port,
  forceTLS: location.protocol === 'https:', enabledTransports: ['ws', 'wss'],
  channelAuthorization: { endpoint: '/auth', paramsProvider: () => ({ name: field.value }) },
});

sync(doc, pusher, `presence-note-${note}`, ({ members, isCurrent }) => {
  const isHere = members.length > 0;
  document.body.dataset.state = isHere && isCurrent ? 'current' : 'away';
  state.textContent = isHere ? (isCurrent ? 'Up to date' : 'Syncing …') : 'Offline. Your changes are sent later.';
  const entry = ({ name }) => Object.assign(document.createElement('li'), { textContent: name });
  people.replaceChildren(...members.map(entry));
});

// A new name needs a new connection: the server signs it when the page subscribes.
field.addEventListener('change', () => {
  sessionStorage.setItem('name', field.value);
  pusher.disconnect();
  pusher.connect();
});
