/** The page of examples/php in two tabs of Chromium, with Debian's php-fpm behind nginx, and with `php -S` alone. */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from '../browser/chromium.js';
import { fits, isAccessible } from '../browser/layout.js';
import { Program, freePort } from '../peers/programs.js';
import { Fpm, Nginx } from './fpm.js';
import { APP, Server } from './server.js';

const FOLDER = fileURLToPath(new URL('../../examples/php', import.meta.url));
const PATIENCE = 30_000;
const SIZES = [[320, 640], [1280, 800]];
const pictures = process.env.TAUT_SCREENSHOTS;

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** A tab on the page, with what a test wants to do and know. */
class Tab {
  #faults = [];

  /** `prepare` is done with the page before it is loaded. */
  static async open(url, { prepare, ...settings } = {}) {
    const context = await browser.newContext({ viewport: { width: 640, height: 760 }, ...settings });
    const tab = new Tab();
    tab.page = await context.newPage();
    tab.page.setDefaultTimeout(PATIENCE);
    tab.page.on('pageerror', (error) => tab.#faults.push(error.stack));
    tab.page.on('request', (request) => {
      const { protocol, hostname } = new URL(request.url());
      if (protocol !== 'data:' && hostname !== '127.0.0.1') tab.#faults.push(`a request to ${hostname}`);
    });
    tab.sockets = [];
    tab.page.on('websocket', (socket) => tab.sockets.push(socket.url()));
    await prepare?.(tab.page);
    await tab.page.goto(url);
    return tab;
  }

  /** A tab whose user has come in. */
  static async in(url, name, settings) {
    const tab = await Tab.open(url, settings);
    await tab.join(`token-${name}`);
    await tab.reaches('online');
    await tab.page.locator('#people', { hasText: name }).waitFor();
    return tab;
  }

  async join(token, room = '1') {
    await this.page.getByRole('textbox', { name: 'Room' }).fill(room);
    await this.page.getByLabel('Token').fill(token);
    await this.page.getByRole('button', { name: 'Join' }).click();
  }

  async reaches(state) { await this.page.locator(`#link[data-state="${state}"]`).waitFor(); }

  /** Waits until the page names these as present. */
  async here(...names) {
    await this.page.locator('#people').getByText(`Here: ${names.join(', ')}.`, { exact: true }).waitFor();
  }

  async says(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text);
    await this.page.keyboard.press('Enter');
  }

  /** Waits for a message of this user, once; one's own counts when it has come back. */
  async hears(from, text) {
    const message = this.page.locator('.message:not(.pending)', { has: this.page.getByText(text, { exact: true }) });
    await message.filter({ has: this.page.getByText(from, { exact: true }) }).waitFor();
  }

  async notes(text) { await this.page.locator('.note').getByText(text, { exact: true }).last().waitFor(); }

  async save(name) { await this.page.screenshot({ path: join(pictures, `${name}.png`) }); }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.#faults, [], 'the page should run without errors and without foreign requests');
  }
}

const routes = (fpm) => [{ path: '/chat/{room}', backend: fpm.address, script: join(FOLDER, 'chat.php') }];

describe('the page of the chat in PHP', { timeout: 300_000 }, () => {
  let fpm;
  let server;
  let nginx;
  let tabs;
  const track = (tab) => { tabs.push(tab); return tab; };
  const enter = async (name, settings) => track(await Tab.in(nginx.url, name, settings));
  const both = async (ann, bob, step) => Promise.all([step(ann), step(bob)]);

  beforeEach(async () => {
    tabs = [];
    fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
    server = await Server.start(routes(fpm));
    nginx = await Nginx.start(fpm, { '/': join(FOLDER, 'index.php') }, { TAUT_URL: server.url });
  });
  afterEach(async () => {
    try {
      for (const tab of tabs) await tab.close();
    } finally {
      await nginx.stop();
      assert.equal(await server.stop(), 0, server.output);
      await fpm.stop();
    }
  });

  test('two_tabs_see_each_other_join_talk_and_leave', async () => {
    const ann = await enter('ann');
    const bob = await enter('bob');
    await ann.notes('bob joined.');
    await both(ann, bob, (tab) => tab.here('ann', 'bob'));
    await ann.says('Hello, <b>Bob</b>! 👋');
    await ann.hears('You', 'Hello, <b>Bob</b>! 👋');
    await bob.hears('ann', 'Hello, <b>Bob</b>! 👋');
    await bob.says('Hello, Ann!');
    await bob.hears('You', 'Hello, Ann!');
    await ann.hears('bob', 'Hello, Ann!');
    assert.equal(await ann.page.locator('.message').count(), 2, 'no message is shown twice');
    await tabs.pop().close();
    await ann.notes('bob left.');
    await ann.here('ann');
  });

  test('rooms_are_apart_and_a_tab_may_leave_one_for_another', async () => {
    const ann = await enter('ann');
    const bob = await enter('bob');
    await bob.page.getByRole('button', { name: 'Leave' }).click();
    await ann.notes('bob left.');
    await bob.join('token-bob', 'two');
    await bob.here('bob');
    await ann.says('in room 1');
    await ann.hears('You', 'in room 1');
    await bob.says('in room two');
    await bob.hears('You', 'in room two');
    await both(ann, bob, async ({ page }) => assert.equal(await page.locator('.message').count(), 1));
  });

  test('a_restart_of_php_fpm_closes_no_connection_and_loses_no_message', async () => {
    const ann = await enter('ann');
    const bob = await enter('bob');
    await fpm.end();
    await ann.says('Is PHP there?');
    await ann.page.locator('.pending').getByText('Is PHP there?').waitFor();
    await fpm.restart();
    await ann.hears('You', 'Is PHP there?');
    await bob.hears('ann', 'Is PHP there?');
    await bob.says('It is.');
    await ann.hears('bob', 'It is.');
    await both(ann, bob, async (tab) => {
      await tab.reaches('online');
      assert.equal(tab.sockets.length, 1, 'the connection is the first one');
    });
  });

  test('both_tabs_come_back_by_themselves_when_the_server_is_restarted', async () => {
    const ann = await enter('ann');
    const bob = await enter('bob');
    const { port } = server;
    assert.equal(await server.stop(), 0, server.output);
    await both(ann, bob, (tab) => tab.reaches('offline'));
    await bob.says('kept while away');
    await bob.page.getByText('Not sent: you are offline. Your message stays here.').waitFor();
    server = await Server.start(routes(fpm), { listen: `127.0.0.1:${port}` });
    await both(ann, bob, (tab) => tab.notes('You are back. What was said meanwhile is not shown.'));
    await both(ann, bob, (tab) => tab.here('ann', 'bob'));
    assert.equal(await bob.page.getByLabel('Message', { exact: true }).inputValue(), 'kept while away');
    await bob.page.getByRole('button', { name: 'Send' }).click();
    await ann.hears('bob', 'kept while away');
    await ann.says('and back');
    await bob.hears('ann', 'and back');
  });

  test('what_may_not_have_arrived_comes_back_into_the_field', async () => {
    const ann = await enter('ann', {
      prepare: (page) => page.routeWebSocket('**', (client) => {
        client.connectToServer();
        client.onMessage(() => {}); // the network takes it, and it gets no further
      }),
    });
    await ann.says('Does this arrive?');
    await ann.page.locator('.pending').getByText('Does this arrive?').waitFor();
    const { port } = server;
    assert.equal(await server.stop(), 0, server.output);
    await ann.page.getByText('Perhaps your last message did not arrive. It is in the field again.').waitFor();
    assert.equal(await ann.page.getByLabel('Message', { exact: true }).inputValue(), 'Does this arrive?');
    assert.equal(await ann.page.locator('.message').count(), 0);
    server = await Server.start(routes(fpm), { listen: `127.0.0.1:${port}` });
    await ann.reaches('online');
  });

  test('a_connection_that_has_been_silent_is_asked_and_replaced_if_it_does_not_answer', async () => {
    const frames = [];
    let isDead = false;
    const ann = await enter('ann', {
      prepare: async (page) => {
        await page.clock.install();
        await page.routeWebSocket('**', (client) => {
          const connection = frames.push([]) - 1;
          const upstream = client.connectToServer();
          client.onMessage((text) => { frames[connection].push(text); if (!isDead) upstream.send(text); });
          upstream.onMessage((text) => { if (!isDead) client.send(text); });
        });
      },
    });
    const wake = async () => {
      await ann.page.clock.runFor(60_000);
      await ann.page.evaluate(() => dispatchEvent(new Event('online')));
    };
    await wake();
    await ann.says('still here');
    await ann.hears('You', 'still here');
    assert.deepEqual(frames, [['', 'still here']], 'an empty message asks, and the answer is enough');
    isDead = true;
    await wake();
    await ann.page.clock.runFor(15_000);
    await ann.notes('The connection is lost (no answer).');
    isDead = false;
    await ann.page.clock.runFor(1000);
    await ann.notes('You are back. What was said meanwhile is not shown.');
    await ann.says('here again');
    await ann.hears('You', 'here again');
    assert.deepEqual(frames, [['', 'still here', ''], ['here again']]);
  });

  test('a_server_that_is_away_is_tried_less_and_less_often', async () => {
    const ann = await enter('ann', { prepare: (page) => page.addInitScript(hurryAndCount) });
    const { port } = server;
    await server.stop();
    await ann.page.waitForFunction(() => globalThis.waits.length >= 8);
    const waits = await ann.page.evaluate(() => globalThis.waits.slice(0, 8));
    assert.deepEqual(waits, [400, 800, 1600, 3200, 6400, 12_000, 12_000, 12_000], '0.4 of 1 s, 2 s, 4 s … 30 s');
    server = await Server.start(routes(fpm), { listen: `127.0.0.1:${port}` });
    await ann.reaches('online');
  });

  test('a_bad_token_is_refused_before_the_upgrade_and_the_page_says_so', async () => {
    const { status, body } = await server.refused('/chat/1?token=stranger');
    assert.deepEqual([status, body], [401, 'unknown token']);
    const tab = track(await Tab.open(nginx.url));
    await tab.join('stranger');
    await tab.page.getByRole('alert').getByText(/^Not let in: check the token\./).waitFor();
    await tab.reaches('out');
    const token = tab.page.getByLabel('Token');
    assert.equal(await token.evaluate((field) => document.activeElement === field), true, 'the field has the focus');
    assert.equal(tab.sockets.length, 1, 'it is not tried again');
    await tab.join('token-ann');
    await tab.here('ann');
  });

  test('everything_can_be_done_with_the_keyboard', async () => {
    const ann = track(await Tab.open(nginx.url));
    const { keyboard } = ann.page;
    await keyboard.type('token-ann');
    await keyboard.press('Enter');
    await ann.here('ann');
    await keyboard.type('one');
    await keyboard.press('Shift+Enter');
    await keyboard.type('two');
    await keyboard.press('Enter');
    await ann.page.locator('.message:not(.pending) .text').waitFor();
    assert.equal(await ann.page.locator('.message .text').textContent(), 'one\ntwo');
    for (const id of ['log', 'leave']) {
      await keyboard.press('Shift+Tab');
      assert.equal(await ann.page.evaluate(() => document.activeElement.id), id);
    }
  });

  for (const colorScheme of ['light', 'dark']) {
    test(`axe_finds_nothing_and_everything_fits_when_it_is_${colorScheme}`, async () => {
      if (pictures) await mkdir(pictures, { recursive: true });
      const bob = await enter('bob');
      const form = track(await Tab.open(nginx.url, { colorScheme, deviceScaleFactor: 2 }));
      const ann = await enter('ann', { colorScheme, deviceScaleFactor: 2 });
      const look = async (tab, what) => {
        for (const [width, height] of SIZES) {
          await tab.page.setViewportSize({ width, height });
          await isAccessible(tab.page, `${what}, ${width} px`);
          await fits(tab.page, `${what}, ${width} px`);
          assert.ok(await tab.page.evaluate(newestIsInView), `the newest message is in view: ${what}, ${width} px`);
          if (pictures) await tab.save(`php-${what}-${width}-${colorScheme}`);
        }
      };
      await look(form, 'join');
      await form.join('stranger');
      await form.page.getByRole('alert').getByText(/^Not let in/).waitFor();
      await look(form, 'refused');
      await look(ann, 'empty');
      await ann.says('Hello from PHP.');
      await bob.hears('ann', 'Hello from PHP.');
      await bob.says('One request for each message, and no second runtime. 👋');
      await ann.hears('bob', 'One request for each message, and no second runtime. 👋');
      await ann.says('Restart PHP-FPM: we stay connected.');
      await bob.hears('ann', 'Restart PHP-FPM: we stay connected.');
      await look(ann, 'talk');
      for (const text of ['x'.repeat(1500), `https://example.com/${'a-long-path-without-a-break/'.repeat(30)}`]) {
        await bob.says(text);
        await ann.hears('bob', text);
      }
      await ann.page.getByLabel('Message', { exact: true }).fill('a long draft '.repeat(60));
      await look(ann, 'long');
      const { port } = server;
      await server.stop();
      await ann.reaches('offline');
      await look(ann, 'offline');
      server = await Server.start(routes(fpm), { listen: `127.0.0.1:${port}` });
      await ann.here('ann', 'bob');
      await look(ann, 'back');
    });
  }
});

test('php_S_serves_the_page_and_answers_too', { timeout: 120_000 }, async () => {
  const port = await freePort();
  const environment = [`TAUT_URL=ws://127.0.0.1:${port}`, `TAUT_SECRET=${APP.secret}`];
  const php = await Program.onFreePort((own) => ['env', ...environment, 'php', '-S', `127.0.0.1:${own}`, '-t', FOLDER]);
  const url = `http://127.0.0.1:${php.port}`;
  const route = { path: '/chat/{room}', backend: `${url}/chat.php` };
  const server = await Server.start([route], { listen: `127.0.0.1:${port}`, app: { ...APP, origins: [url] } });
  try {
    // Cookies of whatever else runs on this machine come along, since they do not know ports: see `origins`.
    const prepare = (page) => page.context().addCookies([{ name: 'PHPSESSID', value: '1', url }]);
    const ann = await Tab.in(url, 'ann', { prepare });
    const bob = await Tab.in(url, 'bob', { prepare });
    await ann.says('from php -S');
    await bob.hears('ann', 'from php -S');
    await bob.close();
    await ann.notes('bob left.');
    await ann.close();
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await php.stop();
  }
});

/** Runs inside the page. */
function newestIsInView() {
  const newest = document.querySelector('#messages > :last-child');
  const bottom = (element) => element.getBoundingClientRect().bottom;
  return !newest || bottom(newest) <= bottom(document.querySelector('#log')) + 1;
}

/** Runs inside the page, before its own script: waits are counted and take a hundredth, and chance is always 0.4. */
function hurryAndCount() {
  const { setTimeout } = globalThis;
  Math.random = () => 0.4;
  globalThis.waits = [];
  globalThis.setTimeout = (act, wait) => {
    if (wait >= 15_000) return setTimeout(act, wait);
    globalThis.waits.push(wait);
    return setTimeout(act, wait / 100);
  };
}
