/** The chat of examples/php, answered by Debian's php-fpm: over FastCGI, and over HTTP by nginx. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Program } from '../peers/programs.js';
import { Fpm } from './fpm.js';
import { APP, Server } from './server.js';

const CHAT = fileURLToPath(new URL('../../examples/php/chat.php', import.meta.url));

/** What both ways have in common: a bad token gets 401 before the upgrade, and two users talk. */
async function chats(server) {
  for (const query of ['', '?token=stranger']) {
    const { status, body } = await server.refused(`/chat/1${query}`);
    assert.deepEqual([status, body], [401, 'unknown token']);
  }
  const ann = await server.connect('/chat/1?token=token-ann');
  assert.deepEqual(await ann.json(), { welcome: 'ann' });
  const bob = await server.connect('/chat/1?token=token-bob');
  assert.deepEqual(await bob.json(), { welcome: 'bob' });
  const other = await server.connect('/chat/2?token=token-cid');
  assert.deepEqual(await other.json(), { welcome: 'cid' });
  ann.send('hello, "wörld" 👋');
  for (const client of [ann, bob]) assert.deepEqual(await client.json(), { channel: 'room-1', event: 'message', data: { from: 'ann', text: 'hello, "wörld" 👋' } });
  bob.close();
  assert.deepEqual(await ann.json(), { channel: 'room-1', event: 'message', data: { left: 'bob' } });
  assert.deepEqual(other.messages, []);
  for (const client of [ann, other]) client.terminate();
}

/** nginx in front of a php-fpm, as people configure it. */
async function nginx(fpm, folder) {
  const program = await Program.onFreePort(async (port) => {
    const file = join(folder, 'nginx.conf');
    await writeFile(file, `${process.getuid() === 0 ? 'user root;' : ''}
daemon off; pid ${join(folder, 'nginx.pid')}; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path ${folder}/body; fastcgi_temp_path ${folder}/fastcgi; proxy_temp_path ${folder}/proxy; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server {
    listen 127.0.0.1:${port};
    location = /chat.php { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME ${CHAT}; fastcgi_pass unix:${fpm.socket}; }
  }
}
`);
    return ['/usr/sbin/nginx', '-c', file];
  });
  return { program, url: `http://127.0.0.1:${program.port}/chat.php` };
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
    const folder = await mkdtemp(join(tmpdir(), 'taut-nginx-'));
    const fpm = await Fpm.start({ environment: { TAUT_SECRET: APP.secret } });
    const { program, url } = await nginx(fpm, folder);
    const server = await Server.start([{ path: '/chat/{room}', backend: url }]);
    try {
      await chats(server);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await program.stop('SIGQUIT');
      await fpm.stop();
      await rm(folder, { recursive: true });
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
if ($event['event'] !== 'text') exit('[]');
switch ($event['data']) {
    case 'slow': usleep(300000); break;
    case 'die': posix_kill(getmypid(), SIGKILL); break;
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
    client.terminate();
    assert.match(server.output, /a warning of the script/);
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
