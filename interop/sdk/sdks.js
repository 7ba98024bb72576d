/** The server packages under test behind one face: `publish` gives the answer's body, or throws {name, text} as told by the package. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Pusher from 'pusher';

/** What a package made of a refusal. */
export class Refused extends Error {
  constructor({ name, text }) {
    super(`${name}: ${text}`);
    this.kind = name;
    this.text = text;
  }
}

export class NodePackage {
  name = 'pusher of npm';
  errors = { 401: 'PusherRequestError', 404: 'PusherRequestError', 413: 'PusherRequestError' };
  connections = 0;
  #agent = new CountingAgent(() => { this.connections += 1; });

  async publish({ app_id, ...credentials }, channels, event, data, socket_id) {
    const pusher = new Pusher({ appId: app_id, ...credentials, useTLS: false, agent: this.#agent });
    try {
      const response = await pusher.trigger(channels, event, data, socket_id && { socket_id });
      return await response.json();
    } catch (error) {
      if (error.status === undefined) throw error;
      throw new Refused({ name: error.name, text: `${error.status}: ${error.body}` });
    }
  }

  async close() { this.#agent.destroy(); }
}

/** One connection at a time, kept for the next request. */
class CountingAgent extends Agent {
  #connected;

  constructor(connected) {
    super({ keepAlive: true, maxSockets: 1 });
    this.#connected = connected;
  }

  createConnection(...args) {
    this.#connected();
    return super.createConnection(...args);
  }
}

export class PythonPackage {
  name = 'pusher of PyPI';
  connections = 0;
  errors = { 401: 'PusherBadAuth', 404: 'PusherBadStatus', 413: 'PusherBadStatus' };
  #process = spawn(process.env.TAUT_PYTHON ?? 'python3', [fileURLToPath(new URL('./publish.py', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  #lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();

  async publish(credentials, channels, event, data, socket_id) {
    this.#process.stdin.write(`${JSON.stringify({ credentials, channels, event, data, socket_id })}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('publish.py ended, see its message above');
    const { body, error, connections } = JSON.parse(value);
    if (error) throw new Refused(error);
    this.connections = connections;
    return body;
  }

  async close() {
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }
}
