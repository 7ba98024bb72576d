/** Debian's nats-server on a port of its own, with JetStream and without anything kept, and enough of its protocol to ask it something. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../peers/programs.js';

const READY = /Server is ready/;

export class Nats {
  scheme = 'nats';
  #program; #folder; #options; #place;

  /** At a port that is free, or at a place of its own: {within, host, port}. */
  static async start(options = [], place = { within: [], host: '127.0.0.1' }) {
    const nats = new Nats();
    nats.#options = options;
    nats.#place = place;
    nats.#folder = await mkdtemp(join(tmpdir(), 'taut-nats-'));
    if (place.port) {
      nats.port = place.port;
      await nats.restart();
    } else {
      nats.#program = await Program.onFreePort((port) => nats.#command(port));
      await nats.#program.until(READY);
      nats.port = nats.#program.port;
    }
    return nats;
  }

  /** Ends it without a word. What it knew is gone. */
  async kill() {
    await this.#program.stop('SIGKILL');
    await rm(join(this.#folder, 'kept'), { recursive: true, force: true });
  }

  /** Starts it again at the same port. */
  async restart() {
    this.#program = new Program(...this.#command(this.port));
    await this.#program.until(READY);
  }

  /** Lets it stand still, and go on. Its connections stay. */
  pause() { this.#program.signal('SIGSTOP'); }
  resume() { this.#program.signal('SIGCONT'); }

  async stop() {
    if (this.#program.ended === undefined) await this.#program.stop('SIGKILL');
    await rm(this.#folder, { recursive: true });
  }

  /** It forgets what this cluster has told it, and closes no connection. */
  async forget(prefix) { await this.ask(`$JS.API.STREAM.DELETE.${prefix}-log`); }

  /** One question, over a connection of its own, and its answer. */
  async ask(subject, payload = '') {
    const socket = connect(this.port, this.#place.host);
    try {
      await once(socket, 'connect');
      socket.write(`CONNECT {"verbose":false}\r\nSUB _INBOX.test 1\r\nPUB ${subject} _INBOX.test ${Buffer.byteLength(payload)}\r\n${payload}\r\n`);
      let text = '';
      for await (const bytes of socket.setEncoding('latin1')) {
        text += bytes;
        const [, length, rest] = /^MSG \S+ 1 (?:\S+ )?(\d+)\r\n([^]*)$/m.exec(text) ?? [];
        if (rest?.length >= Number(length)) return rest.slice(0, Number(length));
      }
      throw new Error(`nats-server closed after ${subject}`);
    } finally {
      socket.destroy();
    }
  }

  #command(port) {
    const { within, host } = this.#place;
    return [...within, 'nats-server', '-a', host, '-p', String(port), '-js', '-sd', join(this.#folder, 'kept'), ...this.#options];
  }
}
