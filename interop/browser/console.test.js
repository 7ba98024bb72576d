/** The console of `taut serve` in Chromium, while real clients come, talk and go. */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { launch } from './chromium.js';
import { connect, connected, Console, live, publish, subscribed } from './console.js';
import { Server } from './server.js';

const PASSWORD = 'correct horse battery';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

describe('the console', { timeout: 300_000 }, () => {
  let server;
  let console;
  let clients;
  beforeEach(async () => {
    clients = [];
    server = await Server.start();
  });
  afterEach(async () => {
    for (const client of clients) client.disconnect();
    await console?.close();
    console = undefined;
    await server.stop();
  });
  const open = async (view, settings) => (console = await Console.open(browser, await server.consoleLink(), { view, ...settings }));
  const client = async (user) => {
    const pusher = connect(server, user);
    clients.push(pusher);
    await connected(pusher);
    return pusher;
  };

  test('the_nodes_of_a_cluster_are_shown_and_whether_the_engine_is_there', async () => {
    const answers = {
      state: 'joined',
      engine: { address: 'redis://redis:6379', losses: 0, waiting: 0, lag: 0.00025 },
      nodes: [
        { name: 'web-1', version: '1.2.3', here: true, connections: 1200 },
        { name: '<b>web-2</b>', version: '1.2.3', here: false, connections: 7 },
      ],
    };
    const { page } = await open();
    const card = page.locator('#cluster-card');
    await page.locator('#f-uptime', { hasNotText: '–' }).waitFor();
    assert.ok(await card.isHidden(), 'a node that is alone has no cluster');
    await page.route('**/console/api/overview', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...await response.json(), cluster: answers.state } });
    });
    await page.route('**/console/api/nodes', (route) => route.fulfill({ json: { engine: { ...answers.engine, state: answers.state }, nodes: answers.nodes } }));
    await card.getByText('redis://redis:6379, answers in 250 µs').waitFor();
    await card.getByRole('row', { name: 'web-1 this one 1.2.3 1,200' }).waitFor();
    await card.getByRole('row', { name: '<b>web-2</b> 1.2.3 7' }).waitFor();
    assert.ok(await page.locator('#cluster-hint').isHidden());
    answers.state = 'away';
    answers.engine.losses = 1;
    answers.nodes.pop();
    await card.getByText('lost 1 time').waitFor();
    await card.getByText('this node goes on by itself').waitFor();
    assert.equal(await card.getByRole('row').count(), 2, 'the head and the one that is left');
    await page.unrouteAll({ behavior: 'ignoreErrors' });
    await card.waitFor({ state: 'hidden' });
  });

  test('what_a_client_does_is_shown_the_moment_it_happens', async () => {
    const { page, sees } = await open('events');
    await page.getByRole('heading', { name: 'Listening' }).waitFor();
    // The heading is there before anything can be heard.
    await page.getByText('Live', { exact: true }).waitFor();
    const ann = await client('ann');
    await sees('Connected', ann.connection.socket_id);
    const room = ann.subscribe('presence-room');
    await subscribed(room);
    await sees('Occupied', 'presence-room');
    await sees('Subscribed', ann.connection.socket_id);
    await sees('Member added', 'ann');
    room.trigger('client-typing', { hello: '<b>wörld</b>' });
    const typed = await sees('Client event', 'client-typing');
    assert.ok((await typed.textContent()).includes('<b>wörld</b>'));
    ann.subscribe('private-no');
    await sees('Refused', ann.connection.socket_id);
    ann.unsubscribe('presence-room');
    await sees('Member removed', 'ann');
    await sees('Vacated', 'presence-room');
    ann.disconnect();
    await sees('Disconnected', ann.connection.socket_id ?? '');
    assert.equal(await page.locator('#list b').count(), 0, 'no markup of a client’s');
    assert.match(await page.locator('#event-count').textContent(), /^\d+ events · \d+ shown$/);
  });

  test('an_event_can_be_opened_and_narrows_the_list_to_its_channel', async () => {
    const { page, sees } = await open('events');
    await live(page);
    await publish(server, 'news', 'headline', '{"a":{"b":1}}');
    await publish(server, 'sports', 'goal', '2:1');
    await sees('Published', '2:1');
    const headline = await sees('Published', 'headline');
    await headline.click();
    const opened = page.locator('details[open]');
    assert.equal(await opened.locator('pre').textContent(), '{\n  "a": {\n    "b": 1\n  }\n}');
    assert.match(await opened.locator('.facts').textContent(), /Size13 bytes/);
    await opened.getByRole('button', { name: 'Only this channel' }).click();
    await page.locator('.event', { hasText: 'goal' }).waitFor({ state: 'detached' });
    assert.equal(await page.locator('.event').count(), 1);
    await page.getByLabel('Channel', { exact: true }).first().fill('');
    await sees('Published', 'goal');
    await page.getByLabel('Text', { exact: true }).fill('GOAL');
    assert.equal(await page.locator('.event').count(), 1);
    await page.getByLabel('Text', { exact: true }).fill('');
    await page.getByRole('button', { name: 'Messages' }).click();
    await page.getByRole('heading', { name: 'Nothing matches' }).waitFor();
    assert.equal(await page.locator('.event').count(), 0);
  });

  test('a_pause_holds_the_list_and_clear_empties_it', async () => {
    const { page, sees } = await open('events');
    await live(page);
    await publish(server, 'news', 'one', '1');
    await sees('Published', 'one');
    await page.getByRole('button', { name: 'Pause' }).click();
    await publish(server, 'news', 'two', '2');
    await page.getByText('paused, 1 waiting').waitFor();
    assert.equal(await page.locator('.event', { hasText: 'two' }).count(), 0);
    await page.getByRole('button', { name: 'Resume' }).click();
    await sees('Published', 'two');
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await page.locator('.event').count(), 0);
    assert.equal(await page.locator('#event-count').textContent(), '0 events');
  });

  test('the_list_keeps_only_so_many_rows', async () => {
    const { page, sees } = await open('events');
    await live(page);
    for (let n = 0; n < 450; n += 1) await publish(server, 'news', `event-${n}`, '1');
    await sees('Published', 'event-449');
    assert.equal(await page.locator('.event').count(), 400);
  });

  test('the_form_publishes_to_a_subscriber', async () => {
    const ann = await client('ann');
    const channel = ann.subscribe('news');
    await subscribed(channel);
    const heard = new Promise((resolve) => channel.bind('greeting', resolve));
    // The browser itself writes the 400 at the end to its console.
    const { page, sees } = await open('events', { mayFail: true });
    await live(page);
    const form = page.locator('#publish-form');
    await form.getByLabel('Channel').fill('news');
    await form.getByLabel('Event').fill('greeting');
    await form.getByLabel('Data').fill('{"oops"');
    await page.getByText('Not JSON; sent as plain text').waitFor();
    await form.getByLabel('Data').fill('{"hello":"world"}');
    await page.getByText('Valid JSON · 17 bytes').waitFor();
    await form.getByRole('button', { name: 'Publish' }).click();
    assert.deepEqual(await heard, { hello: 'world' });
    await page.getByText('Published to news.').waitFor();
    await sees('Published', 'greeting');
    await form.getByLabel('Channel').fill('no spaces');
    await form.getByLabel('Data').press('Control+Enter');
    await page.locator('#p-hint.wrong').waitFor();
  });

  test('channels_show_their_members_and_connections_their_channels', async () => {
    const ann = await client('ann');
    await subscribed(ann.subscribe('presence-room'));
    await subscribed(ann.subscribe('cache-scores'));
    await publish(server, 'cache-scores', 'score', '{"home":2}');
    const { page } = await open('channels');
    await page.getByText('2 channels').waitFor();
    await page.getByRole('button', { name: 'presence-room' }).click();
    const detail = page.getByRole('complementary');
    await detail.getByText('ann', { exact: true }).waitFor();
    await detail.getByText('{"name":"Ann"}').waitFor();
    await page.getByRole('button', { name: 'cache-scores' }).click();
    await detail.getByText('"home": 2').waitFor();
    await page.getByLabel('Filter channels').fill('room');
    await page.getByText('1 channel', { exact: true }).waitFor();
    await page.getByRole('link', { name: 'Connections' }).click();
    const row = page.getByRole('row', { name: ann.connection.socket_id });
    for (const text of ['presence-room', 'pusher-js 8.6.0', 'WebSocket', '127.0.0.1']) await row.getByText(text, { exact: true }).waitFor();
    assert.match(await row.locator('[data-name="Connected"]').textContent(), /^\d+\u00a0s$/);
    await page.getByLabel('Filter connections').fill('nobody');
    await page.getByRole('heading', { name: 'Nothing matches' }).waitFor();
  });

  test('members_stand_in_the_order_that_people_expect', async () => {
    for (const user of ['user-10', 'user-9', 'user-2', 'ann']) await subscribed((await client(user)).subscribe('presence-room'));
    const { page } = await open('channels');
    await page.getByRole('button', { name: 'presence-room' }).click();
    const members = page.getByRole('complementary').locator('.members .user');
    await members.nth(3).waitFor();
    assert.deepEqual(await members.allTextContents(), ['ann', 'user-2', 'user-9', 'user-10']);
  });

  test('a_connection_can_be_ended_after_a_question', async () => {
    const [ann, ben] = [await client('ann'), await client('ben')];
    const socket = ann.connection.socket_id;
    const states = [];
    ann.connection.bind('state_change', ({ current }) => states.push(current));
    const ended = new Promise((resolve) => ann.connection.bind('disconnected', resolve));
    const { page } = await open('connections');
    const row = page.getByRole('row', { name: socket });
    const button = page.getByRole('button', { name: `Disconnect ${socket}` });
    await button.click();
    const question = page.getByRole('dialog', { name: 'Disconnect this client?' });
    await question.getByText(socket).waitFor();
    await question.getByRole('button', { name: 'Cancel' }).click();
    await page.getByText('2 connections').waitFor();
    // No key of the views acts below the question.
    await button.press('Enter');
    await page.keyboard.press('1');
    assert.ok(await question.isVisible() && await page.locator('#connections').isVisible());
    await question.getByRole('button', { name: 'Disconnect' }).click();
    await ended;
    await row.waitFor({ state: 'detached' });
    await page.getByText('1 connection', { exact: true }).waitFor();
    assert.deepEqual(states, ['disconnected'], 'it does not come back by itself');
    assert.equal(ben.connection.state, 'connected');
  });

  test('a_row_keeps_its_focus_and_its_place_while_others_come', async () => {
    const ann = await client('ann');
    const { page } = await open('connections');
    const button = page.getByRole('button', { name: `Events of ${ann.connection.socket_id}` });
    await button.focus();
    await client('ben');
    await page.getByText('2 connections').waitFor();
    assert.ok(await button.evaluate((element) => element === document.activeElement));
    await page.keyboard.press('Enter');
    await page.locator('#events:not([hidden])').waitFor();
    assert.equal(await page.locator('#event-text').inputValue(), ann.connection.socket_id);
  });

  test('a_refusal_leads_to_the_events_that_explain_it', async () => {
    const { page, sees } = await open('overview');
    await live(page);
    const ann = await client('ann');
    ann.subscribe('private-no');
    await page.locator('#t-refused', { hasText: /^1$/ }).waitFor();
    await page.getByText('Client requests refused').click();
    await page.getByRole('list', { name: 'Reasons' }).getByRole('button').click();
    await sees('Refused', ann.connection.socket_id);
    assert.equal(await page.locator('.event').count(), 1);
    assert.equal(await page.getByRole('button', { name: 'Connections' }).getAttribute('aria-pressed'), 'false');
    assert.notEqual(await page.locator('#event-text').inputValue(), '');
    // All of them, whatever the reason.
    await page.getByRole('link', { name: 'Overview' }).click();
    await page.getByRole('link', { name: 'Show them in Events' }).click();
    await sees('Refused', ann.connection.socket_id);
    assert.equal(await page.locator('#event-text').inputValue(), '');
  });

  test('escape_empties_a_search_and_shows_everything_again', async () => {
    const ann = await client('ann');
    await subscribed(ann.subscribe('news'));
    const { page } = await open('events');
    await live(page);
    await publish(server, 'news', 'headline', '1');
    await page.locator('.event').first().waitFor();
    for (const [view, label, shown] of [
      ['Events', 'Text', page.locator('.event', { hasText: 'headline' })],
      ['Events', 'Channel', page.locator('.event', { hasText: 'headline' })],
      ['Channels', 'Filter channels', page.getByRole('button', { name: 'news', exact: true })],
      ['Connections', 'Filter connections', page.getByRole('row', { name: ann.connection.socket_id })],
    ]) {
      await page.getByRole('link', { name: view, exact: true }).click();
      await shown.waitFor();
      const field = page.getByRole('searchbox', { name: label, exact: true }).or(page.getByRole('combobox', { name: label, exact: true })).first();
      await field.fill('no such thing');
      await shown.waitFor({ state: 'detached' });
      await field.press('Escape');
      await shown.waitFor();
      assert.equal(await field.inputValue(), '');
    }
  });

  test('the_overview_counts', async () => {
    const ann = await client('ann');
    await subscribed(ann.subscribe('news'));
    const { page } = await open('overview');
    await page.locator('#f-connections', { hasText: /^1$/ }).waitFor();
    await page.locator('#f-subscriptions', { hasText: /^1$/ }).waitFor();
    await publish(server, 'news', 'e', '1');
    await page.locator('#q-99', { hasText: /^< \d/ }).waitFor();
    await page.getByText(/^Taut \d+\.\d+\.\d+ up for$/).waitFor();
    assert.match(await page.locator('#f-uptime').textContent(), /^\d+\u00a0(s|min)$/);
    await page.locator('#plot-messages .line.out[d^="M"]').waitFor({ state: 'attached' });
  });

  test('everything_can_be_reached_with_the_keyboard', async () => {
    const { page, sees } = await open('overview');
    await live(page);
    const { keyboard } = page;
    const shown = (name) => page.locator(`#${name}:not([hidden])`).waitFor();
    for (const [key, view] of [['2', 'events'], ['3', 'channels'], ['4', 'connections'], ['1', 'overview'], ['2', 'events']]) {
      await keyboard.press(key);
      await shown(view);
      assert.equal(await page.locator('nav [aria-current="page"]').textContent(), view[0].toUpperCase() + view.slice(1));
    }
    for (const name of ['one', 'two', 'three']) await publish(server, 'news', name, '{"n":1}');
    await sees('Published', 'three');
    await keyboard.press('/');
    await keyboard.type('news');
    assert.equal(await page.locator('#event-text').inputValue(), 'news');
    await keyboard.press('Escape');
    await keyboard.press('p');
    await page.getByRole('button', { name: 'Resume' }).waitFor();
    await keyboard.press('p');
    await page.locator('.event summary').first().focus();
    await keyboard.press('ArrowDown');
    await keyboard.press('Enter');
    await page.locator('details[open] .name', { hasText: 'two' }).waitFor();
    assert.equal(await page.locator('.event summary[tabindex="0"]').count(), 1, 'one Tab leads through the list');
    await keyboard.press('n');
    await keyboard.type('by-hand');
    await keyboard.press('Tab');
    await keyboard.type('typed');
    await keyboard.press('Enter');
    await sees('Published', 'by-hand');
    await page.locator('#shortcuts').uncheck();
    await page.locator('#main').focus();
    await keyboard.press('3');
    assert.equal(await page.locator('#channels:not([hidden])').count(), 0, 'switched off');
  });

  test('the_link_of_the_terminal_opens_the_console_and_leaves_no_trace_in_the_address_bar', async () => {
    const link = await server.consoleLink();
    assert.match(link, /^http:\/\/127\.0\.0\.1:\d+\/console#token=[0-9a-f]{32}$/);
    const { page } = await open('overview', { mayFail: true });
    await live(page);
    const [, token] = link.split('token=');
    assert.equal(page.url(), `${server.origin}/console#overview`);
    assert.ok(!(await page.evaluate(() => JSON.stringify([document.documentElement.outerHTML, { ...localStorage }, document.cookie]))).includes(token));
    await page.reload();
    await live(page);
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in to the console' }).waitFor();
    // A link of an earlier start opens nothing; its token can also be typed.
    await page.goto(`${server.origin}/console#token=${'0'.repeat(32)}`);
    await page.getByText('That is not the token').waitFor();
    await page.getByLabel('Token').fill(token);
    await page.keyboard.press('Enter');
    await live(page);
  });

  test('a_console_on_a_listener_of_its_own_comes_back_when_the_server_does', async () => {
    await server.stop();
    server = await Server.start({ options: ['--console-listen', '0'] });
    const own = await server.ownConsole();
    const { page, sees } = (console = await Console.open(browser, own, { view: 'events', mayFail: true }));
    await live(page);
    assert.equal(await page.getByRole('button', { name: 'Log out' }).count(), 0, 'nobody has logged in');
    await server.stop();
    await page.locator('#link[data-state="lost"]').waitFor();
    server = await Server.start({ listen: `127.0.0.1:${server.port}`, options: ['--console-listen', new URL(own).port] });
    await live(page);
    await page.getByText('The connection was lost.').waitFor();
    await publish(server, 'news', 'again', '1');
    await sees('Published', 'again');
  });

  test('with_a_password_one_logs_in_and_out', async () => {
    await server.stop();
    server = await Server.start({ environment: { TAUT_CONSOLE_PASSWORD: PASSWORD } });
    // The browser itself writes every 401 to its console.
    const { page } = await open('events', { mayFail: true });
    await page.getByRole('heading', { name: 'Log in to the console' }).waitFor();
    assert.equal(await page.getByRole('navigation').count(), 0);
    await page.getByLabel('Password').fill('wrong');
    await page.keyboard.press('Enter');
    await page.getByText('That is not the password.').waitFor();
    await page.getByLabel('Password').fill(PASSWORD);
    await page.keyboard.press('Enter');
    await live(page);
    assert.equal(await page.evaluate(() => document.cookie), '', 'no script can read the session');
    await page.reload();
    await live(page);
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in to the console' }).waitFor();
  });
});
