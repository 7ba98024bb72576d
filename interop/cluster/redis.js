/** Debian's redis-server on a port of its own, without persistence, and enough of its protocol to tell it what to do. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../peers/programs.js';

export class Redis {
  scheme = 'redis';
  #program; #folder; #options; #place;

  /** At a port that is free, or at a place of its own: {within, host, port}. */
  static async start(options = [], place = { within: [], host: '127.0.0.1' }) {
    const redis = new Redis();
    redis.#options = options;
    redis.#place = place;
    redis.#folder = await mkdtemp(join(tmpdir(), 'taut-redis-'));
    if (place.port) {
      redis.port = place.port;
      await redis.restart();
    } else {
      redis.#program = await Program.onFreePort((port) => redis.#command(port));
      redis.port = redis.#program.port;
    }
    return redis;
  }

  /** Ends it without a word. What it knew is gone. */
  async kill() { await this.#program.stop('SIGKILL'); }

  /** Starts it again at the same port. */
  async restart() {
    this.#program = new Program(...this.#command(this.port));
    await this.#program.until(/Ready to accept connections/);
  }

  /** Lets it stand still, and go on. Its connections stay. */
  pause() { this.#program.signal('SIGSTOP'); }
  resume() { this.#program.signal('SIGCONT'); }

  async stop() {
    if (this.#program.ended === undefined) await this.#program.stop('SIGKILL');
    await rm(this.#folder, { recursive: true });
  }

  /** It forgets everything, and closes no connection. */
  async forget() { await this.command('FLUSHALL'); }

  /** One command, over a connection of its own, and its answer. */
  async command(...words) {
    const socket = connect(this.port, this.#place.host);
    try {
      await once(socket, 'connect');
      socket.write(`*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`).join('')}`);
      let text = '';
      for await (const bytes of socket.setEncoding('latin1')) {
        text += bytes;
        const answer = read(text, 0);
        if (answer) return answer.value;
      }
      throw new Error(`redis-server closed after ${words.join(' ')}`);
    } finally {
      socket.destroy();
    }
  }

  /** How often each command was called, by its name in lower case, since it started or was last asked to forget. */
  async calls() {
    const lines = (await this.command('INFO', 'commandstats')).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm);
    return Object.fromEntries([...lines].map(([, name, calls]) => [name, Number(calls)]));
  }

  #command(port) {
    const { within, host } = this.#place;
    return [...within, 'redis-server', '--port', String(port), '--bind', host, '--protected-mode', 'no', '--dir', this.#folder, '--save', '', '--appendonly', 'no', ...this.#options];
  }
}

/** The value at this place of an answer and where it ends, or nothing if it has not come as a whole. */
function read(text, start) {
  const end = text.indexOf('\r\n', start);
  if (end < 0) return undefined;
  const head = text.slice(start + 1, end);
  switch (text[start]) {
    case '+': return { value: head, end: end + 2 };
    case ':': return { value: Number(head), end: end + 2 };
    case '-': throw new Error(`redis-server says: ${head}`);
    case '$': {
      if (head === '-1') return { value: null, end: end + 2 };
      const after = end + 2 + Number(head);
      return text.length < after + 2 ? undefined : { value: text.slice(end + 2, after), end: after + 2 };
    }
    case '*': {
      const value = [];
      let at = end + 2;
      for (let left = Number(head); left > 0; left -= 1) {
        const item = read(text, at);
        if (!item) return undefined;
        value.push(item.value);
        at = item.end;
      }
      return { value, end: at };
    }
    default: throw new Error(`redis-server answers ${JSON.stringify(text)}`);
  }
}
