/** Clients that send in odd ways or do not read: their backends do not notice, and memory stays. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { FORMS } from './forms.js';
import { Server } from './server.js';

const KEY = 'flood-0123456789abcdef-0123456789abcdef';
const [CONTINUATION, TEXT, PING, PONG] = [0, 1, 9, 10];
const PLAIN = { perMessageDeflate: false };

/** A frame of up to 125 bytes, with a mask of zeros. */
function frame(opcode, payload = '', fin = true) {
  const bytes = Buffer.from(payload);
  return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | opcode, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]);
}

for (const [form, { route: settings }] of Object.entries(FORMS)) {
  /** Plays a story on a server whose route is a backend's. */
  const played = async (answer, story, { route = {}, options = [] } = {}) => {
    const backend = await Backend.start(answer, { form });
    const server = await Server.start([{ path: '/chat', backend: backend.url, ...settings, ...(form === 'plain' ? {} : { secret: KEY }), ...route }], { options });
    try {
      await story(server, backend);
    } finally {
      assert.equal(await server.stop(), 0, server.output);
      await backend.stop();
    }
  };

  describe(`clients whose backend is told in the form ${form}`, () => {
    test('may_send_control_frames_between_fragments', () => played(({ event, data }) => (event === 'text' ? { send: data } : {}), async (server, backend) => {
      const client = await server.connect('/chat', PLAIN);
      client.raw(Buffer.concat([frame(TEXT, 'he', false), frame(PING, 'p1'), frame(CONTINUATION, 'll', false), frame(PONG, 'x'), frame(PING, 'p2'), frame(CONTINUATION, 'o')]));
      assert.deepEqual([await client.pong(), await client.pong(), await client.next()], ['p1', 'p2', 'hello']);
      assert.deepEqual((await backend.until('text')).map(({ data }) => data), ['hello']);
      assert.deepEqual(await server.results(), { answered: 2 });
      client.terminate();
    }));

    test('may_send_so_many_fragments_of_a_byte_and_a_megabyte_of_them_ends_the_connection', () => played(({ event, data }) => (event === 'text' ? { send: data } : {}), async (server, backend) => {
      const before = server.memory();
      const [client, other] = [await server.connect('/chat', PLAIN), await server.connect('/chat', PLAIN)];
      const bytes = (count) => Buffer.concat(Array.from({ length: count }, () => frame(CONTINUATION, 'x', false)));
      other.raw(Buffer.concat([frame(TEXT, '', false), bytes(1000), frame(PING, 'p'), frame(CONTINUATION)]));
      assert.deepEqual([await other.pong(), await other.next()], ['p', 'x'.repeat(1000)]);
      client.raw(Buffer.concat([frame(TEXT, '', false), bytes(1 << 20), frame(CONTINUATION)]));
      assert.deepEqual(await client.end(), { code: 1008, reason: 'message in too many fragments' });
      // WebSocket-over-HTTP says DISCONNECT, which has no code.
      assert.equal((await backend.until('close'))[0].code, form === 'plain' ? 1008 : 1006);
      assert.deepEqual(backend.events.map(({ event }) => event), ['open', 'open', 'text', 'close'], 'nothing of the message is told');
      assert.ok(server.memory() - before < 4 << 20, `${server.memory() - before} bytes more`);
      other.terminate();
    }, { options: ['--max-message', '2MiB'] }));

    test('that_are_read_no_further_are_not_taken_for_dead', () => {
      let release;
      const held = new Promise((resolve) => { release = resolve; });
      return played(async ({ event }) => { if (event === 'text') await held; return {}; }, async (server, backend) => {
        const client = await server.connect('/chat', PLAIN);
        const texts = Array.from({ length: 500 }, (_, number) => `${number} ${'x'.repeat(1000)}`);
        for (const text of texts) client.send(text);
        client.ping('behind all that');
        // The server asks each second whether the client is there, and cannot see its answers.
        await new Promise((resolve) => { setTimeout(resolve, 5000); });
        assert.deepEqual([client.closed, client.pongs], [undefined, []]);
        release();
        assert.deepEqual((await backend.until('text', texts.length)).map(({ data }) => data), texts);
        assert.equal(await client.pong(), 'behind all that');
        assert.equal(client.closed, undefined);
        client.terminate();
      }, { route: { timeout: 60 }, options: ['--ping-interval', '1', '--pong-timeout', '1'] });
    });

    test('that_do_not_read_lose_their_connection_and_delay_nobody', () => {
      let server;
      const data = 'x'.repeat(50_000);
      const longest = { ms: 0 };
      const answer = async ({ event }) => {
        if (event === 'open') return { subscribe: ['room'] };
        if (event !== 'text') return {};
        if (form === 'plain') return { publish: [{ channel: 'room', data }] };
        const body = JSON.stringify({ items: [{ channel: 'room', formats: { 'ws-message': { content: data } } }] });
        const began = performance.now();
        const { status } = await fetch(`${server.url.replace('ws', 'http')}/publish/`, { method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }, body });
        longest.ms = Math.max(longest.ms, performance.now() - began);
        assert.equal(status, 200);
        return {};
      };
      return played(answer, async (started, backend) => {
        server = started;
        const [client, slow] = [await server.connect('/chat', PLAIN), await server.connect('/chat', PLAIN)];
        slow.pause();
        const before = server.memory();
        // Until it is more than what the kernel keeps.
        for (let count = 0; count < 600; count += 1) {
          const began = performance.now();
          client.send('go');
          assert.ok((await client.next()).includes(data));
          longest.ms = Math.max(longest.ms, performance.now() - began);
        }
        assert.ok(longest.ms < 2000, `${longest.ms} ms`);
        assert.ok(server.memory() - before < 16 << 20, `${server.memory() - before} bytes more`);
        assert.equal(await server.metric('taut_connections_kicked_total'), 1);
        const [{ code }] = await backend.until('close');
        assert.equal(code, 1006);
        assert.deepEqual((await server.results()).answered, 603);
        slow.resume();
        await slow.end();
        assert.ok(slow.messages.length < 600);
        client.terminate();
      }, { options: ['--max-outgoing', '256KiB'] });
    });
  });
}
