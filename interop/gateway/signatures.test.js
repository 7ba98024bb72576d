/** Signatures of requests, checked by the libraries for them: wrong ones, rotated ones, and clocks that differ. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Program } from '../peers/programs.js';
import { Backend } from './backend.js';
import { FORMS } from './forms.js';
import { Server } from './server.js';

const BACKEND = fileURLToPath(new URL('signatures/backend.mjs', import.meta.url));
const SECRETS = {
  plain: ['old', 'new', 'another'].map((name) => `whsec_${Buffer.from(`${name}-0123456789abcdef-0123456789`).toString('base64')}`),
  'websocket-over-http': ['old', 'new', 'another'].map((name) => `${name}-0123456789abcdef-0123456789abcdef`),
};
const HOUR = 3600;

/** What moves the clock of a program, step by step. Timers, which go by a monotonic clock, do not notice. */
class Clock {
  #folder; #file;

  static async start() {
    const clock = new Clock();
    clock.#folder = await mkdtemp(join(tmpdir(), 'taut-clock-'));
    clock.#file = join(clock.#folder, 'offset');
    await clock.step(0);
    const library = readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/faketime/libfaketimeMT.so.1`).find(existsSync);
    if (!library) throw new Error("there is no libfaketime: Debian has it in 'faketime'");
    clock.environment = { LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: clock.#file, FAKETIME_NO_CACHE: 1, DONT_FAKE_MONOTONIC: 1 };
    return clock;
  }

  /** From now on it is so many seconds ahead. */
  async step(seconds) {
    await writeFile(`${this.#file}.new`, `${seconds < 0 ? '' : '+'}${seconds}s\n`);
    await rename(`${this.#file}.new`, this.#file);
  }

  async stop() { await rm(this.#folder, { recursive: true }); }
}

for (const [form, { route }] of Object.entries(FORMS)) {
  const [old, renewed, another] = SECRETS[form];
  const backend = (secrets, environment = []) => Program.listening('env', ...environment, process.execPath, BACKEND, form, ...secrets);
  const start = (url, secret, environment) => Server.start([{ path: '/chat', backend: `${url}/`, timeout: 5, ...route, secret }], { environment });

  /** Plays a story on a server that signs with a secret, and a backend that checks with some. */
  const played = async (secret, checked, story) => {
    const checking = await backend(checked);
    let server;
    try {
      server = await start(checking.url, secret);
      await story(server, checking);
    } finally {
      await server?.stop();
      await checking.stop();
    }
  };
  const echoes = async (client, text) => {
    client.send(text);
    assert.equal(await client.next(), text);
  };

  describe(`requests in the form ${form}`, { concurrency: 2 }, () => {
    test('with_a_right_signature_are_taken_and_with_a_wrong_one_refused', () => played(old, [old], async (server, { url }) => {
      const client = await server.connect('/chat');
      await echoes(client, 'hello');
      client.terminate();
      const wrong = await start(url, another);
      try {
        const { status, body } = await wrong.refused('/chat');
        assert.deepEqual([status, body, await wrong.results()], [401, 'not signed', { refused: 1 }]);
      } finally {
        await wrong.stop();
      }
    }));

    test('may_be_signed_with_the_old_or_the_new_secret_while_it_is_changed', () => played(old, [old, renewed], async (server, { url }) => {
      const before = await server.connect('/chat');
      const next = await start(url, renewed);
      try {
        const after = await next.connect('/chat');
        for (const text of ['one', 'two']) for (const client of [before, after]) await echoes(client, text);
        for (const client of [before, after]) client.terminate();
      } finally {
        await next.stop();
      }
    }));

    test('with_a_secret_that_the_backend_has_forgotten_end_the_connection', async () => {
      let checking = await backend([old]);
      const server = await start(checking.url, old);
      try {
        const client = await server.connect('/chat');
        await echoes(client, 'hello');
        await checking.stop();
        checking = await backend([renewed], [`PORT=${checking.port}`]);
        client.send('hello again');
        assert.deepEqual(await client.end(), { code: 1008, reason: 'rejected' });
        assert.ok((await server.results()).rejected >= 1); // the end of the connection is told, too
      } finally {
        await server.stop();
        await checking.stop();
      }
    });

    test('are_checked_by_another_clock_and_a_step_of_the_server_is_noticed_and_survived', async () => {
      const [clock, checking] = [await Clock.start(), await backend([old])];
      const server = await start(checking.url, old, clock.environment);
      try {
        const client = await server.connect('/chat');
        await echoes(client, 'before');
        await clock.step(HOUR);
        if (form === 'plain') {
          client.send('too new');
          assert.deepEqual(await client.end(), { code: 1008, reason: 'rejected' });
          assert.match(checking.output, /timestamp too new/i);
        } else {
          await echoes(client, 'a token that is good for two hours');
          client.terminate();
        }
        await clock.step(-2 * HOUR);
        assert.equal((await server.refused('/chat')).status, 401, 'too old, or expired');
        await clock.step(0);
        await echoes(await server.connect('/chat'), 'after');
      } finally {
        assert.equal(await server.stop(), 0, server.output);
        await checking.stop();
        await clock.stop();
      }
    });

    test('that_are_sent_again_keep_their_id_and_get_the_time_of_then', async () => {
      const clock = await Clock.start();
      let attempts = 0;
      const recording = await Backend.start(async ({ event, data }, _, response) => {
        if (event === 'open') return form === 'plain' ? { timer: 5 } : {};
        if (data !== 'x') return {};
        attempts += 1;
        if (attempts > 1) return { send: 'done' };
        await clock.step(HOUR);
        response.writeHead(503, { 'retry-after': '1' }).end();
        return undefined;
      }, { form });
      const server = await start(recording.url, old, clock.environment);
      try {
        const client = await server.connect('/chat');
        const began = performance.now();
        client.send('x');
        assert.equal(await client.next(), 'done');
        const [first, second] = (await recording.until('text', 2)).map(({ headers }) => headers);
        const seconds = ({ 'webhook-timestamp': time, 'grip-sig': token }) => Number(time ?? JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).exp);
        const step = seconds(second) - seconds(first);
        assert.ok(step >= HOUR && step < HOUR + 30, `${step} s`);
        if (form === 'plain') {
          assert.match(first['webhook-id'], /^ev_/);
          for (const name of ['webhook-id', 'idempotency-key']) assert.equal(first[name], second[name]);
          for (const headers of [first, second]) {
            const { body } = recording.events.find((event) => event.headers === headers);
            const signed = createHmac('sha256', Buffer.from(old.slice(6), 'base64')).update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`);
            assert.equal(headers['webhook-signature'], `v1,${signed.digest('base64')}`);
          }
          await recording.until('timer');
          assert.ok(performance.now() - began > 4500, 'a timer does not go by this clock');
        }
        client.terminate();
        await recording.until('close');
      } finally {
        assert.equal(await server.stop(), 0, server.output);
        await recording.stop();
        await clock.stop();
      }
    });
  });
}
