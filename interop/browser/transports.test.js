/** The stock pusher-js without WebSockets, against the real server: XHR streaming, XHR polling and SockJS, in Chromium and in Node.js. */
import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import Pusher from 'pusher-js';
import { launch } from './chromium.js';
import { Server, within } from './server.js';

const PATIENCE = 20_000;
const require = createRequire(import.meta.url);

let browser;
let site;
before(async () => {
  browser = await launch();
  site = await serveSite();
});
after(async () => {
  await browser?.close();
  site?.close();
});

/** A page of another origin than the server's, so that the browser asks whether it may. */
async function serveSite() {
  const library = await readFile(require.resolve('pusher-js/dist/web/pusher.min.js'));
  const files = { '/': ['text/html', '<!doctype html><title>.</title><script src="pusher.js"></script>'], '/pusher.js': ['text/javascript', library] };
  const server = createServer(({ url }, response) => {
    const [type, body] = files[url] ?? ['text/plain', ''];
    response.writeHead(files[url] ? 200 : 404, { 'Content-Type': type }).end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

/** Runs where pusher-js does: makes a client, and notes what becomes of it. */
function join({ port, options }) {
  const pusher = new globalThis.Pusher('app-key', {
    cluster: '',
    httpHost: '127.0.0.1',
    httpPort: port,
    wsHost: '127.0.0.1',
    wsPort: port,
    forceTLS: false,
    ...options,
  });
  const client = { pusher, states: [], heard: [], pongs: 0, activity: 0, watchers: [] };
  const changed = () => { client.watchers = client.watchers.filter((watcher) => !watcher()); };
  client.until = (isSo) => new Promise((resolve) => {
    const watcher = () => isSo(client) && (resolve(), true);
    client.watchers.push(watcher);
    changed();
  });
  pusher.connection.bind('state_change', ({ current }) => {
    client.states.push(current);
    pusher.connection.connection?.bind('activity', () => { client.activity += 1; changed(); });
    changed();
  });
  pusher.connection.bind('message', ({ event }) => { client.pongs += event === 'pusher:pong' ? 1 : 0; changed(); });
  const channel = pusher.subscribe('chat');
  channel.bind('event', (data) => { client.heard.push(data); changed(); });
  client.isSubscribed = () => channel.subscribed;
  channel.bind('pusher:subscription_succeeded', changed);
  globalThis.client = client;
}

/** A client in this process. */
class Here {
  static where = 'Node.js';

  static async join(settings) {
    globalThis.Pusher = Pusher;
    join(settings);
    return new Here();
  }

  run(work, argument) { return work(argument); }
  async close() { globalThis.client.pusher.disconnect(); }
}

/** A client in a page. */
class There {
  static where = 'Chromium';

  static async join(settings, { withoutWebSocket = false } = {}) {
    const client = new There();
    client.page = await (await browser.newContext()).newPage();
    client.faults = [];
    client.page.on('pageerror', (error) => client.faults.push(error.stack));
    const sockjs = await readFile(require.resolve('pusher-js/dist/web/sockjs.min.js'), 'utf8');
    // Where pusher-js gets it from; there is no such host here.
    await client.page.route('http://js.pusher.com/**', (route) => route.fulfill({ contentType: 'text/javascript', body: sockjs }));
    if (withoutWebSocket) await client.page.addInitScript(() => { delete globalThis.WebSocket; });
    await client.page.goto(`http://127.0.0.1:${site.address().port}/`);
    await client.run(join, settings);
    return client;
  }

  run(work, argument) { return this.page.evaluate(work, argument); }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.faults, [], 'the page should run without errors');
  }
}

for (const [Client, transport] of [[Here, 'xhr_streaming'], [Here, 'xhr_polling'], [There, 'xhr_streaming'], [There, 'xhr_polling'], [There, 'sockjs']]) {
  describe(`pusher-js by ${transport} in ${Client.where}`, { timeout: 180_000 }, () => {
    let server;
    let client;
    beforeEach(async () => { server = await Server.start(); });
    afterEach(async () => {
      await client?.close();
      client = undefined;
      await server.stop();
    });

    const enter = async (options) => {
      client = await Client.join({ port: server.port, options: { enabledTransports: [transport], ...options } });
      await subscribed();
    };
    const subscribed = (patience) => until('subscribed', () => globalThis.client.until(({ isSubscribed }) => isSubscribed()), null, patience);
    const heard = (count, patience) =>
      until(`${count} events`, (number) => globalThis.client.until(({ heard }) => heard.length >= number), count, patience);
    const until = (what, work, argument, patience = PATIENCE) =>
      within(patience, client.run(work, argument), () => `not within ${patience} ms: ${what}\n${server.log}`);
    const look = () => client.run(() => {
      const { states, heard, pongs, activity, pusher } = globalThis.client;
      return { states, heard, pongs, activity, transport: pusher.connection.connection.transport.name };
    });

    test('hears_what_is_published_and_is_answered', async () => {
      await enter();
      for (const text of ['Hello 👋 “ß” \\ " \u2028\n', '', '</script>']) await publish(server, text);
      await heard(3);
      await client.run(() => { globalThis.client.pusher.send_event('pusher:ping', {}); });
      await until('a pong', () => globalThis.client.until(({ pongs }) => pongs > 0));
      const { states, heard: events, transport: used } = await look();
      assert.deepEqual(events, ['Hello 👋 “ß” \\ " \u2028\n', '', '</script>']);
      assert.deepEqual([used, states], [transport, ['connected']]);
    });

    test('a_burst_of_more_than_its_buffer_holds_comes_whole_and_in_order', async (t) => {
      await enter();
      const texts = Array.from({ length: 120 }, (_, number) => `${number} ${['x', 'é', '€', '😀'][number % 4].repeat(5000 + 37 * number)}`);
      const started = performance.now();
      // Ten at a time would be out of order by themselves.
      for (const text of texts) await publish(server, text);
      await heard(texts.length);
      const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
      t.diagnostic(`${texts.length} events, ${bytes} bytes, ${Math.round(performance.now() - started)} ms`);
      const { states, heard: events } = await look();
      assert.deepEqual(events.map((text) => text.slice(0, 8)), texts.map((text) => text.slice(0, 8)));
      assert.ok(events.every((text, place) => text === texts[place]), 'every event is as it was published');
      assert.deepEqual(states, ['connected'], 'it has never lost its session');
    });

    if (transport !== 'sockjs') {
      test('its_own_checks_of_a_silent_connection_are_answered_in_time', async () => {
        await enter({ activityTimeout: 300, pongTimeout: 2000 });
        await until('four answers', () => globalThis.client.until(({ activity }) => activity >= 4));
        assert.deepEqual((await look()).states, ['connected']);
      });
    }

    test('lives_on_through_the_heartbeats_of_the_server', async () => {
      await server.stop();
      server = await Server.start({ environment: { TAUT_PING_INTERVAL: '1', TAUT_PONG_TIMEOUT: '2' } });
      await enter();
      // A client that does not answer is given up after three seconds.
      const started = performance.now();
      for (let count = 1; performance.now() - started < 7000; count += 1) {
        await client.run(() => new Promise((resolve) => { setTimeout(resolve, 1000); }));
        await publish(server, String(count));
        await heard(count);
      }
      assert.deepEqual((await look()).states, ['connected']);
    });

    test('comes_back_when_the_server_is_restarted', async (t) => {
      await enter();
      await publish(server, 'before');
      await heard(1);
      assert.equal(await server.stop(), 0, 'SIGTERM ends the server in order');
      await until('it notices', () => globalThis.client.until(({ states }) => states.at(-1) !== 'connected'));
      server = await Server.start({ listen: `127.0.0.1:${server.port}` });
      const started = performance.now();
      // pusher-js gives a failed attempt up to 15 s before it makes the next one.
      await until('connected again', () => globalThis.client.until(({ states }) => states.at(-1) === 'connected'), null, 60_000);
      await subscribed();
      t.diagnostic(`back ${Math.round(performance.now() - started)} ms after the server`);
      await publish(server, 'after');
      await heard(2);
      assert.deepEqual((await look()).heard, ['before', 'after']);
    });

    test('a_wrong_key_is_refused_for_good', async () => {
      client = await Client.join({ port: server.port, options: { enabledTransports: [transport] } });
      await client.run(() => {
        const { pusher } = globalThis.client;
        pusher.disconnect();
        globalThis.client.states.length = 0;
        pusher.key = 'nonsense';
        pusher.connection.key = 'nonsense';
        pusher.connection.updateStrategy();
        pusher.connection.bind('error', ({ error }) => { globalThis.client.refused = error.data; });
        pusher.connect();
      });
      await until('refused', () => globalThis.client.until(({ states, refused }) => refused && states.at(-1) === 'disconnected'));
      assert.equal((await client.run(() => globalThis.client.refused)).code, 4001);
    });
  });
}

test('a_page_whose_browser_has_no_websocket_falls_back_by_itself', { timeout: 60_000 }, async () => {
  const server = await Server.start();
  const client = await There.join({ port: server.port, options: {} }, { withoutWebSocket: true });
  await within(PATIENCE, client.run(() => globalThis.client.until(({ isSubscribed }) => isSubscribed())), () => `not subscribed\n${server.log}`);
  assert.equal(await client.run(() => globalThis.client.pusher.connection.connection.transport.name), 'xhr_streaming');
  await client.close();
  assert.equal(await server.stop(), 0);
});

/** Publishes an event to the channel, as a backend does. */
async function publish(server, data) {
  const body = JSON.stringify({ name: 'event', channel: 'chat', data });
  const digest = createHash('md5').update(body).digest('hex');
  const query = `auth_key=app-key&auth_timestamp=${Math.floor(Date.now() / 1000)}&auth_version=1.0&body_md5=${digest}`;
  const signature = createHmac('sha256', 'app-secret').update(`POST\n/apps/1/events\n${query}`).digest('hex');
  const response = await fetch(`${server.origin}/apps/1/events?${query}&auth_signature=${signature}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body,
  });
  assert.equal(response.status, 200, await response.text());
}
