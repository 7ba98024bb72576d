/** Echo servers of others behind one face: `url`, `port`, `closed` waits until a client has closed it, `stop`. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';
import { within } from '../browser/server.js';
import { Program } from './programs.js';

const PAYLOAD = 'are you there?';
const PATIENCE = 10_000;
/** What both say to those who ask for `/forbidden`. */
const REFUSAL = '{"error":"not you"}';

/** The package ws of npm, in this process. */
export class NodeServer {
  static title = 'ws of npm';
  #server; #closes = []; #wake = () => {};

  static async start(workshop, { tls = false } = {}) {
    const server = new NodeServer();
    const http = tls
      ? createSecureServer({ cert: await readFile(workshop.certificate), key: await readFile(workshop.key) })
      : createServer();
    const verifyClient = ({ req }, decide) => (
      req.url === '/forbidden' ? decide(false, 403, REFUSAL, { 'Content-Type': 'application/json' }) : decide(true)
    );
    server.#server = new WebSocketServer({ server: http, perMessageDeflate: true, verifyClient });
    server.#server.on('connection', (socket, request) => server.#converse(socket, request));
    server.http = http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    server.port = http.address().port;
    server.url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${server.port}`;
    return server;
  }

  /** The code and reason of a client's close, once it has come. */
  async closed() {
    const come = async () => {
      while (this.#closes.length === 0) await new Promise((resolve) => { this.#wake = resolve; });
      return this.#closes.shift();
    };
    return within(PATIENCE, come(), () => 'ws has seen no close');
  }

  async stop() {
    for (const socket of this.#server.clients) socket.terminate();
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, 'close');
  }

  #converse(socket, request) {
    this.headers = request.headers;
    socket.on('message', (data, isBinary) => {
      switch (isBinary ? '' : data.toString()) {
        case 'please: extensions': socket.send(socket.extensions); break;
        case 'please: ping':
          socket.once('pong', (payload) => socket.send(payload.toString()));
          socket.ping(PAYLOAD);
          break;
        case 'please: fragments':
          socket.send('in ', { fin: false });
          socket.send('several ', { fin: false });
          socket.send('fragments', { fin: true });
          break;
        default: socket.send(data, { binary: isBinary });
      }
    });
    socket.on('close', (code, reason) => { this.#closes.push(`${code} ${reason}`); this.#wake(); });
  }
}

/** The package websockets of PyPI. */
export class PythonServer {
  static title = 'websockets of PyPI';
  #program;

  static async start(workshop, { tls = false } = {}) {
    const server = new PythonServer();
    const files = tls ? [workshop.certificate, workshop.key] : [];
    server.#program = await Program.listening(process.env.TAUT_PYTHON, fileURLToPath(new URL('./server.py', import.meta.url)), ...files);
    ({ port: server.port, url: server.url } = server.#program);
    return server;
  }

  async closed() {
    const [, told] = await this.#program.until(/^closed (.*)$/m);
    this.#program.forget();
    return told;
  }

  async stop() { return this.#program.stop(); }
}
