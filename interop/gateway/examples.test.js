/** The examples dashboard and shell, as their pages and scripts are: the pages in Chromium. */
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from '../browser/chromium.js';
import { fits, isAccessible } from '../browser/layout.js';
import { Server as Development } from '../browser/server.js';
import { Program } from '../peers/programs.js';
import { Server } from './server.js';

const PATIENCE = 30_000;
const EXAMPLES = new URL('../../examples/', import.meta.url);
const LOOKS = ['light', 'dark'].flatMap((colorScheme) => [[375, 720], [1280, 800]].map(([width, height]) => ({ colorScheme, viewport: { width, height } })));

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** Pages that run without errors and without foreign requests. */
class Pages {
  #pages = []; #faults = [];

  async open(url, { clock = false, ...settings } = {}) {
    const context = await browser.newContext({ viewport: { width: 640, height: 480 }, ...settings });
    const page = await context.newPage();
    this.#pages.push(page);
    page.setDefaultTimeout(PATIENCE);
    page.on('pageerror', (error) => this.#faults.push(error.stack));
    page.on('request', (request) => {
      const { protocol, hostname: host } = new URL(request.url());
      if (host !== '127.0.0.1' && !['data:', 'file:'].includes(protocol)) this.#faults.push(`a request to ${host}`);
    });
    if (clock) await page.clock.install();
    await page.goto(url);
    return page;
  }

  async close() {
    await Promise.all(this.#pages.map((page) => page.context().close()));
    assert.deepEqual(this.#faults, []);
  }
}

/** The page fits and is accessible. TAUT_SCREENSHOTS names a folder for pictures, absolute. */
async function looksRight(page, name, { colorScheme, viewport: { width } }) {
  await fits(page, `${name}, ${width} px`);
  await isAccessible(page, `${name}, ${colorScheme}`);
  const folder = process.env.TAUT_SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}-${width}-${colorScheme}.png`) });
}

describe('the example dashboard', { timeout: 180_000 }, () => {
  const script = fileURLToPath(new URL('dashboard/publish', EXAMPLES));
  let server, pages;
  beforeEach(async () => { [server, pages] = [await Development.start(), new Pages()]; });
  afterEach(async () => {
    await pages.close();
    await server.stop();
  });

  async function publish(...environment) {
    const program = new Program('env', `TAUT_URL=${server.origin}`, ...environment, script);
    return { code: await program.end(), output: program.output };
  }
  const publishes = async () => assert.deepEqual(await publish(), { code: 0, output: '' });
  const open = (settings) => pages.open(`${new URL('dashboard/index.html', EXAMPLES)}?server=ws://127.0.0.1:${server.port}`, settings);
  const says = (page, text) => page.getByRole('status').getByText(text, { exact: true }).waitFor();

  test('a_page_shows_what_the_script_publishes_and_a_newcomer_sees_it_at_once', async () => {
    const page = await open();
    await says(page, 'Connected, no figures yet');
    await publishes();
    await says(page, 'Live');
    await page.getByRole('heading', { name: hostname(), exact: true }).waitFor();
    const [, kilobytes] = /^MemTotal:\s+(\d+) kB/m.exec(await readFile('/proc/meminfo', 'utf8'));
    await page.getByText(`of ${(kilobytes / 1024 / 1024).toFixed(1)} GiB`, { exact: true }).waitFor();
    await page.getByText(/^on \d+ cores?$/).waitFor();
    const newcomer = await open();
    await says(newcomer, 'Live');
    for (const id of ['#load', '#used', '#time']) assert.equal(await newcomer.locator(id).textContent(), await page.locator(id).textContent());
  });

  test('a_page_comes_back_after_a_restart', async () => {
    const page = await open();
    await publishes();
    await says(page, 'Live');
    await server.stop();
    await says(page, 'The server is away. Trying again …');
    server = await Development.start({ listen: `127.0.0.1:${server.port}` });
    await says(page, 'Live');
  });

  test('a_page_tries_again_and_again_and_later_each_time', async () => {
    const page = await open({ clock: true });
    await says(page, 'Connected, no figures yet');
    await page.evaluate(() => {
      globalThis.attempts = [];
      Math.random = () => 1;
      globalThis.WebSocket = class extends globalThis.WebSocket {
        constructor(url) { super(url); globalThis.attempts.push(performance.now()); }
      };
    });
    await server.stop();
    const attempts = () => page.evaluate(() => globalThis.attempts);
    while ((await attempts()).length < 10) await page.clock.runFor(1000);
    const times = await attempts();
    const pauses = times.slice(1).map((time, index) => time - times[index]);
    assert.ok(pauses[2] > pauses[0] && pauses[8] >= 30_000 && pauses[8] < 40_000, `${pauses}`);
    server = await Development.start({ listen: `127.0.0.1:${server.port}` });
  });

  test('figures_that_are_old_are_called_so', async () => {
    const page = await open({ clock: true });
    await publishes();
    await says(page, 'Live');
    await page.clock.fastForward(180_000);
    await says(page, 'Connected, but the figures are old');
  });

  test('a_wrong_secret_is_an_error_of_the_script_and_a_wrong_key_one_of_the_page', async () => {
    const { code, output } = await publish('TAUT_SECRET=wrong');
    assert.equal(code, 22, output);
    assert.match(output, /401/);
    const page = await pages.open(`${new URL('dashboard/index.html', EXAMPLES)}?server=ws://127.0.0.1:${server.port}&key=wrong`);
    await says(page, 'The server refuses this page: is the key right?');
  });

  test('it_fits_and_axe_finds_nothing', async () => {
    for (const look of LOOKS) {
      const page = await open({ ...look, clock: true });
      await publishes();
      await says(page, 'Live');
      await looksRight(page, 'dashboard', look);
      await page.clock.fastForward(180_000);
      await says(page, 'Connected, but the figures are old');
      await looksRight(page, 'dashboard-old', look);
    }
  });
});

describe('the example shell', { timeout: 120_000 }, () => {
  const folder = fileURLToPath(new URL('shell/', EXAMPLES));

  async function played(story, environment = ['SECRET=app-secret', 'TOKEN=t0ken']) {
    const backend = await Program.onFreePort((port) => ['env', ...environment, '/bin/busybox', 'httpd', '-f', '-p', `127.0.0.1:${port}`, '-h', join(folder, 'www')]);
    const url = `http://127.0.0.1:${backend.port}/cgi-bin/echo`;
    const server = await Server.start([{ path: '/echo', backend: url }]);
    try {
      await story(server, url);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await backend.stop();
    }
  }

  test('a_wrong_token_gets_401_and_the_right_one_an_echo_and_the_time', () => played(async (server) => {
    for (const query of ['', '?token=', '?token=wrong', '?token=t0ken&token=t0ken']) {
      const { status, body } = await server.refused(`/echo${query}`);
      assert.deepEqual([status, body], [401, 'unknown token'], query);
    }
    const client = await server.connect('/echo?token=t0ken');
    assert.equal(await client.next(), 'hello');
    for (const text of ['Is anybody there?', '$(id) `id` "quoted" \\n %s 👋', 'x'.repeat(60_000)]) {
      client.send(text);
      assert.equal(await client.next(), text);
    }
    const { time } = await client.json();
    assert.ok(Math.abs(Date.now() - Date.parse(time)) < 60_000, time);
    client.close(1000);
    await client.end();
  }));

  test('a_request_that_is_not_signed_gets_403', () => played(async (server, url) => {
    for (const headers of [{}, { 'webhook-id': 'a', 'webhook-timestamp': '1', 'webhook-signature': 'v1,x' }]) {
      const response = await fetch(url, { method: 'POST', headers, body: '{"event":"open","request":{"query":{"token":"t0ken"}}}' });
      assert.deepEqual([response.status, await response.text()], [403, 'not signed']);
    }
  }));

  test('a_script_with_another_secret_lets_nobody_in', () => played(async (server) => {
    assert.equal((await server.refused('/echo?token=t0ken')).status, 403);
  }, ['SECRET=another', 'TOKEN=t0ken']));

  test('a_script_that_fails_lets_nobody_in', () => played(async (server) => {
    assert.equal((await server.refused('/echo?token=t0ken')).status, 502);
  }, ['PATH=/nowhere']));

  test('its_configuration_is_valid', async () => {
    const program = new Program(process.env.TAUT_BIN, 'serve', '--check', '--config', join(folder, 'taut.toml'));
    assert.equal(await program.end(), 0, program.output);
  });
});
