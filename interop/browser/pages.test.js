/** The pages at every size and in both colour schemes: nothing stands out sideways, and axe-core finds nothing. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CLIENTS, launch, Tab } from './chromium.js';
import { publish } from './console.js';
import { fits, isAccessible } from './layout.js';
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

describe('the chat page', { timeout: 180_000 }, () => {
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
