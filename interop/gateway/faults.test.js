/** What clients see, and backends are told, while backends fail. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { Server } from './server.js';

const TIMEOUT = 2; // seconds
// After this time no connection to a backend is used again. A request that crosses the end of one may have arrived, and is
// not sent again.
const IDLE = 1600; // milliseconds

const passed = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Plays a story on a server whose route /chat/{room} is a backend's. */
async function played(answer, story, route = {}, options = []) {
  const backend = await Backend.start(answer);
  const server = await Server.start([{ path: '/chat/{room}', backend: backend.url, timeout: TIMEOUT, ...route }], { options });
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

const texts = (backend) => backend.events.filter(({ event }) => event === 'text').map(({ data }) => data);

describe('a backend that is away', () => {
  test('before_a_client_comes_it_is_told_at_once', () => played(() => ({}), async (server, backend) => {
    await backend.stop();
    const began = performance.now();
    const { status, headers, body } = await server.refused('/chat/1');
    assert.deepEqual([status, headers['retry-after'], body], [503, '1', 'The application is away, or has too much to do.\n']);
    assert.ok(performance.now() - began < 1000);
  }));

  test('between_two_messages_it_gets_the_second_when_it_is_back_and_once', () => played(({ event, data }) => (event === 'text' ? { send: data } : {}), async (server, backend) => {
    const client = await server.connect('/chat/1');
    client.send('first');
    assert.equal(await client.next(), 'first');
    await backend.leave();
    await passed(IDLE);
    for (const text of ['second', 'third']) client.send(text);
    await passed(700);
    await backend.comeBack();
    for (const text of ['second', 'third']) assert.equal(await client.next(), text);
    assert.deepEqual(texts(backend), ['first', 'second', 'third']);
    client.terminate();
  }));

  test('for_good_ends_connections_with_1013_and_is_told_of_their_end_when_it_is_back', () => played(() => ({}), async (server, backend) => {
    const client = await server.connect('/chat/1');
    await backend.leave();
    await passed(IDLE);
    client.send('lost');
    assert.deepEqual(await client.end(), { code: 1013, reason: 'try again later' });
    await backend.comeBack();
    assert.equal((await backend.until('close'))[0].seq, 3);
    assert.deepEqual(texts(backend), []);
  }));

  test('long_enough_is_asked_no_more_until_it_is_back', () => played(({ event }, _, response) => {
    if (event !== 'open') return {};
    response.writeHead(502).end();
    return undefined;
  }, async (server, backend) => {
    for (let count = 0; count < 20; count += 1) assert.equal((await server.refused('/chat/1')).status, 502);
    const began = performance.now();
    assert.equal((await server.refused('/chat/1')).status, 503);
    assert.ok(performance.now() - began < 200, 'nobody is asked');
    assert.equal(backend.events.length, 20);
    backend.answerWith(() => ({}));
    for (;;) {
      const client = await server.connect('/chat/1').catch(() => undefined);
      if (client) { client.terminate(); break; }
      await passed(50);
    }
  }));

  test('only_by_errors_of_one_handler_is_still_asked', () => played(({ event, data }, _, response) => {
    if (event !== 'text') return {};
    if (data === 'well') return { send: 'well' };
    response.writeHead(500).end();
    return undefined;
  }, async (server) => {
    const client = await server.connect('/chat/1');
    for (let count = 0; count < 30; count += 1) client.send('fail');
    client.send('well');
    assert.equal(await client.next(), 'well');
    client.terminate();
  }, { 'on-error': 'keep' }));
});

describe('a backend that does not answer as it should', () => {
  test('never_is_504_before_the_upgrade_and_1011_afterwards', () => played(({ event, params, data }) => ((event === 'open' && params.room === 'silent') || data === 'silent' ? new Promise(() => {}) : {}), async (server) => {
    assert.equal((await server.refused('/chat/silent')).status, 504);
    const client = await server.connect('/chat/1');
    client.send('silent');
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
  }));

  test('in_time_for_the_whole_of_its_answer_is_late', () => played(({ event }, _, response) => {
    if (event !== 'text') return {};
    response.writeHead(200, { 'content-type': 'application/json' });
    const dribble = setInterval(() => response.write(' '), 200);
    response.on('close', () => clearInterval(dribble));
    return undefined;
  }, async (server) => {
    const client = await server.connect('/chat/1');
    const began = performance.now();
    client.send('x');
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
    assert.ok(performance.now() - began < TIMEOUT * 1000 + 1500);
  }));

  test('with_ten_megabytes_takes_no_memory_of_the_server', () => played(({ event }, _, response) => {
    if (event !== 'text') return {};
    response.writeHead(200, { 'content-type': 'application/json' }).end(`{"send":"${'x'.repeat(10 << 20)}"}`);
    return undefined;
  }, async (server) => {
    const before = server.memory();
    for (let count = 0; count < 20; count += 1) {
      const client = await server.connect('/chat/1');
      client.send('x');
      assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
    }
    assert.ok(server.memory() - before < 20 << 20, `${server.memory() - before} bytes more`);
  }));

  test('with_something_that_is_not_http_ends_the_connection_with_1011', async () => {
    const nonsense = createServer((socket) => { socket.on('data', () => socket.end('SSH-2.0-x\r\n')); socket.on('error', () => {}); }).listen(0, '127.0.0.1');
    await once(nonsense, 'listening');
    const server = await Server.start([{ path: '/chat', backend: `http://127.0.0.1:${nonsense.address().port}/` }]);
    assert.equal((await server.refused('/chat')).status, 502);
    assert.equal(await server.stop(), 0);
    nonsense.close();
  });
});

describe('clients', () => {
  test('that_send_faster_than_the_backend_answers_are_read_no_further_and_lose_nothing', () => {
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    return played(async ({ event }) => { if (event === 'text') await held; return {}; }, async (server, backend) => {
      const client = await server.connect('/chat/1');
      const before = server.memory();
      const text = 'x'.repeat(10_000);
      for (let number = 0; number < 1500; number += 1) client.send(`${number} ${text}`);
      await backend.until('text');
      await passed(500);
      assert.ok(server.memory() - before < 4 << 20, `${server.memory() - before} bytes more for 15 MB that wait`);
      release();
      await backend.until('text', 1500);
      assert.deepEqual(texts(backend).map((data) => Number(data.split(' ')[0])), Array.from({ length: 1500 }, (_, number) => number));
      client.terminate();
    }, { timeout: 60 });
  });

  test('that_go_during_a_request_are_told_of_after_it_and_what_it_publishes_is_published', () => {
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    return played(async ({ event }) => {
      if (event === 'open') return { subscribe: ['room'] };
      if (event !== 'text') return { send: 'nobody hears this' };
      await held;
      return { send: 'nor this', publish: [{ channel: 'room', data: 'last' }] };
    }, async (server, backend) => {
      const [client, other] = [await server.connect('/chat/1'), await server.connect('/chat/1')];
      client.send('x');
      await backend.until('text');
      client.close(4000, 'gone');
      assert.equal((await client.end()).code, 4000, 'answered while the backend is busy');
      release();
      assert.equal((await other.json()).data, 'last');
      const [{ seq, code, reason }] = await backend.until('close');
      assert.deepEqual([seq, code, reason], [3, 4000, 'gone']);
      other.terminate();
    });
  });

  test('that_go_in_a_crowd_do_not_keep_out_those_who_come', () => played(async ({ event }) => { if (event === 'close') await passed(50); return {}; }, async (server, backend) => {
    const clients = await Promise.all(Array.from({ length: 60 }, () => server.connect('/chat/1')));
    for (const client of clients) client.terminate();
    await backend.until('close');
    const began = performance.now();
    const client = await server.connect('/chat/1');
    assert.ok(performance.now() - began < 500, `${performance.now() - began} ms`);
    client.terminate();
    await backend.until('close', 61);
  }, { concurrency: 4 }));

  test('cannot_forge_what_the_backend_takes_for_ours', () => played(() => ({}), async (server, backend) => {
    const client = await server.connect('/chat/1', { headers: { 'Webhook-Signature': 'v1,x', 'webhook_signature': 'v1,x', 'X-Forwarded-For': '6.6.6.6', Proxy: 'http://evil/', PHP_VALUE: 'x', 'Idempotency-Key': 'x', Cookie: 'c=1' } });
    client.terminate();
    const [{ headers }] = await backend.until('open');
    assert.match(headers['webhook-signature'], /^v1,[A-Za-z0-9+/]{43}=$/);
    assert.deepEqual([headers['x-forwarded-for'], headers.proxy, headers.php_value, headers.webhook_signature, headers.cookie], ['127.0.0.1', undefined, undefined, undefined, 'c=1']);
    assert.match(headers['idempotency-key'], /^ev_/);
  }, { headers: ['Cookie', 'Proxy', 'PHP_VALUE', 'webhook_signature'] }));

  test('of_a_server_that_stops_are_told_of', () => played(async ({ event }) => { if (event === 'close') await passed(20); return {}; }, async (server, backend) => {
    const clients = await Promise.all(Array.from({ length: 50 }, () => server.connect('/chat/1')));
    assert.equal(await server.end(), 0);
    for (const client of clients) assert.equal((await client.end()).code, 1012);
    assert.equal((await backend.until('close', 50)).length, 50);
  }, { concurrency: 4 }));
});
