/** A php-fpm whose workers are ended, renewed, started when they are needed, or busy after their answer. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { FORMS } from './forms.js';
import { Fpm } from './fpm.js';
import { Server } from './server.js';

/** It answers a text with the same, in both forms, and writes down what it was told. */
const SCRIPT = `<?php
$body = file_get_contents('php://input');
if (str_starts_with($_SERVER['CONTENT_TYPE'], 'application/json')) {
    $event = json_decode($body, true);
    [$type, $data] = [$event['event'], $event['data'] ?? ''];
} else {
    [$type, $data] = [strtolower(strtok($body, " \\r")), explode("\\r\\n", $body)[1] ?? ''];
}
function told(string $what) { file_put_contents(getenv('TOLD'), "$what\\n", FILE_APPEND | LOCK_EX); }
told("$type $data");
if ($data === 'sleep') sleep(20);
header('Content-Type: ' . $_SERVER['CONTENT_TYPE']);
if (isset($event)) echo json_encode($type === 'text' ? ['send' => $data] : []);
elseif ($type === 'open') echo "OPEN\\r\\n";
elseif ($type === 'text') echo 'TEXT ' . dechex(strlen($data)) . "\\r\\n$data\\r\\n";
if ($data === 'tail') {
    fastcgi_finish_request();
    sleep(3);
    told('the end of the tail');
}
`;

for (const [form, { route }] of Object.entries(FORMS)) {
  /** Plays a story on a server whose route is that script, on a pool of its own; `told()` gives what the script was told. */
  const scripted = async (story, { workers = 2, pool = '' } = {}) => {
    const folder = await mkdtemp(join(tmpdir(), 'taut-script-'));
    const [script, record] = ['script.php', 'told'].map((name) => join(folder, name));
    await writeFile(script, SCRIPT);
    await writeFile(record, '');
    await chmod(folder, 0o755);
    await chmod(record, 0o666);
    const fpm = await Fpm.start({ workers, pool, environment: { TOLD: record } });
    const server = await Server.start([{ path: '/x', backend: fpm.address, script, timeout: 10, ...route }]);
    const told = async () => (await readFile(record, 'utf8')).split('\n').slice(0, -1);
    try {
      await story(server, fpm, told);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await fpm.stop();
      await rm(folder, { recursive: true });
    }
  };

  describe(`php-fpm, told in the form ${form}`, { concurrency: 2 }, () => {
    test('that_ends_a_request_which_takes_too_long_fails_that_event_once', () => scripted(async (server, _, told) => {
      const [client, other] = [await server.connect('/x'), await server.connect('/x')];
      const began = performance.now();
      client.send('sleep');
      assert.deepEqual(await client.end(), { code: 1011, reason: 'backend error' });
      assert.ok(performance.now() - began < 9000, 'before the deadline of the event');
      // The worker is replaced.
      for (const text of ['one', 'two', 'three']) {
        other.send(text);
        assert.equal(await other.next(), text);
      }
      assert.equal((await told()).filter((line) => line === 'text sleep').length, 1);
      assert.equal((await server.results()).failed, 1);
      other.terminate();
    }, { pool: 'request_terminate_timeout = 2s' }));

    test('that_renews_a_worker_after_each_request_loses_and_repeats_nothing', () => scripted(async (server, _, told) => {
      const clients = await Promise.all(Array.from({ length: 6 }, () => server.connect('/x')));
      const texts = clients.map((_client, number) => Array.from({ length: 20 }, (_text, count) => `${number}-${count}`));
      clients.forEach((client, number) => { for (const text of texts[number]) client.send(text); });
      for (const [number, client] of clients.entries()) for (const text of texts[number]) assert.equal(await client.next(), text);
      assert.deepEqual((await told()).filter((line) => line.startsWith('text')).sort(), texts.flat().map((text) => `text ${text}`).sort());
      assert.deepEqual(await server.results(), { answered: 126 });
      for (const client of clients) client.terminate();
    }, { workers: 3, pool: 'pm.max_requests = 1' }));

    test('that_starts_its_workers_when_they_are_needed_answers_from_cold', () => scripted(async (server, fpm) => {
      assert.equal(fpm.workers, 0);
      const client = await server.connect('/x');
      client.send('one');
      assert.equal(await client.next(), 'one');
      assert.ok(fpm.workers > 0);
      // There is no event for the end of the last worker.
      while (fpm.workers > 0) await new Promise((resolve) => { setTimeout(resolve, 50); });
      client.send('two');
      assert.equal(await client.next(), 'two');
      client.terminate();
    }, { pool: 'pm = ondemand\npm.process_idle_timeout = 1s' }));

    test('that_is_busy_after_its_answer_delays_nobody', () => scripted(async (server, _, told) => {
      const [client, other] = [await server.connect('/x'), await server.connect('/x')];
      client.send('tail');
      assert.equal(await client.next(), 'tail');
      for (let count = 0; count < 10; count += 1) {
        for (const each of [client, other]) {
          each.send(`message ${count}`);
          assert.equal(await each.next(), `message ${count}`);
        }
      }
      assert.ok(!(await told()).includes('the end of the tail'), 'the worker was busy all the time');
      for (const each of [client, other]) each.terminate();
    }));
  });
}
