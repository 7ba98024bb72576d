/** A raw Pusher client: no library between the test and the frames, a few kilobytes each, and everything it hears goes into the history. */
import { createHmac } from 'node:crypto';
import WebSocket from 'ws';

export const APP = { id: 'app', key: 'app-key', secret: 'app-secret' };

export class Client {
  static #count = 0;
  #socket; #history;

  /** Connects to a node and waits for the greeting. */
  static async open(history, node) {
    const client = new Client(history, node);
    await client.until('open');
    return client;
  }

  constructor(history, node) {
    this.id = `c${(Client.#count += 1)}`;
    this.node = node;
    this.#history = history;
    this.#socket = new WebSocket(`ws://${node.host}:${node.port}/app/${APP.key}?protocol=7&client=js&version=8.6.0`, { perMessageDeflate: false });
    this.#socket.on('message', (bytes) => this.#hear(JSON.parse(bytes)));
    this.#socket.on('close', (code) => history.add('closed', { client: this.id, code }));
    this.#socket.on('error', () => {}); // `close` follows
  }

  get isOpen() { return this.#socket.readyState === WebSocket.OPEN; }

  /** Waits for an entry of this client in the history. */
  async until(kind, pattern = {}, count = 1) {
    return (await this.#history.until({ kind, client: this.id, ...pattern }, count)).at(-1);
  }

  /** What this client has heard. */
  heard(kind, pattern = {}) { return this.#history.matching({ kind, client: this.id, ...pattern }); }

  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  /** Subscribes without waiting. `member` is {user_id, user_info}, or a user's id. */
  subscribe(channel, member) {
    const data = typeof member === 'string' ? { user_id: member } : member;
    this.#history.add('subscribe', { client: this.id, channel, ...(data && { user: data.user_id }) });
    this.send({ event: 'pusher:subscribe', data: { channel, ...this.#signed(channel, data) } });
  }

  /** Subscribes and waits for the yes; gives the ids of the members. */
  async join(channel, member) {
    const before = this.heard('subscribed', { channel }).length;
    this.subscribe(channel, member);
    return (await this.until('subscribed', { channel }, before + 1)).members;
  }

  unsubscribe(channel) {
    this.#history.add('unsubscribe', { client: this.id, channel });
    this.send({ event: 'pusher:unsubscribe', data: { channel } });
  }

  async signin(user) {
    const user_data = JSON.stringify(user);
    this.send({ event: 'pusher:signin', data: { auth: `${APP.key}:${hmac(`${this.socketId}::user::${user_data}`)}`, user_data } });
    await this.until('told', { event: 'pusher:signin_success' });
  }

  /** Sends a client event, with the sender's own numbers. */
  trigger(channel, event = 'client-note') {
    this.number = (this.number ?? 0) + 1;
    this.#history.add('publish', { by: this.id, number: this.number, node: this.node.name, channels: [channel], via: this.id });
    this.send({ event, channel, data: { by: this.id, number: this.number } });
  }

  /** Waits until the server has seen all that was sent before. */
  async caughtUp() {
    const before = this.heard('told', { event: 'pusher:pong' }).length;
    this.send({ event: 'pusher:ping', data: {} });
    await this.until('told', { event: 'pusher:pong' }, before + 1);
  }

  /** Ends the connection without a word, as a client does whose network is gone, and waits until its end is known here. */
  async leave() {
    if (this.#socket.readyState !== WebSocket.CLOSED) {
      this.#history.add('leaving', { client: this.id });
      this.#socket.terminate();
    }
    await this.until('closed');
  }

  #signed(channel, member) {
    if (!/^(private|presence)-/.test(channel)) return {};
    const channel_data = member && JSON.stringify(member);
    const auth = `${APP.key}:${hmac([this.socketId, channel, ...(channel_data ? [channel_data] : [])].join(':'))}`;
    return { auth, ...(channel_data && { channel_data }) };
  }

  #hear({ event, channel, data: text, user_id: userId }) {
    const data = typeof text === 'string' ? parsed(text) : text;
    const add = (kind, more) => this.#history.add(kind, { client: this.id, ...(channel !== undefined && { channel }), ...more });
    switch (event) {
      case 'pusher:connection_established':
        this.socketId = data.socket_id;
        return add('open', { node: this.node.name, socketId: this.socketId });
      case 'pusher_internal:subscription_succeeded': {
        const { ids, hash } = data?.presence ?? {};
        return add('subscribed', ids ? { members: ids.map(String), infos: hash } : {});
      }
      case 'pusher_internal:member_added': return add('added', { user: String(data.user_id), info: data.user_info });
      case 'pusher_internal:member_removed': return add('removed', { user: String(data.user_id) });
      case 'pusher:ping': return this.send({ event: 'pusher:pong', data: {} });
      default:
        if (/^pusher(_internal)?:/.test(event)) return add('told', { event, data });
        return add('event', { event, data, by: data?.by, number: data?.number, ...(userId !== undefined && { userId }) });
    }
  }
}

export const hmac = (text) => createHmac('sha256', APP.secret).update(text).digest('hex');

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
