/** The chat page of `taut serve` in Chromium: two tabs, a restart of the server, a wrong key, hostile text. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { CLIENTS, launch, Tab } from './chromium.js';
import { Server } from './server.js';

const TEN_MINUTES = 600_000;

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

for (const client of CLIENTS) {
  describe(`the chat page with ${client.name}`, { timeout: 300_000 }, () => {
    let server;
    let tabs = [];
    const open = async (settings) => {
      const tab = await Tab.open(browser, server.origin, client, settings);
      tabs.push(tab);
      return tab;
    };

    beforeEach(async () => { server = await Server.start(); });
    afterEach(async () => {
      await Promise.all(tabs.map((tab) => tab.close()));
      tabs = [];
      await server.stop();
    });

    test('what_one_tab_sends_the_other_shows', async () => {
      const [ann, ben] = [await open({ name: 'Ann' }), await open({ name: 'Ben' })];
      await Promise.all([ann.reaches('connected'), ben.reaches('connected')]);
      await ann.send('Hello, Ben! 👋 “ß” \\ \u2028');
      await ben.hears('Hello, Ben! 👋 “ß” \\ \u2028'.trim());
      await ann.sees('Hello, Ben!');
      await ben.send('Hello, Ann!');
      await ann.hears('Hello, Ann!');
      assert.equal(await ann.page.locator('.message').count(), 2, 'no message is shown twice');
      assert.equal(await ann.page.locator('.message:not(.mine) .name').textContent(), 'Ben');
      assert.match(await ann.page.locator('#socket').textContent(), /^\d+\.\d+$/);
      const [socket, ...more] = await ann.sockets();
      assert.ok(socket.includes(client.query), `${socket} should come from ${client.name}`);
      assert.deepEqual(more, [], 'one connection is enough');
    });

    test('both_tabs_come_back_by_themselves_when_the_server_is_restarted', async (t) => {
      const [ann, ben] = [await open({ name: 'Ann' }), await open({ name: 'Ben' })];
      await Promise.all([ann.reaches('connected'), ben.reaches('connected')]);
      await ann.send('before');
      await ben.hears('before');

      assert.equal(await server.stop(), 0, 'SIGTERM ends the server in order');
      await Promise.all([ann.leaves('connected'), ben.leaves('connected')]);
      server = await Server.start({ listen: `127.0.0.1:${server.port}` });
      const started = performance.now();
      // pusher-js gives a failed attempt up to 15 s before it makes the next one.
      await Promise.all([ann.reaches('connected', 45_000), ben.reaches('connected', 45_000)]);
      t.diagnostic(`both tabs were back ${Math.round(performance.now() - started)} ms after the server`);
      await ben.send('after');
      await ann.hears('after');
      await ann.send('and back');
      await ben.hears('and back');
      assert.equal(await ann.page.locator('#connections').textContent(), '2');
      assert.equal(await ann.page.locator('.note').count(), 1);
    });

    test('html_in_a_message_is_shown_as_text', async () => {
      const [eve, ben] = [await open({ name: '<i>Eve</i>' }), await open({ name: 'Ben' })];
      await Promise.all([eve.reaches('connected'), ben.reaches('connected')]);
      const text = '<img src=x onerror="window.harmed = true"><b>bold</b><script>window.harmed = true</script>';
      await eve.send(text);
      await ben.hears(text);
      await eve.sees(text);
      for (const { page } of [eve, ben]) {
        assert.equal(await page.locator('#messages :is(img, b, i, script)').count(), 0);
        assert.equal(await page.evaluate(() => window.harmed), undefined);
      }
      assert.equal(await ben.page.locator('.message .name').textContent(), '<i>Eve</i>');
    });

    test('a_wrong_key_is_refused_and_never_tried_again', async () => {
      const tab = await open({ key: 'no-such-key', clock: true });
      await tab.reaches('refused');
      assert.match(await tab.page.locator('#state').textContent(), /4001/);
      await tab.page.clock.runFor(TEN_MINUTES);
      assert.equal((await tab.sockets()).length, 1, 'no second attempt within ten minutes');
      assert.ok(await tab.page.locator('#send').isDisabled());
    });

    test('a_server_that_is_away_is_tried_again_and_again', async () => {
      const tab = await open({ clock: true });
      await tab.reaches('connected');
      await server.stop();
      await tab.leaves('connected');
      // The page's clock is the test's: let it run until the page has knocked three times more.
      for (let minutes = 0; (await tab.sockets()).length < 4; minutes += 1) {
        assert.ok(minutes < 10, 'three attempts should take less than ten minutes');
        await tab.page.clock.runFor(TEN_MINUTES / 10);
      }
      assert.ok(await tab.page.locator('#send').isDisabled());
    });
  });
}

describe('the chat page itself', { timeout: 300_000 }, () => {
  const [own] = CLIENTS;
  let server;
  let tab;
  beforeEach(async () => { server = await Server.start(); });
  afterEach(async () => {
    await tab?.close();
    await server.stop();
  });

  test('a_message_that_is_too_long_is_not_sent_and_not_lost', async () => {
    tab = await Tab.open(browser, server.origin, own);
    await tab.reaches('connected');
    await tab.send('ä'.repeat(513));
    await tab.page.getByText('2 bytes too long').waitFor();
    assert.equal(await tab.page.getByLabel('Message', { exact: true }).inputValue(), 'ä'.repeat(513));
    assert.equal(await tab.page.locator('.message').count(), 0);
    await tab.send('ä'.repeat(512));
    await tab.sees('ä'.repeat(512));
  });

  test('what_could_not_be_sent_says_so_and_can_be_sent_again', async () => {
    tab = await Tab.open(browser, server.origin, own);
    await tab.reaches('connected');
    await tab.page.route('**/chat/messages', (route) => route.fulfill({ status: 503, json: { error: 'too busy', code: 503 } }));
    await tab.send('stubborn');
    await tab.page.getByText('Not sent: Too busy.').waitFor();
    await tab.page.unroute('**/chat/messages');
    await tab.page.getByRole('button', { name: 'Try again' }).click();
    await tab.sees('stubborn');
  });

  test('only_the_last_two_hundred_messages_are_kept', async () => {
    tab = await Tab.open(browser, server.origin, own);
    await tab.reaches('connected');
    await tab.page.evaluate(() => {
      const list = document.querySelector('#messages');
      for (let n = 0; n < 200; n += 1) list.append(Object.assign(document.createElement('li'), { className: 'message' }));
    });
    await tab.send('the newest');
    await tab.sees('the newest');
    assert.equal(await tab.page.locator('#messages > li').count(), 200);
  });

  test('the_chosen_name_outlives_a_reload', async () => {
    tab = await Tab.open(browser, server.origin, own);
    const name = tab.page.getByLabel('You are');
    assert.match(await name.inputValue(), /^\w+ \w+$/);
    await name.fill('Zoë');
    await name.press('Enter');
    await tab.page.reload();
    assert.equal(await name.inputValue(), 'Zoë');
  });

  test('a_page_whose_server_has_apps_of_its_own_by_now_says_that_there_is_no_chat', async () => {
    tab = await Tab.open(browser, server.origin, own);
    await tab.reaches('connected');
    await tab.page.route('**/chat/config', (route) => route.fulfill({ status: 404, json: { error: 'There is nothing at this path.' } }));
    await tab.page.reload();
    await tab.reaches('unavailable');
    await tab.page.getByRole('heading', { name: 'This server has no chat' }).waitFor();
    assert.deepEqual(await tab.sockets(), []);
  });

  test('everything_can_be_done_with_the_keyboard', async () => {
    tab = await Tab.open(browser, server.origin, own);
    await tab.reaches('connected');
    const { keyboard } = tab.page;
    await keyboard.press('Tab');
    await keyboard.press('Enter'); // the link that skips to the text field
    await keyboard.type('one');
    await keyboard.press('Shift+Enter');
    await keyboard.type('two');
    await keyboard.press('Enter');
    await tab.page.locator('.message.mine.arrived .bubble').waitFor();
    assert.equal(await tab.page.locator('.message .bubble').textContent(), 'one\ntwo');
  });
});
