/**
 * WebSocket-over-HTTP byte by byte, behind Pushpin and behind Taut: what becomes of a backend's answers and of a client's
 * frames. Rows with one expectation are the same for both; those with two show where Taut differs on purpose.
 * TAUT_GRIP_PROXIES=pushpin or =taut runs one of them.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { KEY, PROXIES } from './grip/proxies.js';
import { accept, acceptGrip, control, events, Scripted, text } from './grip/scripted.js';
import { subscribed } from './grip/subscribed.js';
import { Client, refused } from './server.js';

const DROPPED = { code: 1006, reason: '' };
const FAILED = { code: 1011, reason: 'backend error' };
const BAD_GATEWAY = { status: 502 };
const bytes = (content) => Buffer.from(content, 'latin1');

/** Answers to OPEN. A client is refused, with a status, a body and headers, or hears messages and perhaps a close. */
const HANDSHAKES = [
  { answer: { status: 401, headers: { 'WWW-Authenticate': 'Bearer', 'Content-Type': 'application/json' }, body: '{"error":"bad token"}' }, seen: { status: 401, body: '{"error":"bad token"}', headers: { 'www-authenticate': 'Bearer' } } },
  { answer: { status: 302, headers: { Location: '/elsewhere' } }, seen: { status: 302, headers: { location: '/elsewhere' } } },
  { answer: { status: 429, headers: { 'Retry-After': '7' }, body: 'later' }, seen: { status: 429, body: 'later', headers: { 'retry-after': '7' } } },
  { answer: { status: 200, headers: { 'Content-Type': 'text/html' }, body: '<b>hi</b>' }, pushpin: { status: 200, body: '<b>hi</b>' }, taut: BAD_GATEWAY },
  { answer: { status: 204 }, pushpin: { status: 204 }, taut: BAD_GATEWAY },
  { answer: { status: 500, body: 'boom trace' }, pushpin: { status: 500, body: 'boom trace' }, taut: BAD_GATEWAY },
  { answer: { status: 200, headers: { 'Content-Type': 'application/websocket-events; charset=utf-8' }, body: 'OPEN\r\n' }, pushpin: { status: 200, body: 'OPEN\r\n' }, taut: { messages: [] } },
  { answer: events(''), seen: BAD_GATEWAY },
  { answer: events(text('hi')), seen: BAD_GATEWAY },
  { answer: events('open\r\n'), seen: BAD_GATEWAY },
  { answer: events('OPEN\n'), seen: BAD_GATEWAY },
  { answer: 'reset', seen: BAD_GATEWAY },
  { answer: events('OPEN 0\r\n\r\n'), seen: { messages: [] } },
  { answer: accept('TEXT 0A\r\n0123456789\r\n'), seen: { messages: ['0123456789'] } },
  { answer: accept('TEXT\r\nTEXT 0\r\n\r\nBINARY 0\r\n\r\n'), seen: { messages: ['', '', Buffer.alloc(0)] } },
  { answer: accept(`FROB 2\r\nxx\r\n${text('ok')}`), seen: { messages: ['ok'] } },
  { answer: accept(`${text('bye')}CLOSE 9\r\n\x0f\xa1go away\r\n`), seen: { messages: ['bye'], closed: { code: 4001, reason: 'go away' } } },
  { answer: accept('TEXT 50\r\nshort\r\n'), pushpin: { messages: ['short\r\n'] }, taut: BAD_GATEWAY },
  { answer: accept('TEXT -5\r\n'), pushpin: { messages: [''] }, taut: BAD_GATEWAY },
  // GRIP: messages have a prefix, and others are for the proxy or for nobody.
  { answer: acceptGrip(`${text('m:welcome')}${text('no prefix')}${text('c:not json')}${control({ type: 'frobnicate' })}${text('m:\0', 'BINARY')}`), seen: { messages: ['welcome', Buffer.from([0])] } },
  { answer: accept(`${text('m:dropped')}${text('p:x')}`, { 'Sec-WebSocket-Extensions': 'grip; message-prefix="p:"' }), seen: { messages: ['x'] } },
  { answer: accept(`${text('m:x')}${control({ type: 'subscribe', channel: 'room' })}${text('y')}`, { 'Sec-WebSocket-Extensions': 'grip; message-prefix=""' }), seen: { messages: ['m:x', 'y'] } },
];

/** Answers to a message, which end the connection. */
const ENDINGS = [
  { answer: { status: 500, body: 'boom trace' }, pushpin: DROPPED, taut: FAILED },
  { answer: { status: 200, headers: { 'Content-Type': 'text/html' }, body: '<b>hi</b>' }, pushpin: DROPPED, taut: FAILED },
  { answer: { status: 422, body: 'no' }, pushpin: DROPPED, taut: { code: 1008, reason: 'rejected' } },
  { answer: { status: 503, headers: { 'Retry-After': '100' } }, pushpin: DROPPED, taut: { code: 1013, reason: 'try again later' } },
  { answer: events('garbage without end'), pushpin: DROPPED, taut: FAILED },
  { answer: events('OPEN\r\n'), pushpin: DROPPED, taut: FAILED },
  { answer: events('DISCONNECT\r\n'), pushpin: DROPPED, taut: FAILED },
  { answer: 'reset', pushpin: DROPPED, taut: FAILED, copies: { taut: 1 } },
  { answer: events('CLOSE 8\r\n\x0f\xa1by app\r\n'), seen: { code: 4001, reason: 'by app' } },
  { answer: events('CLOSE\r\n'), seen: { code: 1000, reason: '' } },
  // These codes must not be on the wire. `ws` takes a frame with one for an error.
  { answer: events('CLOSE 2\r\n\0\0\r\n'), pushpin: DROPPED, taut: { code: 1000, reason: '' } },
  { answer: events('CLOSE 2\r\n\x03\xed\r\n'), pushpin: DROPPED, taut: FAILED },
  { answer: events('CLOSE 2\r\n\x03\xe7\r\n'), pushpin: DROPPED, taut: FAILED },
  { answer: events('TEXT 2\r\n\xff\xfe\r\n'), pushpin: DROPPED, taut: FAILED },
];

const described = ({ answer }) => (answer === 'reset' ? 'a reset' : `${answer.status} ${JSON.stringify(answer.headers ?? {})} ${JSON.stringify(answer.body ?? '')}`);
const raw = (answer) => (typeof answer.body === 'string' ? { ...answer, body: bytes(answer.body) } : answer);

let addresses = 0;

describe('the answers of a backend', { concurrency: 3 }, () => {
  for (const { name, start } of PROXIES) {
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

      /** A fresh address, with what the backend answers there. */
      function at(script) {
        addresses += 1;
        const path = `/answers/${addresses}`;
        backend.answer(path, (body) => raw(script(body) ?? events('')));
        return path;
      }

      async function connect(path) {
        const client = new Client(`${proxy.url}${path}`);
        await client.opened();
        return client;
      }

      const publish = (...items) => fetch(`${proxy.control}/publish/`, { method: 'POST', headers: { authorization: `Bearer ${KEY}` }, body: JSON.stringify({ items }) });

      for (const row of HANDSHAKES) {
        test(`to_the_handshake: ${described(row)}`, async () => {
          const expected = row.seen ?? row[name];
          const path = at((body) => (body === 'OPEN\r\n' ? row.answer : events(body)));
          if (expected.status) {
            const { status, headers, body } = await refused(`${proxy.url}${path}`);
            assert.equal(status, expected.status);
            if (expected.body !== undefined) assert.equal(body, expected.body);
            else assert.doesNotMatch(body, /trace|<b>|OPEN|TEXT/);
            for (const [header, value] of Object.entries(expected.headers ?? {})) assert.equal(headers[header], value);
            return;
          }
          const client = await connect(path);
          for (const message of expected.messages) assert.deepEqual(await client.next(), message);
          if (expected.closed) assert.deepEqual(await client.end(), expected.closed);
          assert.deepEqual(client.messages, []);
          client.terminate();
        });
      }

      for (const row of ENDINGS) {
        test(`to_a_message: ${described(row)}`, async () => {
          const path = at((body) => (body === 'OPEN\r\n' ? accept() : row.answer));
          const client = await connect(path);
          client.send('x');
          assert.deepEqual(await client.end(), row.seen ?? row[name]);
          assert.deepEqual(client.messages, []);
          const copies = backend.bodies(path).filter((body) => body === 'TEXT 1\r\nx\r\n').length;
          if (row.copies?.[name] !== undefined) assert.equal(copies, row.copies[name]);
        });
      }

      test('a_close_that_the_backend_does_not_answer_ends_the_connection', async () => {
        const client = await connect(at((body) => (body === 'OPEN\r\n' ? accept() : events(''))));
        client.close(4000);
        assert.deepEqual(await client.end(), name === 'pushpin' ? DROPPED : { code: 4000, reason: '' });
      });

      test('a_text_of_the_client_that_is_not_utf_8', async () => {
        const path = at((body) => (body === 'OPEN\r\n' ? accept() : events(body)));
        const client = await connect(path);
        client.send(Buffer.from([0xff, 0xfe]), { binary: false });
        if (name === 'pushpin') await backend.until(path, /^TEXT 2\r\n\xff\xfe\r\n$/);
        else assert.equal((await client.end()).code, 1007);
        client.terminate();
        assert.equal(backend.bodies(path).filter((body) => /^TEXT/.test(body)).length, name === 'pushpin' ? 1 : 0);
      });

      test('a_ping_between_two_fragments', async () => {
        const client = await connect(at((body) => (body === 'OPEN\r\n' ? accept() : events(text('whole')))));
        client.send('a', { fin: false });
        client.ping('p');
        client.send('b', { fin: true });
        if (name === 'pushpin') assert.deepEqual(await client.end(), DROPPED);
        else assert.equal(await client.next(), 'whole');
        client.terminate();
      });

      test('a_connection_subscribes_to_thirty_channels', async () => {
        const channels = Array.from({ length: 30 }, (_, number) => `many-${number}`);
        const client = await connect(at((body) => (body === 'OPEN\r\n' ? acceptGrip(channels.map((channel) => control({ type: 'subscribe', channel })).join('') + text('m:done')) : undefined)));
        assert.equal(await client.next(), 'done');
        await subscribed(proxy, channels[19], client);
        if (name === 'taut') await subscribed(proxy, channels[29], client);
        const heard = name === 'pushpin' ? channels.slice(0, 20) : channels;
        await publish(...[...channels].reverse().map((channel) => ({ channel, formats: { 'ws-message': { content: channel } } })));
        // Only the events of one channel have an order.
        const messages = [];
        for (const _ of heard) messages.push(await client.next());
        assert.deepEqual(messages.sort(), [...heard].sort());
        client.terminate();
      });

      test('metadata_are_kept_changed_and_removed_without_regard_to_case', async () => {
        const answers = [accept('', { 'Set-Meta-User': 'alice', 'set-meta-room': 'r1' }), events(text('1'), { 'Set-Meta-Room': '', 'Set-Meta-Count': '2' }), events(text('2'))];
        const path = at((body) => (/^(OPEN|TEXT)/.test(body) ? answers.shift() : undefined));
        const client = await connect(path);
        for (const message of ['1', '2']) {
          client.send('x');
          assert.equal(await client.next(), message);
        }
        client.terminate();
        await backend.until(path, /^DISCONNECT\r\n$/);
        const told = backend.requests.filter(({ url }) => url === path).map(({ headers }) => Object.fromEntries(Object.entries(headers).filter(([header]) => header.startsWith('meta-'))));
        const later = { 'meta-user': 'alice', 'meta-count': '2' };
        assert.deepEqual(told, [{}, { 'meta-user': 'alice', 'meta-room': 'r1' }, later, later]);
      });
    });
  }
});
