/**
 * What happened, in the order in which this process saw it. Everything that a test does and hears goes into one history, which the checker (checker.js)
 * reads afterwards. An entry is {at, kind, …}: `at` in milliseconds of one monotonic clock. The kinds:
 *
 *   open        client, node, socketId            a connection was established
 *   leaving     client                            the test is about to end it
 *   closed      client, code                      it has ended, whoever ended it
 *   subscribe   client, channel, user             asked for; `user` in presence channels
 *   subscribed  client, channel, members          confirmed; `members` in presence channels
 *   unsubscribe client, channel
 *   added, removed        client, channel, user   pusher_internal:member_added, member_removed
 *   event       client, channel, event, data, by, number, userId
 *   told        client, event, channel, data      any other message of the server
 *   publish     by, number, node, channels, exclude, via       `via` 'http' or the client that sends a client event
 *   published   by, number, status, took          the answer; status 0: there was none
 *   webhook     name, channel, user, time, id
 *   query       node, path, status, took, users, channel, settled
 *   fault, healed         fault, node             `node` is undefined where the engine itself fails
 *   settled                                       nothing happens, and everything has had the time to be told
 */
import { within } from '../browser/server.js';

const PATIENCE = 10_000;

export class History {
  entries = [];
  #waiting = new Set();

  add(kind, entry = {}) {
    const complete = { at: performance.now(), kind, ...entry };
    this.entries.push(complete);
    for (const wait of this.#waiting) wait(complete);
    return complete;
  }

  /** The entries that have every part of `pattern`. */
  matching(pattern) {
    const matches = matcher(pattern);
    return this.entries.filter(matches);
  }

  /** Waits for `count` entries that have every part of `pattern`, and gives them. */
  async until(pattern, count = 1, patience = PATIENCE) {
    const matches = matcher(pattern);
    const found = this.entries.filter(matches);
    if (found.length >= count) return found;
    let wait;
    const enough = new Promise((resolve) => {
      wait = (entry) => {
        if (matches(entry)) found.push(entry);
        if (found.length >= count) resolve(found);
      };
      this.#waiting.add(wait);
    });
    try {
      return await within(patience, enough, () => `within ${patience} ms there came ${found.length} of ${count} × ${JSON.stringify(pattern)}, and\n${this.text(pattern)}`);
    } finally {
      this.#waiting.delete(wait);
    }
  }

  /** The last entries of the same client, or of all, one a line. */
  text({ client } = {}, count = 30) {
    const entries = client === undefined ? this.entries : this.entries.filter((entry) => entry.client === client);
    return entries.slice(-count).map(line).join('\n');
  }
}

export function line({ at, kind, ...rest }) {
  return `${(at / 1000).toFixed(3)} ${kind} ${JSON.stringify(rest)}`;
}

function matcher(pattern) {
  const parts = Object.entries(pattern);
  return (entry) => parts.every(([key, value]) => entry[key] === value || (typeof value === 'object' && JSON.stringify(entry[key]) === JSON.stringify(value)));
}
