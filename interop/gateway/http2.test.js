/** Routes whose backends are told over HTTP/2, by real servers of it that answer, refuse and go. */
import assert from 'node:assert/strict';
import { constants, createSecureServer } from 'node:http2';
import { createServer as createSecureHttp1 } from 'node:https';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Proxy } from '../cluster/proxy.js';
import { Workshop } from '../peers/programs.js';
import { Backend } from './backend.js';
import { FORMS } from './forms.js';
import { Fpm, Nginx } from './fpm.js';
import { APP, Server } from './server.js';

const { NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants;
const ERROR = { code: 1011, reason: 'backend error' };
const CHAT = fileURLToPath(new URL('../../examples/php/chat.php', import.meta.url));

let workshop;
before(async () => { workshop = await Workshop.open(); });
after(() => workshop.close());

const secrets = () => ({ key: readFileSync(workshop.key), cert: readFileSync(workshop.certificate) });

/** What Backend.start makes its server with: one of HTTP/2, which keeps its connections and counts requests at a time. */
const http2 = (settings) => (handler) => {
  // With less, Node refuses streams while it keeps an answer of ten megabytes.
  const server = createSecureServer({ ...secrets(), settings, maxSessionMemory: 1000 });
  server.sessions = [];
  server.most = 0;
  let now = 0;
  server.on('session', (session) => { server.sessions.push(session); session.on('error', () => {}); });
  server.on('request', (request, response) => {
    now += 1;
    server.most = Math.max(server.most, now);
    request.stream.on('close', () => { now -= 1; });
    request.stream.on('error', () => {});
    handler(request, response);
  });
  server.closeAllConnections = () => { for (const session of server.sessions) session.destroy(); };
  return server;
};

/** What it was told, without what tells of ends. */
const told = (backend) => backend.events.filter(({ event }) => event !== 'close').map(({ event, data }) => data ?? event);
const echo = ({ event, data }) => (event === 'text' ? { send: data } : {});

for (const [form, { route: settings }] of Object.entries(FORMS)) {
  /** Plays a story on a server whose route is a backend's. */
  const played = async (answer, story, { route = {}, listen = http2() } = {}) => {
    const backend = await Backend.start(answer, { form, listen, scheme: 'https' });
    const start = (url, environment = { SSL_CERT_FILE: workshop.certificate }) => Server.start([{ path: '/chat', backend: url, timeout: 3, ...settings, ...route }], { environment });
    let server;
    try {
      server = await start(backend.url);
      await story(server, backend, start);
    } finally {
      assert.equal(await server?.stop(), 0, server?.output);
      await backend.stop();
    }
  };
  // WebSocket-over-HTTP brings the client's own.
  const host = (server, backend) => `127.0.0.1:${(form === 'plain' ? backend : server).port}`;
  const connect = (server, count) => Promise.all(Array.from({ length: count }, () => server.connect('/chat')));

  describe(`a backend of HTTP/2, told in the form ${form}`, () => {
    test('gets_all_events_over_one_connection', () => played(echo, async (server, backend) => {
      const clients = await connect(server, 20);
      for (const number of [1, 2, 3]) for (const client of clients) client.send(`message ${number}`);
      for (const number of [1, 2, 3]) for (const client of clients) assert.equal(await client.next(), `message ${number}`);
      assert.equal(backend.server.sessions.length, 1);
      const [{ headers }] = backend.events;
      const fields = [':method', ':scheme', ':authority', 'host', 'content-length'].map((name) => headers[name]);
      assert.deepEqual(fields, ['POST', 'https', host(server, backend), undefined, String(backend.events[0].body.length)]);
      assert.deepEqual(await server.results(), { answered: 80 });
      for (const client of clients) client.close();
      await backend.until('close', 20);
    }));

    test('which_takes_one_stream_at_a_time_is_sent_no_more', () => played(async (event) => {
      await new Promise((resolve) => { setTimeout(resolve, 5); });
      return echo(event);
    }, async (server, backend) => {
      const clients = await connect(server, 16);
      for (const client of clients) client.send('x');
      for (const client of clients) assert.equal(await client.next(), 'x');
      assert.deepEqual([backend.server.sessions.length, backend.server.most, told(backend).length], [1, 1, 32]);
      for (const client of clients) client.terminate();
      await backend.until('close', 16);
    }, { listen: http2({ maxConcurrentStreams: 1 }) }));

    test('may_answer_with_a_megabyte_and_no_more_and_takes_no_memory', () => played(({ event, data }) => (event === 'text' ? { send: 'x'.repeat(Number(data)) } : {}), async (server, backend) => {
      const large = String((1 << 20) - 100);
      const clients = await connect(server, 6);
      for (const client of clients) client.send(large);
      for (const client of clients) assert.equal((await client.next()).length, Number(large));
      const before = server.memory();
      for (let count = 0; count < 20; count += 1) {
        const client = await server.connect('/chat');
        client.send(String(10 << 20));
        assert.deepEqual(await client.end(), ERROR);
      }
      assert.ok(server.memory() - before < 20 << 20, `${server.memory() - before} bytes more`);
      // What was thrown away counts as read: the connection has not come to a halt.
      clients[0].send(large);
      assert.equal((await clients[0].next()).length, Number(large));
      assert.equal(backend.server.sessions.length, 1);
      for (const client of clients) client.terminate();
    }, { route: { timeout: 20 } }));

    test('that_refuses_a_stream_gets_the_event_again', () => {
      let refusals = 2;
      return played((event, request) => {
        if (event.event !== 'text' || refusals === 0) return echo(event);
        refusals -= 1;
        request.stream.close(NGHTTP2_REFUSED_STREAM);
        return undefined;
      }, async (server, backend) => {
        const client = await server.connect('/chat');
        for (const text of ['one', 'two']) client.send(text);
        for (const text of ['one', 'two']) assert.equal(await client.next(), text);
        assert.deepEqual(told(backend), ['open', 'one', 'one', 'one', 'two']);
        if (form === 'plain') {
          const attempts = backend.events.slice(1, 4).map(({ body, headers }) => [JSON.parse(body).attempt, headers['webhook-id']]);
          const [[, id]] = attempts;
          assert.deepEqual(attempts, [[1, id], [2, id], [3, id]]);
        }
        assert.deepEqual(await server.results(), { answered: 3 });
        assert.equal(backend.server.sessions.length, 1);
        client.terminate();
      });
    });

    test('that_refuses_the_first_stream_makes_the_client_come_back', () => played((event, request) => {
      if (event.event === 'open') request.stream.close(NGHTTP2_REFUSED_STREAM);
      return event.event === 'open' ? undefined : {};
    }, async (server, backend) => {
      const { status, headers } = await server.refused('/chat');
      assert.deepEqual([status, headers['retry-after'], backend.events.length], [503, '1', 1]);
    }));

    test('that_resets_a_stream_gets_no_event_twice_and_nothing_of_half_an_answer_is_done', () => played(({ event, data }, request, response) => {
      if (event !== 'text') return {};
      const [when, code] = data.split(' ');
      const reset = () => request.stream.close(Number(code));
      if (when === 'before') reset();
      else {
        // What has come of it would be an answer by itself.
        const { headers, body } = FORMS[form].write([[{ event }, { send: 'half' }]]);
        response.writeHead(200, headers);
        response.write(body, () => setImmediate(reset));
      }
      return undefined;
    }, async (server, backend) => {
      const cases = [...[NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_ENHANCE_YOUR_CALM].map((code) => `before ${code}`),
        ...[NGHTTP2_REFUSED_STREAM, NGHTTP2_CANCEL, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR].map((code) => `after ${code}`)];
      for (const text of cases) {
        const client = await server.connect('/chat');
        client.send(text);
        assert.deepEqual([await client.end(), client.messages], [ERROR, []], text);
      }
      await backend.until('close', cases.length);
      assert.deepEqual(told(backend).filter((text) => text !== 'open'), cases);
      assert.equal((await server.results()).failed, cases.length);
      assert.equal(backend.server.sessions.length, 1, 'a reset ends a stream, not the connection');
    }));

    test('that_goes_away_gets_what_it_has_not_processed_over_another_connection', () => {
      const going = new Set();
      return played((event, request) => {
        if (!going.delete(event.event)) return echo(event);
        // Its last id is below this stream's.
        request.stream.session.goaway(NGHTTP2_NO_ERROR, request.stream.id - 2);
        return undefined;
      }, async (server, backend) => {
        const [first] = await connect(server, 1); // Node cannot say that it has processed nothing
        for (const event of ['open', 'text']) going.add(event);
        const client = await server.connect('/chat');
        client.send('one');
        assert.equal(await client.next(), 'one');
        assert.deepEqual(told(backend), ['open', 'open', 'open', 'one', 'one']);
        assert.equal(backend.server.sessions.length, 3);
        assert.deepEqual(await server.results(), { answered: 3 });
        for (const each of [first, client]) each.terminate();
      });
    });

    test('that_goes_away_answers_what_it_has_begun_and_the_next_goes_elsewhere', () => played((event, request) => {
      if (event.event === 'text') request.stream.session.goaway(NGHTTP2_NO_ERROR, request.stream.id);
      return echo(event);
    }, async (server, backend) => {
      const client = await server.connect('/chat');
      for (const text of ['one', 'two', 'three']) client.send(text);
      for (const text of ['one', 'two', 'three']) assert.equal(await client.next(), text);
      assert.deepEqual(told(backend), ['open', 'one', 'two', 'three']);
      assert.equal(backend.server.sessions.length, 3);
      client.terminate();
    }));

    test('that_goes_away_in_the_middle_of_what_it_has_begun_gets_no_event_twice', () => played((event, request) => {
      if (event.event !== 'text') return echo(event);
      const { session } = request.stream;
      session.goaway(NGHTTP2_NO_ERROR, request.stream.id);
      setTimeout(() => session.destroy(), 100);
      return undefined;
    }, async (server, backend) => {
      const client = await server.connect('/chat');
      client.send('one');
      assert.deepEqual(await client.end(), ERROR);
      await backend.until('close');
      assert.deepEqual(told(backend), ['open', 'one']);
      assert.deepEqual((await server.results()).failed, 1);
    }));

    test('with_a_head_that_is_too_large_fails_the_event_and_not_the_connection', () => played((event, _, response) => {
      if (event.data === 'large') response.setHeader('x-large', 'x'.repeat(20 << 10));
      return echo(event);
    }, async (server, backend) => {
      const [client, other] = await connect(server, 2);
      client.send('large');
      assert.deepEqual(await client.end(), ERROR);
      other.send('small');
      assert.equal(await other.next(), 'small');
      assert.equal(backend.server.sessions.length, 1);
      other.terminate();
    }));

    test('whose_connection_is_dead_is_told_the_next_event_over_another', () => played(echo, async (_, backend, start) => {
      const network = await Proxy.start(() => backend.port);
      const server = await start(`https://127.0.0.1:${network.port}/events`);
      try {
        const [client, other] = await connect(server, 2);
        network.stall();
        client.send('lost');
        assert.deepEqual(await client.end(), ERROR, 'late');
        assert.equal(backend.server.sessions.length, 1);
        other.send('one'); // over a new connection, which is there once the network works again
        network.heal();
        assert.equal(await other.next(), 'one');
        assert.equal(backend.server.sessions.length, 2);
        other.terminate();
      } finally {
        assert.equal(await server.stop(), 0, server.output);
        await network.stop();
      }
    }));

    test('that_does_not_answer_pings_is_given_up', () => played(echo, async (_, backend, start) => {
      const network = await Proxy.start(() => backend.port);
      const server = await start(`https://127.0.0.1:${network.port}/events`);
      try {
        const [client] = await connect(server, 1);
        network.stall();
        const began = performance.now();
        client.send('lost');
        assert.deepEqual(await client.end(), ERROR);
        assert.ok(performance.now() - began < 22_000, 'after 5 s and 15 s, and not after a minute');
      } finally {
        network.heal();
        assert.equal(await server.stop(), 0, server.output);
        await network.stop();
      }
    }, { route: { timeout: 60 } }));

    test('whose_certificate_is_not_trusted_is_told_nothing', () => played(echo, async (_, backend, start) => {
      const another = await Workshop.open();
      const server = await start(backend.url, { SSL_CERT_FILE: another.certificate });
      try {
        assert.equal((await server.refused('/chat')).status, 503);
        assert.match(server.output, /no connection: .*certificate/);
        assert.deepEqual(backend.events, []);
      } finally {
        assert.equal(await server.stop(), 0, server.output);
        await another.close();
      }
    }));

    test('that_speaks_only_http_1_1_is_told_by_that', () => played(echo, async (server, backend) => {
      const clients = await connect(server, 3);
      for (const client of clients) client.send('x');
      for (const client of clients) assert.equal(await client.next(), 'x');
      for (const { headers } of backend.events) assert.equal(headers.host, host(server, backend));
      for (const client of clients) client.terminate();
    }, { listen: (handler) => createSecureHttp1(secrets(), handler) }));
  });
}

test('the_chat_in_php_is_told_over_http_2_by_nginx_which_renews_its_connections', async () => {
  const fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
  // After seven requests nginx sends GOAWAY, and does not look at what has been sent on that connection since.
  const nginx = await Nginx.start(fpm, { '/chat.php': CHAT }, {}, { secure: workshop, http: 'keepalive_requests 7; http2_max_concurrent_streams 4;' });
  const server = await Server.start([{ path: '/chat/{room}', backend: `${nginx.url}/chat.php` }], { environment: { SSL_CERT_FILE: workshop.certificate } });
  try {
    assert.deepEqual((await server.refused('/chat/1?token=stranger')).status, 401);
    const clients = await Promise.all(['ann', 'bob', 'cid', 'dan', 'eve', 'fay'].map((name) => server.connect(`/chat/${name}?token=token-${name}`)));
    const numbers = Array.from({ length: 40 }, (_, number) => String(number));
    for (const number of numbers) for (const client of clients) client.send(number);
    for (const client of clients) {
      const heard = [];
      while (heard.length < numbers.length) {
        const { event, data } = await client.json();
        if (event === 'message') heard.push(data.text);
      }
      assert.deepEqual(heard, numbers, 'each once, and in order');
    }
    assert.deepEqual(await server.results(), { answered: 246, refused: 1 });
    for (const client of clients) client.terminate();
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await nginx.stop();
    await fpm.stop();
  }
});
