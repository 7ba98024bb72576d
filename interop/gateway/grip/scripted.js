/** A backend of WebSocket-over-HTTP without a library: it answers as a test says. */
import { once } from 'node:events';
import { createServer } from 'node:http';

/** An answer of events; a client is let in with `accept`. */
export const events = (body, headers = {}) => ({ status: 200, headers: { 'Content-Type': 'application/websocket-events', ...headers }, body });
export const accept = (rest = '', headers = {}) => events(`OPEN\r\n${rest}`, headers);
export const acceptGrip = (rest = '') => accept(rest, { 'Sec-WebSocket-Extensions': 'grip' });
export const text = (content, type = 'TEXT') => `${type} ${Buffer.byteLength(content).toString(16)}\r\n${content}\r\n`;
export const control = (message) => text(`c:${JSON.stringify(message)}`);

export class Scripted {
  requests = []; #server; #scripts = new Map(); #waiting = new Set();

  static async start() {
    const scripted = new Scripted();
    scripted.#server = createServer(async (request, response) => {
      const parts = [];
      try {
        for await (const part of request) parts.push(part);
      } catch {
        return; // the proxy went away while it was asking
      }
      const body = Buffer.concat(parts).toString('latin1');
      scripted.requests.push({ method: request.method, url: request.url, headers: request.headers, body });
      for (const look of scripted.#waiting) look();
      const answer = await scripted.#scripts.get(request.url)?.(body) ?? events('');
      if (answer === 'reset') request.socket.resetAndDestroy();
      else response.writeHead(answer.status, answer.headers).end(answer.body);
    }).listen(0, '127.0.0.1');
    await once(scripted.#server, 'listening');
    scripted.port = scripted.#server.address().port;
    return scripted;
  }

  /** Answers the requests of this address: `script(body)` gives {status, headers, body}, or nothing for no events, at once or later. */
  answer(url, script) { this.#scripts.set(url, script); }

  /** The bodies of the requests of this address. */
  bodies(url) { return this.requests.filter((request) => request.url === url).map(({ body }) => body); }

  /** Waits for such a body. */
  async until(url, pattern) {
    while (!this.bodies(url).some((body) => pattern.test(body))) {
      await new Promise((resolve) => {
        const look = () => { this.#waiting.delete(look); resolve(); };
        this.#waiting.add(look);
      });
    }
  }

  async stop() {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}
