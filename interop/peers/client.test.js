/** The client of the library with the servers of others, directly and with somebody in between. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { freePort, run, Workshop } from './programs.js';
import { microsocks, REVERSE, secureTinyproxy, tinyproxy } from './proxies.js';
import { NodeServer, PythonServer } from './servers.js';

const CLIENT = process.env.TAUT_CLIENT;
const IDLE_SECONDS = 2;
const CREDENTIALS = { user: 'ada', password: 'correct-horse' };
/** With what has to be percent-encoded in a URL, and cannot be written into the configuration of tinyproxy. */
const ODD_CREDENTIALS = { user: 'a:da', password: 'cörrect@horse/:%' };

let workshop;
/** What the tests of one group have started. */
let started = [];

before(async () => { workshop = await Workshop.open(); });
after(async () => workshop.close());
const stopAll = async () => {
  await Promise.all(started.map((program) => program.stop()));
  started = [];
};

const start = async (starting) => {
  const program = await starting;
  started.push(program);
  return program;
};

/** Runs the client; its report. */
const visit = (url, ...options) => run(CLIENT, url, '--ca', workshop.certificate, ...options);

const allIsWell = (deflate) => ({
  echoes: 15,
  extensions: deflate ? 'permessage-deflate' : '',
  pong: 'are you there?',
  fragments: 'in several fragments',
  code: 4001,
  reason: 'done',
});

/** Everything that the client does, with and without compression; nobody in between may tell the difference. */
const converse = (serverAndUrl) => {
  for (const deflate of [false, true]) {
    test(`a_visit_goes_well_${deflate ? 'compressed' : 'uncompressed'}`, async () => {
      const { server, url } = serverAndUrl();
      assert.deepEqual(await visit(url, ...(deflate ? ['--deflate'] : [])), allIsWell(deflate));
      assert.equal(await server.closed(), '4001 done');
    });
  }
};

for (const Server of [NodeServer, PythonServer]) {
  for (const tls of [false, true]) {
    describe(`a server on ${Server.title}, by ${tls ? 'wss' : 'ws'}`, () => {
      let server;
      before(async () => { server = await start(Server.start(workshop, { tls })); });
      after(stopAll);
      converse(() => ({ server, url: server.url }));
      test('what_it_refuses_with_is_shown', async () => {
        const { status, error } = await visit(`${server.url}/forbidden`);
        assert.deepEqual([status, error], [403, 'The server answered with HTTP status 403 instead of 101: {"error":"not you"}']);
      });
    });

    for (const [name, proxy] of Object.entries(REVERSE)) {
      describe(`a server on ${Server.title} behind ${name}, by ${tls ? 'wss' : 'ws'}`, () => {
        let server, between;
        before(async () => {
          server = await start(Server.start(workshop));
          between = await start(proxy(workshop, server.port, { tls }));
        });
        after(stopAll);
        converse(() => ({ server, url: `${tls ? 'wss' : 'ws'}://127.0.0.1:${between.port}/` }));
      });
    }
  }
}

for (const tls of [false, true]) {
  const scheme = tls ? 'wss' : 'ws';

  test(`a_redirect_of_nginx_is_followed_by_${scheme}`, async () => {
    const server = await start(PythonServer.start(workshop));
    const between = await start(REVERSE.nginx(workshop, server.port, { tls }));
    assert.deepEqual(await visit(`${scheme}://127.0.0.1:${between.port}/moved`), allIsWell(false));
    await stopAll();
  });
}

for (const [name, expected] of [['nginx', 502], ['haproxy', 503]]) {
  test(`${name}_without_its_server_is_told_by_its_status`, async () => {
    const between = await start(REVERSE[name](workshop, await freePort(), {}));
    const { error, status } = await visit(`ws://127.0.0.1:${between.port}/`);
    assert.equal(status, expected, error);
    await stopAll();
  });
}

test('a_bearer_token_arrives_through_a_reverse_proxy_as_it_was_sent', async () => {
  const server = await start(NodeServer.start(workshop));
  const between = await start(REVERSE.nginx(workshop, server.port, {}));
  assert.equal((await visit(`ws://127.0.0.1:${between.port}/`, '--bearer', 't0ken~+/=')).code, 4001);
  assert.equal(server.headers.authorization, 'Bearer t0ken~+/=');
  await stopAll();
});

describe(`behind a proxy that gives up after ${IDLE_SECONDS} s of silence`, { concurrency: true }, () => {
  let server;
  const between = {};
  before(async () => {
    server = await start(PythonServer.start(workshop));
    for (const [name, proxy] of Object.entries(REVERSE)) {
      between[name] = await start(proxy(workshop, server.port, { idle: IDLE_SECONDS }));
    }
  });
  after(stopAll);

  for (const name of Object.keys(REVERSE)) {
    const idle = (heartbeat) => {
      const time = (3 * IDLE_SECONDS + 0.5) * 1000;
      return visit(`ws://127.0.0.1:${between[name].port}/`, '--idle', time, '--heartbeat', heartbeat);
    };

    test(`the_heartbeat_keeps_an_idle_connection_alive_in_${name}`, async () => {
      assert.deepEqual(await idle(500), { code: 4001, reason: 'done' });
    });

    test(`without_the_heartbeat_an_idle_connection_is_cut_by_${name}`, async () => {
      const began = performance.now();
      const { error, code } = await idle(0);
      const seconds = (performance.now() - began) / 1000;
      assert.equal(code, 1006, error);
      assert.ok(seconds > IDLE_SECONDS - 0.2 && seconds < 2 * IDLE_SECONDS, `it was cut after ${seconds} s`);
    });
  }
});

/** tinyproxy has its own way: 407 only to those who say nothing. */
const TINY = { credentials: CREDENTIALS, wrong: /HTTP status 401/, none: /HTTP status 407/, status: 401 };
const TUNNELS = [
  { name: 'tinyproxy', scheme: 'http', proxy: tinyproxy, ...TINY },
  { name: 'tinyproxy by TLS', scheme: 'https', proxy: secureTinyproxy, ...TINY },
  {
    name: 'microsocks',
    scheme: 'socks5',
    proxy: microsocks,
    credentials: ODD_CREDENTIALS,
    wrong: /does not accept the user and password/,
    none: /wants a user and password/,
    status: null,
  },
];

for (const { name, scheme, proxy, credentials, wrong, none, status } of TUNNELS) {
  describe(`through ${name}`, () => {
    let open, guarded, plain, secure;
    before(async () => {
      [open, guarded] = [await start(proxy(workshop)), await start(proxy(workshop, credentials))];
      [plain, secure] = [await start(NodeServer.start(workshop)), await start(PythonServer.start(workshop, { tls: true }))];
    });
    after(stopAll);
    const url = ({ port }, { user, password } = {}) => {
      const login = user ? `${encodeURIComponent(user)}:${encodeURIComponent(password)}@` : '';
      return `${scheme}://${login}127.0.0.1:${port}`;
    };

    for (const isGuarded of [false, true]) {
      const way = () => (isGuarded ? url(guarded, credentials) : url(open));
      for (const isSecure of [false, true]) {
        test(`a_visit_by_${isSecure ? 'wss' : 'ws'}_goes_well_${isGuarded ? 'with' : 'without'}_user_and_password`, async () => {
          const [server, between] = [isSecure ? secure : plain, isGuarded ? guarded : open];
          between.forget();
          assert.deepEqual(await visit(server.url, '--proxy', way()), allIsWell(false));
          assert.equal(await server.closed(), '4001 done');
          await between.until(new RegExp(`127\\.0\\.0\\.1:${server.port}\\b`));
        });
      }
    }

    test('a_wrong_password_is_refused_clearly_and_shown_nowhere', async () => {
      const password = 'wr0ng-sec3et';
      const refused = await visit(plain.url, '--proxy', url(guarded, { ...credentials, password }));
      const { error, debug } = refused;
      assert.match(error, wrong);
      assert.equal(refused.status, status);
      const encoded = Buffer.from(`${credentials.user}:${password}`).toString('base64');
      for (const text of [error, debug]) for (const secret of [password, encoded]) assert.ok(!text.includes(secret), text);
    });

    test('a_proxy_that_wants_a_password_and_gets_none_says_so', async () => {
      assert.match((await visit(plain.url, '--proxy', url(guarded))).error, none);
    });

    test('a_server_that_is_not_there_is_the_proxys_to_tell', async () => {
      const { error } = await visit(`ws://127.0.0.1:${await freePort()}`, '--proxy', url(open));
      assert.match(error, /^the proxy (answered with HTTP status 50\d|did not connect to the server: the server refused)/);
    });
  });
}
