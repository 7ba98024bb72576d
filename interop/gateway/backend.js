/** A backend in Node: it answers as a test says, and keeps what it was told. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { within } from '../browser/server.js';

const PATIENCE = 30_000;

export class Backend {
  events = []; #server; #answer; #waiting = new Set();

  /** `answer(event, request, response)` gives the answer's JSON, or writes a response and gives nothing. */
  static async start(answer = () => ({})) {
    const backend = new Backend();
    backend.#answer = answer;
    backend.#server = createServer(async (request, response) => {
      let body = '';
      for await (const part of request.setEncoding('utf8')) body += part;
      const event = JSON.parse(body);
      backend.events.push({ ...event, headers: request.headers, body });
      backend.#wake();
      const answered = await backend.#answer(event, request, response);
      if (answered !== undefined && !response.writableEnded) response.setHeader('content-type', 'application/json').end(JSON.stringify(answered));
    }).listen(0, '127.0.0.1');
    await once(backend.#server, 'listening');
    backend.port = backend.#server.address().port;
    backend.url = `http://127.0.0.1:${backend.port}/events`;
    return backend;
  }

  answerWith(answer) { this.#answer = answer; }

  /** Waits until so many events of this kind have come, and gives them. */
  async until(kind, count = 1) {
    const some = () => this.events.filter(({ event }) => event === kind);
    const come = async () => { while (some().length < count) await new Promise((resolve) => { this.#waiting.add(resolve); }); };
    await within(PATIENCE, come(), () => `of ${count} events ${kind} there came ${some().length}`);
    return some();
  }

  /** Takes no requests any more, until it is back at the same port. */
  async leave() {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async comeBack() {
    this.#server.listen(this.port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async stop() {
    if (!this.#server.listening) return;
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  #wake() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
