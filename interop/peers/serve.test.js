/** `taut serve` behind the proxies of others: for whose address it takes that of a client. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { Server, within } from '../browser/server.js';
import { Workshop } from './programs.js';
import { REVERSE } from './proxies.js';

const PATIENCE = 10_000;
/** Where proxies are, and whom the server trusts; from where clients come, each an address of this machine; and one that a client makes up. */
const [PROXY, CLIENT, MADE_UP] = ['127.0.0.1', '127.0.0.2', '203.0.113.9'];
const PATH = '/app/app-key?protocol=7&client=js&version=8.6.0&flash=false';

let workshop, authority, application;

before(async () => {
  workshop = await Workshop.open();
  authority = await readFile(workshop.certificate);
  application = await Application.start();
});
after(async () => {
  await application?.stop();
  await workshop?.close();
});

describe('taut serve behind proxies that say by X-Forwarded-For who comes', () => {
  let taut;
  before(async () => { taut = await serve(); });
  after(async () => assert.equal(await taut?.stop(), 0));

  for (const [name, proxy] of Object.entries(REVERSE)) {
    test(`behind_${name}_a_client_has_its_own_address_whatever_it_says_itself`, async () => {
      await through([proxy], taut, async ({ port }) => {
        assert.equal(await comesFrom(`ws://127.0.0.1:${port}`), CLIENT);
        assert.equal(await comesFrom(`ws://127.0.0.1:${port}`, { 'X-Forwarded-For': MADE_UP }), CLIENT);
      });
    });
  }

  test('behind_two_proxies_a_client_has_its_own_address', async () => {
    await through([REVERSE.haproxy, REVERSE.nginx], taut, async ({ port }) => {
      assert.equal(await comesFrom(`ws://127.0.0.1:${port}`, { 'X-Forwarded-For': MADE_UP }), CLIENT);
    });
  });

  test('who_is_no_proxy_is_not_believed', async () => {
    assert.equal(await comesFrom(`ws://127.0.0.1:${taut.port}`, { 'X-Forwarded-For': MADE_UP }), CLIENT);
  });
});

for (const secure of [false, true]) {
  const scheme = secure ? 'wss' : 'ws';
  describe(`taut serve by ${scheme} behind HAProxy that says by the PROXY protocol who comes`, () => {
    let taut;
    before(async () => {
      const certified = secure ? ['--tls-certificate', workshop.certificate, '--tls-key', workshop.key] : [];
      taut = await serve('--proxy-protocol', 'on', ...certified);
    });
    after(async () => assert.equal(await taut?.stop(), 0));

    for (const send of ['send-proxy', 'send-proxy-v2']) {
      test(`by_${send}_a_client_has_its_own_address_whatever_it_says_itself`, async () => {
        const haproxy = (...options) => REVERSE.haproxy(...options.slice(0, 2), { mode: 'tcp', send });
        await through([haproxy], taut, async ({ port }) => {
          assert.equal(await comesFrom(`${scheme}://127.0.0.1:${port}`, { 'X-Forwarded-For': MADE_UP }), CLIENT);
        });
      });
    }

    test('who_is_no_proxy_is_served_without_a_header', async () => {
      assert.equal(await comesFrom(`${scheme}://127.0.0.1:${taut.port}`), CLIENT);
    });
  });
}

describe('taut serve that is told by the PROXY protocol who comes', () => {
  const header = `PROXY TCP4 ${MADE_UP} 127.0.0.1 1234 80\r\n`;
  const request = 'GET /up HTTP/1.1\r\nHost: taut\r\nConnection: close\r\n\r\n';
  let taut;
  before(async () => { taut = await serve('--proxy-protocol', 'on'); });
  after(async () => assert.equal(await taut?.stop(), 0));

  test('who_is_no_proxy_and_sends_a_header_all_the_same_is_refused', async () => {
    assert.match(await answer(taut, CLIENT, header + request), /^HTTP\/1\.1 400 /);
    assert.match(await answer(taut, CLIENT, request), /^HTTP\/1\.1 200 /);
  });

  test('a_proxy_that_sends_none_is_hung_up_on', async () => {
    assert.match(await answer(taut, PROXY, header + request), /^HTTP\/1\.1 200 /);
    assert.equal(await answer(taut, PROXY, request), '');
  });
});

/** A server with one app, which asks the application of these tests whom to let in. */
async function serve(...options) {
  const config = await workshop.write('taut.toml', `
trusted-proxies = "${PROXY}"
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
[apps.upgrade]
callback = "${application.url}"
`);
  return Server.start({ options: ['--config', config, ...options] });
}

/** Runs `use` with the foremost of these proxies, of which each stands before the one that is named ahead of it, and the first before the server. */
async function through(proxies, taut, use) {
  const started = [];
  try {
    for (const proxy of proxies) started.push(await proxy(workshop, (started.at(-1) ?? taut).port, {}));
    await use(started.at(-1));
  } finally {
    await Promise.all(started.map((proxy) => proxy.stop()));
  }
}

/** Connects from CLIENT; what the application is told of where the client comes from. */
async function comesFrom(url, headers = {}) {
  const socket = new WebSocket(url + PATH, { headers, ca: authority, localAddress: CLIENT });
  const [message] = await within(PATIENCE, once(socket, 'message'), () => `nothing came from ${url}`);
  assert.equal(JSON.parse(message).event, 'pusher:connection_established');
  socket.terminate();
  return application.told.shift();
}

/** All that comes back when this is sent from there. */
async function answer(taut, from, text) {
  const socket = connect({ port: taut.port, host: '127.0.0.1', localAddress: from });
  let heard = '';
  socket.setEncoding('latin1').on('data', (more) => { heard += more; }).on('error', () => {});
  socket.write(text);
  await within(PATIENCE, once(socket, 'close'), () => `the connection stays open: ${heard}`);
  return heard;
}

/** Lets everybody in, and remembers from where they come. */
class Application {
  told = [];

  static async start() {
    const application = new Application();
    application.http = createServer(async (request, response) => {
      let body = '';
      for await (const part of request.setEncoding('utf8')) body += part;
      application.told.push(JSON.parse(body).ip);
      response.setHeader('Content-Type', 'application/json').end('{"user_id":"somebody"}');
    }).listen(0, '127.0.0.1');
    await once(application.http, 'listening');
    application.url = `http://127.0.0.1:${application.http.address().port}/`;
    return application;
  }

  async stop() {
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, 'close');
  }
}
