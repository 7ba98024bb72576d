/**
 * WebSocket-over-HTTP with GRIP: the same programs, of unchanged libraries, behind Pushpin and behind Taut.
 * TAUT_GRIP_PROXIES=pushpin or =taut runs one of them.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Backend, LIBRARIES } from './grip/backends.js';
import { PROXIES } from './grip/proxies.js';
import { subscribed, unsubscribed } from './grip/subscribed.js';
import { Client, refused } from './server.js';

const DROPPED = { code: 1006, reason: '' };

/** Where Taut differs from Pushpin on purpose. Everything else is the same. More of it is in grip-answers.test.js. */
const DELIBERATE = {
  pushpin: {
    /** What a client sees of a backend that fails later than at the handshake. */
    failure: DROPPED,
    /** `close()` of the libraries, which has no code, sends 0. That is not a valid code, and `ws` takes it for an error. */
    closeWithoutCode: DROPPED,
    /** Who answers pings. */
    pings: 'the backend',
    /** A header that a CGI program cannot tell from Meta-User. */
    underscores: 'arrive',
    /** What it offers clients of its own accord. */
    compression: undefined,
  },
  taut: {
    failure: { code: 1011, reason: 'backend error' },
    closeWithoutCode: { code: 1000, reason: '' },
    pings: 'the proxy',
    underscores: 'are dropped',
    compression: 'permessage-deflate; server_no_context_takeover; client_no_context_takeover',
  },
};

let tags = 0;

/** A client of a user, whose requests the backend can be asked for by its tag. */
async function connect(proxy, user, options = {}) {
  tags += 1;
  const tag = `tag=${tags}.`;
  const client = new Client(`${proxy.url}/chat?user=${user}&${tag}`, options);
  await client.opened();
  client.tag = tag;
  assert.equal(await client.next(), `hello ${user}`);
  return client;
}

const bodyIs = (expected) => (requests) => requests.some(({ body }) => body === expected);

// Side by side: much of their time goes into starting and waiting.
describe('the libraries', { concurrency: 3 }, () => {
  for (const proxied of PROXIES) {
    const deliberate = DELIBERATE[proxied.name];

    for (const [library, { command, publishesMeta, givesReasons, pongs, streams, showsUnderscores }] of Object.entries(LIBRARIES)) {
      describe(`${library} behind ${proxied.name}`, { concurrency: 1 }, () => {
        let backend, proxy;
        before(async () => { [backend, proxy] = await Backend.behind(proxied.start, command); });
        after(async () => {
          await proxy?.stop();
          await backend?.stop();
        });

        /** Plays with clients of these users, who are gone afterwards. */
        async function played(users, story) {
          const clients = await Promise.all(users.map((user) => connect(proxy, user)));
          try {
            await story(...clients);
          } finally {
            for (const client of clients) client.terminate();
          }
        }

        test('a_client_is_let_in_with_subprotocol_and_cookie', async () => {
          const client = await connect(proxy, 'alice', { protocols: ['chat.v1', 'chat.v2'], headers: { Cookie: 'sid=1', Authorization: 'Bearer t' } });
          assert.equal(client.protocol, 'chat.v2');
          assert.match(client.headers['set-cookie'].join(), /^seen=1/);
          assert.equal(client.headers['sec-websocket-extensions'], deliberate.compression);
          client.send('x');
          await client.next();
          const requests = await backend.first(2, client.tag);
          assert.deepEqual(requests.map(({ body }) => body), ['OPEN\r\n', 'TEXT 1\r\nx\r\n']);
          for (const { headers, url } of requests) {
            assert.equal(url, `/chat?user=alice&${client.tag}`);
            assert.equal(headers.cookie, 'sid=1');
            assert.equal(headers.authorization, 'Bearer t');
            assert.equal(headers['content-type'], 'application/websocket-events');
            assert.equal(headers.accept, 'application/websocket-events');
            assert.equal(headers['sec-websocket-extensions'], 'grip');
            assert.equal(headers['sec-websocket-protocol'].replaceAll(' ', ''), 'chat.v1,chat.v2');
          }
          client.terminate();
        });

        test('a_client_is_refused_with_the_status_and_body_of_the_backend', async () => {
          const { status, headers, body } = await refused(`${proxy.url}/chat`);
          assert.deepEqual([status, headers['www-authenticate'], body], [401, 'Bearer', '{"error":"who are you?"}']);
        });

        test('messages_are_answered', () => played(['alice'], async (alice) => {
          for (const text of ['hello', 'héllo, wörld 👋', '', 'x'.repeat(100_000)]) {
            alice.send(text);
            assert.equal(await alice.next(), `[alice] ${text}`);
          }
          for (const bytes of [Buffer.from([0, 255, 128, 13, 10]), Buffer.alloc(0), Buffer.alloc(100_000, 255)]) {
            alice.send(bytes);
            assert.deepEqual(await alice.next(), bytes);
          }
        }));

        test('messages_that_come_quickly_are_answered_once_and_in_order', () => played(['alice', 'bob'], async (alice, bob) => {
          const numbers = Array.from({ length: 50 }, (_, number) => String(number));
          for (const number of numbers) for (const client of [alice, bob]) client.send(number);
          for (const number of numbers) {
            assert.equal(await alice.next(), `[alice] ${number}`);
            assert.equal(await bob.next(), `[bob] ${number}`);
          }
          for (const client of [alice, bob]) {
            const told = `OPEN\r\n${numbers.map((number) => `TEXT ${number.length}\r\n${number}\r\n`).join('')}`;
            const joined = (requests) => requests.map(({ body }) => body).join('');
            await backend.until(client.tag, (requests) => joined(requests).length >= told.length);
            assert.equal(joined(backend.requests(client.tag)), told);
          }
        }));

        test('a_connection_has_an_id_and_its_metadata_come_back', () => played(['alice', 'zoe'], async (alice, zoe) => {
          for (const text of ['one', 'forget', 'two']) {
            alice.send(text);
            if (text !== 'forget') await alice.next();
            else await backend.until(alice.tag, bodyIs('TEXT 6\r\nforget\r\n'));
          }
          const requests = await backend.first(4, alice.tag);
          assert.deepEqual(requests.map(({ headers }) => headers['meta-user']), [undefined, 'alice', 'alice', undefined]);
          const ids = new Set(requests.map(({ headers }) => headers['connection-id']));
          assert.equal(ids.size, 1);
          zoe.send('x');
          assert.equal(await zoe.next(), '[zoe] x');
          assert(!ids.has((await backend.first(1, zoe.tag))[0].headers['connection-id']));
        }));

        test('headers_that_a_client_forges_do_not_arrive', async () => {
          const forged = { 'Meta-User': 'evil', meta_user: 'evil', 'Meta-Admin': 'evil', 'Connection-Id': 'evil', 'Grip-Sig': 'evil', 'Grip-Feature': 'evil', 'Grip-Last': 'evil' };
          const client = await connect(proxy, 'alice', { headers: forged });
          client.send('x');
          assert.equal(await client.next(), '[alice] x');
          for (const { headers, verified, signed } of await backend.first(2, client.tag)) {
            assert(verified);
            assert.notEqual(signed, false);
            const arrived = Object.keys(headers).filter((name) => /evil/.test(headers[name]));
            assert.deepEqual(arrived, showsUnderscores && deliberate.underscores === 'arrive' ? ['meta_user'] : []);
          }
          client.terminate();
        });

        test('requests_are_signed_for_the_validator_of_the_library', () => played(['alice'], async (alice) => {
          alice.close(4000);
          await alice.end();
          const requests = await backend.until(alice.tag, (all) => all.length === 2);
          for (const { headers, verified } of requests) {
            assert(verified);
            const [head, claims] = headers['grip-sig'].split('.').map((part) => (part ? Buffer.from(part, 'base64url').toString('latin1') : ''));
            assert.equal(JSON.parse(head).alg, 'HS256');
            const { exp, iss } = JSON.parse(claims);
            assert.equal(iss, proxy.name);
            assert(exp > Date.now() / 1000 + 60, `${exp}`);
          }
        }));

        test('the_library_publishes_to_those_who_have_subscribed', () => played(['alice', 'bob'], async (alice, bob) => {
          await subscribed(proxy, 'room', alice, bob);
          for (const text of ['news', 'nëws 👋']) {
            await backend.publish({ text });
            for (const client of [alice, bob]) assert.equal(await client.next(), text);
          }
          await backend.publish({ channel: 'elsewhere', text: 'not for us' });
          await backend.publish({ binary: 'AP+A' });
          for (const client of [alice, bob]) assert.deepEqual(await client.next(), Buffer.from([0, 255, 128]));
          alice.send('leave');
          await unsubscribed(proxy, 'room', alice, [bob], async () => {
            alice.send('x');
            await alice.hears(/^\[alice\] x$/);
            alice.messages = alice.messages.filter((message) => message !== '[alice] x');
          });
          await backend.publish({ text: 'for bob' });
          assert.equal(await bob.next(), 'for bob');
          alice.send('y');
          assert.equal(await alice.next(), '[alice] y');
        }));

        test('the_library_closes_those_who_have_subscribed', () => played(['alice', 'bob'], async (alice, bob) => {
          await subscribed(proxy, 'room', alice, bob);
          await backend.publish({ close: 4123, reason: 'kicked' });
          for (const client of [alice, bob]) {
            assert.deepEqual(await client.end(), { code: 4123, reason: givesReasons ? 'kicked' : '' });
            await backend.until(client.tag, (requests) => requests.some(({ body }) => /^CLOSE/.test(body)));
          }
        }));

        if (publishesMeta) test('a_publish_can_leave_out_its_sender', () => played(['alice', 'bob'], async (alice, bob) => {
          for (const client of [alice, bob]) client.send('quiet');
          for (const channel of ['quiet', 'room']) await subscribed(proxy, channel, alice, bob);
          await backend.publish({ channel: 'quiet', text: 'of alice', sender: 'alice' });
          assert.equal(await bob.next(), 'of alice');
          await backend.publish({ channel: 'quiet', text: 'of bob', sender: 'bob' });
          assert.equal(await alice.next(), 'of bob');
          await backend.publish({ text: 'of all' });
          for (const client of [alice, bob]) assert.equal(await client.next(), 'of all');
        }));

        test('a_close_of_the_client_is_told_with_its_code', () => played(['alice'], async (alice) => {
          alice.close(4002);
          assert.deepEqual(await alice.end(), { code: 4002, reason: '' });
          const requests = await backend.until(alice.tag, bodyIs('CLOSE 2\r\n\x0f\xa2\r\n'));
          assert.equal(requests.at(-1).headers['meta-user'], 'alice');
        }));

        test('a_reason_of_the_client_is_told', () => played(['alice'], async (alice) => {
          alice.close(4002, 'dinner');
          await alice.end();
          await backend.until(alice.tag, bodyIs('CLOSE 8\r\n\x0f\xa2dinner\r\n'));
        }));

        test('the_backend_closes_with_its_code', () => played(['alice', 'bob'], async (alice, bob) => {
          alice.send('bye');
          assert.deepEqual(await alice.end(), { code: 4001, reason: '' });
          bob.send('close');
          assert.deepEqual(await bob.end(), deliberate.closeWithoutCode);
        }));

        test('a_client_that_vanishes_is_told_of_and_the_error_of_the_library_is_nobody_s', () => played(['alice', 'bob'], async (alice, bob) => {
          alice.terminate();
          const requests = await backend.until(alice.tag, bodyIs('DISCONNECT\r\n'));
          assert.equal(requests.at(-1).headers['meta-user'], 'alice');
          bob.send('x');
          assert.equal(await bob.next(), '[bob] x');
        }));

        test('a_detached_client_still_gets_what_is_published', () => played(['alice'], async (alice) => {
          await subscribed(proxy, 'room', alice);
          alice.send('detach');
          await backend.until(alice.tag, (requests) => requests.some(({ body }) => /^CLOSE/.test(body)));
          alice.send('lost');
          await backend.publish({ text: 'news' });
          assert.equal(await alice.next(), 'news');
          alice.close(1000);
          assert.deepEqual(await alice.end(), { code: 1000, reason: '' });
          assert.deepEqual((await backend.first(3, alice.tag)).map(({ body }) => body), ['OPEN\r\n', 'TEXT 6\r\ndetach\r\n', 'CLOSE\r\n']);
        }));

        test('an_idle_client_gets_what_keeps_it_alive', () => played(['alice'], async (alice) => {
          alice.send('keep-alive');
          await backend.until(alice.tag, (requests) => requests.length === 2);
          const begun = performance.now();
          assert.equal(await alice.next(), 'still here');
          const waited = performance.now() - begun;
          assert(waited > 800 && waited < 5_000, `${waited} ms`);
        }));

        test('a_ping_is_answered', () => played(['alice'], async (alice) => {
          alice.ping('pp');
          if (deliberate.pings === 'the backend') {
            await backend.until(alice.tag, bodyIs('PING 2\r\npp\r\n'));
            if (pongs !== undefined) assert.equal(await alice.pong(), pongs);
          } else {
            assert.equal(await alice.pong(), 'pp');
            alice.send('x');
            assert.equal(await alice.next(), '[alice] x');
            assert.deepEqual((await backend.first(2, alice.tag)).map(({ body }) => body), ['OPEN\r\n', 'TEXT 1\r\nx\r\n']);
          }
        }));

        if (streams) {
          test('an_event_stream_is_held_and_published_to', async () => {
            const response = await fetch(`${proxy.url.replace('ws', 'http')}/events`, { signal: AbortSignal.timeout(30_000) });
            assert.equal(response.headers.get('content-type'), 'text/event-stream');
            assert.equal(response.headers.get('grip-hold'), null);
            const send = () => fetch(`${backend.url}/event`, { method: 'POST', body: '{"text":"nëws"}' });
            // Like a WebSocket's, its subscription may be later than the first of it.
            const published = /event: message\ndata: \{"text": "n\\u00ebws"\}\n\n/;
            let timer, heard = '';
            try {
              for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
                heard += part;
                if (/event: stream-open\ndata:\n\n/.test(heard)) timer ??= setInterval(send, 100);
                if (published.test(heard)) break;
              }
            } finally {
              clearInterval(timer);
            }
            assert.match(heard, published);
          });
        }

        test('an_error_of_the_backend_ends_the_connection_and_shows_no_trace', () => played(['alice'], async (alice) => {
          alice.send('fail');
          assert.deepEqual(await alice.end(), deliberate.failure);
          assert.deepEqual(alice.messages, []);
        }));
      });
    }
  }
});
