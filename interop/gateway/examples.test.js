/** The example dashboard, as its page and script are: the page in Chromium. */
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
