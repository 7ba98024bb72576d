/** The tools of these tests do what they say: a proxy that does not cut would make every other test here pass. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { Proxy } from './proxy.js';
import { Redis } from './redis.js';

let redis;
let proxy;

before(async () => {
  redis = await Redis.start();
  proxy = await Proxy.start(() => redis.port);
});
after(async () => {
  await proxy?.stop();
  await redis?.stop();
});

/** A connection to Redis through the proxy, with what has come so far. */
async function open() {
  const socket = connect(proxy.port, '127.0.0.1');
  socket.text = '';
  socket.on('error', () => {}); // `close` follows
  socket.setEncoding('latin1').on('data', (text) => { socket.text += text; socket.emit('more'); });
  await once(socket, 'connect');
  return socket;
}

const closed = (socket) => new Promise((resolve) => { socket.once('close', resolve); });

/** Waits until this has come, and gives how many milliseconds it took. */
async function until(socket, text) {
  const asked = performance.now();
  while (!socket.text.includes(text)) await once(socket, 'more');
  return performance.now() - asked;
}

const PING = 'PING\r\n';
const PONG = '+PONG\r\n';

describe('the tools', { timeout: 60_000 }, () => {
  test('a_proxy_passes_on_what_is_said', async () => {
    const socket = await open();
    socket.write(PING);
    await until(socket, PONG);
    socket.destroy();
  });

  test('a_proxy_that_is_cut_ends_what_is_open_and_lets_nobody_in_until_it_is_healed', async () => {
    const socket = await open();
    socket.write(PING);
    await until(socket, PONG);
    const ended = closed(socket);
    proxy.cut();
    await ended;
    await closed(connect(proxy.port, '127.0.0.1').on('error', () => {}));
    proxy.heal();
    const again = await open();
    again.write(PING);
    await until(again, PONG);
    again.destroy();
  });

  test('a_stall_keeps_both_ends_connected_and_passes_everything_on_afterwards', async () => {
    for (const direction of ['up', 'down']) {
      const socket = await open();
      const key = `stalled-${direction}`;
      proxy.stall(direction);
      socket.write(`SET ${key} 1\r\n`);
      // A command of another connection, sent later, has been executed: time enough for the first.
      await new Promise((resolve) => { setTimeout(resolve, 100); });
      assert.equal(await redis.command('GET', key), direction === 'up' ? null : '1');
      assert.equal(socket.text, '');
      proxy.heal();
      await until(socket, '+OK');
      assert.equal(await redis.command('GET', key), '1');
      socket.destroy();
    }
  });

  test('what_is_delayed_comes_late_and_in_order', async () => {
    const socket = await open();
    proxy.delay(150);
    socket.write('ECHO one\r\n');
    socket.write('ECHO two\r\n');
    assert.ok(await until(socket, 'two') >= 290, 'there and back');
    assert.ok(socket.text.indexOf('one') < socket.text.indexOf('two'));
    proxy.heal();
    socket.destroy();
  });

  test('what_is_throttled_comes_slowly_and_whole', async () => {
    const socket = await open();
    await redis.command('SET', 'long', 'x'.repeat(20_000));
    proxy.throttle(50_000);
    socket.write('GET long\r\nPING\r\n');
    assert.ok(await until(socket, PONG) >= 300);
    assert.equal(socket.text, `$20000\r\n${'x'.repeat(20_000)}\r\n${PONG}`);
    proxy.heal();
    socket.destroy();
  });

  test('a_redis_that_is_killed_comes_back_at_the_same_port_without_its_memory', async () => {
    await redis.command('SET', 'kept', '1');
    assert.equal(await redis.command('GET', 'kept'), '1');
    await redis.kill();
    await assert.rejects(redis.command('GET', 'kept'));
    await redis.restart();
    assert.equal(await redis.command('GET', 'kept'), null);
    assert.equal((await redis.calls()).get, 1);
  });
});

test('the_tests_that_the_guarantees_name_are_there', async () => {
  const page = await readFile(new URL('../../docs/guarantees.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| [^|]+ \| `([a-z.]+js)` `([a-z_]+)` \|$/gm)];
  assert.ok(rows.length > 10, `${rows.length} rows`);
  for (const [, file, name] of rows) {
    const text = await readFile(new URL(file, import.meta.url), 'utf8');
    assert.ok(text.includes(name), `${file} has no ${name}`);
  }
});
