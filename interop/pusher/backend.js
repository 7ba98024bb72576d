/** The customer's own server: it signs for clients with the package `pusher` of npm, takes webhooks, and has a page for a browser. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import Pusher from 'pusher';
import { Heard } from './heard.js';
import { APP, MASTER_KEY } from './taut.js';

const SCRIPTS = {
  '/pusher.js': createRequire(import.meta.url).resolve('pusher-js/dist/web/pusher-with-encryption.min.js'),
  '/recorder.js': new URL('./recorder.js', import.meta.url),
  '/heard.js': new URL('./heard.js', import.meta.url),
};
const PAGE = '<!doctype html><link rel="icon" href="data:,"><script src="/pusher.js"></script>';

export class Backend {
  /** The requests for a signature: {path, headers, form}. */
  asked = new Heard();
  /** The webhooks' events, one by one: {path, headers, body, event} and the event's own name, channel and user_id. */
  hooks = new Heard();
  #server; #pusher; #answers = new Map();

  static async start(app = APP) {
    const backend = new Backend();
    const options = { appId: app.id, key: app.key, encryptionMasterKeyBase64: MASTER_KEY };
    backend.#pusher = {
      honest: new Pusher({ ...options, secret: app.secret }),
      forger: new Pusher({ ...options, secret: 'a guess' }),
      stranger: new Pusher({ ...options, key: 'other-key', secret: app.secret }),
    };
    backend.#server = createServer((request, response) => {
      backend.#serve(request, response).catch((error) => response.writeHead(500).end(error.stack));
    });
    backend.#server.listen(0, '127.0.0.1');
    await once(backend.#server, 'listening');
    backend.origin = `http://127.0.0.1:${backend.#server.address().port}`;
    return backend;
  }

  /** What the next webhooks to `path` are answered with, one status each; after these it is 200. */
  answer(path, ...statuses) { this.#answers.set(path, statuses); }

  async stop() {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }

  async #serve(request, response) {
    const path = request.url;
    const body = await text(request);
    response.setHeader('access-control-allow-origin', '*');
    response.setHeader('access-control-allow-headers', '*');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    if (path === '/') return response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
    if (SCRIPTS[path]) return response.writeHead(200, { 'content-type': 'text/javascript' }).end(await readFile(SCRIPTS[path]));
    if (path.startsWith('/hook')) return this.#hook(path, request.headers, body, response);
    const form = Object.fromEntries(new URLSearchParams(body));
    this.asked.add({ path, headers: request.headers, form });
    if (form.as === 'refused') return response.writeHead(403).end('Forbidden');
    const pusher = this.#pusher[form.as ?? 'honest'];
    const signed = path.endsWith('/user-auth')
      ? pusher.authenticateUser(form.socket_id, JSON.parse(form.user))
      : pusher.authorizeChannel(form.socket_id, form.channel_name, form.member && JSON.parse(form.member));
    return response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(signed));
  }

  #hook(path, headers, body, response) {
    const status = this.#answers.get(path)?.shift() ?? 200;
    response.writeHead(status).end();
    for (const event of JSON.parse(body).events) {
      this.hooks.add({ path, status, headers, body, event, name: event.name, channel: event.channel, user_id: event.user_id });
    }
  }
}

async function text(request) {
  let body = '';
  for await (const part of request.setEncoding('utf8')) body += part;
  return body;
}
