/**
 * POST /publish/ of GRIP at Pushpin and at Taut. TAUT_GRIP_PROXIES=pushpin or =taut runs one of them.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { KEY, PROXIES } from './grip/proxies.js';
import { acceptGrip, control, Scripted, text } from './grip/scripted.js';
import { subscribed } from './grip/subscribed.js';
import { APP, Client } from './server.js';

const item = (formats, more = {}) => ({ items: [{ channel: 'room', formats, ...more }] });
const message = (content, more) => item({ 'ws-message': typeof content === 'string' ? { content } : content }, more);

/** What is asked and answered: the same by both, unless a row names one. */
const REQUESTS = [
  { body: { items: [] }, status: 200, answer: 'Published\n' },
  { body: { items: [] }, path: '/publish', status: 200, answer: 'Published\n' },
  { body: { items: [] }, headers: { accept: 'application/json' }, status: 200, answer: '{"message":"Published"}\n' },
  { body: { items: [{ channel: 'elsewhere', 'ws-message': { content: 'x' } }] }, status: 200, answer: 'Published\n' },
  { body: 'not json', status: 400, answer: 'Body is not valid JSON.\n' },
  { body: {}, status: 400, answer: "Invalid format: object does not contain 'items'\n" },
  { body: { items: [{ formats: { 'ws-message': { content: 'x' } } }] }, status: 400, answer: "Invalid format: publish item object does not contain 'channel'\n" },
  { body: { items: [{ channel: 'elsewhere' }] }, status: 400, answer: 'Invalid format: no formats specified\n' },
  { body: { items: [{ channel: 'elsewhere', formats: { 'ws-message': {} } }] }, status: 400, answer: "Invalid format: 'ws-message' does not contain 'content' or 'content-bin'\n" },
  { method: 'GET', status: 405, allow: 'POST' },
  { method: 'OPTIONS', pushpin: 405, taut: 204, allow: 'POST' },
  { body: { items: [] }, headers: { accept: 'image/png' }, pushpin: 406, taut: 200 },
  // Known since 1.38.
  { body: { items: [{ channel: 'elsewhere', formats: { 'ws-message': { action: 'refresh' } } }] }, status: 400, only: 'pushpin' },
  { method: 'GET', path: '/', status: 200, answer: 'Pushpin API\n', only: 'pushpin' },
  { body: { items: [] }, path: '/publish/room', status: 404, only: 'pushpin' },
];

/** Messages as they are published, and as a client of the channel hears them. */
const MESSAGES = [
  { body: message('héllo'), heard: ['héllo'] },
  { body: { items: [{ channel: 'room', 'ws-message': { content: 'old form' } }] }, heard: ['old form'] },
  { body: message({ 'content-bin': 'AP+A' }), heard: [Buffer.from([0, 255, 128])] },
  { body: message({ content: 'loses', 'content-bin': 'AA==' }), heard: [Buffer.from([0])] },
  { body: message({ 'content-bin': 'aGk=', type: 'text' }), heard: ['hi'] },
  { body: message({ content: 'send', action: 'send' }), heard: ['send'] },
  { body: message(''), heard: [''] },
  { body: { items: ['1', '2', '3'].flatMap((content) => message(content).items) }, heard: ['1', '2', '3'] },
  { body: { items: [...message('once', { id: '1' }).items, ...message('once', { id: '1' }).items, ...message('next', { id: '2', 'prev-id': '1' }).items] }, heard: ['once', 'next'] },
  { body: message('once', { id: 'a' }), heard: ['once'] },
  { body: message('again', { id: 'a' }), heard: [] },
  { body: message('next', { id: 'b', 'prev-id': 'a' }), heard: ['next'] },
  { body: item({ 'http-stream': { content: 'not for WebSockets\n' } }), heard: [] },
  { body: message({ content: 'x'.repeat(150_000) }), heard: ['x'.repeat(150_000)] },
];

/** A token as the libraries make them. */
function token(claims, key = KEY) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

describe('publishing', { concurrency: 3 }, () => {
  for (const { name, start } of PROXIES) {
    describe(`to ${name}`, { concurrency: 1 }, () => {
      let backend, proxy;
      before(async () => {
        backend = await Scripted.start();
        backend.answer('/publishing', (body) => (body === 'OPEN\r\n' ? acceptGrip(control({ type: 'subscribe', channel: 'room' }) + text('m:welcome')) : undefined));
        proxy = await start(backend.port);
        await proxy.ready();
      });
      after(async () => {
        await proxy?.stop();
        await backend?.stop();
      });

      async function subscriber() {
        const client = new Client(`${proxy.url}/publishing`);
        await client.opened();
        assert.equal(await client.next(), 'welcome');
        await subscribed(proxy, 'room', client);
        return client;
      }

      async function ask({ method = 'POST', path = '/publish/', headers, body }, authorization = `Bearer ${KEY}`) {
        const response = await fetch(`${proxy.control}${path}`, { method, headers: { authorization, 'content-type': 'application/json', ...headers }, body: typeof body === 'object' ? JSON.stringify(body) : body });
        return { status: response.status, headers: response.headers, answer: await response.text() };
      }

      for (const row of REQUESTS.filter(({ only }) => only === undefined || only === name)) {
        test(`is_answered: ${row.method ?? 'POST'} ${row.path ?? ''} ${JSON.stringify(row.headers ?? {})} ${JSON.stringify(row.body ?? '')}`, async () => {
          const { status, headers, answer } = await ask(row);
          assert.equal(status, row.status ?? row[name], answer);
          if (row.answer !== undefined) assert.equal(answer, row.answer);
          if (row.allow !== undefined) assert.equal(headers.get('allow'), row.allow);
        });
      }

      for (const { body, heard } of MESSAGES) {
        test(`is_heard: ${JSON.stringify(body).slice(0, 150)}`, async () => {
          const client = await subscriber();
          for (const asked of [body, message('the end')]) {
            const { status, answer } = await ask({ body: asked });
            assert.equal(status, 200, answer);
          }
          for (const expected of [...heard, 'the end']) assert.deepEqual(await client.next(), expected);
          client.terminate();
        });
      }

      test('closes_with_code_and_reason', async () => {
        const client = await subscriber();
        const other = await subscriber();
        await ask({ body: message({ action: 'close', code: 4123, reason: 'kicked' }) });
        for (const each of [client, other]) assert.deepEqual(await each.end(), { code: 4123, reason: 'kicked' });
        const third = await subscriber();
        await ask({ body: message({ action: 'close' }) });
        assert.equal((await third.end()).code, 1000);
      });

      test('needs_the_key', async () => {
        const wrong = { none: '', nonsense: 'Bearer nonsense', anotherKey: `Bearer ${token({ iss: 'taut', exp: inSeconds(60) }, 'another')}`, expired: `Bearer ${token({ iss: 'taut', exp: inSeconds(-3600) })}` };
        for (const [what, authorization] of Object.entries(wrong)) {
          const { status, answer } = await ask({ body: message('not for anybody') }, authorization);
          assert.equal(status, name === 'pushpin' ? 200 : 401, what);
          assert(!answer.includes(KEY), what);
        }
        const client = await subscriber();
        for (const authorization of [`Bearer ${token({ iss: 'taut', exp: inSeconds(60) })}`, `Bearer ${KEY}`]) {
          const { status } = await ask({ body: message('with the key') }, authorization);
          assert.equal(status, 200, authorization.slice(0, 10));
          assert.equal(await client.next(), 'with the key');
        }
        assert.deepEqual(client.messages, []);
        client.terminate();
      });

      if (name === 'taut') {
        test('is_also_below_the_app', async () => {
          const client = await subscriber();
          for (const path of [`/apps/${APP.id}/grip/publish`, `/apps/${APP.id}/grip/publish/`]) {
            assert.equal((await ask({ path, body: message(path) })).status, 200);
            assert.equal(await client.next(), path);
            assert.equal((await ask({ path, body: message(path) }, 'Bearer nonsense')).status, 401);
          }
          client.terminate();
        });
      }
    });
  }
});
