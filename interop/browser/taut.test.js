/** `web/taut.js` by itself: a socket, a clock and dice that the test holds in its hand. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { beforeEach, test } from 'node:test';

const SOURCE = await readFile(new URL('../../web/taut.js', import.meta.url), 'utf8');
// By way of a data: address, as that is a module whatever the folder's package.json (there is none) would say.
const { Taut } = await import(`data:text/javascript;base64,${Buffer.from(SOURCE).toString('base64')}`);

const DAY = 86_400_000;
let sockets;
let dice;        // what Math.random says
let asleep;      // ms the machine slept: the clock went on, the timers did not
let page;        // window and document at once, as far as events go

class FakeSocket {
  static OPEN = 1;
  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    sockets.push(this);
  }

  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) { this.closed = code; this.readyState = 3; }

  // What the server does:
  say(event, data, channel) { return this.raw(JSON.stringify({ event, data, channel })); }
  async raw(text) { this.onmessage?.({ data: text }); await settled(); }
  async cut(code, reason = '') { this.readyState = 3; this.onclose?.({ code, reason }); await settled(); }
  async greet(activity_timeout = 120) {
    this.readyState = 1;
    await this.say('pusher:connection_established', JSON.stringify({ socket_id: '12.34', activity_timeout }));
  }

  events() { return this.sent.map(({ event, data }) => [event, data.channel].filter(Boolean).join(' ')); }
}

beforeEach(() => {
  sockets = [];
  dice = 0.5;
  asleep = 0;
  page = new EventTarget();
  page.hidden = false;
  Object.assign(globalThis, {
    WebSocket: FakeSocket,
    document: page,
    addEventListener: page.addEventListener.bind(page),
    location: { protocol: 'http:', host: 'chat.example:6001', hostname: 'chat.example' },
  });
});

/** A client in the test's hands; every event it tells is kept in `told`. */
function client(t, { key = 'app-key', ...options } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  t.mock.method(Math, 'random', () => dice);
  t.mock.method(performance, 'now', () => Date.now() + asleep);
  const taut = new Taut(key, options);
  const told = [];
  for (const event of ['state', 'error', 'pong']) taut.bind(event, (detail) => told.push({ event, ...detail }));
  const pass = async (ms) => { t.mock.timers.tick(ms); await settled(); };
  return { taut, told, pass, states: () => told.filter(({ event }) => event === 'state').map(({ current }) => current) };
}

/** All microtasks are done when the next turn of the event loop begins. */
const settled = () => new Promise(setImmediate);
const last = () => sockets.at(-1);

test('the_address_is_the_pages_own_unless_the_options_say_otherwise', (t) => {
  const address = (options) => {
    client(t, options).taut.disconnect();
    t.mock.reset();
    return last().url.replace('?protocol=7&client=taut-js&version=0.1.0', '');
  };
  assert.equal(address(), 'ws://chat.example:6001/app/app-key');
  assert.equal(address({ host: 'push.example', port: 443, tls: true, path: '/live' }), 'wss://push.example:443/live/app/app-key');
  assert.equal(address({ port: 7001 }), 'ws://chat.example:7001/app/app-key');
  assert.equal(address({ key: 'a/b?c' }), 'ws://chat.example:6001/app/a%2Fb%3Fc');
});

test('a_key_or_channel_that_is_no_name_is_refused_with_a_clear_error', (t) => {
  assert.throws(() => new Taut(''), /app key must be a non-empty string/);
  const { taut } = client(t);
  assert.throws(() => taut.subscribe(undefined), /channel name must be a non-empty string/);
});

test('channels_are_subscribed_once_the_server_has_greeted_and_again_after_a_reconnect', async (t) => {
  const { taut, pass } = client(t);
  const chat = taut.subscribe('chat');
  assert.equal(taut.subscribe('chat'), chat);
  await last().greet();
  assert.equal(taut.socketId, '12.34');
  taut.subscribe('news');
  assert.deepEqual(last().events(), ['pusher:subscribe chat', 'pusher:subscribe news']);
  await last().say('pusher_internal:subscription_succeeded', '{}', 'chat');
  assert.ok(chat.subscribed);
  taut.unsubscribe('news');
  assert.equal(last().events().at(-1), 'pusher:unsubscribe news');
  await last().cut(1006);
  assert.equal(chat.subscribed, false);
  assert.equal(taut.socketId, null);
  await pass(1000);
  await last().greet();
  assert.equal(sockets.length, 2);
  assert.deepEqual(last().events(), ['pusher:subscribe chat']);
});

test('a_second_greeting_on_the_same_connection_changes_nothing', async (t) => {
  const { taut, states } = client(t);
  taut.subscribe('chat');
  await last().greet();
  await last().say('pusher:connection_established', '{"socket_id":"56.78","activity_timeout":1}');
  assert.equal(taut.socketId, '12.34');
  assert.deepEqual(last().events(), ['pusher:subscribe chat']);
  assert.deepEqual(states(), ['connecting', 'connected']);
});

test('data_is_decoded_where_it_is_json_and_left_alone_where_it_is_not', async (t) => {
  const { taut } = client(t);
  const heard = [];
  const callback = (data) => heard.push(data);
  taut.subscribe('chat').bind('message', callback);
  await last().greet();
  for (const data of ['{"a":[1]}', 'plain text', '', '17', { already: 'decoded' }]) await last().say('message', data, 'chat');
  await last().say('message', 'not for us', 'news');
  assert.deepEqual(heard, [{ a: [1] }, 'plain text', '', 17, { already: 'decoded' }]);
  taut.subscribe('chat').unbind('message', callback);
  await last().say('message', 'too late', 'chat');
  assert.equal(heard.length, 5);
});

test('errors_of_the_server_reach_the_user_and_leave_the_connection_alone', async (t) => {
  const { taut, told } = client(t);
  const refused = [];
  taut.subscribe('private-x').bind('pusher:subscription_error', (data) => refused.push(data));
  await last().greet();
  await last().say('pusher:subscription_error', { type: 'AuthError', error: 'no', status: 401 }, 'private-x');
  await last().say('pusher:error', { code: 4301, message: 'slower' });
  await last().raw('{"half":');
  await last().raw('null');
  assert.deepEqual(refused, [{ type: 'AuthError', error: 'no', status: 401 }]);
  assert.deepEqual(told.filter(({ event }) => event === 'error').map(({ code }) => code), [4301, null, null]);
  assert.equal(taut.state, 'connected');
});

test('a_close_code_from_4000_to_4099_is_final', async (t) => {
  for (const code of [4000, 4001, 4009, 4099]) {
    sockets = [];
    const { taut, told, pass } = client(t);
    await last().cut(code, 'because');
    assert.deepEqual(told.at(-1), { event: 'state', previous: 'connecting', current: 'refused', code, reason: 'because' });
    await pass(DAY);
    page.dispatchEvent(new Event('online'));
    await pass(DAY);
    assert.equal(sockets.length, 1);
    taut.connect();
    assert.equal(sockets.length, 2, 'but the user may ask for another attempt');
    taut.disconnect();
    t.mock.reset();
  }
});

test('an_error_in_place_of_the_greeting_counts_as_the_close_code', async (t) => {
  const { taut, told, pass } = client(t);
  last().readyState = 1;
  await last().say('pusher:error', { code: 4001, message: 'no such app' });
  await last().cut(1006);
  assert.equal(taut.state, 'refused');
  assert.deepEqual([told.at(-1).code, told.at(-1).reason], [4001, 'no such app']);
  await pass(DAY);
  assert.equal(sockets.length, 1);
});

test('a_close_code_from_4100_to_4199_waits_a_second_at_least', async (t) => {
  const { told, pass } = client(t);
  dice = 0;
  await last().cut(4100);
  assert.equal(told.at(-1).retryIn, 1000);
  page.dispatchEvent(new Event('online'));
  await pass(999);
  assert.equal(sockets.length, 1, 'even when the network comes back meanwhile');
  await pass(1);
  assert.equal(sockets.length, 2);
});

test('a_close_code_from_4200_to_4299_comes_back_within_a_second_and_backs_off_when_that_fails', async (t) => {
  const { told, pass } = client(t);
  await last().greet();
  dice = 0.999;
  await last().cut(4200);
  assert.equal(told.at(-1).retryIn, 999);
  await pass(999);
  assert.equal(sockets.length, 2);
  await last().cut(4200);
  assert.equal(told.at(-1).retryIn, 100 + 0.999 * 1000);
});

test('the_wait_doubles_up_to_thirty_seconds_and_is_jittered_in_full', async (t) => {
  const { told, pass } = client(t);
  const spreads = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    dice = attempt % 2 ? 1 : 0.5;
    await last().cut(1006);
    spreads.push((told.at(-1).retryIn - 100) / dice);
    await pass(told.at(-1).retryIn);
    assert.equal(sockets.length, attempt + 2);
  }
  assert.deepEqual(spreads, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  dice = 0;
  await last().cut(1006);
  assert.equal(told.at(-1).retryIn, 100, 'never less than 100 ms');
});

test('only_a_link_that_lasted_clears_the_count_of_failures', async (t) => {
  const { told, pass } = client(t);
  dice = 1;
  const fail = async (uptime) => {
    if (uptime !== undefined) {
      await last().greet();
      await pass(uptime);
    }
    await last().cut(1006);
    const { retryIn } = told.at(-1);
    await pass(retryIn);
    return retryIn;
  };
  assert.deepEqual([await fail(), await fail(), await fail()], [600, 1100, 2100]);
  assert.equal(await fail(4999), 4100, 'a link of less than five seconds changes nothing');
  assert.equal(await fail(), 8100);
  assert.equal(await fail(8099), 16_100, 'nor does one that was shorter than the wait before it');
  assert.equal(await fail(16_100), 600, 'one that lasted starts afresh');
});

test('a_server_that_does_not_greet_within_ten_seconds_is_given_up', async (t) => {
  const { taut, pass } = client(t);
  last().readyState = 1; // open, but mute
  await pass(9999);
  assert.equal(taut.state, 'connecting');
  await pass(1);
  assert.equal(taut.state, 'waiting');
  assert.equal(sockets[0].closed, 4201);
});

test('after_the_silence_the_server_asked_for_a_ping_is_sent_and_its_round_trip_told', async (t) => {
  const { told, pass } = client(t);
  await last().greet(20);
  await pass(19_999);
  assert.deepEqual(last().events(), []);
  await pass(1);
  assert.deepEqual(last().events(), ['pusher:ping']);
  await pass(42);
  await last().say('pusher:pong', '{}');
  assert.deepEqual(told.at(-1), { event: 'pong', roundTrip: 42 });
  await pass(19_999);
  assert.deepEqual(last().events(), ['pusher:ping']);
  await pass(1);
  assert.deepEqual(last().events(), ['pusher:ping', 'pusher:ping'], 'and again after the next silence');
});

test('the_own_limit_of_silence_wins_when_it_is_shorter_or_the_servers_makes_no_sense', async (t) => {
  for (const timeout of [120, 0, -5, null, 'soon', 1e12]) {
    sockets = [];
    const { taut, pass } = client(t, { activityTimeout: 8000 });
    await last().greet(timeout);
    await pass(7999);
    assert.deepEqual(last().events(), []);
    await pass(1);
    assert.deepEqual(last().events(), ['pusher:ping'], `activity_timeout ${timeout}`);
    taut.disconnect();
    t.mock.reset();
  }
});

test('any_message_is_a_sign_of_life', async (t) => {
  const { taut, pass } = client(t);
  await last().greet(20);
  for (let n = 0; n < 10; n += 1) {
    await pass(15_000);
    await last().say('message', 'x', 'elsewhere');
  }
  assert.deepEqual(last().events(), [], 'no ping while messages come');
  await pass(20_000);
  assert.deepEqual(last().events(), ['pusher:ping']);
  await pass(29_000);
  await last().say('message', 'x', 'elsewhere');
  await pass(2000);
  assert.equal(taut.state, 'connected', 'a message does for a pong');
});

test('a_silent_server_that_answers_is_pinged_once_an_interval_whatever_the_timeout', async (t) => {
  for (const [interval, pongTimeout] of [[2, 6], [6, 2], [4, 4], [25, 30], [1, 60]]) {
    for (const event of ['pusher:pong', 'any-other-message']) {
      sockets = [];
      const { taut, pass } = client(t, { activityTimeout: interval * 1000, pongTimeout: pongTimeout * 1000 });
      await last().greet();
      const pings = [];
      for (let tenth = 0; tenth < 2000; tenth += 1) {
        const before = last().sent.length;
        await pass(100);
        if (last().sent.length === before) continue;
        pings.push(tenth / 10);
        await last().say(event, '{}');
      }
      assert.equal(taut.state, 'connected');
      const periods = pings.slice(1).map((ping, index) => Math.round((ping - pings[index]) * 10) / 10);
      assert.ok(periods.length >= 5, `${interval}/${pongTimeout}: ${pings}`);
      assert.ok(periods.every((period) => period === interval), `${interval}/${pongTimeout} ${event}: ${periods}`);
      taut.disconnect();
      t.mock.timers.reset();
      t.mock.restoreAll();
    }
  }
});

test('thirty_seconds_without_an_answer_to_a_ping_drop_the_connection', async (t) => {
  const { taut, told, pass } = client(t);
  await last().greet(20);
  await pass(20_000);
  for (let n = 0; n < 5; n += 1) {
    await pass(5000);
    taut.ping(); // asking again must not grant more time
  }
  await pass(4999);
  assert.equal(taut.state, 'connected');
  await pass(1);
  assert.equal(taut.state, 'waiting');
  assert.equal(told.at(-1).code, 4201);
  assert.equal(sockets[0].onmessage, null, 'nothing that the dead socket may still say is heard');
  assert.deepEqual(sockets[0].events(), ['pusher:ping']);
});

test('a_tab_that_was_frozen_asks_once_more_before_it_gives_up', async (t) => {
  const { taut, pass } = client(t);
  await last().greet(20);
  await pass(20_000);
  asleep = 3_600_000;
  await pass(30_000);
  assert.equal(taut.state, 'connected');
  assert.deepEqual(last().events(), ['pusher:ping', 'pusher:ping']);
  await pass(30_000);
  assert.equal(taut.state, 'waiting');
});

test('a_ping_of_the_server_is_answered', async (t) => {
  client(t);
  await last().greet();
  await last().say('pusher:ping', '{}');
  assert.deepEqual(last().events(), ['pusher:pong']);
});

test('when_the_network_goes_or_the_tab_is_looked_at_the_link_is_tested_at_once', async (t) => {
  for (const event of ['offline', 'online', 'visibilitychange']) {
    sockets = [];
    const { taut, pass } = client(t);
    await last().greet();
    page.dispatchEvent(new Event(event));
    assert.deepEqual(last().events(), ['pusher:ping'], event);
    await pass(10_000);
    assert.equal(taut.state, 'waiting', 'and ten seconds are enough for the answer');
    taut.disconnect();
    t.mock.reset();
  }
});

test('when_the_network_comes_or_the_tab_is_looked_at_waiting_ends_at_once', async (t) => {
  for (const event of ['online', 'visibilitychange']) {
    sockets = [];
    const { taut, pass } = client(t);
    dice = 1;
    for (let n = 0; n < 8; n += 1) {
      await last().cut(1006);
      await pass(n < 7 ? 31_000 : 100);
    }
    assert.equal(taut.state, 'waiting');
    const before = sockets.length;
    page.hidden = true;
    page.dispatchEvent(new Event('visibilitychange'));
    await pass(100);
    assert.equal(sockets.length, before, 'a tab that is hidden is no reason');
    page.hidden = false;
    page.dispatchEvent(new Event(event));
    await pass(0);
    assert.equal(sockets.length, before + 1, event);
    taut.disconnect();
    t.mock.reset();
  }
});

test('a_client_at_rest_holds_no_listener_of_the_page', async (t) => {
  const signals = [];
  t.mock.method(page, 'addEventListener', (event, callback, { signal }) => signals.push(signal));
  globalThis.addEventListener = page.addEventListener;
  const { taut } = client(t);
  assert.equal(signals.length, 3);
  taut.disconnect();
  taut.connect();
  await last().cut(4001);
  assert.deepEqual(signals.map(({ aborted }) => aborted), Array(6).fill(true));
});

test('connect_after_disconnect_starts_with_a_clean_slate', async (t) => {
  const { taut, told, pass } = client(t);
  dice = 1;
  await last().cut(1006);
  await pass(600);
  await last().cut(1006);
  assert.equal(told.at(-1).retryIn, 1100);
  taut.connect();
  assert.equal(sockets.length, 3, 'asked while waiting, it connects at once');
  await last().cut(1006);
  assert.equal(told.at(-1).retryIn, 2100, 'but the failures still count');
  taut.disconnect();
  taut.connect();
  await last().cut(1006);
  assert.equal(told.at(-1).retryIn, 600);
});

test('disconnect_is_final_until_connect_and_keeps_the_channels', async (t) => {
  const { taut, states, pass } = client(t);
  taut.subscribe('chat');
  await last().greet();
  taut.disconnect();
  assert.equal(sockets[0].closed, 1000);
  page.dispatchEvent(new Event('online'));
  await pass(DAY);
  assert.equal(sockets.length, 1);
  taut.connect();
  await last().greet();
  assert.deepEqual(last().events(), ['pusher:subscribe chat']);
  assert.deepEqual(states(), ['connecting', 'connected', 'disconnected', 'connecting', 'connected']);
});
