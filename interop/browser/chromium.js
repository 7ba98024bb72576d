/** Debian's Chromium under Playwright, shut off from every host but this one, with a fresh profile each time. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    ],
  });
}

/** The two clients behind the chat page: our own as it is served, and pusher-js put in its place. */
export const CLIENTS = [
  { name: 'taut.js', query: 'client=taut-js', install: async () => {} },
  {
    name: 'pusher-js',
    query: 'client=js',
    install: async (page) => {
      const library = await readFile(createRequire(import.meta.url).resolve('pusher-js/dist/web/pusher.min.js'), 'utf8');
      const shim = await readFile(new URL('./pusher-taut.js', import.meta.url), 'utf8');
      await page.route('**/taut.js', (route) => route.fulfill({ contentType: 'text/javascript', body: `${library}\n${shim}` }));
    },
  },
];

/** One tab on the chat page, with what a test wants to do and know. */
export class Tab {
  #faults = [];

  static async open(browser, origin, client, { name, key, clock = false, ...settings } = {}) {
    const context = await browser.newContext({ viewport: { width: 640, height: 760 }, ...settings });
    const page = await context.newPage();
    const tab = new Tab();
    tab.page = page;
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => tab.#faults.push(error.stack));
    page.on('console', (message) => {
      if (message.type() === 'error' && /Content Security Policy|Refused to/.test(message.text())) tab.#faults.push(message.text());
    });
    page.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && url.hostname !== '127.0.0.1') tab.#faults.push(`a request to ${url.host}`);
    });
    await client.install(page);
    await page.addInitScript(countSockets);
    if (clock) await page.clock.install();
    if (name) await page.addInitScript((value) => sessionStorage.setItem('taut.name', value), name);
    if (key) await page.route('**/chat/config', (route) => route.fulfill({ json: { key, channel: 'chat' } }));
    await page.goto(origin);
    return tab;
  }

  /** Waits until the page shows this state of its connection. */
  async reaches(state, timeout = 15_000) {
    await this.page.locator(`#link[data-state="${state}"]`).waitFor({ timeout });
    if (state === 'connected') await this.page.locator('#send:enabled').waitFor();
  }

  async leaves(state) {
    await this.page.locator(`#link:not([data-state="${state}"])`).waitFor();
  }

  async send(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text);
    await this.page.getByRole('button', { name: 'Send', exact: true }).click();
  }

  /** Waits for a message of somebody else's with exactly this text. */
  async hears(text) {
    const bubbles = this.page.locator('.message:not(.mine) .bubble');
    await bubbles.filter({ hasText: text }).first().waitFor();
    assert.ok((await bubbles.allTextContents()).includes(text), `the page should show exactly ${text}`);
  }

  /** Waits until this tab's own message has come back over the WebSocket. */
  async sees(text) {
    await this.page.locator('.message.mine.arrived .bubble').filter({ hasText: text }).first().waitFor();
  }

  /** The addresses of all WebSockets the page has made, in order. */
  async sockets() {
    return this.page.evaluate(() => globalThis.sockets);
  }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.#faults, [], 'the page should run without errors and without foreign requests');
  }
}

/** Runs inside the page, before its own scripts. */
function countSockets() {
  globalThis.sockets = [];
  globalThis.WebSocket = class extends globalThis.WebSocket {
    constructor(url, protocols) {
      super(url, protocols);
      globalThis.sockets.push(String(url));
    }
  };
}
