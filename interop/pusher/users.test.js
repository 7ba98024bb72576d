/** Users with pusher-js, in Node.js and in Chromium: sign-in, events for one user, watchlists, and the end of all of a user's connections. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { APP, Taut, fresh } from './taut.js';

const WATCHING = { id: 'watching', key: 'watching-key', secret: APP.secret, watchlist: true };
const SUCCEEDED = 'pusher_internal:subscription_succeeded';

let taut;
let backend;
let pusher;

before(async () => {
  taut = await Taut.start({ apps: [{}, WATCHING] });
  backend = { default: await Backend.start(), watching: await Backend.start(WATCHING) };
  pusher = taut.publisher();
});
after(async () => {
  await backend?.default.stop();
  await backend?.watching.stop();
  await taut?.stop();
});

for (const platform of [new NodePlatform(), new ChromiumPlatform()]) {
  describe(`pusher-js in ${platform.name}`, { timeout: 300_000 }, () => {
    const client = (user, options) => platform.client({ taut, backend: backend.default, user, ...options });
    const watcher = (user) => platform.client({ taut, backend: backend.watching, key: WATCHING.key, user });
    before(() => platform.open());
    afterEach(() => platform.leave());
    after(() => platform.close());

    /** Signs in, and waits for the channel of this user's own. */
    const signedIn = async (user, options) => {
      const recorder = await client(user, options);
      await recorder.connected();
      assert.deepEqual(await recorder.signin(), user);
      await recorder.until({ on: 'frame', event: SUCCEEDED });
      return recorder;
    };

    test('a_signed_user_is_signed_in_and_told_what_was_signed', async () => {
      const user = { id: fresh('ada'), user_info: { name: 'Größe 👩🏽‍🚀' }, watchlist: [] };
      const recorder = await signedIn(user);
      const [{ data }] = await recorder.heard({ on: 'frame', event: 'pusher:signin_success' });
      assert.equal(data.data.user_data, JSON.stringify(user));
    });

    test('a_wrong_signature_signs_nobody_in', async () => {
      const user = { id: fresh('ada') };
      const recorder = await client(user, { as: 'forger' });
      await recorder.connected();
      await recorder.askToSignIn();
      await recorder.until({ on: 'connection', event: 'error' });
      assert.deepEqual(await recorder.heard({ on: 'frame', event: 'pusher:signin_success' }), []);
      const genuine = await signedIn(user);
      await pusher.sendToUser(user.id, 'for-you', {});
      await genuine.until({ on: 'user', event: 'for-you' });
      assert.deepEqual(await recorder.heard({ on: 'user', event: 'for-you' }), []);
    });

    test('a_backend_that_refuses_is_told_to_the_page', async () => {
      const recorder = await client({ id: fresh('ada') }, { as: 'refused' });
      await recorder.connected();
      assert.equal(await recorder.signin(), null);
      const [{ data }] = await recorder.until({ on: 'user', event: 'pusher:signin_error' });
      assert.equal(data.status, 403);
    });

    test('what_is_sent_to_a_user_reaches_all_its_connections_and_nobody_else', async () => {
      const user = { id: fresh('ada') };
      const [desk, phone, other] = [await signedIn(user), await signedIn(user), await signedIn({ id: fresh('bob') })];
      await pusher.sendToUser(user.id, 'for-you', { text: 'Größe' });
      for (const recorder of [desk, phone]) {
        assert.deepEqual((await recorder.until({ on: 'user', event: 'for-you' }))[0].data, { text: 'Größe' });
      }
      await other.join('news');
      await pusher.trigger('news', 'end', {});
      await other.until({ on: 'news', event: 'end' });
      assert.deepEqual(await other.heard({ on: 'user', event: 'for-you' }), []);
      await pusher.sendToUser(user.id, 'end', {});
      await desk.until({ on: 'user', event: 'end' });
      assert.equal((await desk.heard({ on: 'user', event: 'for-you' })).length, 1, 'and it comes once');
    });

    test('sending_to_a_user_who_is_not_there_is_no_failure', async () => {
      const response = await pusher.sendToUser(fresh('nobody'), 'for-you', {});
      assert.equal(response.status, 200);
    });

    test('a_users_own_channel_is_closed_to_others', async () => {
      const ada = { id: fresh('ada') };
      const [owner, guest] = [await signedIn(ada), await signedIn({ id: fresh('bob') })];
      const stranger = await client();
      await stranger.connected();
      const name = `#server-to-user-${ada.id}`;
      for (const intruder of [guest, stranger]) {
        await intruder.send('pusher:subscribe', { channel: name, auth: '' });
        await intruder.until({ on: 'frame', event: 'pusher:subscription_error' });
      }
      await pusher.sendToUser(ada.id, 'for-you', {});
      await owner.until({ on: 'user', event: 'for-you' });
      for (const intruder of [guest, stranger]) {
        await intruder.join('news');
        await pusher.trigger('news', 'end', {});
        await intruder.until({ on: 'news', event: 'end' });
        assert.deepEqual(await intruder.heard({ on: 'frame', event: 'for-you' }), []);
      }
    });

    test('terminating_a_users_connections_ends_them_for_good_and_only_these', async () => {
      const ada = { id: fresh('ada') };
      const [desk, phone, other] = [await signedIn(ada), await signedIn(ada), await signedIn({ id: fresh('bob') })];
      // Somebody whose name in a presence channel is the same, but who never signed in.
      const namesake = await platform.client({ taut, backend: backend.default, member: { user_id: ada.id } });
      await namesake.join(fresh('presence-room'));
      const response = await pusher.terminateUserConnections(ada.id);
      assert.equal(response.status, 200);
      for (const recorder of [desk, phone]) {
        const [{ data }] = await recorder.until({ on: 'connection', event: 'error' });
        assert.equal(data.code, 4009);
        await recorder.until({ on: 'connection', event: 'disconnected' });
        assert.equal(await recorder.state(), 'disconnected');
      }
      for (const recorder of [other, namesake]) {
        await recorder.join('news');
        assert.equal(await recorder.state(), 'connected');
      }
    });

    // ---- watchlists, §10.3

    test('a_watcher_is_told_who_is_online_at_once_and_of_every_change', async () => {
      const [bob, cat] = [{ id: fresh('bob') }, { id: fresh('cat') }];
      const first = await watcher(bob);
      await first.connected();
      await first.signin();
      const ada = await watcher({ id: fresh('ada'), watchlist: [bob.id, cat.id] });
      await ada.connected();
      await ada.signin();
      await ada.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [bob.id] } });
      await ada.until({ on: 'watchlist', event: 'offline', data: { name: 'offline', user_ids: [cat.id] } });
      const late = await watcher(cat);
      await late.connected();
      await late.signin();
      await ada.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [cat.id] } });
      await late.leave();
      await ada.until({ on: 'watchlist', event: 'offline', data: { name: 'offline', user_ids: [cat.id] } }, 2);
    });

    test('a_watched_user_with_two_connections_goes_offline_with_the_last', async () => {
      const [bob, cat] = [{ id: fresh('bob') }, { id: fresh('cat') }];
      const [desk, phone] = [await watcher(bob), await watcher(bob)];
      const ada = await watcher({ id: fresh('ada'), watchlist: [bob.id, cat.id] });
      for (const recorder of [ada, desk, phone]) {
        await recorder.connected();
        await recorder.signin();
      }
      await ada.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [bob.id] } });
      await desk.leave();
      const third = await watcher(cat); // is told after what the server heard of the first
      await third.connected();
      await third.signin();
      await ada.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [cat.id] } });
      const offline = { on: 'watchlist', event: 'offline', data: { name: 'offline', user_ids: [bob.id] } };
      assert.deepEqual(await ada.heard(offline), []);
      await phone.leave();
      await ada.until(offline);
      assert.equal((await ada.heard({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [bob.id] } })).length, 1);
    });

    test('a_watchlist_that_is_too_long_counts_up_to_its_hundredth_user', async () => {
      const users = Array.from({ length: 101 }, (_, n) => `${n}-${fresh('watched')}`);
      const [hundredth, beyond] = [await watcher({ id: users[99] }), await watcher({ id: users[100] })];
      const ada = await watcher({ id: fresh('ada'), watchlist: users });
      await ada.connected();
      assert.ok(await ada.signin());
      const [{ data }] = await ada.until({ on: 'connection', event: 'error' });
      assert.equal(data.code, 4302);
      for (const recorder of [beyond, hundredth]) {
        await recorder.connected();
        await recorder.signin();
      }
      await ada.until({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [users[99]] } });
      assert.deepEqual(await ada.heard({ on: 'watchlist', event: 'online', data: { name: 'online', user_ids: [users[100]] } }), []);
    });

    test('an_app_without_watchlists_tells_nothing_of_others', async () => {
      const bob = { id: fresh('bob') };
      await signedIn(bob);
      const ada = await signedIn({ id: fresh('ada'), watchlist: [bob.id] });
      await ada.join('news');
      assert.deepEqual(await ada.heard({ on: 'frame', event: 'pusher_internal:watchlist_events' }), []);
    });
  });
}
