/** Routes to backends with WebSockets of their own: what each side sees of the other. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from '../browser/chromium.js';
import { Program, Workshop } from '../peers/programs.js';
import { APP, Server } from './server.js';
import { Sockets, echo } from './sockets.js';

const PYTHON_SERVER = fileURLToPath(new URL('../peers/server.py', import.meta.url));
const TIMEOUT = 2; // seconds
const MANY = 10_000;
// Together more than the kernel holds between two processes, which can be some 40 MiB each way.
const PADDING = 16 << 10;

const passed = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Plays a story on a server whose route for every path is a WebSocket server's. */
async function played(serve, story, { backend: settings, below = '', route = {}, options = [] } = {}) {
  const backend = await Sockets.start(serve, settings);
  const server = await Server.start([{ path: '/{path...}', backend: backend.url + below, timeout: TIMEOUT, ...route }], { options });
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

/** A server in front of the package websockets of PyPI. */
async function playedWithPython(story, { options = [], arguments: more = [] } = {}) {
  const backend = await Program.listening(process.env.TAUT_PYTHON, PYTHON_SERVER, ...more);
  const server = await Server.start([{ path: '/{path...}', backend: backend.url, timeout: TIMEOUT }], { options });
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
}

/** A client and its counterpart at the backend. */
async function connected(server, backend, path = '/', options = {}) {
  const count = backend.peers.length + 1;
  const client = await server.connect(path, options);
  return [client, await backend.peer(count)];
}

/** A TCP server that does this with each connection. */
async function tcp(serve) {
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = () => { for (const socket of sockets) socket.destroy(); server.close(); };
  return { url: `ws://127.0.0.1:${server.address().port}`, stop };
}

describe('messages', () => {
  /** Sends messages of all kinds, and has each back. */
  const echoed = async (server) => {
    const client = await server.connect('/echo');
    const large = 'é'.repeat(1 << 19);
    for (const message of ['héllo', '', Buffer.from([0, 255]), Buffer.alloc(0), large, Buffer.alloc(1 << 20, 7)]) {
      client.send(message);
      assert.deepEqual(await client.next(), message);
    }
    client.send('in ', { fin: false });
    client.send('several ', { fin: false });
    client.ping('between');
    client.send('fragments');
    assert.equal(await client.pong(), 'between');
    assert.equal(await client.next(), 'in several fragments');
    client.close(1000, 'done');
    assert.equal((await client.end()).code, 1000);
  };
  const options = ['--max-message', '2MiB'];

  test('of_all_kinds_come_back_from_ws', () => played(echo, echoed, { options }));

  test('of_all_kinds_come_back_from_pythons_websockets', () => playedWithPython(async (server, backend) => {
    await echoed(server);
    await backend.until(/closed 1000 done/);
    const client = await server.connect('/echo');
    client.send('please: fragments');
    assert.equal(await client.next(), 'in several fragments');
    client.send('please: ping');
    assert.equal(await client.next(), 'are you there?', 'the backend has its pong');
    client.send('please: extensions');
    assert.equal(await client.next(), '', 'nothing is compressed on the way to the backend');
    client.terminate();
    await backend.until(/closed 1006/);
  }, { options }));

  test('of_a_page_in_chromium_come_back', () => played(echo, async (server) => {
    const browser = await launch();
    try {
      const page = await browser.newPage();
      const heard = await page.evaluate((url) => new Promise((resolve, reject) => {
        const [socket, heard] = [new WebSocket(url, ['other', 'chat']), []];
        socket.binaryType = 'arraybuffer';
        socket.onopen = () => { socket.send('héllo'); socket.send(new Uint8Array([0, 255])); };
        socket.onerror = () => reject(new Error('it does not open'));
        socket.onmessage = ({ data }) => {
          heard.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
          if (heard.length === 2) socket.close(4000, 'seen');
        };
        socket.onclose = ({ code, reason, wasClean }) => resolve({ heard, code, reason, wasClean, protocol: socket.protocol });
      }), `${server.url}/page`);
      assert.deepEqual(heard, { heard: ['héllo', [0, 255]], code: 4000, reason: '', wasClean: true, protocol: 'chat' });
    } finally {
      await browser.close();
    }
  }, { backend: { options: { handleProtocols: () => 'chat' } } }));

  test('that_a_backend_sends_first_come_behind_the_acceptance_and_in_order', () => played((socket) => {
    for (let number = 0; number < 500; number += 1) socket.send(`${number}`);
  }, async (server) => {
    for (let round = 0; round < 20; round += 1) {
      const client = await server.connect('/');
      for (let number = 0; number < 500; number += 1) assert.equal(await client.next(), `${number}`);
      client.close(1000);
      await client.end();
    }
  }));

  test('of_a_burst_reach_a_slow_backend_in_order_and_take_no_memory', () => played(() => {}, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    const before = server.memory();
    peer.socket.pause();
    const padding = 'x'.repeat(PADDING);
    for (let number = 0; number < MANY; number += 1) client.send(`${number} ${padding}`);
    let most = 0;
    for (let step = 0; step < 10; step += 1) { await passed(100); most = Math.max(most, server.memory()); }
    assert.ok(most - before < 16 << 20, `${most - before} bytes more`);
    assert.equal(peer.messages.length, 0);
    assert.ok(client.unsent > 20 << 20, `the client is slowed down, and holds ${client.unsent} bytes`);
    peer.socket.resume();
    const heard = await peer.hears(MANY);
    assert.deepEqual(heard.map((text) => Number.parseInt(text, 10)), [...heard.keys()]);
    console.log(`a burst to a slow backend: ${((most - before) / 1024).toFixed()} KiB more`);
    client.terminate();
  }));

  test('of_a_burst_reach_a_slow_client_in_order_and_take_no_memory', () => played((socket) => {
    const padding = 'x'.repeat(PADDING);
    socket.on('message', () => { for (let number = 0; number < MANY; number += 1) socket.send(`${number} ${padding}`); });
  }, async (server, backend) => {
    const [client, peer] = await connected(server, backend, '/', { perMessageDeflate: false });
    const before = server.memory();
    client.send('go');
    client.pause();
    let most = 0;
    for (let step = 0; step < 10; step += 1) { await passed(100); most = Math.max(most, server.memory()); }
    assert.ok(most - before < 16 << 20, `${most - before} bytes more`);
    assert.ok(peer.socket.bufferedAmount > 20 << 20, `the backend is slowed down, and holds ${peer.socket.bufferedAmount} bytes`);
    client.resume();
    for (let number = 0; number < MANY; number += 1) assert.equal(Number.parseInt(await client.next(), 10), number);
    console.log(`a burst to a slow client: ${((most - before) / 1024).toFixed()} KiB more`);
    client.terminate();
  }));

  test('in_both_directions_at_once_pass_each_other', () => played(echo, async (server) => {
    const client = await server.connect('/');
    for (let number = 0; number < MANY; number += 1) client.send(`${number}`);
    for (let number = 0; number < MANY; number += 1) assert.equal(await client.next(), `${number}`);
    client.terminate();
  }));

  test('of_a_text_that_is_not_utf8_end_the_connection_with_1011', () => played((socket) => {
    socket.send('before');
    socket.send(Buffer.from([0xff, 0xfe]), { binary: false });
  }, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    assert.equal(await client.next(), 'before');
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
    assert.equal((await peer.end()).code, 1007);
  }));

  test('of_a_client_that_is_not_utf8_end_its_connection_with_1007', () => played(() => {}, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    client.send('before');
    client.send(Buffer.from([0xff, 0xfe]), { binary: false });
    assert.equal((await client.end()).code, 1007);
    assert.equal((await peer.end()).code, 1006);
    assert.deepEqual(peer.messages, ['before']);
  }));
});

describe('a handshake', () => {
  test('brings_path_query_cookies_and_headers_to_the_backend_and_its_headers_to_the_client', () => played(() => {}, async (server, backend) => {
    const origin = server.url.replace('ws', 'http');
    const headers = { Cookie: 'sid=1', Authorization: 'Bearer x', 'X-Own': 'yes', 'X-Forwarded-For': '6.6.6.6', 'Connection-Id': 'forged', meta_user: 'forged' };
    const [client, { request }] = await connected(server, backend, '/chat/42%C3%A9?token=a%20b&x', { protocols: ['v1', 'v2'], headers, origin });
    assert.equal(request.url, '/below/chat/42%C3%A9?token=a%20b&x');
    const { host, cookie, authorization, 'x-own': own, 'x-forwarded-for': address, 'x-forwarded-proto': scheme, 'x-forwarded-host': name, 'connection-id': id } = request.headers;
    const here = `127.0.0.1:${server.port}`;
    assert.deepEqual([host, cookie, authorization, own, address, scheme, name], [here, 'sid=1', 'Bearer x', 'yes', '127.0.0.1', 'http', here]);
    assert.match(id, /^\d+\.\d+$/);
    assert.equal(request.headers.origin, origin);
    assert.equal(request.headers['sec-websocket-protocol'], 'v1, v2');
    assert.equal(request.headers['sec-websocket-extensions'], undefined);
    assert.equal(request.headers.meta_user, undefined);
    assert.equal(client.protocol, 'v2');
    assert.deepEqual(client.headers['set-cookie'], ['a=1; HttpOnly', 'b=2']);
    assert.equal(client.headers['x-node'], '7');
    assert.equal(client.headers.server, undefined);
    client.terminate();
  }, {
    below: '/below/',
    backend: { options: { handleProtocols: () => 'v2', headers: ['Set-Cookie: a=1; HttpOnly', 'Set-Cookie: b=2', 'X-Node: 7', 'Server: ws'] } },
  }));

  test('that_the_backend_refuses_is_refused_with_its_words_unless_it_fails', () => played(() => {}, async (server, backend) => {
    const { status, headers, body } = await server.refused('/401');
    assert.deepEqual([status, headers['www-authenticate'], headers['content-type'], headers['set-cookie'], headers['x-powered-by'], body], [401, 'Bearer', 'application/json', ['c=1'], undefined, '{"error":"who are you?"}']);
    const redirect = await server.refused('/302');
    assert.deepEqual([redirect.status, redirect.headers.location], [302, '/login']);
    const busy = await server.refused('/503');
    assert.deepEqual([busy.status, busy.headers['retry-after'], busy.body.includes('secret')], [503, '7', false]);
    for (const path of ['/500', '/200', '/101']) {
      const failed = await server.refused(path);
      assert.deepEqual([failed.status, failed.body.includes('secret')], [502, false], path);
    }
    assert.equal(backend.peers.length, 0);
    const [client] = await connected(server, backend);
    client.terminate();
  }, {
    backend: {
      refuse: ({ url }, socket) => {
        const answers = {
          '/401': 'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Type: application/json\r\nSet-Cookie: c=1\r\nX-Powered-By: PHP\r\nContent-Length: 24\r\n\r\n{"error":"who are you?"}',
          '/302': 'HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n',
          '/503': 'HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 6\r\n\r\nsecret',
          '/500': 'HTTP/1.1 500 Oops\r\nContent-Length: 6\r\n\r\nsecret',
          '/200': 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret',
          '/101': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: secret\r\n\r\n',
        };
        if (answers[url]) socket.end(answers[url]);
        return Boolean(answers[url]);
      },
    },
  }));

  test('of_a_page_of_another_origin_is_refused_where_it_has_a_cookie', () => played(() => {}, async (server, backend) => {
    const { status } = await server.refused('/', { headers: { Cookie: 'sid=1' }, origin: 'http://evil.example' });
    assert.deepEqual([status, backend.peers.length], [403, 0]);
  }));

  test('of_a_backend_that_is_away_is_503_that_hangs_504_and_that_speaks_nonsense_502', async () => {
    const hangs = await tcp(() => {});
    const nonsense = await tcp((socket) => socket.end('SSH-2.0-x\r\n'));
    const away = await Sockets.start();
    await away.stop();
    const routes = { hangs, nonsense, away };
    const server = await Server.start(Object.entries(routes).map(([name, { url }]) => ({ path: `/${name}`, backend: url, timeout: TIMEOUT })));
    try {
      const began = performance.now();
      const { status, headers } = await server.refused('/away');
      assert.deepEqual([status, headers['retry-after']], [503, '1']);
      assert.equal((await server.refused('/nonsense')).status, 502);
      assert.ok(performance.now() - began < 1000);
      assert.equal((await server.refused('/hangs')).status, 504);
      assert.ok(performance.now() - began < TIMEOUT * 1000 + 1500);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      hangs.stop();
      nonsense.stop();
    }
  });

  test('is_refused_at_once_after_many_have_failed', () => played(() => {}, async (server, backend) => {
    await backend.stop();
    for (let count = 0; count < 20; count += 1) assert.equal((await server.refused('/')).status, 503);
    await backend.listen(backend.port);
    assert.equal((await server.refused('/')).status, 503, 'nobody asks');
    for (;;) {
      const client = await server.connect('/').catch(() => undefined);
      if (client) { client.terminate(); break; }
      await passed(50);
    }
  }));
});

describe('the end', () => {
  test('of_a_client_reaches_the_backend_as_it_is', () => played(() => {}, async (server, backend) => {
    for (const [close, expected] of [
      [(client) => client.close(4002, 'bye'), { code: 4002, reason: 'bye' }],
      [(client) => client.close(), { code: 1005, reason: '' }],
      [(client) => client.terminate(), { code: 1006, reason: '' }],
    ]) {
      const [client, peer] = await connected(server, backend);
      for (let number = 0; number < 100; number += 1) client.send(`${number}`);
      if (expected.code === 1006) await peer.hears(100);
      close(client);
      assert.deepEqual(await peer.end(), expected);
      assert.deepEqual(peer.messages, [...Array(100).keys()].map(String), 'what was sent before comes before');
    }
  }));

  test('of_a_backend_reaches_the_client_as_it_is', () => played((socket, { url }) => {
    for (let number = 0; number < 100; number += 1) socket.send(`${number}`);
    const [, code, reason] = url.split('/');
    if (code === 'gone') socket.terminate();
    else if (code) socket.close(Number(code), reason);
    else socket.close();
  }, async (server) => {
    for (const [path, expected] of [
      ['/4001/enough', { code: 4001, reason: 'enough' }],
      ['/1000/', { code: 1000, reason: '' }],
      ['/1012/restart', { code: 1012, reason: 'restart' }],
      ['/', { code: 1005, reason: '' }],
    ]) {
      const client = await server.connect(path);
      assert.deepEqual(await client.end(), expected, path);
      assert.deepEqual(client.messages, [...Array(100).keys()].map(String), 'what was sent before comes before');
    }
    const client = await server.connect('/gone');
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
  }));

  test('of_both_at_once_is_clean', () => played((socket) => { socket.on('message', () => socket.close(4001, 'backend')); }, async (server, backend) => {
    for (let round = 0; round < 50; round += 1) {
      const [client, peer] = await connected(server, backend);
      client.send('close');
      if (round % 2) await passed(round / 10);
      client.close(4002, 'client');
      const [heard, seen] = [await client.end(), await peer.end()];
      assert.ok([4001, 4002].includes(heard.code) && [4001, 4002].includes(seen.code), JSON.stringify([heard, seen]));
    }
  }));

  test('of_a_backend_that_is_killed_is_1011_and_the_next_client_is_served_when_it_is_back', () => playedWithPython(async (server, backend) => {
    const client = await server.connect('/');
    client.send('hello');
    assert.equal(await client.next(), 'hello');
    await backend.stop('SIGKILL');
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
    assert.equal((await server.refused('/')).status, 503);
    const back = await Sockets.start(echo);
    await back.leave();
    await back.listen(backend.port);
    const next = await server.connect('/');
    next.send('again');
    assert.equal(await next.next(), 'again');
    next.terminate();
    await back.stop();
  }));

  test('of_a_client_that_is_killed_is_1006_for_the_backend', () => played(() => {}, async (server, backend) => {
    const client = new Program(process.execPath, '--input-type=module', '-e', `
      import WebSocket from 'ws';
      const socket = new WebSocket(${JSON.stringify(server.url)});
      socket.onopen = () => { socket.send('last words'); console.log('open'); };
      setInterval(() => {}, 1000);`);
    await client.until(/open/);
    const peer = await backend.peer();
    await peer.hears(1);
    await client.stop('SIGKILL');
    assert.deepEqual([await peer.end(), peer.messages], [{ code: 1006, reason: '' }, ['last words']]);
  }));

  test('of_the_server_is_1012_for_clients_and_a_close_for_backends', () => played(echo, async (server, backend) => {
    const pairs = [];
    for (let count = 0; count < 20; count += 1) pairs.push(await connected(server, backend));
    for (const [client] of pairs) client.send('last');
    for (const [client] of pairs) assert.equal(await client.next(), 'last');
    assert.equal(await server.end(), 0);
    for (const [client, peer] of pairs) {
      assert.equal((await client.end()).code, 1012);
      assert.equal((await peer.end()).code, 1012);
    }
  }));

  test('of_the_server_waits_no_longer_than_it_may_for_a_backend_that_hangs', () => played((socket) => { socket.pause(); }, async (server, backend) => {
    const [client] = await connected(server, backend);
    const began = performance.now();
    assert.equal(await server.end(), 0);
    assert.equal((await client.end()).code, 1012);
    assert.ok(performance.now() - began < 15_000, `${performance.now() - began} ms`);
  }));
});

describe('heartbeats', () => {
  const options = ['--ping-interval', '1', '--pong-timeout', '1'];

  test('find_out_that_a_backend_is_silent', () => played(() => {}, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
    await peer.end();
  }, { options, backend: { options: { autoPong: false } } }));

  test('find_out_that_a_client_is_silent', () => played(() => {}, async (server, backend) => {
    const [client, peer] = await connected(server, backend, '/', { autoPong: false });
    assert.deepEqual(await peer.end(), { code: 1006, reason: '' });
    await client.end();
  }, { options }));

  test('find_out_that_a_client_does_not_read', () => played((socket) => {
    for (let number = 0; number < 400; number += 1) socket.send(Buffer.alloc(64 << 10));
  }, async (server, backend) => {
    const [client, peer] = await connected(server, backend, '/', { perMessageDeflate: false });
    client.pause();
    assert.deepEqual(await peer.end(), { code: 1006, reason: '' });
    client.terminate();
  }, { options }));

  test('leave_those_alone_who_answer', () => played(echo, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    await passed(4000);
    client.send('still here');
    assert.equal(await client.next(), 'still here');
    assert.equal(peer.closed, undefined);
    client.terminate();
  }, { options }));

  test('leave_those_alone_who_are_slow', () => played((socket) => {
    const padding = Buffer.alloc(64 << 10);
    socket.on('message', () => { for (let number = 0; number < 400; number += 1) socket.send(padding); });
  }, async (server, backend) => {
    const [client, peer] = await connected(server, backend, '/', { perMessageDeflate: false });
    client.send('go');
    for (let step = 0; step < 20; step += 1) {
      client.pause();
      await passed(250);
      client.resume();
      await passed(0);
    }
    for (let number = 0; number < 400; number += 1) assert.equal((await client.next()).length, 64 << 10);
    assert.equal(peer.closed, undefined);
    client.terminate();
  }, { options }));
});

describe('beside the backend', () => {
  const ask = async (server, path, body) => {
    const response = await fetch(`${server.url.replace('ws', 'http')}${path}`, { method: 'POST', headers: { authorization: `Bearer ${APP.secret}` }, body });
    return response.status;
  };

  test('the_application_sends_to_a_connection_and_closes_it_by_its_id', () => played(echo, async (server, backend) => {
    const [client, peer] = await connected(server, backend);
    const id = peer.request.headers['connection-id'];
    assert.equal(await ask(server, `/connections/${id}/send`, 'from a cron job'), 200);
    assert.equal(await client.next(), 'from a cron job');
    client.send('echo');
    assert.equal(await client.next(), 'echo');
    assert.equal(await ask(server, `/connections/${id}/close`, '{"code":4000,"reason":"kicked"}'), 200);
    assert.deepEqual(await client.end(), { code: 4000, reason: 'kicked' });
    assert.equal((await peer.end()).code, 4000);
    assert.equal(await ask(server, `/connections/${id}/send`, 'late'), 410);
  }));

  test('metrics_count_connections_and_what_came_of_their_messages', () => played(echo, async (server, backend) => {
    const [client] = await connected(server, backend);
    client.send('one');
    await client.next();
    await server.refused('/401');
    const response = await fetch(`${server.url.replace('ws', 'http')}/metrics`, { headers: { authorization: 'Bearer a-token-for-metrics' } });
    const text = await response.text();
    assert.match(text, /taut_route_connections\{[^}]*route="relay"[^}]*\} 1\n/);
    assert.match(text, /taut_route_events_total\{[^}]*route="relay"[^}]*result="answered"[^}]*\} 2\n/);
    assert.match(text, /taut_route_events_total\{[^}]*route="relay"[^}]*result="refused"[^}]*\} 1\n/);
    client.terminate();
  }, {
    route: { name: 'relay' },
    options: ['--metrics-token', 'a-token-for-metrics'],
    backend: { refuse: ({ url }, socket) => url === '/401' && socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n') },
  }));

  test('a_connection_stays_at_its_backend_when_the_route_gets_another_and_ends_with_the_route', () => played(echo, async (server, backend) => {
    const other = await Sockets.start(echo);
    const [client] = await connected(server, backend);
    await server.reload([{ path: '/{path...}', backend: other.url, timeout: TIMEOUT }]);
    client.send('still here');
    assert.equal(await client.next(), 'still here');
    const [second] = await connected(server, other);
    second.send('there');
    assert.equal(await second.next(), 'there');
    assert.deepEqual([backend.peers.length, other.peers.length], [1, 1]);
    await server.reload([]);
    for (const gone of [client, second]) assert.deepEqual(await gone.end(), { code: 1001, reason: 'route removed' });
    await other.stop();
  }));

  test('taut_route_test_shows_what_comes_back', () => played((socket) => {
    socket.send('welcome');
    socket.on('message', (data) => (data.toString() === 'bye' ? socket.close(4001, 'go') : socket.send(`you said ${data}`)));
  }, async (server) => {
    const run = (...more) => new Promise((resolve) => {
      execFile(process.env.TAUT_BIN, ['route', 'test', '/chat?x=1', '--config', server.config, ...more], (error, stdout) => resolve({ code: error?.code ?? 0, stdout }));
    });
    const good = await run('--send', 'hello');
    assert.equal(good.code, 0, good.stdout);
    for (const line of [/GET ws:\/\/127\.0\.0\.1:\d+\/chat\?x=1/, /← 101 in/, /✓ lets the client in/, /✓ sends welcome/, /✓ sends you said hello/, /✓ closes the backend's connection with 1000/]) assert.match(good.stdout, line);
    const ended = await run('--send', 'bye');
    assert.match(ended.stdout, /✓ closes the connection with 4001 \(go\)/);
  }));

  test('connections_that_are_idle_take_little_memory', () => played(() => {}, async (server) => {
    const connect = async (count) => {
      const clients = await Promise.all([...Array(count)].map(() => server.connect('/')));
      return clients;
    };
    const warm = await connect(50);
    const before = server.memory();
    const clients = await connect(500);
    const each = (server.memory() - before) / 500;
    console.log(`an idle connection: ${each.toFixed()} bytes`);
    assert.ok(each < 16 << 10, `${each} bytes`);
    for (const client of [...warm, ...clients]) client.terminate();
  }));
});

describe('TLS', () => {
  let workshop;
  before(async () => { workshop = await Workshop.open(); });
  after(() => workshop.close());

  test('to_the_backend_goes_by_the_authorities_of_SSL_CERT_FILE', async () => {
    process.env.SSL_CERT_FILE = workshop.certificate;
    try {
      await playedWithPython(async (server) => {
        const client = await server.connect('/');
        client.send('over TLS');
        assert.equal(await client.next(), 'over TLS');
        client.close(1000);
        await client.end();
      }, { arguments: [workshop.certificate, workshop.key] });
    } finally {
      delete process.env.SSL_CERT_FILE;
    }
    await playedWithPython(async (server) => {
      assert.equal((await server.refused('/')).status, 503, 'its authority is not known');
    }, { arguments: [workshop.certificate, workshop.key] });
  });
});
