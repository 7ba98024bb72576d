/** The server of the library with the clients of others, and a browser's. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { launch } from '../browser/chromium.js';
import { within } from '../browser/server.js';
import { Program, run, Workshop } from './programs.js';
import { REVERSE } from './proxies.js';

const CLIENT_PY = fileURLToPath(new URL('./client.py', import.meta.url));
const PATIENCE = 10_000;
const ECHOES = 14;
/** RFC 6455 §5.5.1: a server answers with the code that it received; the reason was the client's. */
const CLOSED = { code: 4001, reason: '' };
/** RFC 6455 §1.3: its example of a key, and what a server makes of it. */
const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

let workshop, browser, authority, elsewhere;

before(async () => {
  workshop = await Workshop.open();
  authority = await readFile(workshop.certificate);
  [browser, elsewhere] = await Promise.all([launch(), Page.serve()]);
});
after(async () => {
  await Promise.all([browser?.close(), elsewhere?.close()]);
  await workshop.close();
});

const taut = (...options) => Program.listening(process.env.TAUT_BIN, 'echo', '--driver', 'tokio', '--listen', '127.0.0.1:0', ...options);
const certified = () => ['--tls-certificate', workshop.certificate, '--tls-key', workshop.key];

const SERVERS = [
  { name: 'ws', extensions: '', start: () => taut() },
  { name: 'ws with deflate', extensions: 'permessage-deflate', start: () => taut('--deflate') },
  { name: 'wss with deflate', extensions: 'permessage-deflate', start: () => taut('--deflate', '--context-takeover', ...certified()) },
];

for (const { name, extensions, start } of SERVERS) {
  describe(`taut echo, by ${name}`, () => {
    let server;
    before(async () => { server = await start(); });
    after(async () => assert.equal(await server?.stop(), 0));
    const isWell = (report) => assert.deepEqual(report, { extensions, echoes: ECHOES, ...CLOSED, wasClean: true });

    for (const deflate of [false, true]) {
      const offering = deflate ? 'compression' : 'no_compression';

      test(`websockets_of_PyPI_converses_offering_${offering}`, async () => {
        const report = await python(server.url, ...(deflate ? ['--deflate'] : []));
        assert.deepEqual(report, { extensions: deflate ? extensions : '', subprotocol: null, echoes: ECHOES + 1, ...CLOSED });
      });

      test(`ws_of_npm_converses_offering_${offering}`, async () => {
        const Socket = class extends WebSocket {
          constructor(url, protocols) { super(url, protocols, { ca: authority, perMessageDeflate: deflate }); }
        };
        const report = await within(PATIENCE, converse({ url: server.url }, Socket), () => 'ws waits in vain');
        isWell({ ...report, extensions: report.extensions || extensions });
        assert.equal(report.extensions, deflate ? extensions : '');
      });
    }

    test('Chromium_converses', async () => {
      const page = await open(elsewhere.url);
      const report = await within(PATIENCE, page.evaluate(converse, { url: server.url }), () => 'Chromium waits in vain');
      await page.context().close();
      // It says which parameters were agreed on as well.
      isWell({ ...report, extensions: report.extensions.split(';')[0] });
    });

    test('a_ping_of_ws_is_answered_with_its_payload', async () => {
      const socket = new WebSocket(server.url, { ca: authority });
      await once(socket, 'open');
      const answered = once(socket, 'pong');
      socket.ping('x'.repeat(125));
      const [payload] = await within(PATIENCE, answered, () => 'no pong came');
      assert.equal(payload.toString(), 'x'.repeat(125));
      socket.close(1000);
      const [code] = await within(PATIENCE, once(socket, 'close'), () => 'no close came');
      assert.equal(code, 1000);
    });

    test('curl_is_shown_the_response_of_RFC_6455', async () => {
      const { status, headers } = await curl(server, ...upgrade(), '-H', 'Sec-WebSocket-Extensions: permessage-deflate');
      assert.equal(status, 101);
      assert.equal(headers.upgrade, 'websocket');
      assert.equal(headers.connection, 'Upgrade');
      assert.equal(headers['sec-websocket-accept'], ACCEPT);
      assert.equal(headers['sec-websocket-extensions']?.split(';')[0] ?? '', extensions);
    });

    test('curl_that_asks_for_a_page_is_told_to_upgrade', async () => {
      const { status, headers, body } = await curl(server);
      assert.equal(status, 426);
      assert.deepEqual([headers.upgrade, headers.connection, headers['sec-websocket-version']], ['websocket', 'Upgrade, close', '13']);
      assert.match(body, /speaks WebSocket/);
    });

    test('curl_that_asks_for_another_version_is_told_which_there_is', async () => {
      const { status, headers } = await curl(server, ...upgrade(8));
      assert.deepEqual([status, headers['sec-websocket-version']], [426, '13']);
    });

    test('curl_that_posts_is_told_which_method_there_is', async () => {
      const { status, headers } = await curl(server, ...upgrade(), '--data', 'something');
      assert.deepEqual([status, headers.allow], [405, 'GET']);
    });
  });
}

describe('a server that wants to know who comes', () => {
  let server;
  before(async () => { server = await Program.listening(process.env.TAUT_AUTH); });
  after(async () => assert.equal(await server?.stop('SIGINT'), 0));

  test('curl_without_a_token_is_refused_with_401', async () => {
    const { status, headers } = await curl(server, ...upgrade());
    assert.deepEqual([status, headers['www-authenticate']], [401, 'Bearer']);
  });

  test('curl_with_a_token_that_may_not_connect_is_refused_with_403', async () => {
    assert.equal((await curl(server, ...upgrade(), '-H', 'Authorization: Bearer bob-token')).status, 403);
  });

  test('curl_with_a_token_is_let_in', async () => {
    assert.equal((await curl(server, ...upgrade(), '-H', 'Authorization: Bearer ada-token')).status, 101);
  });

  test('curl_for_a_page_of_another_origin_is_refused_with_403_whatever_its_token', async () => {
    const options = [...upgrade(), '-H', 'Authorization: Bearer ada-token', '-H', 'Origin: https://elsewhere.example'];
    assert.equal((await curl(server, ...options)).status, 403);
  });

  test('websockets_of_PyPI_with_a_token_is_greeted_by_name', async () => {
    const { greeting, subprotocol, code } = await python(server.url, '--bearer', 'ada-token');
    assert.deepEqual([greeting, subprotocol, code], ['hello, Ada', null, 4001]);
  });

  test('websockets_of_PyPI_with_a_wrong_token_learns_why', async () => {
    const { status, body } = await python(server.url, '--bearer', 'guess');
    assert.equal(status, 401);
    assert.match(body, /not valid/);
    assert.ok(!body.includes('guess'));
  });

  test('ws_of_npm_learns_the_status_of_a_refusal', async () => {
    const socket = new WebSocket(server.url);
    const [error] = await within(PATIENCE, once(socket, 'error'), () => 'no error came');
    assert.match(error.message, /401/);
  });

  // The server has no pages, and a page that the browser were handed by other means would count as one from the Internet.
  describe('beside pages, at one nginx', () => {
    let between, page;
    before(async () => {
      between = await REVERSE.nginx(workshop, server.port, {});
      page = await open(`http://127.0.0.1:${between.port}/page`);
    });
    after(async () => {
      await page?.context().close();
      await between?.stop();
    });
    const url = () => `ws://127.0.0.1:${between.port}/`;

    test('Chromium_is_let_in_by_a_second_subprotocol_and_answered_with_the_first', async () => {
      assert.deepEqual(await greeted(page, url(), ['chat.v1', 'bearer.ada-token']), { protocol: 'chat.v1', greeting: 'hello, Ada' });
    });

    test('Chromium_with_a_wrong_token_is_refused_with_401', async () => {
      assert.match(await refused(page, url(), ['chat.v1', 'bearer.guess']), /HTTP Authentication failed/);
    });

    test('Chromium_with_a_token_that_may_not_connect_is_refused_with_403', async () => {
      assert.match(await refused(page, url(), ['chat.v1', 'bearer.bob-token']), /Unexpected response code: 403/);
    });
  });

  test('Chromium_with_a_page_of_another_origin_is_refused_with_403', async () => {
    const page = await open(elsewhere.url);
    assert.match(await refused(page, server.url, ['chat.v1', 'bearer.ada-token']), /Unexpected response code: 403/);
    await page.context().close();
  });

  for (const [name, proxy] of Object.entries(REVERSE)) {
    test(`behind_${name}_a_page_from_there_is_of_the_same_origin`, async () => {
      const between = await proxy(workshop, server.port, {});
      const [origin, url] = ['http', 'ws'].map((scheme) => `${scheme}://127.0.0.1:${between.port}`);
      const options = ['--subprotocol', 'chat.v1', '--subprotocol', 'bearer.ada-token', '--origin'];
      try {
        const { greeting, subprotocol, echoes } = await python(url, ...options, origin);
        assert.deepEqual([greeting, subprotocol, echoes], ['hello, Ada', 'chat.v1', ECHOES + 1]);
        assert.equal((await python(url, ...options, server.url.replace('ws:', 'http:'))).status, 403);
      } finally {
        await between.stop();
      }
    });
  }
});

/** An empty page of a server that has nothing to do with the one under test. */
class Page {
  static async serve() {
    const served = new Page();
    served.http = createServer((request, response) => response.setHeader('Content-Type', 'text/html').end('<title>A page</title>'));
    served.http.listen(0, '127.0.0.1');
    await once(served.http, 'listening');
    served.url = `http://127.0.0.1:${served.http.address().port}/`;
    return served;
  }

  async close() {
    this.http.closeAllConnections();
    this.http.close();
    await once(this.http, 'close');
  }
}

/** A tab with this page, which does not mind who has signed a certificate. */
async function open(url) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.goto(url);
  return page;
}

/** What the server says first to a page. */
async function greeted(page, url, protocols) {
  const greeting = page.evaluate(([to, offered]) => new Promise((resolve, reject) => {
    const socket = new WebSocket(to, offered);
    socket.onmessage = ({ data }) => { resolve({ protocol: socket.protocol, greeting: data }); socket.close(); };
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
  }), [url, protocols]);
  return within(PATIENCE, greeting, () => 'no greeting came');
}

/** What the browser complains about when it is refused; the page itself is not told. */
async function refused(page, url, protocols) {
  // The browser complains of other things, too: it asks for an icon, which the server does not have.
  const isMeant = (message) => message.type() === 'error' && message.text().startsWith('WebSocket connection');
  const complaint = page.waitForEvent('console', { predicate: isMeant, timeout: PATIENCE });
  const code = page.evaluate(([to, offered]) => new Promise((resolve) => {
    new WebSocket(to, offered).onclose = (event) => resolve(event.code);
  }), [url, protocols]);
  assert.equal(await within(PATIENCE, code, () => 'the page was told nothing'), 1006);
  return (await complaint).text();
}

/** Runs in this process, and inside a page: echoes of every kind and length, then a close. */
async function converse({ url }, Socket = globalThis.WebSocket) {
  const socket = new Socket(url);
  socket.binaryType = 'arraybuffer';
  const events = [];
  let wake = () => {};
  for (const kind of ['open', 'message', 'error', 'close']) {
    socket.addEventListener(kind, (event) => { events.push(event); wake(); });
  }
  const next = async (kind) => {
    while (events.length === 0) await new Promise((resolve) => { wake = resolve; });
    const event = events.shift();
    if (event.type !== kind) throw new Error(`there should be ${kind}, but there was ${event.type} (${event.message ?? event.code})`);
    return event;
  };
  await next('open');
  let echoes = 0;
  for (const length of [0, 1, 125, 126, 65_535, 65_536, 1 << 20]) {
    // 21 bytes at a time, with characters of one to four of them.
    const text = 'Grüße, 漢字 👩 '.repeat(length / 21) + 'x'.repeat(length % 21);
    let state = 1;
    const bytes = Uint8Array.from({ length }, () => { state = Math.imul(state, 48_271) % 0x7fffffff; return state >> 8; });
    for (const sent of [text, bytes]) {
      socket.send(sent);
      const { data } = await next('message');
      const isSame = typeof sent === 'string'
        ? data === sent
        : data.byteLength === length && new Uint8Array(data).every((byte, at) => byte === sent[at]);
      if (!isSame) throw new Error(`the echo of ${length} bytes differs`);
      echoes += 1;
    }
  }
  const { extensions } = socket;
  socket.close(4001, 'done');
  const { code, reason, wasClean } = await next('close');
  return { extensions, echoes, code, reason, wasClean };
}

function python(url, ...options) {
  return run(process.env.TAUT_PYTHON, CLIENT_PY, url, ...(url.startsWith('wss') ? ['--ca', workshop.certificate] : []), ...options);
}

const upgrade = (version = 13) => [
  '-H', 'Connection: Upgrade', '-H', 'Upgrade: websocket', '-H', `Sec-WebSocket-Key: ${KEY}`, '-H', `Sec-WebSocket-Version: ${version}`,
];

/** What curl is answered. It has to be ended where there is a WebSocket then, of which it knows nothing. */
async function curl(server, ...options) {
  const program = new Program(
    'stdbuf', '-o0', // `--no-buffer` of curl is for bodies
    'curl', '--silent', '--show-error', '--include', '--http1.1', '--noproxy', '*', '--cacert', workshop.certificate,
    ...options, `${server.url.replace(/^ws/, 'http')}/`,
  );
  try {
    const [head, status] = await program.until(/^HTTP\/1\.1 (\d+) .*\r\n(?:.+\r\n)*\r\n/);
    if (status !== '101') assert.equal(await program.end(), 0, program.output);
    const headers = Object.fromEntries(head.trimEnd().split('\r\n').slice(1).map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    return { status: Number(status), headers, body: program.output.slice(head.length) };
  } finally {
    await program.stop();
  }
}
