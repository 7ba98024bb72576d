/** A backend in Node: it answers as a test says, and keeps what it was told. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { within } from '../browser/server.js';
import { FORMS } from './forms.js';

const PATIENCE = 30_000;

export class Backend {
  events = []; #answer; #waiting = new Set();

  /**
   * `answer(event, request, response)` gives the answer's JSON, or writes a response and gives nothing. In another form
   * than `plain`, `send` and `close` are said in that form. `listen` makes a server of a handler of requests.
   */
  static async start(answer = () => ({}), { form = 'plain', listen = createServer, scheme = 'http' } = {}) {
    const backend = new Backend();
    backend.#answer = answer;
    backend.server = listen(async (request, response) => {
      const parts = [];
      for await (const part of request) parts.push(part);
      const body = Buffer.concat(parts);
      const events = FORMS[form].read(body);
      for (const event of events) backend.events.push({ ...event, headers: request.headers, body: body.toString(), session: request.stream?.session });
      backend.#wake();
      const answered = [];
      for (const event of events) answered.push([event, await backend.#answer(event, request, response)]);
      if (answered.some(([, answer]) => answer === undefined) || response.writableEnded) return;
      const { headers, body: written } = FORMS[form].write(answered);
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      response.end(written);
    }).listen(0, '127.0.0.1');
    await once(backend.server, 'listening');
    backend.port = backend.server.address().port;
    backend.url = `${scheme}://127.0.0.1:${backend.port}/events`;
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
    this.server.close();
    this.server.closeAllConnections?.();
    await once(this.server, 'close');
  }

  async comeBack() {
    this.server.listen(this.port, '127.0.0.1');
    await once(this.server, 'listening');
  }

  async stop() {
    if (!this.server.listening) return;
    this.server.close();
    this.server.closeAllConnections?.();
    await once(this.server, 'close');
  }

  #wake() {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
