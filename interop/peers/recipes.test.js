/** `taut serve` behind every proxy of the recipes: clients and backends come through, and nothing else opens. */
import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { on, once } from 'node:events';
import { Agent, request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { Server, within } from '../browser/server.js';
import { Workshop, freePort } from './programs.js';
import { PROXIES } from './recipes.js';

/** A connection that has served HTTP takes an upgrade as well (RFC 9110 §7.8). */
const HANDSHAKES = 40;

const PATIENCE = 10_000;
const JSON_TYPE = { 'Content-Type': 'application/json' };
const EVENT = JSON.stringify({ name: 'e', channel: 'private-secrets', data: '' });

let workshop;
before(async () => { workshop = await Workshop.open(); });
after(() => workshop?.close());

/** The servers, each with its app's names and what is left of it for those who have no secret. */
const SERVERS = {
  'the development app': { app: ['1', 'app-key', 'app-secret'], options: [] },
  'an app of its own, with all that other servers open': {
    app: ['1', 'key-one', 'secret-one'],
    options: ['--app', '1:key-one:secret-one'],
    environment: async () => ({ SOKETI_METRICS_ENABLED: '1', SOKETI_METRICS_SERVER_PORT: String(await freePort()) }),
  },
  'an app of its own, and a password for the console': {
    app: ['1', 'key-one', 'secret-one'],
    options: ['--app', '1:key-one:secret-one', '--console-password', 'correct horse battery', '--console-listen', '0'],
  },
};

for (const [kind, { app, options, environment }] of Object.entries(SERVERS)) {
  describe(`taut serve with ${kind}`, { concurrency: false }, () => {
    let taut;
    before(async () => {
      const trusting = ['--trusted-proxies', '127.0.0.1', '--drain-notice', '0', ...options];
      taut = await Server.start({ options: trusting, environment: await environment?.() });
    });
    after(async () => assert.equal(await taut?.stop(), 0));

    test('is_closed_to_strangers_without_a_proxy', async () => refuses(taut.port, app));

    for (const { name, start } of PROXIES) {
      test(`behind ${name}, clients get events and strangers get nothing`, async () => {
        const proxy = await start(workshop, taut.port);
        try {
          await delivers(proxy.port, app);
          await refuses(proxy.port, app);
        } finally {
          await proxy.stop();
        }
      });
    }
  });
}

describe('taut serve behind proxies that keep their connections', { concurrency: false }, () => {
  const { app, options } = SERVERS['an app of its own, and a password for the console'];
  let taut;
  before(async () => { taut = await Server.start({ options: ['--drain-notice', '0', ...options] }); });
  after(async () => assert.equal(await taut?.stop(), 0));

  for (const { name, start } of PROXIES) {
    test(`behind ${name}, every handshake succeeds after a request`, async () => {
      const proxy = await start(workshop, taut.port);
      try {
        assert.equal((await ask(proxy.port, 'GET', '/up')).status, 200);
        for (let number = 0; number < HANDSHAKES; number += 1) {
          const socket = await connect(proxy.port, app);
          socket.close();
          if (number % 10 === 0) assert.equal((await ask(proxy.port, 'GET', '/nothing')).status, 404);
        }
      } finally {
        await proxy.stop();
      }
    });
  }

  test('an agent of Node.js that keeps its connections upgrades them after requests', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (const path of ['/up', '/ready', '/nothing']) {
        await ask(taut.port, 'GET', path, { agent });
        const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' };
        const upgrading = request({ host: '127.0.0.1', port: taut.port, path: `/app/${app[1]}?protocol=7`, headers, agent });
        upgrading.on('response', (response) => upgrading.destroy(new Error(`it was answered with ${response.statusCode}`)));
        const [, socket] = await within(PATIENCE, once(upgrading.end(), 'upgrade'), () => 'nothing came');
        assert.ok(upgrading.reusedSocket, 'the request and the handshake should share a connection');
        socket.destroy();
      }
    } finally {
      agent.destroy();
    }
  });
});

/** A client subscribes through the proxy, and hears what a backend publishes through it. */
async function delivers(port, app) {
  const socket = await connect(port, app);
  socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'news' } }));
  assert.equal((await next(socket)).event, 'pusher_internal:subscription_succeeded');
  const answer = await publish(port, app, JSON.stringify({ name: 'headline', channel: 'news', data: 'it works' }));
  assert.equal(answer.status, 200, answer.body);
  assert.equal((await next(socket)).data, 'it works');
  socket.terminate();
}

/** Whatever a stranger says of himself and of where he asks, he is refused. */
async function refuses(port, [id]) {
  const claims = [
    {},
    { 'X-Forwarded-For': '127.0.0.1', 'X-Real-IP': '127.0.0.1', Forwarded: 'for=127.0.0.1' },
    { Connection: 'close, X-Forwarded-For', 'X-Forwarded-Host': 'localhost' },
  ];
  for (const host of [`127.0.0.1:${port}`, 'localhost', 'realtime.example.com']) {
    for (const claim of claims) {
      const headers = { ...claim, Host: host };
      for (const [method, path, body] of [
        ['GET', '/metrics'],
        ['GET', '/console/api/overview'],
        ['GET', '/console/api/events'],
        ['GET', `/console/api/apps/${id}/connections`],
        ['POST', `/console/api/apps/${id}/events`, EVENT],
        ['POST', `/apps/${id}/events`, EVENT],
      ]) {
        const { status, body: told } = await ask(port, method, path, { headers: { ...headers, ...(body && JSON_TYPE) }, body });
        assert.ok([401, 403, 404].includes(status), `${method} ${path} with ${JSON.stringify(headers)}: ${status} ${told}`);
      }
    }
  }
}

/** An open connection, which has been greeted. */
async function connect(port, [, key]) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/app/${key}?protocol=7&client=js&version=8.6.0&flash=false`);
  socket.messages = on(socket, 'message');
  assert.equal((await next(socket)).event, 'pusher:connection_established');
  return socket;
}

/** The next message, whether it has come already or is still to come. */
async function next(socket) {
  const { value: [message] } = await within(PATIENCE, socket.messages.next(), () => `no message came (${socket.url})`);
  return JSON.parse(message);
}

/** Publishes as a backend does, by a signed request (https://pusher.com/docs/channels/library_auth_reference/rest-api/). */
function publish(port, [id, key, secret], body) {
  const path = `/apps/${id}/events`;
  const digest = createHash('md5').update(body).digest('hex');
  const query = `auth_key=${key}&auth_timestamp=${Math.floor(Date.now() / 1000)}&auth_version=1.0&body_md5=${digest}`;
  const signature = createHmac('sha256', secret).update(`POST\n${path}\n${query}`).digest('hex');
  return ask(port, 'POST', `${path}?${query}&auth_signature=${signature}`, { headers: JSON_TYPE, body });
}

/** One request on a connection of its own, unless there is an agent. */
async function ask(port, method, path, { headers = {}, body, agent = false } = {}) {
  const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
  const asking = request({ host: '127.0.0.1', port, method, path, headers: { ...headers, ...length }, agent });
  const answered = async () => {
    const [response] = await once(asking.end(body), 'response');
    // A stream of events would not end by itself.
    if (/event-stream/.test(response.headers['content-type'])) {
      response.destroy();
      return { status: response.statusCode, body: '' };
    }
    let text = '';
    for await (const part of response.setEncoding('utf8')) text += part;
    return { status: response.statusCode, body: text };
  };
  return within(PATIENCE, answered(), () => `${method} ${path} was not answered`);
}
