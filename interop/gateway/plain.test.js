/** The plain form over HTTP: what a backend is told, and what becomes of its answers. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { APP, publish, Server } from './server.js';

/** Plays a story on a server whose route /chat/{room} is a backend's. */
async function played(answer, story, route = {}) {
  const backend = await Backend.start(answer);
  const server = await Server.start([{ path: '/chat/{room}', backend: backend.url, ...route }]);
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

describe('the plain form', () => {
  test('an_event_is_told_with_everything_that_the_backend_needs_and_signed', () => played(() => ({}), async (server, backend) => {
    const client = await server.connect('/chat/42%C3%A9?token=t&tag=a&tag=b', { headers: { Cookie: 'sid=1', 'X-Other': 'no', Authorization: 'Bearer x' }, origin: server.url.replace('ws', 'http') });
    client.send('héllo');
    client.send(Buffer.from([0, 255]));
    await backend.until('binary');
    client.close(4001, 'bye');
    await client.end();
    await backend.until('close');
    const [open, text, binary, close] = backend.events;
    assert.deepEqual(backend.events.map(({ event, seq, attempt }) => [event, seq, attempt]), [['open', 1, 1], ['text', 2, 1], ['binary', 3, 1], ['close', 4, 1]]);
    assert.equal(new Set(backend.events.map(({ connection }) => connection)).size, 1);
    for (const event of backend.events) {
      assert.equal(event.v, 1);
      assert.equal(event.route, '/chat/{room}');
      assert.deepEqual(event.params, { room: '42é' });
      assert.equal(event.headers.cookie, 'sid=1');
      assert.equal(event.headers.authorization, 'Bearer x');
      assert.equal(event.headers['x-other'], undefined);
      assert.equal(event.headers['x-forwarded-for'], '127.0.0.1');
      const { 'webhook-id': id, 'webhook-timestamp': time } = event.headers;
      assert.equal(event.headers['webhook-signature'], `v1,${createHmac('sha256', APP.secret).update(`${id}.${time}.${event.body}`).digest('base64')}`);
      assert.equal(id, event.headers['idempotency-key']);
    }
    assert.deepEqual(open.request.query, { token: 't', tag: ['a', 'b'] });
    assert.equal(open.request.headers.origin, server.url.replace('ws', 'http'));
    assert.equal(open.request.address, '127.0.0.1');
    assert.equal(text.data, 'héllo');
    assert.equal(binary.data_base64, 'AP8=');
    assert.deepEqual([close.code, close.reason, close.clean], [4001, 'bye', true]);
  }));

  test('the_backend_decides_who_is_let_in_before_the_upgrade', () => played(({ event, request }, _, response) => {
    if (event !== 'open') return {};
    if (request.query.token === 'good') return { user: { id: 7, info: { name: 'Ann' } }, protocol: 'v2', headers: { 'Set-Cookie': 'a=b', 'X-Node': '1' } };
    response.writeHead(401, { 'content-type': 'application/json', 'www-authenticate': 'Bearer realm="chat"', 'x-secret': 'trace' }).end('{"error":"who are you?"}');
    return undefined;
  }, async (server) => {
    const refused = await server.refused('/chat/1?token=bad');
    assert.deepEqual([refused.status, refused.body, refused.headers['www-authenticate'], refused.headers['x-secret']], [401, '{"error":"who are you?"}', 'Bearer realm="chat"', undefined]);
    const client = await server.connect('/chat/1?token=good', { protocols: ['v1', 'v2'] });
    assert.equal(client.protocol, 'v2');
    assert.equal(client.headers['x-node'], '1');
    client.terminate();
  }));

  test('a_page_of_another_host_cannot_use_the_cookies_of_its_visitors', () => played(() => ({}), async (server, backend) => {
    const refused = await server.refused('/chat/1', { headers: { Cookie: 'sid=1' }, origin: 'https://evil.example' });
    assert.equal(refused.status, 403);
    assert.deepEqual(backend.events, []);
    const client = await server.connect('/chat/1', { origin: 'https://evil.example' });
    client.terminate();
  }));

  test('what_is_answered_is_done', () => played(({ event, data, user, meta }) => {
    if (event === 'open') return { user: 'ann', meta: { count: 0 }, subscribe: ['room'], send: ['hello', { json: { a: 1 } }, { binary: 'AAE=' }] };
    if (data === 'who') return { send: { json: { user: user.id, meta } }, meta: { count: meta.count + 1 } };
    if (data === 'all') return { publish: [{ channel: 'room', event: 'said', data: { text: 'hi' } }] };
    if (data === 'others') return { publish: [{ channel: 'room', data: 'plain', except: 'self' }] };
    if (data === 'leave') return { unsubscribe: ['room'], send: 'left' };
    return data === 'bye' ? { close: { code: 4002, reason: 'enough' } } : {};
  }, async (server) => {
    const [ann, bob] = [await server.connect('/chat/1'), await server.connect('/chat/1')];
    for (const client of [ann, bob]) {
      assert.equal(await client.next(), 'hello');
      assert.deepEqual(await client.json(), { a: 1 });
      assert.deepEqual(await client.next(), Buffer.from([0, 1]));
    }
    for (const count of [0, 1]) {
      ann.send('who');
      assert.deepEqual(await ann.json(), { user: 'ann', meta: { count } });
    }
    ann.send('all');
    for (const client of [ann, bob]) assert.deepEqual(await client.json(), { channel: 'room', event: 'said', data: { text: 'hi' } });
    ann.send('others');
    assert.deepEqual(await bob.json(), { channel: 'room', event: 'message', data: 'plain' });
    await publish(server, 'room', { from: 'outside' });
    for (const client of [ann, bob]) assert.deepEqual(await client.json(), { channel: 'room', event: 'news', data: { from: 'outside' } });
    bob.send('leave');
    assert.equal(await bob.next(), 'left');
    ann.send('bye');
    assert.deepEqual(await ann.end(), { code: 4002, reason: 'enough' });
    bob.terminate();
  }));

  test('what_the_http_api_would_refuse_is_not_published_and_the_rest_is', () => played(({ event }) => (event === 'open' ? { subscribe: ['room', 'not a channel'] } : { publish: [{ channel: 'a b', data: 'x' }, { channel: 'room', event: 'pusher:x', data: 'x' }, { user: 'x'.repeat(500), data: 'x' }, { channel: 'room', data: 'good' }] }), async (server) => {
    const client = await server.connect('/chat/1');
    client.send('x');
    assert.equal((await client.json()).data, 'good');
    client.terminate();
    assert.match(server.output, /a backend's publish was refused/);
    assert.match(server.output, /a backend's subscription was refused/);
  }));

  test('events_of_one_connection_come_one_at_a_time_and_in_order_however_slow_the_backend_is', () => {
    let [running, most] = [0, 0];
    return played(async ({ event, data }) => {
      if (event !== 'text') return {};
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => { setTimeout(resolve, 2); });
      running -= 1;
      return { send: data };
    }, async (server) => {
      const client = await server.connect('/chat/1');
      const numbers = Array.from({ length: 300 }, (_, number) => `${number} ${'x'.repeat(1000)}`);
      for (const number of numbers) client.send(number);
      for (const number of numbers) assert.equal(await client.next(), number);
      assert.equal(most, 1);
      client.terminate();
    });
  });

  test('an_empty_answer_lets_nobody_in_and_says_nothing_later', () => played(() => ({}), async (server, backend) => {
    const empty = (event, request, response) => { response.writeHead(200, { 'content-type': 'text/html' }).end(); };
    backend.answerWith(empty);
    assert.equal((await server.refused('/chat/1')).status, 502);
    backend.answerWith(() => ({}));
    const client = await server.connect('/chat/1');
    backend.answerWith(empty);
    client.send('x');
    await backend.until('text');
    backend.answerWith(() => ({ send: 'still here' }));
    client.send('y');
    assert.equal(await client.next(), 'still here');
    client.terminate();
  }));

  test('what_is_counted_of_a_route_is_in_the_metrics', async () => {
    const backend = await Backend.start();
    const server = await Server.start([{ path: '/chat/{room}', name: 'chat', backend: backend.url }], { options: ['--metrics-token', 'token-of-the-metrics'] });
    try {
      const counted = async (name) => {
        const response = await fetch(`${server.url.replace('ws', 'http')}/metrics`, { headers: { authorization: 'Bearer token-of-the-metrics' } });
        const line = (await response.text()).split('\n').find((text) => text.startsWith(name));
        return Number(line?.split(' ').at(-1));
      };
      const client = await server.connect('/chat/1');
      client.send('x');
      await backend.until('text');
      while (await counted('taut_route_events_total{route="chat",result="answered"}') !== 2);
      assert.equal(await counted('taut_route_connections{route="chat"}'), 1);
      assert.equal(await counted('taut_route_breaker_open{route="chat"}'), 0);
      assert.equal(await counted('taut_route_event_duration_seconds_count{route="chat"}'), 2);
      client.close();
      await backend.until('close');
      while (await counted('taut_route_events_waiting{route="chat"}') !== 0);
      assert.equal(await counted('taut_route_connections{route="chat"}'), 0);
    } finally {
      await server.stop();
      await backend.stop();
    }
  });

  test('a_backend_that_fails_is_shown_by_a_code_and_nothing_of_its_words', () => played(({ event, data }, request, response) => {
    if (event === 'open') return { subscribe: ['room'] };
    if (data === 'trace') response.writeHead(500, { 'content-type': 'text/html' }).end('<b>secret trace</b>');
    else if (data === 'html') response.writeHead(200, { 'content-type': 'text/html' }).end('<b>hi</b>');
    else if (data === 'no') response.writeHead(422).end('no');
    else if (data === 'busy') response.writeHead(503, { 'retry-after': '100' }).end();
    else if (data === 'reset') request.socket.destroy();
    else return { sent: 'x', send: 5 };
    return undefined;
  }, async (server, backend) => {
    for (const [data, code, reason] of [['trace', 1011, 'backend error'], ['html', 1011, 'backend error'], ['no', 1008, 'rejected'], ['busy', 1013, 'try again later'], ['reset', 1011, 'backend error'], ['wrong type', 1011, 'backend error']]) {
      const client = await server.connect('/chat/1');
      client.send(data);
      assert.deepEqual(await client.end(), { code, reason }, data);
    }
    assert.equal((await backend.until('text', 6)).length, 6, 'no event is told twice');
    await backend.until('close', 6);
    assert.doesNotMatch(server.output, /secret trace/);
  }));

  test('an_event_that_was_not_accepted_is_told_again_and_once', () => {
    let refusals = 2;
    return played(({ event, attempt }, _, response) => {
      if (event === 'text' && refusals > 0) {
        refusals -= 1;
        response.writeHead(429, { 'retry-after': '0' }).end();
        return undefined;
      }
      return event === 'text' ? { send: `attempt ${attempt}` } : {};
    }, async (server, backend) => {
      const client = await server.connect('/chat/1');
      client.send('x');
      assert.equal(await client.next(), 'attempt 3');
      assert.equal(new Set((await backend.until('text', 3)).map(({ headers }) => headers['webhook-id'])).size, 1);
      client.terminate();
    });
  });

  test('a_route_that_keeps_goes_on_after_an_error', () => played(({ event, data }, _, response) => {
    if (data !== 'fail') return event === 'text' ? { send: data } : {};
    response.writeHead(500).end();
    return undefined;
  }, async (server) => {
    const client = await server.connect('/chat/1');
    client.send('fail');
    client.send('next');
    assert.equal(await client.next(), 'next');
    client.terminate();
  }, { 'on-error': 'keep' }));

  test('a_route_of_raw_frames_gets_the_data_alone', () => played(({ event }) => (event === 'open' ? { subscribe: ['room'] } : {}), async (server) => {
    const client = await server.connect('/chat/1');
    await publish(server, 'room', { x: 1 });
    assert.equal(await client.next(), '{"x":1}');
    client.terminate();
  }, { frames: 'raw' }));

  test('a_client_that_vanishes_is_told_as_such_and_a_timer_comes_again', () => played(({ event }) => (event === 'open' ? { timer: 5 } : {}), async (server, backend) => {
    const client = await server.connect('/chat/1');
    await backend.until('timer');
    client.terminate();
    const [{ code, clean }] = await backend.until('close');
    assert.deepEqual([code, clean], [1006, false]);
  }));

  test('paths_that_are_no_routes_are_as_before', () => played(() => ({}), async (server) => {
    assert.equal((await fetch(`${server.url.replace('ws', 'http')}/chat/1`)).status, 404);
    const pusher = await server.connect(`/app/${APP.key}?protocol=7`);
    assert.equal((await pusher.json()).event, 'pusher:connection_established');
    pusher.terminate();
  }));

  test('a_route_for_every_path_leaves_the_clients_of_pusher_where_they_are', () => played(() => ({ send: 'routed' }), async (server) => {
    const pusher = await server.connect(`/app/${APP.key}?protocol=7`);
    assert.equal((await pusher.json()).event, 'pusher:connection_established');
    for (const path of ['/', '/anything', '/app/another-key']) {
      const client = await server.connect(path);
      assert.equal(await client.next(), 'routed', path);
      client.terminate();
    }
    pusher.terminate();
  }, { path: '/{path...}' }));
});
