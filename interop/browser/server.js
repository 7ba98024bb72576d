/** `taut serve` as a test sees it: started on a port of the system's choosing, ended by a signal, its exit code kept. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.TAUT_BIN ?? fileURLToPath(new URL('../../target/release/taut', import.meta.url));
const START_WITHIN = 15_000;
const STOP_WITHIN = 20_000;

export class Server {
  #process; #exit; #log = ''; #printed = ''; #cookie;

  /** Starts `taut serve` and waits for its first line, which says where it listens. */
  static async start({ listen = '127.0.0.1:0', options = [], environment = {} } = {}) {
    const server = new Server(['serve', '--listen', listen, ...options], environment);
    const heard = server.#firstLine();
    const line = await within(START_WITHIN, heard, () => `taut serve said nothing within ${START_WITHIN} ms\n${server.#log}`);
    const origin = /listening on (https?:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (!origin) throw new Error(`taut serve should first say where it listens, but said: ${line}`);
    server.origin = origin;
    server.port = Number(new URL(origin).port);
    return server;
  }

  constructor(command, environment) {
    this.#process = spawn(BINARY, command, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } });
    this.#exit = once(this.#process, 'exit').then(([code, signal]) => code ?? signal);
    this.#exit.catch(() => {}); // a program that cannot be started is told by #firstLine
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#log = (this.#log + text).slice(-20_000); });
    }
    this.#process.stdout.on('data', (text) => { this.#printed += text; });
  }

  /** What the server has printed, the last 20 000 characters. */
  get log() { return this.#log; }

  /** The link that opens the console of the development app. */
  async consoleLink() {
    return (await this.#prints(/Look inside: (\S+)\n/))[1];
  }

  /** Where the console is that has a listener of its own. */
  async ownConsole() {
    return (await this.#prints(/^console on (\S+)\n/m))[1];
  }

  /** What a browser sends to the console that has been opened by the link. */
  async consoleCookie() {
    this.#cookie ??= (async () => {
      const { origin, hash } = new URL(await this.consoleLink());
      const token = new URLSearchParams(hash.slice(1)).get('token');
      const headers = { 'content-type': 'application/json' };
      const response = await fetch(`${origin}/console/api/session`, { method: 'POST', headers, body: JSON.stringify({ token }) });
      if (response.status !== 200) throw new Error(`the link does not open the console: ${await response.text()}`);
      return response.headers.get('set-cookie').split(';')[0];
    })();
    return this.#cookie;
  }

  /** Waits until it has printed this to its standard output. */
  async #prints(pattern) {
    const come = new Promise((resolve) => {
      const look = () => {
        const found = pattern.exec(this.#printed);
        if (found) resolve(found);
        else this.#process.stdout.once('data', look);
      };
      look();
    });
    return within(START_WITHIN, come, () => `taut serve did not print ${pattern}, but:\n${this.#printed}`);
  }

  /** Sends it a signal, and waits for nothing. */
  signal(name) { this.#process.kill(name); }

  /** Asks the server to end (SIGTERM) and gives its exit code, or the name of the signal that killed it. */
  async stop() {
    this.#process.kill('SIGTERM');
    try {
      return await within(STOP_WITHIN, this.#exit, () => `taut serve did not end within ${STOP_WITHIN} ms of SIGTERM\n${this.#log}`);
    } catch (error) {
      this.#process.kill('SIGKILL');
      throw error;
    }
  }

  #firstLine() {
    let text = '';
    return new Promise((resolve, reject) => {
      this.#process.stdout.on('data', (more) => {
        text += more;
        if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
      });
      this.#process.on('error', (error) => reject(new Error(`${BINARY} cannot be started: ${error.message}`)));
      this.#process.on('exit', (code) => reject(new Error(`taut serve ended at once (exit code ${code})\n${this.#log}`)));
    });
  }
}

/** The promise's own outcome, or an error with `message()` when it takes longer than `ms`. */
export async function within(ms, promise, message) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(message())), ms); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
