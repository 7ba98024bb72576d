/** The console in Chromium, and clients for it to show. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import Pusher from 'pusher-js';

/** The console in a tab of its own, which may neither fail nor break its policy. */
export class Console {
  #faults = [];

  /** Opens this address, and then one of the console's views. */
  static async open(browser, url, { view, mayFail = false, ...settings } = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...settings });
    const page = await context.newPage();
    const console = new Console();
    console.page = page;
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => console.#faults.push(error.stack));
    page.on('console', (message) => {
      const text = message.text();
      if (message.type() !== 'error' || (mayFail && /Failed to load resource/.test(text))) return;
      console.#faults.push(text);
    });
    page.on('request', (request) => {
      const target = new URL(request.url());
      if (target.protocol !== 'data:' && target.hostname !== '127.0.0.1') console.#faults.push(`a request to ${target.host}`);
    });
    await page.addInitScript(() => {
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => globalThis.console.error(`CSP: ${violatedDirective} ${blockedURI}`));
    });
    await page.goto(url);
    // The page takes the token of a link away itself.
    await page.waitForURL((address) => !address.hash.includes('token'));
    if (view) await page.evaluate((name) => { location.hash = name; }, view);
    return console;
  }

  /** Waits for an event of this kind with this text, the newest of them. */
  sees = async (kind, text) => {
    const row = this.page.locator('.event summary', { has: this.page.getByText(kind, { exact: true }), hasText: text }).first();
    await row.waitFor();
    return row;
  };

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.#faults, [], 'the page should run without errors, within its policy, and without foreign requests');
  }
}

export async function live(page) {
  await page.locator('#link[data-state="live"]').waitFor();
}

export function connect(server, user) {
  return new Pusher('app-key', {
    cluster: '',
    wsHost: '127.0.0.1',
    wsPort: server.port,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) => {
        if (channelName.endsWith('-no')) return callback(null, { auth: 'app-key:0000' });
        const data = channelName.startsWith('presence-') ? JSON.stringify({ user_id: user, user_info: { name: `${user[0].toUpperCase()}${user.slice(1)}` } }) : undefined;
        const text = [socketId, channelName, ...(data ? [data] : [])].join(':');
        const signature = createHmac('sha256', 'app-secret').update(text).digest('hex');
        callback(null, { auth: `app-key:${signature}`, ...(data ? { channel_data: data } : {}) });
      },
    },
  });
}

export function connected(pusher) {
  return new Promise((resolve) => (pusher.connection.state === 'connected' ? resolve() : pusher.connection.bind('connected', resolve)));
}

export function subscribed(channel) {
  return new Promise((resolve, reject) => {
    if (channel.subscribed) return resolve();
    channel.bind('pusher:subscription_succeeded', resolve);
    channel.bind('pusher:subscription_error', (error) => reject(new Error(JSON.stringify(error))));
  });
}

export async function publish(server, channel, name, data, given) {
  const cookie = given ?? await server.consoleCookie();
  const response = await fetch(`${server.origin}/console/api/apps/1/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', cookie },
    body: JSON.stringify({ channel, name, data }),
  });
  assert.equal(response.status, 200, await response.text());
}
