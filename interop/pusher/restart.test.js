/** What pusher-js makes of a server that goes and comes back: everything is as before, asked for anew. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { Taut, fresh } from './taut.js';

/** A pusher-js that finds nobody listening lets 15 s go by before it tries again. */
const REFUSED_ONCE = 30_000;

let taut;
let backend;

before(async () => {
  taut = await Taut.start({ apps: [{ watchlist: true }] });
  backend = await Backend.start();
});
after(async () => {
  await backend?.stop();
  await taut?.stop();
});

for (const platform of [new NodePlatform(), new ChromiumPlatform()]) {
  describe(`pusher-js in ${platform.name}`, { timeout: 300_000 }, () => {
    const client = (options) => platform.client({ taut, backend, ...options });
    before(() => platform.open());
    afterEach(() => platform.leave());
    after(() => platform.close());

    test('after_a_restart_every_channel_member_and_user_is_back', async () => {
      const kinds = ['', 'cache-', 'private-', 'private-cache-', 'private-encrypted-', 'private-encrypted-cache-', 'presence-', 'presence-cache-'];
      const names = kinds.map((kind) => fresh(`${kind}news`));
      const [ada, bob] = [{ id: fresh('ada') }, { id: fresh('bob') }];
      const first = await client({ member: { user_id: 'ada' }, user: { ...ada, watchlist: [bob.id] } });
      const second = await client({ member: { user_id: 'bob' }, user: bob });
      for (const one of [first, second]) {
        await one.connected();
        await one.signin();
        for (const name of names) await one.join(name);
      }
      const before = await first.connected();
      await taut.restart();
      for (const one of [first, second]) {
        for (const name of names) await one.until({ on: name, event: 'pusher:subscription_succeeded' }, 2, REFUSED_ONCE);
        await one.until({ on: 'frame', event: 'pusher:signin_success' }, 2);
      }
      assert.notEqual(await first.connected(), before, 'the new connection has a socket_id of its own');
      const publisher = taut.publisher();
      for (const name of names) {
        await publisher.trigger(name, 'again', { name });
        for (const one of [first, second]) await one.until({ on: name, event: 'again', data: { name } });
      }
      await publisher.sendToUser(ada.id, 'for-you', {});
      await first.until({ on: 'user', event: 'for-you' });
      assert.equal((await first.members(names[6])).count, 2);
      await first.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [bob.id] } }, 2);
    });

    test('a_server_that_is_drained_sends_its_clients_on_with_a_code_that_reconnects_them', async () => {
      const recorder = await client();
      await recorder.join('news');
      await taut.restart();
      await recorder.until({ on: 'news', event: 'pusher:subscription_succeeded' }, 2, REFUSED_ONCE);
      const [{ data }] = await recorder.heard({ on: 'connection', event: 'error' });
      assert.ok(data.code >= 4100 && data.code < 4300, `${data.code} would stop pusher-js for good`);
      assert.deepEqual(await recorder.heard({ on: 'connection', event: 'disconnected' }), []);
    });
  });
}
