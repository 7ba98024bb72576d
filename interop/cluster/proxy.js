/** A TCP proxy between a node and its engine, to cut, stall, delay and slow down what goes through it. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Proxy {
  #server; #target; #pairs = new Set();
  host = '127.0.0.1'; node = { within: [], host: '127.0.0.1' }; // where the engine seems to be, and where the node is
  #cut = false; #stalled = new Set(); #delay = 0; #rate = Infinity;

  /** Listens on a port of the system's choosing; `target()` is the port behind it, at the moment of each connection. */
  static async start(target) {
    const proxy = new Proxy();
    proxy.#target = target;
    proxy.#server = createServer((socket) => proxy.#accept(socket)).listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    proxy.port = proxy.#server.address().port;
    return proxy;
  }

  /** Ends every connection and refuses new ones. */
  cut() {
    this.#cut = true;
    this.drop();
  }

  /** Ends every connection, and goes on with new ones. */
  drop() { for (const pair of this.#pairs) pair.end(); }

  /** Passes nothing on: 'up' to the engine, 'down' to the node. Both ends stay connected, and what comes meanwhile is passed on afterwards. */
  stall(...directions) {
    for (const direction of directions.length ? directions : ['up', 'down']) this.#stalled.add(direction);
  }

  /** Passes everything on this many milliseconds late, in order. */
  delay(ms) { this.#delay = ms; }

  /** Passes on so many bytes a second, in each direction of each connection. */
  throttle(rate) { this.#rate = rate; }

  /** As if nothing had been wrong. What was cut stays cut: the node connects anew. */
  heal() {
    this.#cut = false;
    this.#stalled.clear();
    this.#delay = 0;
    this.#rate = Infinity;
    for (const pair of this.#pairs) pair.wake();
  }

  async stop() {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(socket) {
    if (this.#cut) return socket.resetAndDestroy();
    const engine = connect(this.#target(), '127.0.0.1');
    const pair = { end: () => { socket.resetAndDestroy(); engine.resetAndDestroy(); } };
    const wakes = [this.#pass(socket, engine, 'up', pair), this.#pass(engine, socket, 'down', pair)];
    pair.wake = () => wakes.forEach((wake) => wake());
    this.#pairs.add(pair);
    for (const end of [socket, engine]) {
      end.setNoDelay(true);
      end.on('error', () => {}); // `close` follows
      end.on('close', () => {
        this.#pairs.delete(pair);
        socket.destroy();
        engine.destroy();
      });
    }
    return undefined;
  }

  /** Passes on what one end says, as the faults let it. Gives what is to be called when they have changed. */
  #pass(from, to, direction) {
    const waiting = []; // {due, bytes}
    let timer;
    const work = () => {
      clearTimeout(timer);
      timer = undefined;
      const now = performance.now();
      while (waiting.length && !this.#stalled.has(direction) && (waiting[0].due <= now || this.#delay === 0)) {
        const { bytes } = waiting[0];
        const share = this.#rate === Infinity ? bytes : bytes.subarray(0, Math.max(1, Math.ceil(this.#rate * STEP / 1000)));
        if (to.destroyed) return;
        to.write(share);
        if (share.length === bytes.length) waiting.shift();
        else waiting[0].bytes = bytes.subarray(share.length);
        if (this.#rate !== Infinity) break;
      }
      if (waiting.length < MOST_WAITING) from.resume();
      if (waiting.length && !this.#stalled.has(direction)) timer = setTimeout(work, this.#rate === Infinity ? Math.max(0, waiting[0].due - now) : STEP);
    };
    from.on('data', (bytes) => {
      waiting.push({ due: performance.now() + this.#delay, bytes });
      if (waiting.length >= MOST_WAITING) from.pause();
      if (timer === undefined) work();
    });
    from.on('close', () => clearTimeout(timer));
    return work;
  }
}

const STEP = 20; // ms between two shares of what is throttled
const MOST_WAITING = 64; // reads that are kept in one direction; the kernel keeps the rest
