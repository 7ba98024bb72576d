/**
 * Syncs a Yjs document with all subscribers of a presence channel of pusher-js, by client events.
 *
 * A client that subscribes asks one of the others, which answers with the changes that the newcomer lacks and asks for
 * those that it lacks itself. After that, each change is sent to all. Yjs merges changes in any order to the same text.
 */
import { fromBase64, toBase64 } from 'lib0/buffer';
import * as Y from 'yjs';

const EVENT = 'client-note';
const PIECE = 8_000;    // characters in one event: Pusher takes 10 kB, Taut as much as max-message
const PAUSE = 125;      // ms between two events: 8 in a second, where max-client-events allows 10
const PATIENCE = 3_000; // ms for an answer, before somebody else is asked

/** Calls `changed({ members, isCurrent })` when somebody comes or goes, and when all changes of others have arrived. */
export function sync(doc, pusher, name, changed) {
  const channel = pusher.subscribe(name);
  let changes = [], queue = [], pause = null; // to send: changes, and the events made of them
  let asked = null, patience = null, isCurrent = false;
  const arriving = new Map(); // the pieces so far, by sender

  const others = () => Object.keys(channel.members.members).filter((id) => id !== channel.members.myID);
  const isHere = () => pusher.connection.state === 'connected' && channel.subscribed;
  const tell = () => changed({ members: isHere() ? Object.values(channel.members.members) : [], isCurrent });

  /** Starts over with each connection. What was not sent before is in the next answer. */
  function reset() {
    clearTimeout(pause);
    clearTimeout(patience);
    [changes, queue, pause, asked, isCurrent] = [[], [], null, null, false];
    arriving.clear();
  }

  /** Queues this in pieces. All subscribers receive it; `to` names the one that is asked or answered. */
  function send(kind, bytes, to) {
    const text = toBase64(bytes);
    const count = Math.ceil(text.length / PIECE) || 1;
    for (let part = 0; part < count; part += 1) {
      queue.push({ kind, to, part, last: part === count - 1, data: text.slice(part * PIECE, (part + 1) * PIECE) });
    }
    if (pause === null) next();
  }

  function next() {
    pause = null;
    // Changes made during the pause go as one.
    if (!queue.length && changes.length) return send('changes', Y.mergeUpdates(changes.splice(0)));
    if (!queue.length) return;
    channel.trigger(EVENT, queue.shift());
    pause = setTimeout(next, PAUSE);
  }

  /** Asks this member, or any; without an answer, any again. */
  function ask(whom = others()[Math.floor(Math.random() * others().length)]) {
    asked = whom ?? null;
    isCurrent ||= asked === null; // nobody else is here
    if (asked !== null) send('ask', Y.encodeStateVector(doc), asked);
    wait();
    tell();
  }

  function wait() {
    clearTimeout(patience);
    if (asked !== null) patience = setTimeout(ask, PATIENCE);
  }

  function receive({ kind, to, part, last, data }, { user_id: from }) {
    if (part === 0) arriving.set(from, '');
    const known = arriving.get(from);
    if (known === undefined) {
      if (last) ask(from); // we missed its first piece: ask for all of it
      return;
    }
    if (from === asked) wait(); // it is still sending
    arriving.set(from, known + data);
    if (!last) return;
    arriving.delete(from);
    const bytes = fromBase64(known + data);
    const isForMe = to === channel.members.myID;
    if (kind === 'changes') Y.applyUpdate(doc, bytes, channel);
    else if (isForMe) {
      send('changes', Y.encodeStateAsUpdate(doc, bytes), from);
      if (kind === 'ask') send('ask-back', Y.encodeStateVector(doc), from);
    }
    if (kind === 'changes' && isForMe && from === asked) {
      [asked, isCurrent] = [null, true];
      wait();
      tell();
    }
  }

  doc.on('update', (update, origin) => {
    if (origin === channel || !isHere()) return;
    changes.push(update);
    if (pause === null) next();
  });
  channel.bind(EVENT, receive);
  channel.bind('pusher:subscription_succeeded', () => { reset(); ask(); });
  channel.bind('pusher:member_added', tell);
  channel.bind('pusher:member_removed', ({ id }) => {
    arriving.delete(id);
    if (id === asked) ask();
    else tell();
  });
  pusher.connection.bind('state_change', ({ current }) => {
    if (current === 'connected') return;
    reset();
    tell();
  });
}
