/** Clients that only listen: the text of a stream as it comes, and what an EventSource makes of it. */
import { once } from 'node:events';
import { request } from 'node:http';
import { within } from '../browser/server.js';

const PATIENCE = 30_000;

/** A stream as text, by HTTP/1.1 on a connection of its own. */
export class Stream {
  text = ''; #request; #response; #waiting = new Set();

  /** Asks for the path of a server, as an EventSource does unless `headers` say otherwise; waits for the head. */
  static async open(server, path, { headers = {}, method = 'GET' } = {}) {
    const stream = new Stream();
    const url = `${server.url.replace('ws', 'http')}${path}`;
    stream.#request = request(url, { agent: false, method, headers: { accept: 'text/event-stream', ...headers } }).end();
    const [response] = await within(PATIENCE, once(stream.#request, 'response'), () => `${url} is not answered`);
    stream.#response = response.setEncoding('utf8');
    stream.status = response.statusCode;
    stream.headers = response.headers;
    response.on('data', (text) => { stream.text += text; stream.#wake(); });
    response.on('close', () => { stream.ended = response.complete ? 'whole' : 'cut off'; stream.#wake(); });
    response.on('error', () => {});
    return stream;
  }

  /** The events so far, as an EventSource reads them (WHATWG HTML §9.2.6): {event, data, id}. */
  get events() { return parse(this.text).events; }

  /** The data of the events without a name. */
  get messages() { return this.events.filter(({ event }) => event === undefined).map(({ data }) => data); }

  /** Milliseconds that the client is told to wait before it comes back. */
  get retry() { return parse(this.text).retry; }

  /** Waits for so many events; gives them all. */
  async until(count) {
    await this.#until(() => this.events.length >= count, `${count} events`);
    return this.events;
  }

  /** Waits until the text has this. */
  async hears(pattern) { return this.#until(() => pattern.test(this.text), `${pattern}`); }

  /** Waits for the end; gives the events. */
  async end() {
    await this.#until(() => this.ended, 'the end');
    return this.events;
  }

  pause() { this.#response.pause(); }
  resume() { this.#response.resume(); }

  /** The client goes away. */
  leave() { this.#request.destroy(); }

  #until(is, what) {
    const come = new Promise((resolve) => {
      const look = () => {
        if (!is()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
    return within(PATIENCE, come, () => `${what} does not come; there is ${this.ended ?? 'no end'} and\n${this.text.slice(-2000)}`);
  }

  #wake() { for (const look of this.#waiting) look(); }
}

function parse(text) {
  const events = [];
  let fields = {};
  let id;
  let retry;
  for (const line of text.split(/\r\n|\r|\n/).slice(0, -1)) {
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (line === '') {
      if (fields.data !== undefined) events.push({ ...fields, id });
      fields = {};
    } else if (name === 'data') fields.data = fields.data === undefined ? value ?? '' : `${fields.data}\n${value ?? ''}`;
    else if (name === 'event') fields.event = value;
    else if (name === 'id') id = value;
    else if (name === 'retry') retry = Number(value);
  }
  return { events, retry };
}
