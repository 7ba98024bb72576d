/** `taut serve` with routes, and clients of them. */
import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import WebSocket from 'ws';
import { Program } from '../peers/programs.js';
import { within } from '../browser/server.js';

const PATIENCE = 30_000;
const METRICS = 'token-of-the-metrics';

/** The app of these tests, as the README names it. */
export const APP = { id: '1', key: 'app-key', secret: 'app-secret' };

/** Publishes to the app as a backend does: by Pusher's HTTP API. */
export async function publish(server, channel, data, name = 'news') {
  const body = JSON.stringify({ name, channels: [channel], data: JSON.stringify(data) });
  const path = `/apps/${APP.id}/events`;
  const query = `auth_key=${APP.key}&auth_timestamp=${Math.floor(Date.now() / 1000)}&auth_version=1.0&body_md5=${createHash('md5').update(body).digest('hex')}`;
  const signature = createHmac('sha256', APP.secret).update(`POST\n${path}\n${query}`).digest('hex');
  const response = await fetch(`${server.url.replace('ws', 'http')}${path}?${query}&auth_signature=${signature}`, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
}

export class Server {
  #program; #folder;

  /** With these routes: objects with the settings of `[[routes]]`. */
  static async start(routes, { listen = '127.0.0.1:0', options = [], app = APP, apps = [app], environment = {} } = {}) {
    const server = new Server();
    server.#folder = await mkdtemp(join(tmpdir(), 'taut-routes-'));
    await server.#configure(routes, apps);
    const variables = Object.entries({ TAUT_METRICS_TOKEN: METRICS, ...environment }).map(([name, value]) => `${name}=${value}`);
    server.#program = await Program.listening('env', ...variables, process.env.TAUT_BIN, 'serve', '--listen', listen, '--config', server.config, ...options);
    server.url = server.#program.url.replace('http', 'ws');
    server.port = server.#program.port;
    return server;
  }

  /** The file of its configuration. */
  get config() { return join(this.#folder, 'taut.toml'); }

  async #configure(routes, apps) {
    const table = (name, entries) => `[[${name}]]\n${Object.entries(entries).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('')}\n`;
    await writeFile(this.config, [...apps.map((app) => table('apps', app)), ...routes.map((route) => table('routes', route))].join(''));
  }

  /** Has it read its configuration again, with other routes. */
  async reload(routes, apps = [APP]) {
    await this.#configure(routes, apps);
    this.#program.forget();
    this.#program.signal('SIGHUP');
    await this.#program.until(/the configuration (has been read again|stays as it was.*)/);
  }

  get output() { return this.#program.output; }

  /** Waits until it has printed this. */
  async until(pattern) { return this.#program.until(pattern); }

  /** A client of a path, which is let in. */
  async connect(path, options) {
    const client = new Client(`${this.url}${path}`, options);
    await client.opened();
    return client;
  }

  /** What a client of a path is refused with: {status, headers, body}. */
  async refused(path, options) { return refused(`${this.url}${path}`, options); }

  /** The events of all routes, by what came of them: only what has come. */
  async results() {
    const counted = [...(await this.#metrics()).matchAll(/^taut_route_events_total\{.*result="(\w+)".*\} (\d+)$/gm)];
    return Object.fromEntries(counted.map(([, result, count]) => [result, Number(count)]).filter(([, count]) => count));
  }

  /** A metric without labels. */
  async metric(name) { return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await this.#metrics())?.[1]); }

  async #metrics() {
    const response = await fetch(`${this.url.replace('ws', 'http')}/metrics`, { headers: { authorization: `Bearer ${METRICS}` } });
    return response.text();
  }

  /** Bytes of memory that are its own. */
  memory() { return 1024 * Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.#program.pid}/status`, 'utf8'))[1]); }

  /** Ends it without a word. */
  async kill() { await this.#program.stop('SIGKILL'); }

  /** Ends it; gives its exit code. */
  async end() { return this.#program.ended ?? this.#program.stop(); }

  async stop() {
    const code = await this.end();
    await rm(this.#folder, { recursive: true });
    return code;
  }
}

/** What a client is refused with: {status, headers, body}. */
export async function refused(url, options) {
  const socket = new WebSocket(url, options?.protocols ?? [], options);
  const [, response] = await within(PATIENCE, once(socket, 'unexpected-response'), () => `${url} is not refused`);
  let body = '';
  for await (const part of response.setEncoding('utf8')) body += part;
  return { status: response.statusCode, headers: response.headers, body };
}

/** A WebSocket, and everything that it has heard. */
export class Client {
  messages = []; pongs = []; #socket; #waiting = new Set();

  constructor(url, options = {}) {
    this.#socket = new WebSocket(url, options.protocols ?? [], options);
    this.#socket.on('message', (data, isBinary) => { this.messages.push(isBinary ? data : data.toString()); this.#wake(); });
    this.#socket.on('pong', (data) => { this.pongs.push(data.toString()); this.#wake(); });
    this.#socket.on('upgrade', (response) => { this.headers = response.headers; });
    this.#socket.on('close', (code, reason) => { this.closed = { code, reason: reason.toString() }; this.#wake(); });
    this.#socket.on('error', (error) => { this.error = error; this.#wake(); });
  }

  async opened() {
    await within(PATIENCE, Promise.race([once(this.#socket, 'open'), once(this.#socket, 'error').then(([error]) => { throw error; })]), () => 'it does not open');
    this.protocol = this.#socket.protocol;
  }

  send(data, options) { this.#socket.send(data, options); }
  ping(data) { this.#socket.ping(data); }
  /** Frames, as bytes: whatever they are. */
  raw(bytes) { this.#socket._socket.write(bytes); }
  close(code, reason) { this.#socket.close(code, reason); }
  terminate() { this.#socket.terminate(); }
  /** Bytes that were sent and that the system has not taken. */
  get unsent() { return this.#socket.bufferedAmount; }

  pause() { this.#socket.pause(); }
  resume() { this.#socket.resume(); }

  /** The next message, which is forgotten. */
  async next() {
    await this.#until(() => this.messages.length, 'a message');
    return this.messages.shift();
  }

  /** The next message as JSON. */
  async json() { return JSON.parse(await this.next()); }

  /** The next pong, which is forgotten. */
  async pong() {
    await this.#until(() => this.pongs.length, 'a pong');
    return this.pongs.shift();
  }

  /** Waits for such a message; it and others are not forgotten. */
  async hears(pattern) {
    await this.#until(() => this.messages.some((message) => pattern.test(message)), `what matches ${pattern}`);
  }

  /** How it ends. */
  async end() {
    await this.#until(() => this.closed, 'the end');
    return this.closed;
  }

  #until(is, what) {
    const come = new Promise((resolve) => {
      const look = () => {
        if (!is()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
    return within(PATIENCE, come, () => `${what} does not come; there is ${JSON.stringify(this.messages)}, ${JSON.stringify(this.closed)}`);
  }

  #wake() { for (const look of this.#waiting) look(); }
}
