/** The chat of examples/php, answered by Debian's php-fpm: over FastCGI, and over HTTP by nginx. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Fpm, Nginx } from './fpm.js';
import { APP, Server } from './server.js';

const CHAT = fileURLToPath(new URL('../../examples/php/chat.php', import.meta.url));

/** What both ways have in common: a bad token gets 401 before the upgrade, and two users see each other and talk. */
async function chats(server) {
  const said = (data) => ({ channel: 'room-1', event: 'message', data });
  const presence = (event, data) => ({ channel: 'presence-room-1', event, data });
  /** Lets a user in, who is welcomed and told who is there, in either order: another shard may own the channel. */
  async function enter(room, name, present) {
    const client = await server.connect(`/chat/${room}?token=token-${name}`);
    const heard = [await client.json(), await client.json()];
    assert.deepEqual(heard.find(({ welcome }) => welcome), { welcome: name });
    const { channel, event, data } = heard.find(({ welcome }) => !welcome);
    assert.deepEqual([channel, event], [`presence-room-${room}`, 'subscription_succeeded']);
    assert.deepEqual(data.presence.ids.sort(), present);
    return client;
  }

  for (const query of ['', '?token=stranger']) {
    const { status, body } = await server.refused(`/chat/1${query}`);
    assert.deepEqual([status, body], [401, 'unknown token']);
  }
  const ann = await enter(1, 'ann', ['ann']);
  const bob = await enter(1, 'bob', ['ann', 'bob']);
  assert.deepEqual(await ann.json(), presence('member_added', { user_id: 'bob' }));
  const other = await enter(2, 'cid', ['cid']);
  ann.send('hello, "wörld" 👋');
  for (const client of [ann, bob]) assert.deepEqual(await client.json(), said({ from: 'ann', text: 'hello, "wörld" 👋' }));
  ann.send('');
  assert.deepEqual(await ann.json(), { alive: true });
  assert.deepEqual(bob.messages, []);
  bob.close();
  assert.deepEqual(await ann.json(), presence('member_removed', { user_id: 'bob' }));
  assert.deepEqual(other.messages, []);
  for (const client of [ann, other]) client.terminate();
}

describe('the chat in PHP', () => {
  test('php_fpm_answers_over_fastcgi', async () => {
    const fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
    const server = await Server.start([{ path: '/chat/{room}', backend: fpm.address, script: CHAT }]);
    try {
      await chats(server);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await fpm.stop();
    }
  });

  test('php_fpm_answers_over_http_behind_nginx', async () => {
    const fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
    const nginx = await Nginx.start(fpm, { '/chat.php': CHAT });
    const server = await Server.start([{ path: '/chat/{room}', backend: `${nginx.url}/chat.php` }]);
    try {
      await chats(server);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await nginx.stop();
      await fpm.stop();
    }
  });

  test('a_request_that_is_not_signed_gets_nothing_of_the_script', async () => {
    const fpm = await Fpm.start({ environment: { TAUT_SECRET: 'another' } });
    const server = await Server.start([{ path: '/chat/{room}', backend: fpm.address, script: CHAT }]);
    try {
      assert.equal((await server.refused('/chat/1?token=token-ann')).status, 403);
    } finally {
      await server.stop();
      await fpm.stop();
    }
  });
});

/** Answers as its message says, so that a test can have it fail. */
const SCRIPT = `<?php
$event = json_decode(file_get_contents('php://input'), true);
header('Content-Type: application/json');
if ($event['event'] === 'close' && $event['code'] === 3001) {
    $how = [$event['code'], $event['reason'], $event['clean']];
    exit(json_encode(['publish' => [['channel' => 'ends', 'data' => $how]]]));
}
if ($event['event'] !== 'text') exit('[]');
switch ($event['data']) {
    case 'watch': exit('{"subscribe":["ends"],"send":"watching"}');
    case 'slow': usleep(300000); break;
    case 'die': posix_kill(getmypid(), 9); break;
    case 'throw': throw new Exception('secret trace');
    case 'warn': error_log('a warning of the script'); break;
    case 'half': echo '{"send":"ha'; exit;
}
echo json_encode(['send' => $event['data']]);
`;

/** A server whose route is that script, on a pool of its own. */
async function scripted(story, { workers = 2, route = {} } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'taut-script-'));
  const script = join(folder, 'script.php');
  await writeFile(script, SCRIPT);
  await chmod(folder, 0o755);
  const fpm = await Fpm.start({ workers });
  const server = await Server.start([{ path: '/x', backend: fpm.address, script, timeout: 5, ...route }]);
  try {
    await story(server, fpm);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await fpm.stop();
    await rm(folder, { recursive: true });
  }
}

describe('a php-fpm that works', () => {
  test('is_told_how_a_connection_has_ended', () => scripted(async (server) => {
    const [watcher, other] = [await server.connect('/x'), await server.connect('/x')];
    watcher.send('watch');
    assert.equal(await watcher.next(), 'watching');
    other.close(3001, 'enough');
    assert.deepEqual(await watcher.json(), { channel: 'ends', event: 'message', data: [3001, 'enough', true] });
    watcher.terminate();
  }));
});

describe('a php-fpm that fails', () => {
  test('is_shown_by_1011_and_nothing_of_its_trace', () => scripted(async (server) => {
    for (const data of ['throw', 'die', 'half']) {
      const client = await server.connect('/x');
      client.send(data);
      assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' }, data);
    }
    const client = await server.connect('/x');
    client.send('warn');
    assert.equal(await client.next(), 'warn');
    await server.until(/a warning of the script/);
    client.terminate();
  }));

  test('that_is_restarted_gets_what_came_meanwhile', () => scripted(async (server, fpm) => {
    const client = await server.connect('/x');
    await fpm.end();
    for (const data of ['one', 'two']) client.send(data);
    await fpm.restart();
    for (const data of ['one', 'two']) assert.equal(await client.next(), data);
    client.terminate();
  }));

  test('with_fewer_workers_than_events_answers_all_of_them', () => scripted(async (server) => {
    const clients = await Promise.all(Array.from({ length: 12 }, () => server.connect('/x')));
    for (const client of clients) client.send('slow');
    for (const client of clients) assert.equal(await client.next(), 'slow');
    for (const client of clients) client.terminate();
  }));
});
