/** What a reload of the configuration means for connections that are open. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Backend } from './backend.js';
import { Fpm } from './fpm.js';
import { accept, events, Scripted, text } from './grip/scripted.js';
import { APP, Server } from './server.js';

const TOKEN = 'token-of-the-metrics';
const REMOVED = { code: 1001, reason: 'route removed' };
const OTHER = { id: '2', key: 'other-key', secret: 'other-secret' };

/** A server that reloads until every event loop has heard of it. */
async function start(routes, apps = [APP]) {
  const server = await Server.start(routes, { apps, options: ['--metrics-token', TOKEN] });
  const reload = server.reload.bind(server);
  server.counted = async (name) => {
    // Each event loop is asked, after it was told of the reload.
    const response = await fetch(`${server.url.replace('ws', 'http')}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } });
    assert.equal(response.status, 200);
    return Number((await response.text()).split('\n').find((line) => line.startsWith(name))?.split(' ').at(-1));
  };
  server.reload = async (...changes) => {
    await reload(...changes);
    await server.counted('taut_up');
  };
  return server;
}

/** Two backends of one kind: what they answer names which of them it was, and "hold" is answered once it is released. */
const KINDS = {
  'in the plain form': async () => {
    const gates = [];
    const start = async (name) => {
      const backend = await Backend.start(async ({ event, data }) => {
        if (data === 'hold') await new Promise((release) => { gates.push(release); });
        return event === 'text' ? { send: `${name} ${data}` } : {};
      });
      return {
        route: { backend: backend.url },
        begun: () => backend.until('text'),
        closes: async (count = 1) => (await backend.until('close', count)).map(({ code, reason }) => ({ code, reason })),
        stop: () => backend.stop(),
      };
    };
    return { old: await start('old'), new: await start('new'), release: () => gates.forEach((release) => release()), stop() {} };
  },
  'by websocket-over-http': async () => {
    const gates = [];
    const start = async (name) => {
      const scripted = await Scripted.start();
      scripted.answer('/chat', async (body) => {
        if (body === 'OPEN\r\n') return accept();
        const [, data] = /^TEXT \w+\r\n(.*)\r\n$/.exec(body) ?? [];
        if (data === 'hold') await new Promise((release) => { gates.push(release); });
        return data ? events(text(`${name} ${data}`)) : events('');
      });
      return {
        route: { form: 'websocket-over-http', backend: `http://127.0.0.1:${scripted.port}`, batch: 1 },
        begun: () => scripted.until('/chat', /^TEXT/),
        async closes() {
          await scripted.until('/chat', /^CLOSE/);
          return scripted.bodies('/chat').filter((body) => body.startsWith('CLOSE')).map((body) => {
            const [, content] = /^CLOSE \w+\r\n([^]*)\r\n$/.exec(body);
            return { code: Buffer.from(content, 'latin1').readUInt16BE(0), reason: content.slice(2) };
          });
        },
        stop: () => scripted.stop(),
      };
    };
    return { old: await start('old'), new: await start('new'), release: () => gates.forEach((release) => release()), stop() {} };
  },
  'over FastCGI': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'taut-reload-'));
    await chmod(folder, 0o755);
    const [gate, ends] = [join(folder, 'gate'), join(folder, 'ends')];
    for (const pipe of [gate, ends]) await promisify(execFile)('mkfifo', ['-m', '666', pipe]);
    const fpm = await Fpm.start({ workers: 4 });
    const start = async (name) => {
      const script = join(folder, `${name}.php`);
      // Who opens a named pipe waits for the other end.
      await writeFile(script, `<?php
$event = json_decode(file_get_contents('php://input'), true);
if ($event['event'] === 'close') file_put_contents('${ends}', json_encode(['${name}', $event['code'], $event['reason']]));
header('Content-Type: application/json');
if ($event['event'] !== 'text') exit('{}');
if ($event['data'] === 'hold') file_get_contents('${gate}');
echo json_encode(['send' => '${name} ' . $event['data']]);
`);
      return {
        route: { backend: fpm.address, script },
        async closes() {
          const pipe = await open(ends, 'r');
          const [which, code, reason] = JSON.parse(await pipe.readFile('utf8'));
          await pipe.close();
          assert.equal(which, name);
          return [{ code, reason }];
        },
        stop() {},
      };
    };
    let writer;
    const old = await start('old');
    return {
      old: { ...old, async begun() { writer = await open(gate, 'w'); } },
      new: await start('new'),
      release: () => writer.close(),
      async stop() {
        await fpm.stop();
        await rm(folder, { recursive: true });
      },
    };
  },
};

for (const [how, make] of Object.entries(KINDS)) {
  describe(`after a reload, connections of a route that is told ${how}`, { concurrency: 1 }, () => {
    let backends;
    before(async () => { backends = await make(); });
    after(async () => {
      await backends.old.stop();
      await backends.new.stop();
      await backends.stop();
    });

    test('finish_an_event_at_the_old_backend_and_go_on_at_the_new_one', async () => {
      const server = await start([{ path: '/chat', ...backends.old.route }]);
      try {
        const client = await server.connect('/chat');
        client.send('hold');
        await backends.old.begun();
        client.send('next');
        await server.reload([{ path: '/chat', ...backends.new.route }]);
        backends.release();
        assert.equal(await client.next(), 'old hold');
        assert.equal(await client.next(), 'new next');
        assert.equal(await server.counted('taut_route_connections'), 1);
        client.close(4001, 'bye');
        assert.deepEqual(await backends.new.closes(), [{ code: 4001, reason: 'bye' }]);
      } finally {
        assert.equal(await server.stop(), 0, server.output);
      }
    });

    test('are_closed_if_it_is_gone_and_the_old_backend_is_told', async () => {
      const server = await start([{ path: '/chat', ...backends.old.route }, { path: '/stays', ...backends.new.route }]);
      try {
        const client = await server.connect('/chat');
        await server.reload([{ path: '/stays', ...backends.new.route }]);
        assert.deepEqual(await client.end(), REMOVED);
        assert.deepEqual(await backends.old.closes(), [REMOVED]);
      } finally {
        assert.equal(await server.stop(), 0, server.output);
      }
    });
  });
}

describe('after a reload', { concurrency: 1 }, () => {
  let backend, server;
  const echo = ({ event, route, data }) => (event === 'text' ? { send: `${route} ${data}` } : {});
  const routes = (...changed) => changed.map((route) => ({ path: '/chat', name: 'chat', backend: backend.url, app: APP.id, ...route }));
  before(async () => {
    backend = await Backend.start(echo);
    server = await start(routes({}), [APP, OTHER]);
  });
  after(async () => {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  });
  const reload = (...changed) => server.reload(routes(...changed), [APP, OTHER]);

  test('connections_stay_on_a_route_with_another_path', async () => {
    await reload({});
    const client = await server.connect('/chat');
    await reload({ path: '/talk/{room}' });
    client.send('a');
    assert.equal(await client.next(), 'chat a');
    const other = await server.connect('/talk/1');
    other.send('b');
    assert.equal(await other.next(), 'chat b');
    for (const one of [client, other]) one.terminate();
  });

  test('connections_of_a_route_with_another_name_or_app_are_closed', async () => {
    for (const change of [{ name: 'another' }, { app: OTHER.id }]) {
      await reload({});
      const client = await server.connect('/chat');
      await reload(change);
      assert.deepEqual(await client.end(), REMOVED);
      const again = await server.connect('/chat');
      again.send('a');
      assert.equal(await again.next(), `${change.name ?? 'chat'} a`);
      again.terminate();
    }
  });

  test('a_client_whose_backend_decides_meanwhile_gets_what_becomes_of_its_route', async () => {
    await reload({});
    let release;
    backend.answerWith(() => new Promise((resolve) => { release = () => resolve({}); }));
    const before = (await backend.until('open')).length;
    const connecting = server.connect('/chat');
    await backend.until('open', before + 1);
    await reload();
    backend.answerWith(echo);
    release();
    assert.deepEqual(await (await connecting).end(), REMOVED);
  });

  test('a_mistake_in_the_file_changes_nothing', async () => {
    await reload({});
    const client = await server.connect('/chat');
    await reload({}, { path: '/other' });
    assert.match(server.output, /two routes have the name "chat"/);
    client.send('a');
    assert.equal(await client.next(), 'chat a');
    client.terminate();
  });

  test('many_connections_are_closed_and_each_end_is_told', async () => {
    await reload({});
    const before = backend.events.filter(({ event }) => event === 'close').length;
    const clients = [];
    for (let count = 0; count < 15; count += 1) {
      clients.push(...await Promise.all(Array.from({ length: 100 }, () => server.connect('/chat'))));
    }
    await reload();
    for (const client of clients) assert.deepEqual(await client.end(), REMOVED);
    const closes = await backend.until('close', before + clients.length);
    const codes = closes.filter(({ code }) => code === 1001).length;
    assert.ok(codes >= clients.length, `${codes} of ${clients.length}`);
    assert.equal(new Set(closes.map(({ connection }) => connection)).size, closes.length, 'each end is told once');
  });
});
