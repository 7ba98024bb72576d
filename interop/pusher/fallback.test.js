/** Where WebSockets cannot get through: pusher-js with XHR streaming, XHR polling and SockJS, and by itself once a WebSocket fails. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { Taut, fresh } from './taut.js';

const GIVEN_UP_AFTER = 60_000;

let taut;
let backend;
let pusher;

before(async () => {
  taut = await Taut.start();
  backend = await Backend.start();
  pusher = taut.publisher();
});
after(async () => {
  await backend?.stop();
  await taut?.stop();
});

/** What a WebSocket can do, over whatever there is instead. */
async function everything(client) {
  const [name, room] = [fresh('private-doc'), fresh('presence-room')];
  const [ada, bob] = [await client({ member: { user_id: 'ada' }, user: { id: 'ada' } }), await client({ member: { user_id: 'bob' } })];
  for (const one of [ada, bob]) {
    await one.join(name, ['client-typing']);
    await one.join(room, ['client-typing']);
  }
  assert.equal((await bob.members(room)).count, 2);
  await ada.until({ on: room, event: 'pusher:member_added' });
  for (let n = 0; n < 20; n += 1) await pusher.trigger(name, 'count', { n, text: 'Größe 👩🏽‍🚀 "\\\u2028' });
  const heard = await ada.until({ on: name, event: 'count' }, 20);
  assert.deepEqual(heard.map(({ data }) => data.n), Array.from({ length: 20 }, (_, n) => n));
  await ada.trigger(room, 'client-typing', { x: 1 });
  assert.deepEqual((await bob.until({ on: room, event: 'client-typing' }))[0].metadata, { user_id: 'ada' });
  await pusher.trigger(name, 'large', 'x'.repeat(50_000));
  assert.equal((await bob.until({ on: name, event: 'large' }))[0].data.length, 50_000);
  await ada.signin();
  await ada.until({ on: 'frame', event: 'pusher_internal:subscription_succeeded' }, 3);
  await pusher.sendToUser('ada', 'for-you', {});
  await ada.until({ on: 'user', event: 'for-you' });
}

for (const platform of [new NodePlatform(), new ChromiumPlatform()]) {
  describe(`pusher-js in ${platform.name} without WebSockets`, { timeout: 300_000 }, () => {
    const client = (transport) => async (options) => {
      const recorder = await platform.client({
        taut,
        backend,
        httpHost: '127.0.0.1',
        httpPort: taut.port,
        enabledTransports: [transport],
        prepare: withSockJs,
        ...options,
      });
      await recorder.connected();
      assert.equal(await recorder.transport(), transport);
      return recorder;
    };
    before(() => platform.open());
    afterEach(() => platform.leave());
    after(() => platform.close());

    test('xhr_streaming_carries_the_whole_protocol', () => everything(client('xhr_streaming')));

    test('xhr_polling_carries_the_whole_protocol', () => everything(client('xhr_polling')));

    test('a_stream_of_more_than_256_KiB_goes_on_in_the_next_request', async () => {
      const name = fresh('large');
      const recorder = await client('xhr_streaming')();
      await recorder.join(name);
      for (let n = 0; n < 8; n += 1) await pusher.trigger(name, 'part', `${n}${'x'.repeat(60_000)}`);
      const heard = await recorder.until({ on: name, event: 'part' }, 8);
      assert.deepEqual(heard.map(({ data }) => data[0]), ['0', '1', '2', '3', '4', '5', '6', '7']);
      await pusher.trigger(name, 'end', {});
      await recorder.until({ on: name, event: 'end' });
      assert.equal(await recorder.state(), 'connected');
      assert.equal((await recorder.heard({ on: 'connection', event: 'connected' })).length, 1, 'it is still the same connection');
    });

    // Nothing tells the server of it: it waits for the next request of a session, and then gives it up.
    test('a_client_that_goes_away_without_a_word_leaves_its_channels', async () => {
      const room = fresh('presence-room');
      const [ada, bob] = [await client('xhr_polling')({ member: { user_id: 'ada' } }), await client('xhr_polling')({ member: { user_id: 'bob' } })];
      for (const one of [ada, bob]) await one.join(room);
      await ada.leave();
      const [{ data }] = await bob.until({ on: room, event: 'pusher:member_removed' }, 1, GIVEN_UP_AFTER);
      assert.equal(data.id, 'ada');
    });

    test('an_unknown_key_stops_the_client_over_xhr_too', async () => {
      const recorder = await platform.client({ taut, backend, key: 'nobody', httpHost: '127.0.0.1', httpPort: taut.port, enabledTransports: ['xhr_polling'] });
      const [{ data }] = await recorder.until({ on: 'connection', event: 'error' });
      assert.equal(data.code, 4001);
      await recorder.until({ on: 'connection', event: 'disconnected' });
    });

    if (platform instanceof ChromiumPlatform) {
      test('sockjs_carries_the_whole_protocol', () => everything(client('sockjs')));
    }

    test('a_client_whose_websocket_gets_no_answer_comes_in_over_http_by_itself', async () => {
      // A proxy that swallows WebSockets: it takes connections and says nothing.
      const silent = createServer(() => {}).listen(0, '127.0.0.1');
      await once(silent, 'listening');
      const { port } = silent.address();
      try {
        const recorder = await platform.client({
          taut,
          backend,
          httpHost: '127.0.0.1',
          httpPort: taut.port,
          wsPort: port,
          wssPort: port,
          enabledTransports: ['ws', 'xhr_streaming', 'xhr_polling'],
        });
        await recorder.join('news');
        assert.match(await recorder.transport(), /^xhr_/);
      } finally {
        await platform.leave();
        silent.close();
      }
    });
  });
}

/** pusher-js loads SockJS from a server of Pusher's; the same file is in its package. */
async function withSockJs(page) {
  const script = await readFile(createRequire(import.meta.url).resolve('pusher-js/dist/web/sockjs.min.js'), 'utf8');
  await page.route('**/sockjs*.js', (route) => route.fulfill({ contentType: 'text/javascript', body: script }));
}
