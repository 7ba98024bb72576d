/** The HTTP API with the server packages of npm and PyPI, and with requests as that of PHP makes them; pusher-js hears the outcome. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { NodePlatform } from './platforms.js';
import { NodePackage, PhpRequests, PythonPackage } from './sdks.js';
import { APP, Taut, fresh } from './taut.js';

const COUNTED = { id: '4', key: 'counted-key', secret: APP.secret, subscription_count: true };
const ROTATED = { id: '5', keys: [{ key: 'old-key', secret: 'old-secret' }, { key: 'new-key', secret: 'new-secret' }] };

let taut;
let backend;
const platform = new NodePlatform();

before(async () => {
  taut = await Taut.start({ apps: [{ limits: { event_data: 10_240 } }, COUNTED, ROTATED] });
  backend = await Backend.start();
});
afterEach(() => platform.leave());
after(async () => {
  await backend?.stop();
  await taut?.stop();
});

const client = (options) => platform.client({ taut, backend, ...options });

for (const Package of [NodePackage, PythonPackage, PhpRequests]) {
  describe(Package.NAME, { timeout: 120_000 }, () => {
    let sdk;
    let counted;
    before(() => {
      sdk = new Package(taut.port);
      counted = new Package(taut.port, COUNTED);
    });
    after(async () => {
      await sdk?.close();
      await counted?.close();
    });

    const refused = (request, status, text = /./) => assert.rejects(request, (error) => {
      assert.equal(error.status, status, String(error));
      assert.match(error.text, text);
      return true;
    });

    test('one_event_reaches_one_channel_of_every_kind', async () => {
      const names = ['', 'cache-', 'private-', 'private-cache-', 'presence-', 'presence-cache-', 'private-encrypted-', 'private-encrypted-cache-'];
      const recorder = await client({ member: { user_id: '1' } });
      for (const kind of names) {
        const name = fresh(`${kind}news`);
        await recorder.join(name);
        assert.deepEqual(await sdk.trigger(name, 'App\\Events\\Größe', { text: '👩🏽‍🚀 \u2028 \\ "', list: [1, 2.5, null] }), {});
        await recorder.until({ on: name, event: 'App\\Events\\Größe', data: { text: '👩🏽‍🚀 \u2028 \\ "', list: [1, 2.5, null] } });
      }
    });

    // PHP refuses to make JSON of such a text.
    if (Package !== PhpRequests) {
      test('a_text_that_was_cut_within_an_emoji_arrives_with_the_replacement_character', async () => {
        const name = fresh('news');
        const recorder = await client();
        await recorder.join(name);
        const text = 'Great 👍'.slice(0, 7);
        assert.deepEqual(await sdk.trigger(name, 'one', text), {});
        await recorder.until({ on: name, event: 'one', data: 'Great \ufffd' });
        assert.deepEqual(await sdk.triggerBatch([
          { channel: name, name: 'first', data: 'whole 👍' },
          { channel: name, name: 'second', data: text },
        ]), {});
        await recorder.until({ on: name, event: 'first', data: 'whole 👍' });
        await recorder.until({ on: name, event: 'second', data: 'Great \ufffd' });
      });
    }

    test('several_channels_each_hear_the_event_once', async () => {
      const [a, b, other] = [fresh('a'), fresh('private-b'), fresh('c')];
      const recorder = await client();
      for (const name of [a, b, other]) await recorder.join(name);
      assert.deepEqual(await sdk.trigger([a, b], 'tick', {}), {});
      await sdk.trigger([a, b, other], 'end', {});
      for (const name of [a, b, other]) await recorder.until({ on: name, event: 'end' });
      const heard = await recorder.heard({ event: 'tick' });
      assert.deepEqual(heard.filter(({ on }) => on !== 'frame').map(({ on }) => on).sort(), [a, b].sort());
    });

    test('one_hundred_channels_are_the_most', async () => {
      const names = Array.from({ length: 100 }, () => fresh('many'));
      const recorder = await client();
      await recorder.join(names[99]);
      assert.deepEqual(await sdk.trigger(names, 'tick', {}), {});
      await recorder.until({ on: names[99], event: 'tick' });
    });

    test('the_connection_that_socket_id_names_is_left_out', async () => {
      const name = fresh('doc');
      const [author, reader] = [await client(), await client()];
      for (const one of [author, reader]) await one.join(name);
      await sdk.trigger(name, 'changed', {}, { socketId: await author.connected() });
      await sdk.trigger(name, 'saved', {});
      for (const one of [author, reader]) await one.until({ on: name, event: 'saved' });
      assert.equal((await author.heard({ on: name, event: 'changed' })).length, 0);
      assert.equal((await reader.heard({ on: name, event: 'changed' })).length, 1);
    });

    // The package of PyPI has no argument for it; there the batch stands for it, below.
    if (Package !== PythonPackage) {
      test('info_of_a_publish_counts_users_and_subscriptions', async () => {
        const [room, news, crowd] = [fresh('presence-room'), fresh('news'), fresh('crowd')];
        for (const user_id of ['1', '1', '2']) await (await client({ member: { user_id } })).join(room);
        const { channels } = await sdk.trigger([room, news], 'x', {}, { info: 'user_count' });
        assert.deepEqual(channels[room], { user_count: 2 });
        assert.deepEqual(channels[news] ?? {}, {}, 'a public channel has no users');
        const recorder = await client({ key: COUNTED.key });
        await recorder.join(crowd);
        assert.deepEqual(await counted.trigger(crowd, 'x', {}, { info: 'subscription_count,user_count' }), {
          channels: { [crowd]: { subscription_count: 1 } },
        });
        const empty = fresh('presence-room');
        assert.deepEqual(await counted.trigger(empty, 'x', {}, { info: 'subscription_count,user_count' }), {
          channels: { [empty]: { subscription_count: 0, user_count: 0 } },
        });
      });
    }

    test('a_batch_publishes_every_event', async () => {
      const [a, b] = [fresh('a'), fresh('private-encrypted-b')];
      const recorder = await client();
      for (const name of [a, b]) await recorder.join(name);
      assert.deepEqual(await sdk.triggerBatch([
        { channel: a, name: 'first', data: { n: 1 } },
        { channel: b, name: 'second', data: { n: 2 } },
        { channel: a, name: 'third', data: 'text', socket_id: await recorder.connected() },
        { channel: a, name: 'fourth', data: 'no {json' },
      ]), {});
      await recorder.until({ on: a, event: 'first', data: { n: 1 } });
      await recorder.until({ on: b, event: 'second', data: { n: 2 } });
      await recorder.until({ on: a, event: 'fourth', data: 'no {json' });
      assert.deepEqual(await recorder.heard({ on: a, event: 'third' }), []);
    });

    test('a_batch_tells_what_info_asks_of_each_event', async () => {
      const [room, news] = [fresh('presence-room'), fresh('news')];
      const recorder = await client({ member: { user_id: '1' } });
      await recorder.join(room);
      assert.deepEqual(await sdk.triggerBatch([
        { channel: room, name: 'x', data: '1', info: 'user_count' },
        { channel: news, name: 'x', data: '1' },
      ]), { batch: [{ user_count: 1 }, {}] });
    });

    test('a_batch_of_ten_is_taken_and_one_of_eleven_is_refused_whole', async () => {
      const name = fresh('batched');
      const recorder = await client();
      await recorder.join(name);
      const batch = (length, event) => Array.from({ length }, () => ({ channel: name, name: event, data: '{}' }));
      await refused(sdk.triggerBatch(batch(11, 'eleven')), 400, /10/);
      assert.deepEqual(await sdk.triggerBatch(batch(10, 'ten')), {});
      await recorder.until({ on: name, event: 'ten' }, 10);
      assert.deepEqual(await recorder.heard({ on: name, event: 'eleven' }), []);
    });

    test('channels_lists_what_is_occupied_with_the_users_of_presence_channels', async () => {
      const prefix = fresh('presence-list');
      const [one, two] = [await client({ member: { user_id: '1' } }), await client({ member: { user_id: '2' } })];
      for (const recorder of [one, two]) await recorder.join(`${prefix}-a`);
      await one.join(`${prefix}-b`);
      assert.deepEqual(await sdk.channels({ filter_by_prefix: prefix, info: 'user_count' }), {
        channels: { [`${prefix}-a`]: { user_count: 2 }, [`${prefix}-b`]: { user_count: 1 } },
      });
      assert.deepEqual(await sdk.channels({ filter_by_prefix: prefix }), { channels: { [`${prefix}-a`]: {}, [`${prefix}-b`]: {} } });
      assert.deepEqual(await sdk.channels({ filter_by_prefix: fresh('nothing') }), { channels: {} });
      const all = await sdk.channels();
      assert.ok(`${prefix}-a` in all.channels);
    });

    test('two_connections_of_a_user_count_once', async () => {
      const name = fresh('presence-room');
      for (const user_id of ['1', '1', '2']) await (await client({ member: { user_id } })).join(name);
      assert.deepEqual(await sdk.channel(name, { info: 'user_count' }), { occupied: true, user_count: 2 });
    });

    test('channel_tells_whether_it_is_occupied_and_what_info_asks', async () => {
      const [room, crowd, rates, empty] = [fresh('presence-room'), fresh('crowd'), fresh('cache-rates'), fresh('cache-empty')];
      const recorder = await client({ member: { user_id: '1' } });
      await recorder.join(room);
      assert.deepEqual(await sdk.channel(room), { occupied: true });
      assert.deepEqual(await sdk.channel(room, { info: 'user_count' }), { occupied: true, user_count: 1 });
      assert.deepEqual(await sdk.channel(fresh('unknown')), { occupied: false });
      const one = await client({ key: COUNTED.key });
      await one.join(crowd);
      assert.deepEqual(await counted.channel(crowd, { info: 'subscription_count' }), { occupied: true, subscription_count: 1 });
      await sdk.trigger(rates, 'rate', { euro: 1 });
      const { cache } = await sdk.channel(rates, { info: 'cache' });
      assert.deepEqual(JSON.parse(cache.data), { euro: 1 });
      assert.ok(cache.ttl > 0 && cache.ttl <= 30 * 60, `${cache.ttl} s`);
      assert.equal((await sdk.channel(empty, { info: 'cache' })).cache, null);
    });

    test('what_info_cannot_tell_of_a_channel_is_refused_with_400', async () => {
      await refused(sdk.channels({ info: 'user_count' }), 400);
      await refused(sdk.channels({ info: 'user_count', filter_by_prefix: 'private-' }), 400);
      await refused(sdk.channel('news', { info: 'user_count' }), 400);
      await refused(sdk.channel('private-news', { info: 'user_count' }), 400);
      await refused(sdk.channel('presence-room', { info: 'subscription_count' }), 400);
      await refused(sdk.channel('news', { info: 'cache' }), 400);
      await refused(sdk.channel('private-my-cache-x', { info: 'cache' }), 400);
    });

    test('users_lists_the_members_of_a_presence_channel_and_of_no_other', async () => {
      const name = fresh('presence-room');
      for (const user_id of ['ada', 'ada', 7]) await (await client({ member: { user_id } })).join(name);
      const { users } = await sdk.users(name);
      assert.deepEqual(users.map(({ id }) => id).sort(), ['7', 'ada']);
      assert.deepEqual(await sdk.users(fresh('presence-empty')), { users: [] });
      await refused(sdk.users('news'), 400);
      await refused(sdk.users('private-news'), 400);
    });

    test('sendToUser_reaches_who_is_signed_in_with_the_packages_own_signature', async () => {
      const user = { id: fresh('ada'), user_info: { name: 'Größe' } };
      const recorder = await client({ user });
      await recorder.connected();
      await recorder.signin();
      await recorder.until({ on: 'frame', event: 'pusher_internal:subscription_succeeded' });
      assert.deepEqual(await sdk.sendToUser(user.id, 'for-you', { x: 1 }), {});
      await recorder.until({ on: 'user', event: 'for-you', data: { x: 1 } });
    });

    // The package of PyPI posts it to a path without the app's id, so the server has to find the app by the key.
    test('terminateUserConnections_ends_a_users_connections', async () => {
      const user = { id: fresh('ada') };
      const recorder = await client({ user });
      await recorder.connected();
      await recorder.signin();
      await recorder.until({ on: 'frame', event: 'pusher_internal:subscription_succeeded' });
      assert.deepEqual(await sdk.terminateUserConnections(user.id), {});
      const [{ data }] = await recorder.until({ on: 'connection', event: 'error' });
      assert.equal(data.code, 4009);
      await recorder.until({ on: 'connection', event: 'disconnected' });
    });

    test('what_the_package_signs_for_channels_and_users_is_accepted', async () => {
      const customHandler = ({ socketId, channelName }, callback) => {
        const member = channelName.startsWith('presence-') ? { user_id: 'zoë/7', user_info: { name: 'Zoë "/\\"' } } : undefined;
        sdk.authorizeChannel(socketId, channelName, member).then((signed) => callback(null, signed), callback);
      };
      const user = { id: fresh('zoe'), user_info: { name: 'Zoë "/\\"' } };
      const userHandler = ({ socketId }, callback) => {
        sdk.authenticateUser(socketId, user).then((signed) => callback(null, signed), callback);
      };
      const recorder = await client({ channelAuthorization: { customHandler }, userAuthentication: { customHandler: userHandler } });
      await recorder.connected();
      for (const name of [fresh('private-room'), fresh('private-encrypted-room'), fresh('presence-room')]) {
        await recorder.join(name);
        await sdk.trigger(name, 'tick', { name });
        await recorder.until({ on: name, event: 'tick', data: { name } });
      }
      assert.deepEqual(await recorder.signin(), user);
    });

    test('data_that_is_too_large_is_refused_with_413_and_the_limit', async () => {
      const name = fresh('large');
      const recorder = await client();
      await recorder.join(name);
      await refused(sdk.trigger(name, 'too-large', 'x'.repeat(10_241)), 413, /10240/);
      assert.deepEqual(await sdk.trigger(name, 'largest', 'x'.repeat(10_240)), {});
      await recorder.until({ on: name, event: 'largest' });
      assert.deepEqual(await recorder.heard({ on: name, event: 'too-large' }), []);
    });

    test('a_wrong_secret_an_unknown_key_and_an_unknown_app_are_refused', async () => {
      for (const [changes, status, text] of [
        [{ secret: 'a guess' }, 401, /Invalid signature/],
        [{ key: 'nobody' }, 401, /Unknown auth_key/],
        [{ key: COUNTED.key }, 401, /Unknown auth_key/],
        [{ id: '77' }, 404, /./],
      ]) {
        const stranger = new Package(taut.port, { ...APP, ...changes });
        try {
          await refused(stranger.trigger('news', 'forged', {}), status, text);
          await refused(stranger.triggerBatch([{ channel: 'news', name: 'forged', data: '1' }]), status, text);
          await refused(stranger.channels(), status, text);
        } finally {
          await stranger.close();
        }
      }
    });

    test('both_keys_of_an_app_that_changes_its_key_are_good', async () => {
      const recorder = await client({ key: 'new-key' });
      const name = fresh('news');
      await recorder.join(name);
      for (const key of ROTATED.keys) {
        const rotated = new Package(taut.port, { id: ROTATED.id, ...key });
        try {
          assert.deepEqual(await rotated.trigger(name, key.key, {}), {});
          await recorder.until({ on: name, event: key.key });
        } finally {
          await rotated.close();
        }
      }
    });
  });
}
