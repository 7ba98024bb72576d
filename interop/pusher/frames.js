/** A WebSocket of npm's `ws` and nothing above it: the tests write every frame themselves, and sign by hand. */
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import WebSocket from 'ws';
import { within } from '../browser/server.js';
import { Heard, PATIENCE } from './heard.js';
import { APP } from './taut.js';

export class RawClient {
  /** The messages of the server: {event, channel, data, message}, where `message` is all of it and `data` as it came. */
  heard = new Heard();
  /** The name of the server's first event, or `undefined` if it closes without any. */
  first;
  #socket; #closed;

  /** Connects without waiting. */
  static connect(port, path = `/app/${APP.key}?protocol=7&client=js&version=8.6.0&flash=false`, options = {}) {
    const client = new RawClient();
    client.#socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options);
    client.#socket.on('message', (bytes) => {
      const message = JSON.parse(bytes);
      client.heard.add({ event: message.event, channel: message.channel, data: message.data, message });
    });
    client.#closed = once(client.#socket, 'close').then(([code, reason]) => ({ code, reason: reason.toString() }));
    client.#closed.catch(() => {});
    client.first = new Promise((resolve) => {
      client.#socket.once('message', (bytes) => resolve(JSON.parse(bytes).event));
      client.#socket.once('close', () => resolve(undefined));
    });
    return client;
  }

  /** Connects and waits for the greeting. */
  static async open(port, path, options) {
    const client = RawClient.connect(port, path, options);
    const [{ data }] = await client.until('pusher:connection_established');
    client.socketId = JSON.parse(data).socket_id;
    return client;
  }

  /** What the server closes with, once it does. */
  closed() { return within(PATIENCE, this.#closed, () => `the server does not close, but says ${JSON.stringify(this.heard.matching())}`); }

  get isOpen() { return this.#socket.readyState === WebSocket.OPEN; }
  send(message) { this.#socket.send(typeof message === 'string' ? message : JSON.stringify(message)); }
  sendBinary(text) { this.#socket.send(Buffer.from(text)); }
  subscribe(channel, more = {}) { this.send({ event: 'pusher:subscribe', data: { channel, ...more } }); }

  /** Waits for messages with this name, and maybe of this channel. */
  until(event, channel, count) { return this.heard.until({ event, ...(channel !== undefined && { channel }) }, count); }

  /** Subscribes with a signature where one is needed, and waits for the yes. */
  async join(channel, member) {
    this.subscribe(channel, this.signed(channel, member));
    return (await this.until('pusher_internal:subscription_succeeded', channel))[0];
  }

  /** `auth`, and `channel_data` if there is a member. */
  signed(channel, member, { key, secret } = APP) {
    if (!/^(private|presence)-/.test(channel)) return {};
    const channel_data = typeof member === 'object' ? JSON.stringify(member) : member;
    const text = [this.socketId, channel, ...(channel_data === undefined ? [] : [channel_data])].join(':');
    return { auth: `${key}:${hmac(secret, text)}`, ...(channel_data !== undefined && { channel_data }) };
  }

  signin(user_data, secret = APP.secret) {
    const text = typeof user_data === 'string' ? user_data : JSON.stringify(user_data);
    this.send({ event: 'pusher:signin', data: { auth: `${APP.key}:${hmac(secret, `${this.socketId}::user::${text}`)}`, user_data: text } });
  }

  /** Waits until the server has seen all that was sent before: it answers in order. */
  async caughtUp() {
    const before = this.heard.matching({ event: 'pusher:pong' }).length;
    this.send({ event: 'pusher:ping', data: {} });
    await this.until('pusher:pong', undefined, before + 1);
  }

  leave() { this.#socket.terminate(); }
}

export const hmac = (secret, text) => createHmac('sha256', secret).update(text).digest('hex');
