/** A pusher-js client that keeps what it hears and is driven by JSON alone: the same in Node.js and in a page. */
import { Heard } from './heard.js';

/** What is heard is {on, event, data}, where `on` is a channel's name, 'connection', 'user' or 'watchlist'. */
export class Recorder {
  #pusher; #heard = new Heard();

  constructor(Pusher, key, options) {
    this.#pusher = new Pusher(key, options);
    const { connection, user } = this.#pusher;
    const hear = (on) => (event, data) => this.#heard.add({ on, event, data: plain(data) });
    connection.bind('state_change', ({ current }) => hear('connection')(current));
    connection.bind('error', (error) => hear('connection')('error', error?.error?.data ?? error?.data ?? { message: String(error?.error?.message ?? error) }));
    connection.bind('message', (message) => { if (message.event !== 'pusher:pong') hear('frame')(message.event, message); });
    user.bind_global(hear('user'));
    user.watchlist.bind_global(hear('watchlist'));
  }

  until(pattern, count, patience) { return this.#heard.until(pattern, count, patience); }
  heard(pattern) { return this.#heard.matching(pattern); }
  state() { return this.#pusher.connection.state; }
  transport() { return this.#pusher.connection.connection?.transport?.name; }

  /** Waits for the connection, and gives its socket_id. */
  async connected() {
    if (this.#pusher.connection.state !== 'connected') await this.until({ on: 'connection', event: 'connected' });
    return this.#pusher.connection.socket_id;
  }

  /** Subscribes without waiting. An event that is named in `events` is heard with its metadata. */
  subscribe(name, events = []) {
    const channel = this.#pusher.subscribe(name);
    const hear = (event, data, metadata) => this.#heard.add({ on: name, event, data: plain(data), ...(metadata && { metadata }) });
    channel.bind_global((event, data) => { if (!events.includes(event)) hear(event, data); });
    for (const event of events) channel.bind(event, (data, metadata) => hear(event, data, metadata ?? {}));
  }

  /** Subscribes and waits until the server has said yes, and gives what came with that. */
  async join(name, events) {
    this.subscribe(name, events);
    const [{ data }] = await this.until({ on: name, event: 'pusher:subscription_succeeded' });
    return data;
  }

  unsubscribe(name) { this.#pusher.unsubscribe(name); }
  trigger(name, event, data) { return this.#pusher.channel(name).trigger(event, data); }
  send(event, data, channel) { return this.#pusher.send_event(event, data, channel); }
  members(name) { return plain(this.#pusher.channel(name).members); }
  subscriptionCount(name) { return this.#pusher.channel(name).subscriptionCount; }

  /** Signs in and waits until pusher-js says that this is done, well or not; gives what it knows of the user then. */
  async signin() {
    const { user } = this.#pusher;
    this.#pusher.signin();
    user.signinDonePromise.then(() => this.#heard.add({ on: 'user', event: DONE, data: user.user_data }));
    const [{ data }] = await this.until({ on: 'user', event: DONE });
    return data;
  }

  /** The same for a server that refuses: of that pusher-js says nothing. */
  askToSignIn() { this.#pusher.signin(); }

  connect() { this.#pusher.connect(); }
  leave() { this.#pusher.disconnect(); }
}

const DONE = 'what signin() waits for';

/** Members of a presence channel as JSON, in an order that does not depend on who came first. */
function plain(data) {
  if (typeof data?.each !== 'function') return data === undefined ? null : data;
  const members = Object.fromEntries(Object.entries(data.members).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { members, count: data.count, me: data.me };
}
