/** The programs that the tests start, each from its start to its end, and what they are given. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { within } from '../browser/server.js';

const PATIENCE = 30_000;
const ATTEMPTS = 5;

/** A program that runs until it is told to end. */
export class Program {
  #process; #exit; #output = ''; #waiting = new Set();

  constructor(command, ...options) {
    this.name = `${command} ${options[0] ?? ''}`;
    this.#process = spawn(command, options, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#exit = once(this.#process, 'close').then(([code, signal]) => code ?? signal, (error) => error.message);
    this.#exit.then((ended) => { this.ended = ended; this.#wake(); });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#output += text; this.#wake(); });
    }
  }

  /** A program that prints where it listens, with that as its `url`. */
  static async listening(command, ...options) {
    const program = new Program(command, ...options);
    try {
      [, program.url] = await program.until(/^listening on (\S+?)\/?$/m);
    } catch (error) {
      await program.stop();
      throw error;
    }
    program.port = Number(new URL(program.url).port);
    return program;
  }

  /**
   * A program that has to be told its port, and says nothing when it listens: `command` makes the command line for a
   * port that was free a moment ago. When it has been taken meanwhile, another is tried.
   */
  static async onFreePort(command) {
    let program;
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const port = await freePort();
      program = new Program(...await command(port));
      program.port = port;
      if (await program.#accepts(port)) return program;
    }
    throw new Error(`${program.name} did not start (exit code ${program.ended}):\n${program.output}`);
  }

  /** All that it has printed since it started, or since `forget`. */
  get output() { return this.#output; }
  forget() { this.#output = ''; }

  /** Waits until its output has this. */
  async until(pattern) {
    const come = new Promise((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(this.#output);
        if (!match && this.ended === undefined) return;
        this.#waiting.delete(look);
        if (match) resolve(match);
        else reject(new Error(`${this.name} ended (${this.ended}) before it printed ${pattern}:\n${this.#output}`));
      };
      this.#waiting.add(look);
      look();
    });
    return within(PATIENCE, come, () => `${this.name} did not print ${pattern}, but:\n${this.#output}`);
  }

  /** Waits until it ends by itself; its exit code, or the name of the signal that killed it. */
  async end() {
    return within(PATIENCE, this.#exit, () => `${this.name} did not end:\n${this.#output}`);
  }

  get pid() { return this.#process.pid; }

  /** Sends it a signal that does not end it. */
  signal(name) { this.#process.kill(name); }

  /** Asks it to end, and waits until it has. */
  async stop(signal = 'SIGTERM') {
    if (this.ended === undefined) this.#process.kill(signal);
    try {
      return await this.end();
    } catch (error) {
      this.#process.kill('SIGKILL');
      throw error;
    }
  }

  async #accepts(port) {
    const accepted = async () => {
      while (this.ended === undefined) {
        const socket = connect(port, '127.0.0.1');
        const connected = await Promise.race([once(socket, 'connect').then(() => true, () => false), this.#exit.then(() => false)]);
        socket.destroy();
        // There is no event for that somebody begins to listen.
        if (!connected) await new Promise((resolve) => { setTimeout(resolve, 20); });
        else return this.ended === undefined;
      }
      return false;
    };
    return within(PATIENCE, accepted(), () => `${this.name} does not listen on ${port}:\n${this.#output}`);
  }

  #wake() {
    for (const look of this.#waiting) look();
  }
}

/** Runs a program that ends by itself and prints JSON on one line. */
export async function run(command, ...options) {
  const program = new Program(command, ...options);
  try {
    await program.until(/\n$/);
    await program.end();
    return JSON.parse(program.output);
  } catch (error) {
    throw new Error(`${program.name}: ${error.message}\n${program.output}`);
  } finally {
    await program.stop();
  }
}

/** A folder of the test's own, with a certificate for 127.0.0.1 and its key. */
export class Workshop {
  static async open() {
    const workshop = new Workshop();
    workshop.path = await mkdtemp(join(tmpdir(), 'taut-peers-'));
    workshop.certificate = join(workshop.path, 'certificate.pem');
    workshop.key = join(workshop.path, 'key.pem');
    await promisify(execFile)('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
      '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost',
      // A client refuses a server that shows it the certificate of an authority.
      '-addext', 'basicConstraints=critical,CA:FALSE',
      '-keyout', workshop.key, '-out', workshop.certificate,
    ]);
    return workshop;
  }

  async write(name, text) {
    await writeFile(join(this.path, name), text);
    return join(this.path, name);
  }

  async close() { await rm(this.path, { recursive: true, force: true }); }
}

/** Ports that somebody here was told of, who may not listen yet. */
const told = new Set();

/** A port that nobody listens on now, and nobody else here was told of: several programs may be starting at once. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  if (told.has(port)) return freePort();
  told.add(port);
  return port;
}
