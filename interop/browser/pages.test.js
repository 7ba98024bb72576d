/** Every page at every size and in both colour schemes: nothing stands out sideways, and axe-core finds nothing. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CLIENTS, launch, Tab } from './chromium.js';
import { connect, connected, Console, live, publish, subscribed } from './console.js';
import { barriers, fits, isAccessible, sideways } from './layout.js';
import { Server } from './server.js';

const [own] = CLIENTS;
const SIZES = [[320, 640], [375, 720], [740, 340], [1280, 800]];
const LONG = [
  'x'.repeat(3000),
  `https://example.com/${'a-very-long-path-without-any-break/'.repeat(20)}?token=${'0123456789abcdef'.repeat(20)}`,
  '👩‍👩‍👧‍👦'.repeat(120),
  'مرحبا-بالعالم'.repeat(80),
  'ﷺ'.repeat(100),
];
const NAMES = ['W'.repeat(40), 'م'.repeat(40), '👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦', 'Ann'];

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

describe('the chat page', { timeout: 360_000 }, () => {
  let server;
  before(async () => { server = await Server.start(); });
  after(() => server.stop());

  for (const [width, height] of SIZES) {
    test(`what_people_paste_fits_into_${width}_by_${height}_px`, async () => {
      const tab = await Tab.open(browser, server.origin, own, { name: NAMES[0], viewport: { width, height } });
      const { page } = tab;
      await tab.reaches('connected');
      await fits(page, 'empty');
      for (const [index, text] of LONG.entries()) {
        await publish(server, 'chat', 'message', JSON.stringify({ name: NAMES[index % NAMES.length], text, id: `long-${width}-${index}` }));
        await page.locator(`[data-id="long-${width}-${index}"]`).waitFor();
        await fits(page, `message ${index}`);
        await page.getByLabel('Message', { exact: true }).fill(text);
        await fits(page, `writing ${index}`);
      }
      await tab.send('y'.repeat(1024));
      await tab.sees('y'.repeat(1024));
      await tab.send('hi');
      await tab.sees('hi');
      await fits(page, 'mine');
      await page.locator('#wire summary').click();
      await fits(page, 'how it works');
      // What is written goes with the phone's keyboard open, too.
      const send = await page.getByRole('button', { name: 'Send' }).boundingBox();
      assert.ok(send.x + send.width <= width, 'the button is within the window');
      await tab.close();
    });
  }

  test('a_number_and_its_unit_stay_on_one_line', async () => {
    const tab = await Tab.open(browser, server.origin, own, { viewport: { width: 320, height: 640 } });
    await tab.reaches('connected');
    for (const text of ['a', 'hi', 'ok then']) {
      await tab.send(text);
      await tab.sees(text);
    }
    const lines = await tab.page.locator('.arrived .fate').evaluateAll((fates) => fates.map((fate) => {
      const range = document.createRange();
      range.selectNodeContents(fate);
      return new Set([...range.getClientRects()].map(({ top }) => top)).size;
    }));
    assert.deepEqual(lines, [1, 1, 1]);
    await tab.close();
  });

  for (const colorScheme of ['light', 'dark']) {
    test(`axe_finds_nothing_in_the_chat_when_it_is_${colorScheme}`, async () => {
      const [ann, ben] = await Promise.all(['Ann', 'Ben'].map((name) => Tab.open(browser, server.origin, own, { name, colorScheme, reducedMotion: 'reduce' })));
      await Promise.all([ann.reaches('connected'), ben.reaches('connected')]);
      await isAccessible(ann.page, 'empty');
      await ann.send('Hello!');
      await ben.hears('Hello!');
      await ann.sees('Hello!');
      await ben.send('Hello back!');
      await ann.hears('Hello back!');
      await ann.page.route('**/chat/messages', (route) => route.fulfill({ status: 503, json: { error: 'too busy', code: 503 } }));
      await ann.send('fails');
      await ann.page.getByRole('button', { name: 'Try again' }).waitFor();
      await ann.page.locator('#wire summary').click();
      await isAccessible(ann.page, 'with messages, one of which failed');
      await Promise.all([ann.close(), ben.close()]);
    });
  }
});

describe('the page of a server with its own apps', { timeout: 180_000 }, () => {
  let server;
  before(async () => { server = await Server.start({ options: ['--app', '1:app-key:app-secret'] }); });
  after(() => server.stop());

  for (const colorScheme of ['light', 'dark']) {
    test(`it_fits_and_axe_finds_nothing_when_it_is_${colorScheme}`, async () => {
      for (const [width, height] of SIZES) {
        const context = await browser.newContext({ colorScheme, viewport: { width, height } });
        const page = await context.newPage();
        await page.goto(server.origin);
        await page.getByRole('heading', { name: 'This is a Taut server' }).waitFor();
        await fits(page, `${width} px`);
        await isAccessible(page, `${width} px`);
        await context.close();
      }
    });
  }
});

describe('the views of the console', { timeout: 480_000 }, () => {
  let server;
  const clients = [];
  before(async () => {
    server = await Server.start();
    for (const user of ['ann', 'w'.repeat(120)]) {
      const client = connect(server, user);
      clients.push(client);
      await connected(client);
      for (const name of ['presence-room', `presence-${'long-name-'.repeat(14)}`, 'cache-scores']) await subscribed(client.subscribe(name));
    }
    await publish(server, 'cache-scores', 'score', JSON.stringify({ text: 'z'.repeat(900) }));
  });
  after(async () => {
    for (const client of clients) client.disconnect();
    await server.stop();
  });

  let visits = 0;

  /** Shows one view after the other, with something in each. */
  async function visit(console, check) {
    const { page, sees } = console;
    await live(page);
    clients[0].subscribe(`private-${(visits += 1)}-no`); // each name is asked for once
    await publish(server, 'x'.repeat(150), 'y'.repeat(150), JSON.stringify({ z: 'z'.repeat(900) }));
    await page.locator('#q-99', { hasText: /^< \d/ }).waitFor();
    for (const summary of await page.locator('#trouble summary').all()) await summary.click();
    await page.locator('#t-reasons li').first().waitFor();
    await check('overview');
    await page.getByRole('link', { name: 'Events', exact: true }).click();
    await check('events');
    await (await sees('Published', 'x'.repeat(150))).click();
    await check('an event');
    await page.locator('.event details[open] summary, .event[open] summary').first().click();
    await page.locator('#publish').evaluate((form) => { form.open = true; });
    await page.getByLabel('Data').fill('{"oops"');
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.getByRole('button', { name: 'Members', exact: true }).click();
    await check('publishing, and a pause');
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByRole('link', { name: 'Channels', exact: true }).click();
    await page.getByRole('button', { name: 'long-name' }).waitFor();
    await check('channels');
    for (const name of ['long-name', 'cache-scores']) {
      await page.getByRole('button', { name }).click();
      await page.locator('#channel-detail h3', { hasText: name }).waitFor();
      await check(`the channel ${name}`);
    }
    await page.getByRole('link', { name: 'Connections', exact: true }).click();
    await page.getByRole('row', { name: clients[0].connection.socket_id }).waitFor();
    await check('connections');
    await page.getByRole('button', { name: `Disconnect ${clients[0].connection.socket_id}` }).click();
    await page.getByRole('dialog').waitFor();
    await check('a question');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByLabel('Filter connections').fill('nobody');
    await check('nothing found');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in to the console' }).waitFor();
    await check('login');
  }

  /** What is found in the views, by where it is. */
  async function findings(console, look) {
    const found = {};
    await visit(console, async (what) => {
      const parts = await look(console.page);
      if (parts.length) found[what] = parts;
    });
    await console.close();
    return found;
  }

  const open = async (settings) => Console.open(browser, await server.consoleLink(), { mayFail: true, reducedMotion: 'reduce', ...settings });

  for (const [width, height] of SIZES) {
    test(`nothing_stands_out_in_${width}_by_${height}_px`, async () => {
      assert.deepEqual(await findings(await open({ viewport: { width, height } }), sideways), {});
    });
  }

  // Colours do not depend on the size.
  for (const [colorScheme, width, height] of [['light', 375, 720], ['dark', 1280, 800]]) {
    test(`axe_finds_nothing_in_${width}_px_when_it_is_${colorScheme}`, async () => {
      assert.deepEqual(await findings(await open({ viewport: { width, height }, colorScheme }), barriers), {});
    });
  }

  test('a_phone_that_lies_on_its_side_shows_rows', async () => {
    const console = await open({ viewport: { width: 740, height: 340 } });
    const { page } = console;
    await live(page);
    for (let n = 0; n < 8; n += 1) await publish(server, 'news', `event-${n}`, '1');
    await page.getByRole('link', { name: 'Events', exact: true }).click();
    await console.sees('Published', 'event-7');
    const inView = (selector) => page.locator(selector).evaluateAll((rows) => rows.filter((row) => {
      const { left, top, bottom } = row.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight && row.contains(document.elementFromPoint(left + 5, (top + bottom) / 2));
    }).length);
    assert.ok(await inView('.event summary') >= 2, 'events');
    await page.getByRole('link', { name: 'Channels', exact: true }).click();
    await page.locator('#channel-rows tbody tr').first().waitFor();
    assert.ok(await inView('#channel-rows tbody tr') >= 2, 'channels');
    await page.getByRole('link', { name: 'Connections', exact: true }).click();
    await page.locator('#connection-rows tbody tr').first().waitFor();
    assert.ok(await inView('#connection-rows tbody th') >= 1, 'connections');
    await console.close();
  });
});
