/** Where pusher-js runs: in Node.js, and in Debian's Chromium. Either gives recorders (recorder.js) whose methods all return promises. */
import PusherInNode from 'pusher-js/node.js';
import { launch } from '../browser/chromium.js';
import { Recorder } from './recorder.js';

/** How a test wants its client: for which app, as whom, and what else pusher-js should be told. */
export function clientOptions({ taut, backend, member, user, as, ...options }) {
  const params = { ...(as && { as }), ...(member && { member: JSON.stringify(member) }) };
  return {
    cluster: '',
    wsHost: '127.0.0.1',
    wsPort: taut.port,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: { endpoint: `${backend?.origin}/pusher/auth`, transport: 'ajax', params },
    userAuthentication: { endpoint: `${backend?.origin}/pusher/user-auth`, transport: 'ajax', params: { ...params, user: JSON.stringify(user) } },
    ...options,
  };
}

export class NodePlatform {
  name = 'Node.js';
  #recorders = [];

  async open() {}
  async close() {}

  async client({ key = 'app-key', ...options }) {
    const recorder = new Recorder(PusherInNode, key, clientOptions(options));
    this.#recorders.push(recorder);
    return facade(async (method, parameters) => recorder[method](...parameters));
  }

  async leave() {
    for (const recorder of this.#recorders.splice(0)) recorder.leave();
  }
}

/** Every client is a tab of its own, on the backend's page: what it asks of Taut is asked from another origin. */
export class ChromiumPlatform {
  name = 'Chromium';
  #browser; #context; #pages = []; #faults = [];

  async open() {
    this.#browser = await launch();
    this.#context = await this.#browser.newContext();
  }

  async close() {
    await this.#browser?.close();
    if (this.#faults.length) throw new Error(`the page should run without errors, but: ${this.#faults.join('\n')}`);
  }

  async client({ key = 'app-key', prepare = async () => {}, ...options }) {
    const page = await this.#context.newPage();
    this.#pages.push(page);
    page.on('pageerror', (error) => this.#faults.push(error.stack));
    await prepare(page);
    await page.goto(options.backend.origin);
    await page.evaluate(async ([appKey, settings]) => {
      const { Recorder } = await import('/recorder.js');
      globalThis.recorder = new Recorder(globalThis.Pusher, appKey, settings);
    }, [key, clientOptions(options)]);
    return facade((method, parameters) => page.evaluate(([name, values]) => globalThis.recorder[name](...values), [method, parameters]));
  }

  async leave() {
    await Promise.all(this.#pages.splice(0).map((page) => page.close()));
  }
}

/** Calls of any method of a recorder, wherever that one is. */
function facade(call) {
  // A promise must not take it for another one.
  return new Proxy({}, { get: (_, method) => (method === 'then' ? undefined : (...parameters) => call(method, parameters)) });
}
