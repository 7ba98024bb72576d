/**
 * Responses that GRIP holds open: the same backends behind Pushpin and behind Taut.
 * TAUT_GRIP_PROXIES=pushpin or =taut runs one of them.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Backend, LIBRARIES } from './grip/backends.js';
import { KEY, PROXIES, Taut } from './grip/proxies.js';
import { Scripted } from './grip/scripted.js';
import { Stream } from './stream.js';

/** Where Taut differs from Pushpin on purpose. Everything else is the same. */
const DELIBERATE = {
  pushpin: {
    /** What a client sees of an error of the backend. */
    error: (body) => body,
    /** What every stream has. */
    caching: [undefined, undefined],
    /** What an EventSource gets that finds the backend away. */
    away: [502, undefined],
  },
  taut: {
    error: () => '',
    caching: ['no-store', 'no'],
    away: [200, 1013],
  },
};

const hold = (headers = {}, body = 'first\n') => ({ status: 200, headers: { 'Content-Type': 'text/plain', 'Grip-Hold': 'stream', 'Grip-Channel': 'room', ...headers }, body });

async function publish(proxy, channel, formats, item = {}) {
  const response = await fetch(`${proxy.control}/publish/`, { method: 'POST', headers: { authorization: `Bearer ${KEY}` }, body: JSON.stringify({ items: [{ channel, formats, ...item }] }) });
  assert.equal(response.status, 200, await response.text());
}
const send = (proxy, content, item) => publish(proxy, 'room', { 'http-stream': { content } }, item);

/** Waits until what is published to the room arrives, as in subscribed.js; what has come is forgotten. */
async function listens(proxy, ...streams) {
  const timer = setInterval(() => send(proxy, 'mark\n').catch(() => {}), 100);
  try {
    await Promise.all(streams.map((stream) => stream.hears(/mark\n/)));
  } finally {
    clearInterval(timer);
  }
  await send(proxy, 'the last mark\n');
  await Promise.all(streams.map((stream) => stream.hears(/the last mark\n/)));
  for (const stream of streams) stream.text = '';
}

let paths = 0;

describe('a response that is held', { concurrency: 2 }, () => {
  for (const { name, start } of PROXIES) {
    const deliberate = DELIBERATE[name];
    describe(`behind ${name}`, { concurrency: 1 }, () => {
      let backend, proxy;
      before(async () => {
        backend = await Scripted.start();
        proxy = await start(backend.port);
        await proxy.ready();
      });
      after(async () => {
        await proxy?.stop();
        await backend?.stop();
      });

      /** What the client of a path gets that the backend answers so. */
      async function asked(answer, options) {
        paths += 1;
        const path = `/path-${paths}?a=b`;
        backend.answer(path, () => answer);
        const stream = await Stream.open(proxy, path, options);
        stream.path = path;
        return stream;
      }

      test('begins_with_what_the_backend_says_and_shows_nothing_of_grip', async () => {
        const forged = { 'Grip-Sig': 'evil', 'Grip-Feature': 'evil', 'Grip-Last': 'evil', 'Meta-User': 'evil' };
        const stream = await asked(hold({ 'X-A': 'b', 'Set-Cookie': 'c=1', 'Grip-Keep-Alive': 'x; timeout=60' }), { headers: { cookie: 'sid=1', accept: 'text/event-stream, */*', 'accept-encoding': 'gzip', ...forged } });
        await stream.hears(/^first\n$/);
        const { 'content-type': type, 'x-a': own, 'set-cookie': cookie, 'content-length': length, 'cache-control': cache, 'x-accel-buffering': buffering } = stream.headers;
        assert.deepEqual([stream.status, type, own, cookie, length], [200, 'text/plain', 'b', ['c=1'], undefined]);
        assert.deepEqual([cache, buffering], deliberate.caching);
        assert.deepEqual(Object.keys(stream.headers).filter((header) => header.startsWith('grip-')), []);
        const [{ method, headers, body }] = backend.requests.filter(({ url }) => url === stream.path);
        assert.deepEqual([method, body, headers.cookie, headers.accept], ['GET', '', 'sid=1', 'text/event-stream, */*']);
        assert.deepEqual([headers['content-type'], headers['connection-id'], headers['meta-user'], headers['grip-last']], [undefined, undefined, name === 'pushpin' ? 'evil' : undefined, undefined]);
        assert.match(headers['grip-feature'], /\bstatus\b.*filter:skip-self.*filter:skip-users.*filter:require-sub/);
        assert.equal(headers['grip-sig'].split('.').length, 3);
        stream.leave();
      });

      test('gets_the_bytes_that_are_published_for_responses_and_ends_when_that_is_published', async () => {
        const [one, two] = [await asked(hold()), await asked(hold({ 'Grip-Channel': 'room, other' }))];
        await listens(proxy, one, two);
        await publish(proxy, 'room', { 'ws-message': { content: 'for WebSockets' } });
        await send(proxy, 'a\r\nb');
        await publish(proxy, 'room', { 'http-stream': { 'content-bin': Buffer.from('é!').toString('base64') }, 'ws-message': { content: 'x' } });
        for (const stream of [one, two]) {
          await stream.hears(/!/);
          assert.equal(stream.text, 'a\r\nbé!');
        }
        await publish(proxy, 'other', { 'http-stream': { content: 'elsewhere' } });
        await two.hears(/elsewhere/);
        await publish(proxy, 'room', { 'http-stream': { action: 'close' } });
        for (const stream of [one, two]) {
          await stream.end();
          assert.equal(stream.ended, 'whole');
        }
        assert.deepEqual([one.text, two.text], ['a\r\nbé!', 'a\r\nbé!elsewhere']);
      });

      test('is_kept_alive_as_the_backend_says', async () => {
        const stream = await asked(hold({ 'Grip-Keep-Alive': 'event: ka\\ndata:\\n\\n; format=cstring; timeout=2' }));
        await stream.hears(/first\n/);
        const began = performance.now();
        await stream.hears(/^first\nevent: ka\ndata:\n\nevent: ka/);
        const waited = performance.now() - began;
        assert.ok(waited > 1800 && waited < 10_000, `${waited} ms`);
        stream.leave();
      });

      test('leaves_out_what_its_filters_say', async () => {
        const filtered = { 'Grip-Channel': 'room; filter=skip-self', 'Grip-Set-Meta': 'user="ann"' };
        const [ann, bob] = [await asked(hold(filtered)), await asked(hold({ ...filtered, 'Grip-Set-Meta': 'user="bob"' }))];
        await listens(proxy, ann, bob);
        await send(proxy, 'of ann\n', { meta: { sender: 'ann' } });
        await send(proxy, 'of all\n');
        for (const stream of [ann, bob]) await stream.hears(/of all/);
        assert.deepEqual([ann.text, bob.text], ['of all\n', 'of ann\nof all\n']);
        for (const stream of [ann, bob]) stream.leave();
      });

      test('may_be_told_of_in_the_body', async () => {
        const instruct = { hold: { mode: 'stream', channels: [{ name: 'room' }] }, response: { code: 201, headers: { 'Content-Type': 'text/plain', 'X-A': 'b' }, body: 'from JSON\n' } };
        const stream = await asked({ status: 200, headers: { 'Content-Type': 'application/grip-instruct' }, body: JSON.stringify(instruct) });
        await stream.hears(/^from JSON\n$/);
        assert.deepEqual([stream.status, stream.headers['content-type'], stream.headers['x-a']], [201, 'text/plain', 'b']);
        await listens(proxy, stream);
        await send(proxy, 'more');
        await stream.hears(/^more$/);
        stream.leave();
      });

      test('is_none_if_the_answer_holds_nothing', async () => {
        for (const [answer, status, headers, body] of [
          [{ status: 404, headers: { 'Content-Type': 'text/html', ETag: '"x"' }, body: '<p>' }, 404, { 'content-type': 'text/html', etag: '"x"' }, '<p>'],
          [{ status: 302, headers: { Location: '/login' }, body: 'there' }, 302, { location: '/login' }, 'there'],
          [{ status: 200, headers: { 'Content-Type': 'application/json' }, body: '{}' }, 200, { 'content-type': 'application/json', 'content-length': '2' }, '{}'],
          [{ status: 200, headers: { 'Content-Type': 'text/plain', 'X-A': 'a', 'X-B': 'b', 'Grip-Expose-Headers': 'X-B', 'Grip-Status': '206' }, body: 'x' }, 206, { 'x-a': undefined, 'x-b': 'b', 'grip-status': undefined }, 'x'],
        ]) {
          const stream = await asked(answer);
          await stream.end();
          assert.deepEqual([stream.status, stream.text], [status, body]);
          for (const [header, value] of Object.entries(headers)) assert.equal(stream.headers[header], value, header);
        }
      });

      test('shows_an_error_as_it_is', async () => {
        const stream = await asked({ status: 500, headers: { 'Content-Type': 'text/plain' }, body: 'trace' });
        await stream.end();
        assert.deepEqual([stream.status, stream.text], [500, deliberate.error('trace')]);
      });

      test('of_a_client_that_goes_is_no_matter_of_the_backend', async () => {
        const stream = await asked(hold());
        await listens(proxy, stream);
        stream.leave();
        const next = await asked(hold());
        await listens(proxy, next);
        assert.deepEqual(backend.requests.filter(({ url }) => url === stream.path).map(({ method }) => method), ['GET']);
        next.leave();
      });
    });
  }
});

describe('the libraries', { concurrency: 2 }, () => {
  for (const { name, start } of PROXIES) for (const library of ['express', 'flask']) {
    test(`${library} holds a stream and publishes to it behind ${name}`, async () => {
      const [backend, proxy] = await Backend.behind(start, LIBRARIES[library].command);
      try {
        const stream = await Stream.open(proxy, '/api/stream');
        assert.deepEqual([stream.status, stream.headers['content-type']], [200, 'text/event-stream']);
        await stream.hears(/^data: \[stream open\]\n\n/);
        const timer = setInterval(() => fetch(`${backend.url}/api/publish`, { method: 'POST' }).catch(() => {}), 100);
        try {
          await stream.until(2);
        } finally {
          clearInterval(timer);
        }
        assert.equal(stream.messages[1], '{"text":"nëws"}');
        stream.leave();
      } finally {
        await proxy.stop();
        await backend.stop();
      }
    });
  }
});

describe('what is told of a stream that cannot be', () => {
  for (const { name, start } of PROXIES) test(`a backend that is away, behind ${name}`, async () => {
    const backend = await Scripted.start();
    const proxy = await start(backend.port);
    await proxy.ready();
    await backend.stop();
    try {
      const stream = await Stream.open(proxy, '/events');
      const events = await stream.end();
      const close = events.find(({ event }) => event === 'close');
      assert.deepEqual([stream.status, close && JSON.parse(close.data).code], DELIBERATE[name].away);
      if (name === 'taut') {
        const other = await Stream.open(proxy, '/events', { headers: { accept: '*/*' } });
        await other.end();
        assert.equal(other.status, 503);
      }
    } finally {
      await proxy.stop();
    }
  });

  test('what_is_not_served_yet_is_in_the_log', async () => {
    const backend = await Scripted.start();
    const taut = await Taut.start(backend.port);
    try {
      for (const [path, headers, why] of [['/poll', { 'Grip-Hold': 'response', 'Grip-Channel': 'a' }, /long polling/], ['/more', { 'Grip-Link': '</more?page=2>; rel=next' }, /Grip-Link/]]) {
        backend.answer(path, () => ({ status: 200, headers, body: 'x' }));
        backend.answer('/well', () => ({ status: 200, headers: {}, body: 'x' }));
        const stream = await Stream.open(taut, path, { headers: { accept: '*/*' } });
        await stream.end();
        assert.equal(stream.status, 502);
        await taut.until(why);
        await (await Stream.open(taut, '/well', { headers: { accept: '*/*' } })).end();
      }
    } finally {
      await taut.stop();
      await backend.stop();
    }
  });
});
