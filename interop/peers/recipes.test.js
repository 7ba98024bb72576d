/** `taut serve` behind every proxy of the recipes: clients and backends come through, and nothing else opens. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, readdir } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Server, within } from '../browser/server.js';
import { Workshop, freePort } from './programs.js';
import { PROXIES, SITE, besideASite, byEnvoy, byNginx, reloadedCaddy } from './recipes.js';
import { JSON_TYPE, PATIENCE, ask, connect, delivers, fallsBack, next, publish } from './visitors.js';

/** A connection that has served HTTP takes an upgrade as well (RFC 9110 §7.8). */
const HANDSHAKES = 40;

/** So many proxies start and are tried at a time: they wait more than they compute. */
const TOGETHER = 4;

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
  describe(`taut serve with ${kind}`, { concurrency: TOGETHER }, () => {
    let taut;
    before(async () => {
      const trusting = ['--trusted-proxies', '127.0.0.1', '--drain-notice', '0', ...options];
      taut = await Server.start({ options: trusting, environment: await environment?.() });
    });
    after(async () => assert.equal(await taut?.stop(), 0));

    test('is_closed_to_strangers_without_a_proxy', async () => refuses(taut.port, app));

    for (const { name, skip, start } of PROXIES) {
      test(`behind ${name}, clients get events, without WebSockets too, and strangers get nothing`, { skip }, async () => {
        const proxy = await start(workshop, taut.port);
        try {
          await delivers(proxy.port, app);
          await fallsBack(proxy.port, app);
          await refuses(proxy.port, app);
        } finally {
          await proxy.stop();
        }
      });
    }
  });
}

test('docs_proxies_md_shows_the_files_of_deploy_proxies_and_links_to_all', async () => {
  const folder = new URL('../../deploy/proxies/', import.meta.url);
  const page = await readFile(new URL('../../docs/proxies.md', import.meta.url), 'utf8');
  const shown = [...page.matchAll(/^```(?!sh|text)\w+\n([^]*?)^```$/gm)].map(([, text]) => text);
  for (const name of await readdir(folder)) {
    const text = await readFile(new URL(name, folder), 'utf8');
    assert.ok(page.includes(`(../deploy/proxies/${name})`), `the page has no link to ${name}`);
    if (shown.includes(text)) shown.splice(shown.indexOf(text), 1);
    else assert.match(name, /-(?:tls|nodes)\b/, `the page should show ${name} as it is`);
  }
  assert.deepEqual(shown, [], 'the page shows what is in no file of deploy/proxies');
});

describe('taut serve behind proxies that keep their connections', { concurrency: TOGETHER }, () => {
  const { app, options } = SERVERS['an app of its own, and a password for the console'];
  let taut;
  before(async () => { taut = await Server.start({ options: ['--drain-notice', '0', ...options] }); });
  after(async () => assert.equal(await taut?.stop(), 0));

  for (const { name, skip, start } of PROXIES) {
    test(`behind ${name}, every handshake succeeds after a request`, { skip }, async () => {
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

describe('what a recipe has beside the upgrade', { concurrency: TOGETHER }, () => {
  const { app, options } = SERVERS['an app of its own, and a password for the console'];
  let taut;
  before(async () => { taut = await Server.start({ options: ['--drain-notice', '0', ...options] }); });
  after(async () => assert.equal(await taut?.stop(), 0));

  async function behind(start, act) {
    const proxy = await start(workshop, taut.port);
    try {
      await act(proxy);
    } finally {
      await proxy.stop();
    }
  }

  test('beside_a_site_nginx_gives_it_all_that_is_not_for_taut', () => behind(besideASite, async ({ port }) => {
    for (const path of ['/', '/up', '/apps', '/application/1', '/pusher/auth', '/pusher/user-auth', '/console', '/metrics']) {
      assert.equal((await ask(port, 'GET', path)).body, SITE, path);
    }
    for (const path of [`/app/${app[1]}`, `/apps/${app[0]}/channels`, '/pusher/info']) assert.notEqual((await ask(port, 'GET', path)).body, SITE, path);
  }));

  for (const [name, start] of Object.entries({ 'nginx': byNginx, 'nginx beside a site': besideASite })) {
    test(`a batch of the largest events comes through ${name}`, () => behind(start, async ({ port }) => {
      // Twice as long as it is, once it is in JSON.
      const data = '"'.repeat(102_400);
      const batch = Array.from({ length: 10 }, () => ({ name: 'headline', channel: 'news', data }));
      const { status, body } = await publish(port, app, JSON.stringify({ batch }), { call: 'batch_events' });
      assert.equal(status, 200, body);
    }));
  }

  test('Envoy holds more than its 1,024 connections', { skip: byEnvoy.skip }, () => behind(byEnvoy.start, async ({ port }) => {
    const clients = [];
    while (clients.length < 1040) clients.push(...await Promise.all(Array.from({ length: 40 }, () => connect(port, app))));
    for (const client of clients) client.terminate();
  }));

  test('Caddy closes no WebSocket when it is reloaded', { skip: reloadedCaddy.skip }, () => behind(reloadedCaddy.start, async (caddy) => {
    const client = await connect(caddy.port, app);
    await caddy.reload();
    await delivers(caddy.port, app);
    client.send(JSON.stringify({ event: 'pusher:ping', data: {} }));
    assert.equal((await next(client)).event, 'pusher:pong');
    client.terminate();
  }));

  test('HAProxy notices that a node leaves before the notice is over', async () => {
    const folder = new URL('../../deploy/proxies/', import.meta.url);
    const page = await readFile(new URL('../../docs/configuration.md', import.meta.url), 'utf8');
    const [, notice] = /^\| `drain-notice` \|.*?\| `(\d+)` \|/m.exec(page);
    for (const name of (await readdir(folder)).filter((one) => one.endsWith('.cfg'))) {
      const checks = [...(await readFile(new URL(name, folder), 'utf8')).matchAll(/\bcheck\b(?: inter (\d+)s fall (\d+))?/g)];
      assert.ok(checks.length > 0, name);
      for (const [check, seconds, times] of checks) assert.ok(seconds * times < notice, `${name}: ${check}`);
    }
  });
});

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
        // Envoy itself refuses a Connection header that names X-Forwarded-For.
        assert.ok([401, 403, 404, ...(claim.Connection ? [400] : [])].includes(status), `${method} ${path} with ${JSON.stringify(headers)}: ${status} ${told}`);
      }
    }
  }
}
