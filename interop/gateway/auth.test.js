/** Who may connect to a route: by a token that the server checks, by nobody's leave, and what an empty answer means. */
import assert from 'node:assert/strict';
import { createHmac, createPrivateKey, generateKeyPairSync, sign } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { Fpm } from './fpm.js';
import { events, Scripted, text } from './grip/scripted.js';
import { APP, Server } from './server.js';

const SECRET = 'a secret of thirty-two characters';
const now = () => Math.floor(Date.now() / 1000);
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token of a user that is good for a while, with other claims if there are any. */
function token(user, claims = {}, secret = SECRET) {
  const signed = [{ alg: 'HS256', typ: 'JWT' }, { sub: user, aud: 'chat', exp: now() + 600, ...claims }].map(encode).join('.');
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** The app whose tokens these are, with its own place for them among others. */
const GUARDED = { ...APP, 'upgrade.secret': SECRET, 'upgrade.audience': 'chat', 'upgrade.cookie': 'session' };

/** Answers nothing to open, and to a message who the client is. */
const SCRIPT = `<?php
$event = json_decode(file_get_contents('php://input'), true);
if (isset($event['request']['query']['banned'])) { http_response_code(403); exit('banned'); }
if ($event['event'] !== 'text') exit;
header('Content-Type: application/json');
echo json_encode(['send' => $event['user']['id'] ?? 'nobody']);
`;

/** Backends that answer open with nothing at all, and each message with the user that they are told. */
const BACKENDS = {
  'in the plain form': async () => {
    const backend = await Backend.start(({ event, user, request }, _, response) => {
      if (event === 'text') return { send: user?.id ?? 'nobody' };
      response.writeHead(request?.query.banned === undefined ? 200 : 403).end(request?.query.banned === undefined ? '' : 'banned');
      return undefined;
    });
    return { route: { backend: backend.url }, heard: async () => backend.events.length, stop: () => backend.stop() };
  },
  'by websocket-over-http': async () => {
    let heard = 0;
    const server = createServer(async (request, response) => {
      heard += 1;
      let body = '';
      for await (const part of request.setEncoding('utf8')) body += part;
      if (request.url.includes('banned')) response.writeHead(403).end('banned');
      else if (body.startsWith('TEXT')) response.setHeader('content-type', 'application/websocket-events').end(text(request.headers['meta-user'] ?? 'nobody'));
      else response.writeHead(204).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
      route: { form: 'websocket-over-http', backend: `http://127.0.0.1:${server.address().port}` },
      heard: async () => heard,
      async stop() {
        server.close();
        server.closeAllConnections();
        await once(server, 'close');
      },
    };
  },
  'by php-fpm': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'taut-auth-'));
    await chmod(folder, 0o755);
    await writeFile(join(folder, 'script.php'), SCRIPT);
    const fpm = await Fpm.start({ workers: 2, pool: `access.log = ${join(folder, 'access.log')}\n` });
    return {
      route: { backend: fpm.address, script: join(folder, 'script.php') },
      heard: async () => (await readFile(join(folder, 'access.log'), 'utf8')).split('\n').length - 1,
      async stop() {
        await fpm.stop();
        await rm(folder, { recursive: true });
      },
    };
  },
};

/** Plays a story on a server whose route /chat is this backend's. */
async function played(start, route, story, app = GUARDED) {
  const backend = await start();
  const server = await Server.start([{ path: '/chat', ...backend.route, ...route }], { app });
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

/** Who a client is to its backend. */
async function user(client) {
  client.send('who');
  return client.next();
}

for (const [how, start] of Object.entries(BACKENDS)) {
  describe(`a route for tokens, told ${how}`, { concurrency: 1 }, () => {
    const jwt = (story, app) => played(start, { auth: 'jwt' }, story, app);

    test('a_good_token_lets_its_user_in_wherever_it_stands', () => jwt(async (server) => {
      for (const [path, options, protocol] of [
        [`/chat?token=${token('ann')}`, {}, ''],
        ['/chat', { headers: { Authorization: `Bearer ${token('ann')}` } }, ''],
        ['/chat', { headers: { Cookie: `a=b; session=${token('ann')}` }, origin: server.url.replace('ws', 'http') }, ''],
        ['/chat', { protocols: ['taut.v1', `bearer.${token('ann')}`] }, 'taut.v1'],
      ]) {
        const client = await server.connect(path, options);
        assert.equal(client.protocol, protocol);
        assert.equal(await user(client), 'ann');
        client.terminate();
      }
    }));

    test('without_a_good_token_the_backend_hears_nothing', () => jwt(async (server, backend) => {
      const unsigned = `${encode({ alg: 'none' })}.${encode({ sub: 'ann', aud: 'chat', exp: now() + 600 })}.`;
      const bad = {
        'has expired': token('ann', { exp: now() - 61 }),
        signature: token('ann', {}, `${SECRET}!`),
        'another audience': token('ann', { aud: 'shop' }),
        'not signed with HS256': unsigned,
        'whose it is': token(undefined),
      };
      const missing = await server.refused('/chat');
      assert.deepEqual([missing.status, missing.headers['www-authenticate']], [401, 'Bearer']);
      assert.match(missing.body, /there was none/);
      for (const [reason, text] of Object.entries(bad)) {
        const cookie = { headers: { Cookie: `session=${text}` }, origin: server.url.replace('ws', 'http') };
        const places = [
          [`/chat?token=${text}`, {}],
          ['/chat', { headers: { Authorization: `Bearer ${text}` } }],
          ['/chat', cookie],
          ['/chat', { protocols: ['taut.v1', `bearer.${text}`] }],
        ];
        for (const [path, options] of places) {
          const refused = await server.refused(path, options);
          assert.deepEqual([refused.status, refused.headers['www-authenticate']], [401, 'Bearer'], reason);
          assert.match(refused.body, new RegExp(reason));
        }
      }
      const evil = { headers: { Cookie: `session=${token('ann')}` }, origin: 'https://evil.example' };
      assert.equal((await server.refused('/chat', evil)).status, 403);
      assert.equal(await backend.heard(), 0);
    }));

    test('the_backend_can_still_refuse', () => jwt(async (server, backend) => {
      const refused = await server.refused(`/chat?token=${token('ann')}&banned=1`);
      assert.deepEqual([refused.status, refused.body], [403, 'banned']);
      // php-fpm writes its log once it has answered.
      while (await backend.heard() === 0);
      assert.equal(await backend.heard(), 1);
    }));

    test('a_connection_outlives_its_token_as_those_of_pusher_do', () => jwt(async (server) => {
      // Clocks may differ by a minute: this one ends in a moment.
      const path = `/chat?token=${token('ann', { exp: now() - 58 })}`;
      const client = await server.connect(path);
      let isOver = false;
      while (!isOver) {
        const other = await server.connect(path).catch((error) => error);
        isOver = other instanceof Error;
        if (isOver) assert.match(other.message, /401/);
        else other.terminate();
      }
      assert.equal(await user(client), 'ann');
      client.terminate();
    }));
  });

  test(`an_empty_answer_lets_everybody_in_where_that_is_asked_for_by_name, told ${how}`, () => played(start, { auth: 'none' }, async (server) => {
    const client = await server.connect('/chat');
    assert.equal(await user(client), 'nobody');
    client.terminate();
    assert.equal((await server.refused('/chat?banned=1')).status, 403);
    assert.equal(server.output.match(/everybody may connect to the route/g)?.length, 1);
  }, APP));

  test(`an_empty_answer_lets_nobody_in_by_default, told ${how}`, () => played(start, {}, async (server) => {
    assert.equal((await server.refused('/chat')).status, 502);
    assert.doesNotMatch(server.output, /everybody may connect/);
  }, APP));
}

describe('the user of a token', () => {
  test('is_the_user_of_its_connection_for_the_application_and_for_presence', () => played(async () => {
    const backend = await Backend.start(({ event, data }) => (event === 'text' ? JSON.parse(data) : { subscribe: ['presence-room'] }));
    return { route: { backend: backend.url }, backend, stop: () => backend.stop() };
  }, { auth: 'jwt' }, async (server, { backend }) => {
    const client = await server.connect(`/chat?token=${token('ann', { user_info: { name: 'Ann' } })}`);
    const { data } = await client.json();
    assert.deepEqual(data.presence.hash, { ann: { name: 'Ann' } });
    const [{ user: told }] = await backend.until('open');
    assert.deepEqual(told, { id: 'ann', info: { name: 'Ann' } });
    const url = `${server.url.replace('ws', 'http')}/users/ann/send`;
    const sent = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${APP.secret}` }, body: 'hello' });
    assert.equal(sent.status, 200);
    assert.equal((await client.json()).data, 'hello');
    // The backend may know better.
    client.send(JSON.stringify({ user: 'bob', send: 'done' }));
    assert.equal(await client.next(), 'done');
    client.send('{}');
    assert.deepEqual((await backend.until('text', 2))[1].user, { id: 'bob' });
    client.terminate();
  }));

  test('is_known_from_keys_that_its_issuer_publishes', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('ed25519');
    const issuer = createServer((_, response) => {
      response.end(JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one' }] }));
    }).listen(0, '127.0.0.1');
    await once(issuer, 'listening');
    const issued = (user, key = privateKey) => {
      const signed = [{ alg: 'EdDSA', kid: 'one' }, { sub: user, exp: now() + 600 }].map(encode).join('.');
      return `${signed}.${sign(null, Buffer.from(signed), createPrivateKey(key.export({ type: 'pkcs8', format: 'pem' }))).toString('base64url')}`;
    };
    try {
      const app = { ...APP, 'upgrade.jwks': `http://127.0.0.1:${issuer.address().port}/` };
      await played(BACKENDS['in the plain form'], { auth: 'jwt' }, async (server, backend) => {
        const others = generateKeyPairSync('ed25519').privateKey;
        assert.equal((await server.refused(`/chat?token=${issued('eve', others)}`)).status, 401);
        assert.equal(await backend.heard(), 0);
        const client = await server.connect(`/chat?token=${issued('ann')}`);
        assert.equal(await user(client), 'ann');
        client.terminate();
      }, app);
    } finally {
      issuer.close();
      issuer.closeAllConnections();
    }
  });

  test('goes_into_a_header_or_not_at_all', async () => {
    const scripted = await Scripted.start();
    try {
      await played(async () => ({
        route: { form: 'websocket-over-http', backend: `http://127.0.0.1:${scripted.port}` }, stop: () => {},
      }), { auth: 'jwt' }, async (server) => {
        for (const name of ['ann\r\nMeta-Role: admin', ' ann', 'ann\u0000']) {
          assert.equal((await server.refused(`/chat?token=${token(name)}`)).status, 401);
        }
        assert.deepEqual(scripted.requests, []);
        const forged = { headers: { 'Meta-User': 'bob', meta_user: 'bob' } };
        const path = `/chat?token=${token('zoë')}`;
        scripted.answer(path, () => events('OPEN\r\n', { 'Set-Meta-Role': 'guest' }));
        const client = await server.connect(path, forged);
        client.send('x');
        await scripted.until(path, /^TEXT/);
        const told = scripted.requests.map(({ headers }) => [Buffer.from(headers['meta-user'], 'latin1').toString(), headers['meta-role']]);
        assert.deepEqual(told, [['zoë', undefined], ['zoë', 'guest']]);
        client.terminate();
      });
    } finally {
      await scripted.stop();
    }
  });
});
