/** The examples dashboard, shell, flask and notes, as their pages and scripts are: the pages in Chromium. */
import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from '../browser/chromium.js';
import { fits, isAccessible } from '../browser/layout.js';
import { Server as Development } from '../browser/server.js';
import { Proxy } from '../cluster/proxy.js';
import { Program } from '../peers/programs.js';
import { PROXIES } from './grip/proxies.js';
import { subscribed } from './grip/subscribed.js';
import { Client, Server, refused } from './server.js';

const PATIENCE = 30_000;
const EXAMPLES = new URL('../../examples/', import.meta.url);
/** Colours do not depend on the size. */
const LOOKS = [
  { colorScheme: 'light', viewport: { width: 375, height: 720 } },
  { colorScheme: 'dark', viewport: { width: 1280, height: 800 } },
];

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

describe('the example flask', { timeout: 180_000 }, () => {
  const folder = fileURLToPath(new URL('flask/', EXAMPLES));

  /** Plays a story on the program and what stands in front of it. */
  async function played(start, story) {
    let proxy, program;
    try {
      program = await Program.onFreePort(async (port) => {
        await proxy?.stop();
        proxy = await start(port);
        return ['env', '-C', folder, `GRIP_URL=${proxy.gripUrl()}`, `TAUT_URL=${proxy.url}`, 'PYTHONDONTWRITEBYTECODE=1', process.env.TAUT_PYTHON, '-m', 'flask', 'run', '-p', String(port)];
      });
      await proxy.ready();
      await story(proxy, `http://127.0.0.1:${program.port}`);
    } catch (error) {
      throw new Error(`${program?.output}`, { cause: error });
    } finally {
      await proxy?.stop();
      await program?.stop();
    }
  }

  for (const { name, start } of PROXIES) {
    test(`two_clients_talk_and_others_are_refused_before_the_upgrade_behind_${name}`, () => played(start, async (proxy, url) => {
      for (const query of ['', '?token=', '?token=stranger']) {
        const { status, body } = await refused(`${proxy.url}/chat/1${query}`);
        assert.deepEqual([status, body], [401, 'unknown token'], query);
      }
      const unsigned = await fetch(`${url}/chat/1?token=token-ann`, { method: 'POST', body: 'OPEN\r\n' });
      assert.deepEqual([unsigned.status, await unsigned.text()], [403, 'not signed']);
      const isMark = (text) => text.startsWith('mark '); // of `subscribed`
      const next = async (client) => {
        for (;;) {
          const text = await client.next();
          if (!isMark(text)) return JSON.parse(text);
        }
      };
      const enter = async (user, room = 1) => {
        const client = new Client(`${proxy.url}/chat/${room}?token=token-${user}`);
        await client.opened();
        assert.deepEqual(await next(client), { welcome: user });
        await subscribed(proxy, `room-${room}`, client);
        return client;
      };
      const ann = await enter('ann');
      const other = await enter('dan', 2);
      const bob = await enter('bob');
      assert.deepEqual(await next(ann), { joined: 'bob' });
      ann.send('hello, "wörld" 👋');
      for (const client of [ann, bob]) assert.deepEqual(await next(client), { from: 'ann', text: 'hello, "wörld" 👋' });
      bob.close(1000, 'enough');
      assert.deepEqual(await next(ann), { left: 'bob' });
      const cid = await enter('cid');
      assert.deepEqual(await next(ann), { joined: 'cid' });
      cid.terminate();
      assert.deepEqual(await next(ann), { left: 'cid' });
      assert.deepEqual(other.messages.filter((text) => !isMark(text)), []);
      for (const client of [ann, other]) client.terminate();
    }));
  }

  const taut = PROXIES.find(({ name }) => name === 'taut');
  if (taut) {
    test('two_tabs_talk_and_the_page_says_who_is_not_let_in', () => played(taut.start, async (_, url) => {
      const pages = new Pages();
      const join = async (page, token) => {
        await page.getByLabel('Token').fill(token);
        await page.getByRole('button', { name: 'Join' }).click();
      };
      const says = (page, text) => page.getByRole('status').getByText(text, { exact: true }).waitFor();
      const hears = (page, text) => page.getByRole('log').getByText(text, { exact: true }).waitFor();
      const ann = await pages.open(url);
      await join(ann, 'stranger');
      await says(ann, 'Not let in: check the token.');
      await join(ann, 'token-ann');
      await says(ann, 'You are ann, in room 1.');
      const bob = await pages.open(url);
      await join(bob, 'token-bob');
      await hears(ann, 'bob joined.');
      await ann.getByLabel('Message', { exact: true }).fill('Hello, <b>Bob</b>! 👋');
      await ann.keyboard.press('Enter');
      for (const page of [ann, bob]) await hears(page, 'ann: Hello, <b>Bob</b>! 👋');
      await bob.context().close();
      await hears(ann, 'bob left.');
      for (const look of LOOKS) {
        const page = await pages.open(url, look);
        await looksRight(page, 'flask-join', look);
        await join(page, 'token-eve');
        await says(page, 'You are eve, in room 1.');
        await page.getByLabel('Message', { exact: true }).fill('x'.repeat(300));
        await page.keyboard.press('Enter');
        await hears(page, `eve: ${'x'.repeat(300)}`);
        await looksRight(page, 'flask', look);
        await page.context().close();
      }
      await pages.close();
    }));
  }

  test('its_configuration_is_valid_and_it_names_the_versions_that_are_tested', async () => {
    const program = new Program(process.env.TAUT_BIN, 'serve', '--check', '--config', join(folder, 'taut.toml'));
    assert.equal(await program.end(), 0, program.output);
    const tested = (await readFile(new URL('requirements.txt', import.meta.url), 'utf8')).split('\n');
    for (const line of (await readFile(join(folder, 'requirements.txt'), 'utf8')).split('\n')) {
      if (line.includes('==')) assert.ok(tested.includes(line), line);
    }
  });
});

describe('the example notes', { timeout: 300_000 }, () => {
  let folder, server, site, pages;
  let network, distant; // the same page, behind a network that can be cut
  before(async () => {
    // Below this folder, so that the packages are found.
    folder = await mkdtemp(fileURLToPath(new URL('.blocks-', import.meta.url)));
    await cp(new URL('notes/', EXAMPLES), folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
  });
  after(() => rm(folder, { recursive: true }));
  beforeEach(async () => {
    server = await Development.start();
    network = await Proxy.start(() => server.port);
    [site, distant] = await Promise.all([server, network].map(({ port }) => (
      Program.listening('env', 'PORT=0', `TAUT_PORT=${port}`, process.execPath, join(folder, 'server.js')))));
    pages = new Pages();
  });
  afterEach(async () => {
    await pages.close();
    await Promise.all([site.stop(), distant.stop(), network.stop()]);
    await server.stop();
  });

  const area = (page) => page.getByLabel('A note');
  const says = (page, text, timeout = PATIENCE) => page.getByRole('status').getByText(text, { exact: true }).waitFor({ timeout });
  async function open(name, { at = site, ...settings } = {}) {
    const page = await pages.open(at.url, settings);
    await says(page, 'Up to date');
    await page.getByLabel('You are').fill(name);
    await page.getByLabel('You are').press('Enter');
    await page.getByRole('listitem').getByText(name, { exact: true }).waitFor();
    await says(page, 'Up to date');
    return page;
  }

  /** Waits until the pages have the same text, of so many units, and gives it. */
  async function converge(length, ...all) {
    const texts = await Promise.all(all.map(async (page) => {
      await page.waitForFunction((expected) => document.getElementById('note').value.length === expected, length);
      return area(page).inputValue();
    }));
    for (const text of texts) assert.equal(text, texts[0]);
    return texts[0];
  }

  const only = (text, letters) => [...text].filter((letter) => letters.includes(letter)).join('');

  test('two_tabs_type_at_once_and_a_third_has_the_text', async () => {
    const [ann, ben] = [await open('Ann'), await open('Ben')];
    for (const page of [ann, ben]) assert.deepEqual((await page.getByRole('listitem').allTextContents()).sort(), ['Ann', 'Ben']);
    const [first, second] = ['abcdefghijklm'.repeat(3), 'NOPQRSTUVWXYZ'.repeat(3)];
    await Promise.all([area(ann).pressSequentially(first, { delay: 5 }), area(ben).pressSequentially(second, { delay: 5 })]);
    const text = await converge(first.length + second.length, ann, ben);
    assert.deepEqual([only(text, first), only(text, second)], [first, second]);
    const cid = await open('Cid');
    assert.equal(await area(cid).inputValue(), text);
    await area(cid).fill(`${text}👋`);
    await converge(text.length + 2, ann, ben, cid);
    await area(cid).fill(`${text}👌`); // the same first half of the character
    await ann.waitForFunction((expected) => document.getElementById('note').value === expected, `${text}👌`);
    await ann.context().close();
    await cid.waitForFunction(() => document.querySelectorAll('#people li').length === 2);
  });

  test('a_text_of_many_events_arrives_whole', async () => {
    const [ann, ben] = [await open('Ann'), await open('Ben')];
    const long = Array.from({ length: 4000 }, (_, line) => `line ${line}`).join('\n');
    await area(ann).evaluate((element, text) => {
      element.setRangeText(text);
      element.dispatchEvent(new InputEvent('input'));
    }, long);
    // Comes while it is being sent.
    const cid = await pages.open(site.url);
    await converge(long.length, ann, ben, cid);
  });

  test('who_was_offline_and_wrote_meanwhile_comes_back_and_all_have_the_same', async () => {
    const [ann, ben] = [await open('Ann'), await open('Ben', { at: distant })];
    await area(ann).fill('Shopping: ');
    await converge(10, ann, ben);
    network.cut();
    await ben.context().setOffline(true);
    await says(ben, 'Offline. Your changes are sent later.');
    await area(ben).press('End');
    await area(ben).pressSequentially('bread');
    await area(ann).press('End');
    await area(ann).pressSequentially('MILK');
    assert.equal(await area(ann).inputValue(), 'Shopping: MILK');
    network.heal();
    await ben.context().setOffline(false);
    const text = await converge(19, ann, ben);
    assert.deepEqual([text.slice(0, 10), only(text.slice(10), 'bread'), only(text, 'MILK')], ['Shopping: ', 'bread', 'MILK']);
  });

  test('all_write_while_the_server_is_away_and_have_the_same_when_it_is_back', async () => {
    const all = [await open('Ann'), await open('Ben'), await open('Cid')];
    await area(all[0]).fill('Shopping: ');
    await converge(10, ...all);
    await server.stop();
    for (const [index, page] of all.entries()) {
      await says(page, 'Offline. Your changes are sent later.');
      await area(page).press('End');
      await area(page).pressSequentially('xyz'[index].repeat(5));
    }
    server = await Development.start({ listen: `127.0.0.1:${server.port}` });
    // pusher-js gives a failed attempt up to 15 s before it makes the next one.
    for (const page of all) await says(page, 'Up to date', 45_000);
    await converge(25, ...all);
  });

  test('only_its_own_channels_are_signed', async () => {
    const authorize = (channel_name, socket_id = '1.2') => fetch(`${site.url}/auth`, { method: 'POST', body: new URLSearchParams({ socket_id, channel_name, name: 'Ann' }) });
    assert.equal((await authorize('presence-note-first')).status, 200);
    for (const [channel, socket] of [['private-other'], ['presence-note-first', '1.2:presence-x'], ['presence-note-']]) {
      assert.equal((await authorize(channel, socket)).status, 403);
    }
    for (const path of ['/server.js', '/lib0/../../package.json', '/package.json']) assert.equal((await fetch(site.url + path)).status, 404);
  });

  test('it_names_the_versions_that_are_tested', async () => {
    const read = async (url) => JSON.parse(await readFile(new URL(url, import.meta.url), 'utf8'));
    const { dependencies } = await read('../../examples/notes/package.json');
    const { devDependencies } = await read('package.json');
    for (const [name, version] of Object.entries(dependencies)) assert.equal(devDependencies[name], version, name);
  });

  test('it_fits_and_axe_finds_nothing', async () => {
    await area(await open('Ann')).fill(`Shopping\n\n- bread\n- milk\n- ${'x'.repeat(300)}\n`);
    for (const [index, look] of LOOKS.entries()) {
      const page = await open(`${index} ${'W'.repeat(38)}`, { ...look, at: distant });
      await page.waitForFunction(() => document.querySelectorAll('#people li').length === 2);
      await looksRight(page, 'notes', look);
      network.cut();
      await says(page, 'Offline. Your changes are sent later.');
      await looksRight(page, 'notes-offline', look);
      await page.context().close();
      network.heal();
    }
  });
});
