/** The backends of grip.test.js: one program each, with what it was asked. */
import { fileURLToPath } from 'node:url';
import { Program } from '../../peers/programs.js';
import { KEY } from './proxies.js';

const here = (file) => fileURLToPath(new URL(file, import.meta.url));

/**
 * How each is started at a port, and what its library does differently from the others.
 *   publishesMeta      whether its publisher takes metadata of an item
 *   givesReasons       whether its publisher takes a reason to close with
 *   pongs              its answer to a ping of "pp"; nothing if it answers only while it looks for the next message
 *   streams            whether it also serves Server-Sent Events, at /events
 *   showsUnderscores   whether its HTTP server hands over headers with an underscore
 */
export const LIBRARIES = {
  express: { command: (port) => ['node', here('express.mjs'), port], showsUnderscores: true },
  flask: { command: (port) => [process.env.TAUT_PYTHON, here('flask_app.py'), port], publishesMeta: true, givesReasons: true, pongs: 'pp' },
  django: { command: (port) => [process.env.TAUT_PYTHON, here('django_app.py'), port], publishesMeta: true, givesReasons: true, pongs: 'pp', streams: true },
};

/** A backend, which prints the requests that it gets. */
export class Backend {
  #program;

  /** Starts it behind a proxy, which `proxy(port)` starts for the backend's port. Gives both. */
  static async behind(proxy, command) {
    const backend = new Backend();
    let front;
    try {
      backend.#program = await Program.onFreePort(async (port) => {
        await front?.stop();
        front = await proxy(port);
        return ['env', `GRIP_URL=${front.gripUrl()}`, `KEY=${KEY}`, ...command(String(port))];
      });
    } catch (error) {
      await front?.stop();
      throw error;
    }
    backend.url = `http://127.0.0.1:${backend.#program.port}`;
    await front.ready();
    return [backend, front];
  }

  get output() { return this.#program.output; }
  async stop() { await this.#program.stop(); }

  /** The requests with this text in their address. */
  requests(tag) { return requests(this.output, tag); }

  /** Waits for the requests with this text in their address until `is` finds what it looks for, and gives them. */
  async until(tag, is) {
    const looked = { exec: (output) => { const found = requests(output, tag); return is(found) ? found : null; }, toString: () => `the request of ${tag} for ${is}` };
    return this.#program.until(looked);
  }

  /** Waits for so many requests with this text in their address, and gives them. */
  async first(count, tag) { return this.until(tag, (found) => found.length >= count).then(() => this.requests(tag)); }

  /** Has it publish with its library; fails with what the library says. */
  async publish(what) {
    const response = await fetch(`${this.url}/publish`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(what) });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${response.status} ${text}`);
  }
}

function requests(output, tag) {
  return [...output.matchAll(/^request (\{.*\})$/gm)]
    .map(([, line]) => JSON.parse(line))
    .filter(({ url }) => url.includes(tag))
    .map(({ body, headers, ...rest }) => ({ ...rest, headers: lower(headers), body: Buffer.from(body, 'base64').toString('latin1') }));
}

function lower(headers) {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}
