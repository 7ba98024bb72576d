/** The server packages under test behind one face. Every method gives what the package gives, or throws what it made of a refusal. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Pusher from 'pusher';
import { APP, MASTER_KEY } from './taut.js';

/** What a package made of a refusal: its own name for it, and a text that has the status and the answer's body in it. */
export class Refused extends Error {
  constructor({ name, text }) {
    super(`${name}: ${text}`);
    this.kind = name;
    this.text = text;
    this.status = STATUSES[name] ?? Number(/^\d{3}(?=: )/.exec(text)?.[0]);
  }
}

/** How the package of PyPI names what it does not tell by number. */
const STATUSES = { PusherBadRequest: 400, PusherBadAuth: 401, PusherForbidden: 403 };

export class NodePackage {
  static NAME = 'pusher of npm';
  #pusher;

  constructor(port, { id, key, secret } = APP) {
    this.#pusher = new Pusher({ appId: id, key, secret, host: '127.0.0.1', port, useTLS: false, encryptionMasterKeyBase64: MASTER_KEY });
  }

  trigger(channels, event, data, { socketId, info } = {}) {
    return answer(this.#pusher.trigger(channels, event, data, { ...(socketId && { socket_id: socketId }), ...(info && { info }) }));
  }

  triggerBatch(batch) { return answer(this.#pusher.triggerBatch(batch)); }
  channels(params) { return answer(this.#pusher.get({ path: '/channels', params })); }
  channel(name, params) { return answer(this.#pusher.get({ path: `/channels/${name}`, params })); }
  users(name) { return answer(this.#pusher.get({ path: `/channels/${name}/users` })); }
  sendToUser(user, event, data) { return answer(this.#pusher.sendToUser(user, event, data)); }
  terminateUserConnections(user) { return answer(this.#pusher.terminateUserConnections(user)); }
  async authorizeChannel(socketId, channel, member) { return this.#pusher.authorizeChannel(socketId, channel, member); }
  async authenticateUser(socketId, user) { return this.#pusher.authenticateUser(socketId, user); }

  /** The events of a webhook, or null if it is not genuine. */
  async webhook({ headers, body }) {
    const webhook = this.#pusher.webhook({ headers, rawBody: body });
    return webhook.isValid() ? webhook.getEvents() : null;
  }

  async close() {}
}

async function answer(request) {
  try {
    return await (await request).json();
  } catch (error) {
    if (error.status === undefined) throw error;
    throw new Refused({ name: error.name, text: `${error.status}: ${error.body}` });
  }
}

/** A package of another language: its process takes a call per line, as JSON, and answers it by a line. */
class ForeignPackage {
  #process; #lines;

  constructor(program, script, port, app) {
    this.#process = spawn(program, [fileURLToPath(new URL(script, import.meta.url))], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
    this.#process.stdin.write(`${JSON.stringify({ ...app, host: '127.0.0.1', port, master_key: MASTER_KEY })}\n`);
  }

  async call(method, parameters) {
    this.#process.stdin.write(`${JSON.stringify({ method, parameters })}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the process of ${this.constructor.NAME} ended, see its message above`);
    const { result, refused, failure } = JSON.parse(value);
    if (refused) throw new Refused(refused);
    if (failure) throw new Error(failure);
    return result;
  }

  async close() {
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }
}

export class PythonPackage extends ForeignPackage {
  static NAME = 'pusher of PyPI';

  constructor(port, app = APP) {
    super(process.env.TAUT_PYTHON ?? 'python3', './sdk.py', port, app);
  }

  trigger(channels, event_name, data, { socketId } = {}) { return this.call('trigger', { channels, event_name, data, socket_id: socketId ?? null }); }
  triggerBatch(batch) { return this.call('trigger_batch', { batch }); }
  channels({ filter_by_prefix: prefix_filter = null, info } = {}) {
    return this.call('channels_info', { prefix_filter, attributes: info?.split(',') ?? [] });
  }

  channel(channel, { info } = {}) { return this.call('channel_info', { channel, attributes: info?.split(',') ?? [] }); }
  users(channel) { return this.call('users_info', { channel }); }
  sendToUser(user_id, event_name, data) { return this.call('send_to_user', { user_id, event_name, data }); }
  terminateUserConnections(user_id) { return this.call('terminate_user_connections', { user_id }); }
  authorizeChannel(socket_id, channel, custom_data = null) { return this.call('authenticate', { channel, socket_id, custom_data }); }
  authenticateUser(socket_id, user_data) { return this.call('authenticate_user', { socket_id, user_data }); }

  async webhook({ headers, body }) {
    const valid = await this.call('validate_webhook', { key: headers['x-pusher-key'], signature: headers['x-pusher-signature'], body });
    return valid && valid.events;
  }
}

/** No package of PHP's own is to be had from Debian: pusher.php makes the same requests as that one, over the HTTP client that it uses. */
export class PhpRequests extends ForeignPackage {
  static NAME = 'requests as the package of PHP makes them';

  constructor(port, app = APP) {
    super('php', './sdk.php', port, app);
  }

  trigger(channels, event, data, { socketId, info } = {}) {
    return this.call('trigger', [channels, event, data, { ...(socketId && { socket_id: socketId }), ...(info && { info }) }]);
  }

  triggerBatch(batch) { return this.call('triggerBatch', [batch]); }
  channels(params = {}) { return this.call('get', ['/channels', params]); }
  channel(name, params = {}) { return this.call('get', [`/channels/${name}`, params]); }
  users(name) { return this.call('get', [`/channels/${name}/users`, {}]); }
  sendToUser(user, event, data) { return this.call('sendToUser', [user, event, data]); }
  terminateUserConnections(user) { return this.call('terminateUserConnections', [user]); }

  authorizeChannel(socketId, channel, member) {
    return this.call('authorizeChannel', [channel, socketId, member ? JSON.stringify(member) : null]).then(JSON.parse);
  }

  authenticateUser(socketId, user) { return this.call('authenticateUser', [socketId, user]).then(JSON.parse); }
  webhook({ headers, body }) { return this.call('webhook', [headers['x-pusher-key'], headers['x-pusher-signature'], body]); }
}
