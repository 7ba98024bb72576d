/**
 * The browser build of the library in Chromium: each test is a function of wasm/src/page.rs.
 * TAUT_WASM is the folder with what wasm-bindgen has made of it, TAUT_AUTH the example `auth`.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { launch } from './chromium.js';

const { TAUT_AUTH, TAUT_BIN, TAUT_WASM } = process.env;
const START_WITHIN = 15_000;

describe('the library in a page', { skip: !TAUT_WASM && 'TAUT_WASM is not set', timeout: 120_000 }, () => {
  let browser;
  let echo;
  before(async () => {
    browser = await launch();
    echo = await Program.start(TAUT_BIN, ['echo', '--listen', '127.0.0.1:0']);
  });
  after(async () => {
    await echo?.stop();
    await browser?.close();
  });

  for (const [name, sentence] of Object.entries({
    messages: 'text_and_bytes_of_several_sizes_come_back_as_they_were',
    split: 'one_task_sends_and_another_receives',
    high_water: 'who_sends_faster_than_the_network_waits_or_is_told',
    overflow: 'who_does_not_receive_is_closed_and_told_why',
    dropped: 'a_call_that_is_dropped_loses_nothing',
    close: 'a_close_is_answered_and_seen_as_the_end',
    invalid: 'what_the_browser_does_not_accept_is_told_when_connecting',
  })) {
    test(sentence, () => run(browser, name, echo.url));
  }

  test('a_token_in_a_subprotocol_lets_the_page_in', async (t) => {
    const auth = await Program.start(TAUT_AUTH, ['127.0.0.1:0']);
    t.after(() => auth.stop());
    await run(browser, 'bearer', auth.url);
    await run(browser, 'not_let_in', auth.url);
  });

  test('a_close_by_the_server_is_the_end_and_has_its_code', async (t) => {
    const peer = await Peer.start((socket) => socket.end(Buffer.concat([frame(1, 'last words'), frame(8, '\x03\xf4back soon')])));
    t.after(() => peer.stop());
    await run(browser, 'closed_by_server', peer.url);
  });

  test('a_connection_that_breaks_is_an_error', async (t) => {
    const peer = await Peer.start((socket) => socket.end(frame(1, 'last words')));
    t.after(() => peer.stop());
    await run(browser, 'broken', peer.url);
  });

  test('a_port_where_nobody_listens_is_an_error', async () => {
    const peer = await Peer.start(() => {});
    await peer.stop();
    await run(browser, 'refused', peer.url);
  });

  test('a_server_that_says_nothing_is_given_up', async (t) => {
    const peer = await Peer.start(null);
    t.after(() => peer.stop());
    await run(browser, 'silent', peer.url);
  });
});

/** Runs one test in a page of the server's own origin, which no server is asked for. */
async function run(browser, name, url) {
  // The browser does not know that the page came from this host, and would keep it from speaking to it.
  const context = await browser.newContext({ permissions: ['local-network-access'] });
  try {
    const page = await context.newPage();
    const origin = url.replace('ws://', 'http://').replace(/\/$/, '');
    const files = { 'page.js': 'text/javascript', 'page_bg.wasm': 'application/wasm' };
    await page.route(`${origin}/**`, async (route) => {
      const path = new URL(route.request().url()).pathname.slice(1);
      if (path === '') await route.fulfill({ contentType: 'text/html', body: PAGE });
      else if (files[path]) await route.fulfill({ contentType: files[path], body: await readFile(join(TAUT_WASM, path)) });
      else await route.fulfill({ status: 404 });
    });
    await page.addInitScript((wanted) => { globalThis.wanted = wanted; }, { test: name, url });
    const fault = once(page, 'pageerror').then(([error]) => error.stack);
    await page.goto(`${origin}/`);
    const outcome = page.waitForFunction(() => globalThis.outcome, null, { timeout: 60_000 }).then((handle) => handle.jsonValue());
    // What the program has to say about it comes before the trap.
    const said = await Promise.race([outcome, fault.then(async (stack) => (await page.evaluate(() => globalThis.outcome)) ?? stack)]);
    assert.equal(said, 'passed');
  } finally {
    await context.close();
  }
}

const PAGE = `<!doctype html>
<link rel="icon" href="data:,">
<script type="module">
  import start from './page.js';
  await start();
</script>`;

/** A program that says in its first line where it listens. */
class Program {
  static async start(path, options) {
    const program = new Program();
    program.process = spawn(path, options, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: program.process.stdout });
    const [line] = await once(lines, 'line', { signal: AbortSignal.timeout(START_WITHIN) });
    program.url = /^listening on (ws:\/\/127\.0\.0\.1:\d+)/.exec(line)?.[1];
    assert.ok(program.url, `${path} should first say where it listens, but said: ${line}`);
    return program;
  }

  async stop() {
    this.process.kill('SIGINT');
    if (this.process.exitCode === null && this.process.signalCode === null) await once(this.process, 'exit');
  }
}

/** A server that misbehaves to order: `act` is given the socket after the handshake; without it nothing is answered. */
class Peer {
  #sockets = new Set();

  static async start(act) {
    const peer = new Peer();
    peer.server = createServer((socket) => {
      peer.#sockets.add(socket);
      socket.on('error', () => {});
      let head = '';
      socket.on('data', (bytes) => {
        const isNew = !head.includes('\r\n\r\n');
        head += bytes.toString('latin1');
        if (!act || !isNew || !head.includes('\r\n\r\n')) return;
        const key = /^sec-websocket-key: *(\S+)/im.exec(head)[1];
        // RFC 6455 §4.2.2.
        const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
        act(socket);
      });
    }).listen(0, '127.0.0.1');
    await once(peer.server, 'listening');
    peer.url = `ws://127.0.0.1:${peer.server.address().port}`;
    return peer;
  }

  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }
}

/** A short frame of a server (RFC 6455 §5.2). */
function frame(opcode, payload) {
  return Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), Buffer.from(payload, 'latin1')]);
}
