/** Every kind of channel with pusher-js, in Node.js and in Chromium: who gets in, what is heard, and in which order. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { APP, Taut, fresh } from './taut.js';

const COUNTED = { id: 'counted', key: 'counted-key', secret: APP.secret, subscription_count: true };
const SUCCEEDED = 'pusher:subscription_succeeded';
const REFUSED = 'pusher:subscription_error';

/** A channel of each kind, and what `info` may be asked of it. The ninth kind, #server-to-user-, is in users.test.js. */
const KINDS = [
  { title: 'a_public_channel_is_joined_and_heard', channel: 'news' },
  { title: 'a_cache_channel_is_joined_and_heard', channel: 'cache-news' },
  { title: 'a_private_channel_is_joined_and_heard', channel: 'private-news' },
  { title: 'a_private_cache_channel_is_joined_and_heard', channel: 'private-cache-news' },
  { title: 'an_encrypted_channel_is_joined_and_heard', channel: 'private-encrypted-news' },
  { title: 'an_encrypted_cache_channel_is_joined_and_heard', channel: 'private-encrypted-cache-news' },
  { title: 'a_presence_channel_is_joined_and_heard', channel: 'presence-news' },
  { title: 'a_presence_cache_channel_is_joined_and_heard', channel: 'presence-cache-news' },
];

let taut;
let backend;
let pusher;

before(async () => {
  taut = await Taut.start({ apps: [{}, COUNTED] });
  backend = await Backend.start();
  pusher = taut.publisher();
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

    for (const { title, channel } of KINDS) {
      test(title, async () => {
        const name = fresh(channel);
        const member = channel.startsWith('presence-') ? { user_id: '7', user_info: { name: 'Ada' } } : undefined;
        const recorder = await client({ member });
        await recorder.join(name);
        const data = { title: 'Größe 👩🏽‍🚀', list: [1, 2.5, null, true], nested: { a: '\u2028\\"' } };
        await pusher.trigger(name, 'headline', data);
        const [heard] = await recorder.until({ on: name, event: 'headline' });
        assert.deepEqual(heard.data, data);
        const asked = backend.asked.matching({ path: '/pusher/auth' }).filter(({ form }) => form.channel_name === name);
        assert.equal(asked.length, /^(private|presence)-/.test(name) ? 1 : 0, 'how often pusher-js asked for a signature');
      });
    }

    test('names_that_only_look_like_another_kind_are_public', async () => {
      const recorder = await client();
      for (const name of ['privateer', 'presences', 'cached', 'my-private-room', 'x-presence-y', 'not-cache-']) {
        await recorder.join(name);
        await pusher.trigger(name, 'tick', name);
        await recorder.until({ on: name, event: 'tick' });
        const about = (await recorder.heard({ on: name })).map(({ event }) => event);
        assert.deepEqual(about, [SUCCEEDED, 'tick'], 'neither a cache_miss nor anything else of another kind');
      }
    });

    test('a_wrong_signature_is_refused_and_the_connection_goes_on', async () => {
      const name = fresh('private-safe');
      const forger = await client({ as: 'forger' });
      await forger.subscribe(name);
      const [{ data }] = await forger.until({ on: name, event: REFUSED });
      assert.equal(data.status, 401);
      assert.equal(data.type, 'AuthError');
      await forger.join('news');
      await pusher.trigger(name, 'secret', {});
      await pusher.trigger('news', 'end', {});
      await forger.until({ on: 'news', event: 'end' });
      assert.deepEqual((await forger.heard({ on: name })).map(({ event }) => event), [REFUSED]);
      assert.equal(await forger.state(), 'connected');
    });

    test('a_signature_with_the_key_of_another_app_is_refused', async () => {
      const name = fresh('private-safe');
      const stranger = await client({ as: 'stranger' });
      await stranger.subscribe(name);
      const [{ data }] = await stranger.until({ on: name, event: REFUSED });
      assert.equal(data.status, 401);
    });

    test('what_the_backend_refuses_never_reaches_the_server', async () => {
      const name = fresh('private-safe');
      const guest = await client({ as: 'refused' });
      await guest.subscribe(name);
      const [{ data }] = await guest.until({ on: name, event: REFUSED });
      assert.equal(data.status, 403);
      await guest.join('news');
    });

    test('after_unsubscribing_nothing_is_heard_and_joining_again_works', async () => {
      const [name, fence] = [fresh('private-room'), fresh('fence')];
      const recorder = await client();
      await recorder.join(name);
      await recorder.join(fence);
      await recorder.unsubscribe(name);
      await recorder.join(fresh('fence')); // the answer tells that the server has seen the request before it too
      await pusher.trigger(name, 'unheard', {});
      await recorder.subscribe(name); // binds again: unsubscribing has dropped what was bound
      await recorder.until({ on: name, event: SUCCEEDED }, 2);
      await pusher.trigger(name, 'heard', {});
      await recorder.until({ on: name, event: 'heard' });
      assert.deepEqual(await recorder.heard({ on: name, event: 'unheard' }), []);
    });

    test('the_connection_that_socket_id_names_is_left_out', async () => {
      const name = fresh('private-doc');
      const [author, reader] = [await client(), await client()];
      await author.join(name);
      await reader.join(name);
      await pusher.trigger(name, 'changed', {}, { socket_id: await author.connected() });
      await pusher.trigger(name, 'saved', {});
      const names = async (one) => {
        await one.until({ on: name, event: 'saved' });
        return (await one.heard({ on: name })).map(({ event }) => event);
      };
      assert.deepEqual(await names(author), [SUCCEEDED, 'saved']);
      assert.deepEqual(await names(reader), [SUCCEEDED, 'changed', 'saved']);
    });

    test('events_come_in_the_order_of_their_publication', async () => {
      const name = fresh('order');
      const recorder = await client();
      await recorder.join(name);
      for (let n = 0; n < 50; n += 1) await pusher.trigger(name, 'count', n);
      const heard = await recorder.until({ on: name, event: 'count' }, 50);
      assert.deepEqual(heard.map(({ data }) => data), Array.from({ length: 50 }, (_, n) => n));
    });

    test('backslashes_and_unicode_in_names_of_events_survive', async () => {
      const name = fresh('odd');
      const recorder = await client();
      await recorder.join(name);
      for (const event of ['App\\Events\\OrderShipped', 'Größe “👩🏽‍🚀” \u2028', 'tab\there "quoted"', '.leading', 'client-side', '漢'.repeat(66)]) {
        await pusher.trigger(name, event, { event });
        assert.deepEqual((await recorder.until({ on: name, event }))[0].data, { event });
      }
    });

    test('data_that_is_no_json_comes_as_it_is', async () => {
      const name = fresh('plain');
      const recorder = await client();
      await recorder.join(name);
      for (const data of ['just {text', ' ', '\u0000\u0007', '日本\\u0041']) {
        await pusher.trigger(name, 'text', data);
      }
      const heard = await recorder.until({ on: name, event: 'text' }, 4);
      assert.deepEqual(heard.map(({ data }) => data), ['just {text', ' ', '\u0000\u0007', '日本\\u0041']);
    });

    // ---- cache channels, §9.1 of the protocol's description

    for (const { title, channel } of [
      { title: 'a_cache_channel_gives_its_last_event_first', channel: 'cache-rates' },
      { title: 'a_private_cache_channel_gives_its_last_event_first', channel: 'private-cache-rates' },
      { title: 'an_encrypted_cache_channel_gives_its_last_event_first', channel: 'private-encrypted-cache-rates' },
      { title: 'a_presence_cache_channel_gives_its_last_event_first', channel: 'presence-cache-rates' },
    ]) {
      test(title, async () => {
        const name = fresh(channel);
        const member = { user_id: '1' };
        await pusher.trigger(name, 'rate', { euro: 1 }); // kept though nobody is there
        await pusher.trigger(name, 'rate', { euro: 2 });
        const recorder = await client({ member });
        await recorder.join(name);
        await pusher.trigger(name, 'end', {});
        await recorder.until({ on: name, event: 'end' });
        assert.deepEqual((await recorder.heard({ on: name })).map(({ event, data }) => [event, event === 'rate' ? data : 0]), [
          [SUCCEEDED, 0],
          ['rate', { euro: 2 }],
          ['end', 0],
        ]);
      });
    }

    test('an_empty_cache_channel_says_so_after_the_yes', async () => {
      const name = fresh('cache-empty');
      const recorder = await client();
      await recorder.join(name);
      await recorder.until({ on: name, event: 'pusher:cache_miss' });
      assert.deepEqual((await recorder.heard({ on: name })).map(({ event }) => event), [SUCCEEDED, 'pusher:cache_miss']);
    });

    test('client_events_are_not_kept_in_a_cache_channel', async () => {
      const name = fresh('private-cache-doc');
      await pusher.trigger(name, 'kept', {});
      const [author, reader] = [await client(), await client()];
      await author.join(name);
      await reader.join(name);
      await author.trigger(name, 'client-typing', {});
      await reader.until({ on: name, event: 'client-typing' });
      const late = await client();
      await late.join(name);
      await late.until({ on: name, event: 'kept' });
      assert.deepEqual(await late.heard({ on: name, event: 'client-typing' }), []);
    });

    // ---- encrypted channels, §11

    test('what_is_encrypted_is_opaque_on_the_wire_and_readable_in_the_client', async () => {
      const name = fresh('private-encrypted-diary');
      const recorder = await client();
      await recorder.join(name);
      await pusher.trigger(name, 'entry', { text: 'nobody knows' });
      const [{ data }] = await recorder.until({ on: name, event: 'entry' });
      assert.deepEqual(data, { text: 'nobody knows' });
      const [frame] = await recorder.heard({ on: 'frame', event: 'entry' });
      assert.deepEqual(Object.keys(frame.data.data).sort(), ['ciphertext', 'nonce']);
      assert.doesNotMatch(JSON.stringify(frame), /nobody knows/);
    });

    // ---- subscription_count, §9.2

    test('the_number_of_subscriptions_is_told_to_all_subscribers_of_an_app_that_wants_it', async () => {
      const name = fresh('crowd');
      const [first, second] = [await client({ key: COUNTED.key }), await client({ key: COUNTED.key })];
      await first.join(name);
      await first.until({ on: name, event: 'pusher:subscription_count', data: { subscription_count: 1 } });
      await second.join(name);
      await first.until({ on: name, event: 'pusher:subscription_count', data: { subscription_count: 2 } });
      await second.until({ on: name, event: 'pusher:subscription_count', data: { subscription_count: 2 } });
      assert.equal(await second.subscriptionCount(name), 2);
      await second.unsubscribe(name);
      await first.until({ on: name, event: 'pusher:subscription_count', data: { subscription_count: 1 } }, 2);
      assert.equal(await first.subscriptionCount(name), 1);
    });

    test('without_that_setting_no_number_is_told', async () => {
      const name = fresh('crowd');
      const recorder = await client();
      await recorder.join(name);
      await (await client()).join(name);
      await pusher.trigger(name, 'end', {});
      await recorder.until({ on: name, event: 'end' });
      assert.deepEqual((await recorder.heard({ on: name })).map(({ event }) => event), [SUCCEEDED, 'end']);
    });

    // ---- the connection, §4

    test('an_unknown_key_stops_the_client_for_good', async () => {
      const recorder = await client({ key: 'nobody' });
      const [{ data }] = await recorder.until({ on: 'connection', event: 'error' });
      assert.equal(data.code, 4001);
      await recorder.until({ on: 'connection', event: 'disconnected' });
      assert.equal(await recorder.state(), 'disconnected');
    });
  });
}
