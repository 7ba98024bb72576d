/** Server-Sent Events on a route in the plain form: what clients that only listen get, and what the backend is told. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EventSource } from 'eventsource';
import { launch } from '../browser/chromium.js';
import { within } from '../browser/server.js';
import { nginxWith } from '../peers/recipes.js';
import { Program, Workshop } from '../peers/programs.js';
import { Backend } from './backend.js';
import { Fpm } from './fpm.js';
import { APP, publish, Server } from './server.js';
import { Stream } from './stream.js';

const Pusher = createRequire(import.meta.url)('pusher-js');

const PATIENCE = 30_000;
const CHAT = fileURLToPath(new URL('../../examples/php/chat.php', import.meta.url));
const FEED = new URL('../../examples/feed/', import.meta.url);
const BEARER = { authorization: `Bearer ${APP.secret}` };

/** Plays a story on a server whose route /news/{room} is a backend's. */
async function played(answer, story, { route = {}, ...settings } = {}) {
  const backend = await Backend.start(answer);
  const server = await Server.start([{ path: '/news/{room}', name: 'news', backend: backend.url, ...route }], settings);
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

/** Lets everybody in, subscribed to these channels, and sends `hello`: then the stream is there. */
const subscribed = (...channels) => ({ event }) => (event === 'open' ? { subscribe: channels, send: 'hello' } : {});

/** A stream that has had its `hello`. */
async function opened(server, path = '/news/1', options = {}) {
  const stream = await Stream.open(server, path, options);
  assert.equal(stream.status, 200, stream.text);
  await stream.hears(/data: hello\n\n/);
  return stream;
}

/** Waits until what is published to a channel arrives; what arrived meanwhile is forgotten. */
async function listens(server, channel, ...streams) {
  const timer = setInterval(() => publish(server, channel, 'mark').catch(() => {}), 100);
  try {
    await Promise.all(streams.map((stream) => stream.hears(/mark/)));
  } finally {
    clearInterval(timer);
  }
  await publish(server, channel, 'last mark');
  await Promise.all(streams.map((stream) => stream.hears(/last mark.*\n\n/)));
  for (const stream of streams) stream.text = '';
}

async function post(server, path, body) {
  const response = await fetch(`${server.url.replace('ws', 'http')}${path}`, { method: 'POST', headers: BEARER, body });
  assert.equal(response.status, 200, await response.text());
}

describe('a stream', { concurrency: 3 }, () => {
  test('is_let_in_by_the_backend_and_begins_with_what_that_sends', () => played(
    ({ event }) => (event === 'open' ? { user: 'ann', send: ['one\ntwo\r\nthree', { json: { a: [1] } }, { binary: 'AP+A' }, ''], headers: { 'X-A': 'b', 'Set-Cookie': 'c=1' } } : {}),
    async (server, backend) => {
      const stream = await Stream.open(server, '/news/42?token=t', { headers: { cookie: 'sid=1' } });
      const events = await stream.until(4);
      assert.deepEqual(events.map(({ event, data }) => [event, data]), [[undefined, 'one\ntwo\nthree'], [undefined, '{"a":[1]}'], ['binary', 'AP+A'], [undefined, '']]);
      assert.match(stream.text, /^retry: \d+\n\ndata: one\ndata: two\ndata: three\n\n/);
      assert.ok(stream.retry >= 1000 && stream.retry <= 5000, `${stream.retry}`);
      const { 'content-type': type, 'cache-control': cache, 'x-accel-buffering': buffering, 'content-length': length, 'content-encoding': encoding, 'x-a': own, 'set-cookie': cookie } = stream.headers;
      assert.deepEqual([type, cache, buffering, length, encoding, own, cookie], ['text/event-stream', 'no-store', 'no', undefined, undefined, 'b', ['c=1']]);
      const socket = await server.connect('/news/42');
      const [open, other] = await backend.until('open', 2);
      assert.deepEqual([open.transport, other.transport], ['sse', 'websocket']);
      assert.deepEqual([open.params, open.request.query, open.headers.cookie, open.seq], [{ room: '42' }, { token: 't' }, 'sid=1', 1]);
      stream.leave();
      const [close] = await backend.until('close');
      assert.deepEqual([close.connection, close.code, close.clean, close.user, close.transport], [open.connection, 1006, false, { id: 'ann' }, undefined]);
      socket.terminate();
    },
  ));

  test('shares_a_room_with_websockets_and_clients_of_pusher', () => played(
    ({ event, data }) => (event === 'open' ? { subscribe: ['room'], send: 'hello' } : event === 'text' ? { publish: [{ channel: 'room', data }] } : {}),
    async (server) => {
      const stream = await opened(server);
      const socket = await server.connect('/news/1');
      assert.equal(await socket.next(), 'hello');
      const { port } = new URL(server.url);
      const pusher = new Pusher(APP.key, { cluster: '', wsHost: '127.0.0.1', wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], disableStats: true });
      const channel = pusher.subscribe('room');
      try {
        const heard = new Promise((resolve) => { channel.bind('message', resolve); });
        await within(PATIENCE, new Promise((resolve) => { channel.bind('pusher:subscription_succeeded', resolve); }), () => 'pusher-js is not subscribed');
        await listens(server, 'room', stream);
        await socket.hears(/last mark/);
        socket.messages = [];
        socket.send('héllo');
        const expected = '{"channel":"room","event":"message","data":"héllo"}';
        assert.equal(await socket.next(), expected);
        await stream.until(1);
        assert.deepEqual(stream.events, [{ data: expected, id: undefined }]);
        assert.equal(await within(PATIENCE, heard, () => 'pusher-js hears nothing'), 'héllo');
      } finally {
        pusher.disconnect();
        stream.leave();
        socket.terminate();
      }
    },
  ));

  test('gets_the_data_alone_on_a_route_of_raw_frames', () => played(subscribed('room'), async (server) => {
    const stream = await opened(server);
    await listens(server, 'room', stream);
    await publish(server, 'room', { x: 1 });
    await stream.until(1);
    assert.deepEqual(stream.messages, ['{"x":1}']);
    stream.leave();
  }, { route: { frames: 'raw' } }));

  test('gets_what_is_sent_to_it_at_any_time_and_is_told_when_it_is_closed', () => played(
    ({ event }) => (event === 'open' ? { user: 'ann', send: 'hello' } : {}),
    async (server, backend) => {
      const stream = await opened(server);
      const [{ connection }] = await backend.until('open');
      await post(server, `/connections/${connection}/send`, 'two\nlines');
      await post(server, `/connections/${connection}/send`, Buffer.from([0, 255]));
      await post(server, '/users/ann/send', 'to the user');
      await stream.until(4);
      assert.deepEqual(stream.events.slice(1).map(({ event, data }) => [event, data]), [[undefined, 'two\nlines'], ['binary', 'AP8='], [undefined, '{"channel":"#server-to-user-ann","event":"message","data":"to the user"}']]);
      await post(server, `/connections/${connection}/close`, '{"code":4000,"reason":"enough"}');
      const events = await stream.end();
      assert.equal(stream.ended, 'whole');
      assert.deepEqual([events.at(-1).event, events.at(-1).data], ['close', '{"code":4000,"reason":"enough"}']);
      const [close] = await backend.until('close');
      assert.deepEqual([close.code, close.clean], [4000, true]);
    },
  ));

  test('has_a_timer_and_ends_as_the_backend_says', () => played(
    ({ event }) => (event === 'open' ? { timer: 5 } : event === 'timer' ? { send: 'tick', close: { code: 3000, reason: 'done' } } : {}),
    async (server, backend) => {
      const stream = await Stream.open(server, '/news/1');
      const events = await stream.end();
      assert.deepEqual(events.map(({ event, data }) => [event, data]), [[undefined, 'tick'], ['close', '{"code":3000,"reason":"done"}']]);
      assert.deepEqual((await backend.until('close'))[0].code, 3000);
      assert.deepEqual(backend.events.map(({ event }) => event), ['open', 'timer', 'close']);
    },
  ));

  test('is_kept_alive_with_comments', () => played(subscribed(), async (server) => {
    const stream = await opened(server);
    const began = performance.now();
    await stream.hears(/\n\n:\n\n/);
    const waited = performance.now() - began;
    assert.ok(waited > 14_000 && waited < 27_000, `${waited} ms`);
    assert.deepEqual(stream.messages, ['hello']);
    stream.leave();
  }));

  test('is_one_only_for_who_asks_for_it', () => played(subscribed(), async (server, backend) => {
    for (const [path, accept, method] of [['/news/1', '*/*'], ['/news/1', 'text/html'], ['/other', undefined], ['/news/1', undefined, 'POST']]) {
      const stream = await Stream.open(server, path, { headers: accept ? { accept } : {}, method });
      await stream.end();
      assert.equal(stream.status, 404, path);
    }
    // A name that no stream has makes no WebSocket one.
    const socket = await server.connect('/news/1', { headers: { 'Taut-Stream': '0'.repeat(32) } });
    assert.equal(await socket.next(), 'hello');
    assert.deepEqual((await backend.until('open')).map(({ transport }) => transport), ['websocket']);
    socket.terminate();
  }));

  test('counts_as_a_connection_of_its_app_and_more_find_no_place', () => played(subscribed(), async (server) => {
    const stream = await opened(server);
    const refused = await Stream.open(server, '/news/1');
    const [{ event, data }] = await refused.end();
    assert.deepEqual([refused.status, event, data], [200, 'close', '{"code":1013,"reason":"try again later"}']);
    assert.ok(refused.retry >= 1000 && refused.retry <= 5000);
    stream.leave();
  }, { options: ['--max-connections', '1'] }));

  test('is_in_the_metrics_and_the_console', () => played(subscribed('room'), async (server) => {
    const http = server.url.replace('ws', 'http');
    const metric = async (line) => {
      const text = await (await fetch(`${http}/metrics`, { headers: { authorization: 'Bearer token-of-the-metrics' } })).text();
      return Number(text.split('\n').find((one) => one.startsWith(`${line} `))?.split(' ')[1]);
    };
    const stream = await opened(server);
    assert.equal(await metric('taut_connections{app="1",transport="sse"}'), 1);
    assert.equal(await metric('taut_connections{app="1",transport="ws"}'), 0);
    assert.equal(await metric('taut_route_connections{route="news"}'), 1);
    const login = await fetch(`${http}/console/api/session`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ password: 'password-of-the-console' }) });
    assert.ok(login.ok, `${login.status} ${await login.text()}`);
    const cookie = login.headers.getSetCookie().map((line) => line.split(';')[0]).join('; ');
    const { connections: [shown] } = await (await fetch(`${http}/console/api/apps/1/connections`, { headers: { cookie } })).json();
    assert.deepEqual([shown.transport, shown.channels.includes('room')], ['SSE', true]);
    stream.leave();
  }, { options: ['--metrics-token', 'token-of-the-metrics', '--console-password', 'password-of-the-console'] }));

  test('is_answered_by_php_fpm', async () => {
    const fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
    const server = await Server.start([{ path: '/chat/{room}', backend: fpm.address, script: CHAT }]);
    try {
      const stranger = await Stream.open(server, '/chat/1?token=stranger');
      await stranger.end();
      assert.deepEqual([stranger.status, stranger.text], [401, 'unknown token']);
      const ann = await Stream.open(server, '/chat/1?token=token-ann');
      await ann.until(2);
      const bob = await server.connect('/chat/1?token=token-bob');
      await ann.hears(/member_added/);
      bob.send('hello, "wörld" 👋');
      await ann.until(4);
      assert.deepEqual(JSON.parse(ann.messages[3]), { channel: 'room-1', event: 'message', data: { from: 'bob', text: 'hello, "wörld" 👋' } });
      ann.leave();
      await bob.hears(/member_removed/);
      bob.terminate();
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await fpm.stop();
    }
  });

  test('comes_to_curl_at_once', () => played(subscribed('room'), async (server) => {
    const curl = new Program('curl', '-sN', '-H', 'Accept: text/event-stream', `${server.url.replace('ws', 'http')}/news/1`);
    await curl.until(/^data: hello$/m);
    const timer = setInterval(() => publish(server, 'room', 'mark').catch(() => {}), 100);
    await curl.until(/^data: \{"channel":"room","event":"news","data":"mark"\}$/m);
    clearInterval(timer);
    await curl.stop();
  }));
});

describe('what a stream is refused with', { concurrency: 3 }, () => {
  test('is_the_status_and_the_body_of_the_backend', () => played((_, request, response) => {
    response.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': 'Bearer', 'x-powered-by': 'x' }).end('{"error":"who are you?"}');
  }, async (server) => {
    const stream = await Stream.open(server, '/news/1');
    await stream.end();
    assert.deepEqual([stream.status, stream.text, stream.headers['content-type'], stream.headers['www-authenticate'], stream.headers['x-powered-by']], [401, '{"error":"who are you?"}', 'application/json', 'Bearer', undefined]);
  }));

  for (const [what, answer, close, least, most] of [
    ['too much to do', (_, __, response) => { response.writeHead(503, { 'retry-after': '7' }).end('trace'); }, { code: 1013, reason: 'try again later' }, 7000, 11_000],
    ['too many requests', (_, __, response) => { response.writeHead(429).end('trace'); }, { code: 1013, reason: 'try again later' }, 1000, 5000],
    ['an error', (_, __, response) => { response.writeHead(500).end('trace'); }, { code: 1011, reason: 'backend error' }, 5000, 15_000],
    ['no answer', () => undefined, { code: 1011, reason: 'backend error' }, 5000, 15_000],
  ]) {
    test(`is_a_time_to_come_back_after_where_the_backend_has_${what.replaceAll(' ', '_')}`, () => played(answer, async (server) => {
      const stream = await Stream.open(server, '/news/1');
      const events = await stream.end();
      assert.deepEqual([stream.status, stream.headers['content-type'], stream.headers['cache-control']], [200, 'text/event-stream', 'no-store']);
      assert.deepEqual(events.map(({ event, data }) => [event, JSON.parse(data)]), [['close', close]]);
      assert.ok(stream.retry >= least && stream.retry <= most, `${stream.retry}`);
      assert.doesNotMatch(stream.text, /trace/);
    }, { route: { timeout: 2 } }));
  }

  test('keeps_pages_of_others_away_and_lets_those_of_the_app_read', () => played(subscribed(), async (server, backend) => {
    const page = { origin: 'https://shop.example', cookie: 'sid=1' };
    const stream = await opened(server, '/news/1', { headers: page });
    const cors = ({ headers }) => [headers['access-control-allow-origin'], headers['access-control-allow-credentials'], headers.vary];
    assert.deepEqual(cors(stream), ['https://shop.example', 'true', 'origin']);
    const other = await Stream.open(server, '/news/1', { headers: { ...page, origin: 'https://evil.example' } });
    await other.end();
    assert.deepEqual([other.status, ...cors(other)], [403, undefined, undefined, undefined]);
    const asked = await Stream.open(server, '/news/1', { method: 'OPTIONS', headers: { ...page, 'access-control-request-method': 'GET', 'access-control-request-headers': 'last-event-id' } });
    await asked.end();
    assert.deepEqual([asked.status, ...cors(asked)], [204, 'https://shop.example', 'true', 'origin']);
    assert.match(asked.headers['access-control-allow-headers'], /last-event-id/);
    assert.equal((await backend.until('open')).length, 1);
    stream.leave();
  }, { app: { ...APP, origins: ['https://shop.example'] } }));

  test('keeps_cookies_from_pages_of_others_where_the_app_names_none', () => played(subscribed(), async (server) => {
    const evil = { origin: 'https://evil.example' };
    const other = await Stream.open(server, '/news/1', { headers: { ...evil, cookie: 'sid=1' } });
    await other.end();
    assert.equal(other.status, 403);
    const stream = await opened(server, '/news/1', { headers: evil });
    assert.deepEqual([stream.headers['access-control-allow-origin'], stream.headers['access-control-allow-credentials']], [evil.origin, undefined]);
    stream.leave();
  }));
});

describe('the last event of a channel', { concurrency: 3 }, () => {
  const channels = ['cache-a', 'private-cache-b'];
  const datas = (stream) => stream.events.filter(({ event }) => event === undefined).map(({ data }) => data).filter((data) => data !== 'hello').map((data) => JSON.parse(data)).filter(({ event }) => event === 'news').map(({ data }) => data);
  const lastId = (stream) => stream.events.map(({ id }) => id).filter(Boolean).at(-1);

  test('comes_again_only_if_it_is_another_one', () => played(subscribed(...channels), async (server) => {
    await publish(server, 'cache-a', 1);
    await publish(server, 'private-cache-b', 2);
    const first = await opened(server);
    await first.hears(/"data":1/);
    await first.hears(/"data":2/);
    assert.deepEqual(datas(first).sort(), [1, 2]);
    const id = lastId(first);
    assert.match(id, /^[\w-]{32}$/);
    first.leave();

    for (const [path, headers] of [['/news/1', { 'last-event-id': id }], [`/news/1?lastEventId=${id}`], ['/news/1?lastEventId=nonsense', { 'last-event-id': id }]]) {
      const again = await opened(server, path, { headers });
      await listens(server, 'cache-a', again);
      assert.deepEqual(datas(again), []);
      again.leave();
      await publish(server, 'cache-a', 1);
    }

    await publish(server, 'cache-a', 3);
    const later = await opened(server, '/news/1', { headers: { 'last-event-id': id } });
    await later.hears(/"data":3/);
    await publish(server, 'private-cache-b', 4);
    await later.hears(/"data":4/);
    assert.deepEqual(datas(later), [3, 4], 'what has not changed does not come');
    const newest = lastId(later);
    assert.notEqual(newest, id);
    later.leave();

    for (const unreadable of ['nonsense', `${id}x`, 'A'.repeat(5000)]) {
      const stranger = await opened(server, '/news/1', { headers: { 'last-event-id': unreadable } });
      await stranger.hears(/"data":3/);
      await stranger.hears(/"data":4/);
      stranger.leave();
    }
  }));

  test('of_other_channels_has_no_id', () => played(subscribed('room'), async (server) => {
    const stream = await opened(server);
    await listens(server, 'room', stream);
    await publish(server, 'room', 1);
    assert.deepEqual((await stream.until(1)).map(({ id }) => id), [undefined]);
    stream.leave();
  }));
});

describe('the EventSource of npm', () => {
  test('comes_back_by_itself_after_a_restart_with_what_it_has_seen', async () => {
    const backend = await Backend.start(subscribed('cache-a'));
    const route = { path: '/news/{room}', backend: backend.url };
    let server = await Server.start([route]);
    const { port } = server;
    const heard = [];
    let wake = () => {};
    const until = (is, what) => within(60_000, (async () => { while (!is()) await new Promise((resolve) => { wake = resolve; }); })(), () => `${what}: ${JSON.stringify(heard)}`);
    const source = new EventSource(`${server.url.replace('ws', 'http')}/news/1`);
    source.addEventListener('message', ({ data, lastEventId }) => { heard.push({ data, lastEventId }); wake(); });
    source.addEventListener('close', ({ data }) => { heard.push({ close: JSON.parse(data) }); wake(); });
    source.addEventListener('error', () => wake());
    try {
      await until(() => heard.some(({ data }) => data === 'hello'), 'hello');
      while (!heard.some(({ data }) => /"data":1/.test(data))) {
        await publish(server, 'cache-a', 1);
        await new Promise((resolve) => { wake = resolve; setTimeout(resolve, 100); });
      }
      const { lastEventId } = heard.at(-1);
      assert.match(lastEventId, /^[\w-]{16}$/);
      assert.equal(await server.stop(), 0, server.output);
      await until(() => heard.some(({ close }) => close?.code === 1012), 'the end');
      await backend.until('close');
      server = await Server.start([route], { listen: `127.0.0.1:${port}` });
      await until(() => heard.filter(({ data }) => data === 'hello').length === 2, 'hello again');
      assert.deepEqual((await backend.until('open', 2)).map(({ transport }) => transport), ['sse', 'sse']);
      await publish(server, 'cache-a', 2);
      await until(() => heard.some(({ data }) => /"data":2/.test(data)), 'the next event');
      assert.equal(source.readyState, EventSource.OPEN);
    } finally {
      source.close();
      assert.equal(await server.stop(), 0, server.output);
      await backend.stop();
    }
  });
});

describe('the EventSource of Chromium', () => {
  let browser, site;
  before(async () => {
    browser = await launch();
    site = createServer((_, response) => { response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>News</title>'); }).listen(0, '127.0.0.1');
    await once(site, 'listening');
  });
  after(async () => {
    await browser?.close();
    site?.close();
  });
  const origin = () => `http://127.0.0.1:${site.address().port}`;

  /** A page that listens, with cookies. */
  async function listening(server, path) {
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    await page.context().addCookies([{ name: 'sid', value: '1', url: origin() }]);
    await page.goto(origin());
    await page.evaluate((url) => {
      globalThis.heard = [];
      globalThis.source = new EventSource(url, { withCredentials: true });
      for (const name of ['open', 'message', 'error', 'close', 'binary']) {
        globalThis.source.addEventListener(name, ({ data, lastEventId }) => globalThis.heard.push([name, data, lastEventId]));
      }
    }, `${server.url.replace('ws', 'http')}${path}`);
    return page;
  }
  const hears = (page, name, part = '', count = 1) => page.waitForFunction(([what, text, least]) => globalThis.heard.filter(([one, data]) => one === what && (data ?? '').includes(text)).length >= least, [name, part, count]);
  const state = (page) => page.evaluate(() => globalThis.source.readyState);

  test('hears_a_room_and_comes_back_after_a_restart', async () => {
    const backend = await Backend.start(subscribed('room'));
    const route = { path: '/news/{room}', backend: backend.url };
    const app = { ...APP, origins: [origin()] };
    let server = await Server.start([route], { app });
    const { port } = server;
    const page = await listening(server, '/news/1');
    try {
      await hears(page, 'message', 'hello');
      assert.match((await backend.until('open'))[0].headers.cookie, /sid=1/);
      const timer = setInterval(() => publish(server, 'room', 'mark').catch(() => {}), 100);
      await hears(page, 'message', 'mark');
      clearInterval(timer);
      assert.equal(await server.stop(), 0, server.output);
      await hears(page, 'close', '1012');
      await hears(page, 'error');
      server = await Server.start([route], { app, listen: `127.0.0.1:${port}` });
      await hears(page, 'message', 'hello', 2);
      assert.equal(await state(page), 1);
    } finally {
      await page.close();
      assert.equal(await server.stop(), 0, server.output);
      await backend.stop();
    }
  });

  test('comes_back_while_the_backend_is_away_and_stays_away_when_it_is_refused', async () => {
    let status = 503;
    const backend = await Backend.start(({ event }, _, response) => {
      if (status === 200 || event !== 'open') return event === 'open' ? { send: 'hello' } : {};
      response.writeHead(status).end('no');
      return undefined;
    });
    const server = await Server.start([{ path: '/news/{room}', backend: backend.url }], { app: { ...APP, origins: [origin()] } });
    const page = await listening(server, '/news/1');
    try {
      await hears(page, 'close', '1013');
      status = 200;
      await hears(page, 'message', 'hello');
      status = 401;
      const [{ connection }] = (await backend.until('open', 2)).slice(-1);
      await post(server, `/connections/${connection}/close`, '{"code":4000}');
      await hears(page, 'close', '4000');
      await page.waitForFunction(() => globalThis.source.readyState === 2);
    } finally {
      await page.close();
      assert.equal(await server.stop(), 0, server.output);
      await backend.stop();
    }
  });
});

describe('the example feed', () => {
  test('a_page_hears_the_feed_that_its_script_lets_it_in_to_and_a_newcomer_the_last_item_at_once', async () => {
    const html = await readFile(new URL('index.html', FEED), 'utf8');
    const site = createServer((_, response) => { response.writeHead(200, { 'content-type': 'text/html' }).end(html); }).listen(0, '127.0.0.1');
    await once(site, 'listening');
    const origin = `http://127.0.0.1:${site.address().port}`;
    const [browser, fpm] = [await launch(), await Fpm.start()];
    const server = await Server.start([{ path: '/feed/{topic}', backend: fpm.address, script: fileURLToPath(new URL('feed.php', FEED)) }], { app: { ...APP, origins: [origin] } });
    const open = async (topic) => {
      const page = await browser.newPage();
      page.setDefaultTimeout(PATIENCE);
      await page.goto(`${origin}/?server=${server.url.replace('ws', 'http')}&topic=${topic}`);
      return page;
    };
    const says = (page, text) => page.getByRole('status').getByText(text, { exact: true }).waitFor();
    const item = (page, title) => page.getByRole('listitem').getByText(title, { exact: true }).waitFor();
    try {
      const first = await open('news');
      await says(first, 'Listening to news');
      await publish(server, 'cache-news', { title: 'Hello' }, 'item');
      await item(first, 'Hello');
      const newcomer = await open('news');
      await item(newcomer, 'Hello');
      await publish(server, 'cache-news', { title: 'Goodbye' }, 'item');
      for (const page of [first, newcomer]) await item(page, 'Goodbye');
      await says(await open('gossip'), 'Not let in');
    } finally {
      await browser.close();
      site.close();
      assert.equal(await server.stop(), 0, server.output);
      await fpm.stop();
    }
  });
});

describe('what stands between, and what is slow', { concurrency: 2 }, () => {
  test('nginx_that_compresses_streams_passes_each_event_on_at_once', () => played(subscribed('room'), async (server) => {
    const workshop = await Workshop.open();
    const nginx = await nginxWith('gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 0;')(workshop, server.port);
    const curl = new Program('curl', '-sN', '--compressed', '-H', 'Accept: text/event-stream', '-D', '-', `http://127.0.0.1:${nginx.port}/news/1`);
    try {
      await curl.until(/^data: hello$/m);
      assert.match(curl.output, /^content-encoding: gzip/im);
      const timer = setInterval(() => publish(server, 'room', 'mark').catch(() => {}), 100);
      await curl.until(/"mark"/);
      clearInterval(timer);
      curl.forget();
      await publish(server, 'room', 'last');
      await curl.until(/"last"/);
    } finally {
      await curl.stop();
      await nginx.stop('SIGQUIT');
      await workshop.close();
    }
  }));

  test('a_reader_that_is_too_slow_loses_its_stream_and_others_none', () => played(subscribed('room'), async (server, backend) => {
    const [slow, quick] = [await opened(server), await opened(server, '/news/2')];
    await listens(server, 'room', slow, quick);
    const before = server.memory();
    slow.pause();
    const piece = 'x'.repeat(9000);
    let sent = 0;
    const gone = backend.until('close').then(() => { sent = Infinity; });
    const began = performance.now();
    while (sent < 60 << 20 && performance.now() - began < 60_000) {
      await Promise.all(Array.from({ length: 20 }, () => publish(server, 'room', piece)));
      sent += 20 * piece.length;
    }
    await gone;
    const grown = server.memory() - before;
    assert.ok(grown < 40 << 20, `${grown} bytes`);
    const [close] = await backend.until('close');
    assert.deepEqual([close.params.room, close.clean], ['1', false]);
    assert.equal(quick.ended, undefined);
    quick.text = '';
    await publish(server, 'room', 'still here');
    await quick.hears(/still here/);
    slow.resume();
    await slow.end();
    quick.leave();
  }));

  test('when_the_server_goes_streams_end_and_come_back_later', () => played(subscribed('room'), async (server, backend) => {
    const streams = await Promise.all(Array.from({ length: 20 }, () => opened(server)));
    assert.equal(await server.end(), 0, server.output);
    for (const stream of streams) {
      const events = await stream.end();
      assert.equal(stream.ended, 'whole');
      assert.deepEqual([events.at(-1).event, JSON.parse(events.at(-1).data).code], ['close', 1012]);
      assert.ok(stream.retry >= 5000 && stream.retry <= 15_000, `${stream.retry}`);
    }
    const closes = await backend.until('close', 20);
    assert.deepEqual(new Set(closes.map(({ code }) => code)), new Set([1012]));
  }));
});
