/** A WebSocket server of an application, on npm's ws: it does what a test says, and keeps what it was sent. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { within } from '../browser/server.js';

const PATIENCE = 30_000;

/** A client of the backend, as the backend sees it. */
class Peer {
  messages = []; #waiting = new Set();

  constructor(socket, request) {
    Object.assign(this, { socket, request });
    socket.on('message', (data, isBinary) => { this.messages.push(isBinary ? data : data.toString()); this.#wake(); });
    socket.on('close', (code, reason) => { this.closed = { code, reason: reason.toString() }; this.#wake(); });
    socket.on('error', (error) => { this.error = error; });
  }

  async hears(count) {
    await this.#until(() => this.messages.length >= count, `${count} messages`);
    return this.messages;
  }

  /** How it ends. */
  async end() {
    await this.#until(() => this.closed, 'the end');
    return this.closed;
  }

  async #until(is, what) {
    const come = async () => { while (!is()) await new Promise((resolve) => { this.#waiting.add(resolve); }); };
    await within(PATIENCE, come(), () => `${what} does not come; there are ${this.messages.length} messages, ${JSON.stringify(this.closed)}`);
  }

  #wake() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

export class Sockets {
  peers = []; #server; #sockets; #waiting = new Set();

  /**
   * `serve(socket, request)` is called for each client; `refuse(request, response)` answers those whose path begins with /refused.
   * `options` are those of `ws`.
   */
  static async start(serve = () => {}, { refuse, options } = {}) {
    const sockets = new Sockets();
    sockets.#server = createServer();
    sockets.#sockets = new WebSocketServer({ noServer: true, maxPayload: 64 << 20, ...options });
    sockets.#server.on('upgrade', (request, socket, head) => {
      if (refuse?.(request, socket)) return;
      sockets.#sockets.handleUpgrade(request, socket, head, (upgraded) => {
        sockets.peers.push(new Peer(upgraded, request));
        serve(upgraded, request);
        for (const resolve of sockets.#waiting) resolve();
        sockets.#waiting.clear();
      });
    });
    sockets.#sockets.on('headers', (headers) => headers.push(...(options?.headers ?? [])));
    await sockets.listen(0);
    return sockets;
  }

  async listen(port) {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.port = this.#server.address().port;
    this.url = `ws://127.0.0.1:${this.port}`;
  }

  /** Waits until so many clients have come, and gives the last of them. */
  async peer(count = 1) {
    const come = async () => { while (this.peers.length < count) await new Promise((resolve) => { this.#waiting.add(resolve); }); };
    await within(PATIENCE, come(), () => `of ${count} clients there came ${this.peers.length}`);
    return this.peers[count - 1];
  }

  /** Ends all connections without a word, and takes no more until it listens again. */
  async leave() {
    for (const { socket } of this.peers) socket.terminate();
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async stop() { if (this.#server.listening) await this.leave(); }
}

/** Sends everything back. */
export const echo = (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
