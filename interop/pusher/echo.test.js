/** Laravel Echo over pusher-js, as a Laravel application uses it, with either of its broadcasters that speak this protocol. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import Echo from 'laravel-echo';
import PusherInNode from 'pusher-js/node.js';
import { Backend } from './backend.js';
import { Heard } from './heard.js';
import { clientOptions } from './platforms.js';
import { Taut, fresh } from './taut.js';

let taut;
let backend;
let pusher;
let echoes = [];

before(async () => {
  taut = await Taut.start();
  backend = await Backend.start();
  pusher = taut.publisher();
});
afterEach(() => {
  for (const echo of echoes.splice(0)) echo.disconnect();
});
after(async () => {
  await backend?.stop();
  await taut?.stop();
});

for (const broadcaster of ['reverb', 'pusher']) {
  describe(`laravel-echo with the broadcaster ${broadcaster}`, { timeout: 120_000 }, () => {
    /** An Echo with a list of what it hears. `channelAuthorization` is left to Echo's own options. */
    function client(member, as) {
      const { channelAuthorization: { params }, userAuthentication: _, ...options } = clientOptions({ taut, backend, member, as });
      const echo = new Echo({
        broadcaster,
        key: 'app-key',
        Pusher: PusherInNode,
        ...options,
        authEndpoint: `${backend.origin}/broadcasting/auth`,
        auth: { headers: {}, params },
        userAuthentication: {
          endpoint: `${backend.origin}/broadcasting/user-auth`,
          headers: {},
          params: { user: JSON.stringify({ id: member?.user_id ?? 'x' }) },
        },
        csrfToken: 'the-token',
        bearerToken: 'the-bearer',
      });
      echoes.push(echo);
      const heard = new Heard();
      return { echo, heard, hear: (event) => (data) => heard.add({ event, data }) };
    }

    /** Waits until a channel of Echo's is joined. */
    const joined = ({ hear, heard }, channel) => {
      const told = hear(`joined ${channel.name}`);
      // It may have happened already: Echo tells that only to those who have asked before.
      if (channel.subscription.subscribed) told();
      else channel.subscribed(told);
      channel.error(hear(`refused ${channel.name}`));
      return heard.until({ event: `joined ${channel.name}` });
    };

    test('channel_hears_events_by_their_class_with_and_without_the_namespace', async () => {
      const name = fresh('orders');
      const one = client();
      const channel = one.echo.channel(name)
        .listen('OrderShipped', one.hear('short'))
        .listen('\\Shop\\Events\\OrderPaid', one.hear('literal'))
        .listen('.order.packed', one.hear('dotted'));
      await joined(one, channel);
      await pusher.trigger(name, 'App\\Events\\OrderShipped', { id: 1 });
      await pusher.trigger(name, 'Shop\\Events\\OrderPaid', { id: 2 });
      await pusher.trigger(name, 'order.packed', { id: 3 });
      await one.heard.until({ event: 'short', data: { id: 1 } });
      await one.heard.until({ event: 'literal', data: { id: 2 } });
      await one.heard.until({ event: 'dotted', data: { id: 3 } });
    });

    test('private_asks_laravels_endpoint_with_its_headers', async () => {
      const name = fresh('orders');
      const one = client();
      const channel = one.echo.private(name).listen('OrderShipped', one.hear('shipped'));
      await joined(one, channel);
      const [asked] = backend.asked.matching({ path: '/broadcasting/auth' }).filter(({ form }) => form.channel_name === `private-${name}`);
      assert.equal(asked.headers['x-csrf-token'], 'the-token');
      assert.equal(asked.headers.authorization, 'Bearer the-bearer');
      await pusher.trigger(`private-${name}`, 'App\\Events\\OrderShipped', { id: 1 });
      await one.heard.until({ event: 'shipped', data: { id: 1 } });
    });

    test('encryptedPrivate_decrypts_what_it_hears', async () => {
      const name = fresh('orders');
      const one = client();
      await joined(one, one.echo.encryptedPrivate(name).listen('OrderShipped', one.hear('shipped')));
      await pusher.trigger(`private-encrypted-${name}`, 'App\\Events\\OrderShipped', { id: 1 });
      await one.heard.until({ event: 'shipped', data: { id: 1 } });
    });

    test('join_tells_who_is_here_who_is_joining_and_who_is_leaving', async () => {
      const name = fresh('room');
      const [ada, bob] = [client({ user_id: 1, user_info: { name: 'Ada' } }), client({ user_id: 2, user_info: { name: 'Bob' } })];
      const room = (one) => one.echo.join(name).here(one.hear('here')).joining(one.hear('joining')).leaving(one.hear('leaving'));
      await joined(ada, room(ada));
      await ada.heard.until({ event: 'here', data: [{ name: 'Ada' }] });
      await joined(bob, room(bob));
      await bob.heard.until({ event: 'here', data: [{ name: 'Ada' }, { name: 'Bob' }] });
      await ada.heard.until({ event: 'joining', data: { name: 'Bob' } });
      bob.echo.leave(name);
      await ada.heard.until({ event: 'leaving', data: { name: 'Bob' } });
      assert.deepEqual(bob.heard.matching({ event: 'joining' }), []);
    });

    test('a_whisper_is_heard_by_the_others_on_private_and_presence_channels', async () => {
      const name = fresh('doc');
      const [ada, bob] = [client({ user_id: 1 }), client({ user_id: 2 })];
      for (const kind of ['private', 'join']) {
        const [from, to] = [ada.echo[kind](name), bob.echo[kind](name)];
        from.listenForWhisper('typing', ada.hear('an echo'));
        to.listenForWhisper('typing', bob.hear(`${kind} typing`));
        await joined(ada, from);
        await joined(bob, to);
        from.whisper('typing', { name: 'Ada' });
        await bob.heard.until({ event: `${kind} typing`, data: { name: 'Ada' } });
        await pusher.trigger(to.name, 'end', {});
      }
      assert.deepEqual(ada.heard.matching({ event: 'an echo' }), []);
    });

    test('toOthers_leaves_out_the_socket_that_echo_names', async () => {
      const name = fresh('doc');
      const [ada, bob] = [client(), client()];
      for (const one of [ada, bob]) {
        await joined(one, one.echo.private(name).listen('Changed', one.hear('changed')).listen('Saved', one.hear('saved')));
      }
      assert.match(ada.echo.socketId(), /^\d+\.\d+$/);
      await pusher.trigger(`private-${name}`, 'App\\Events\\Changed', {}, { socket_id: ada.echo.socketId() });
      await pusher.trigger(`private-${name}`, 'App\\Events\\Saved', {});
      await ada.heard.until({ event: 'saved' });
      await bob.heard.until({ event: 'saved' });
      assert.equal(ada.heard.matching({ event: 'changed' }).length, 0);
      assert.equal(bob.heard.matching({ event: 'changed' }).length, 1);
    });

    test('listenToAll_and_notification_hear_what_laravel_sends', async () => {
      const name = fresh('App.Models.User');
      const one = client();
      const channel = one.echo.private(name).listenToAll((event, data) => one.heard.add({ event, data })).notification(one.hear('notified'));
      await joined(one, channel);
      await pusher.trigger(`private-${name}`, 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', { id: 'n1', type: 'Invoice' });
      await pusher.trigger(`private-${name}`, 'App\\Events\\OrderShipped', {});
      await one.heard.until({ event: 'notified', data: { id: 'n1', type: 'Invoice' } });
      await one.heard.until({ event: 'OrderShipped' });
    });

    test('after_leave_nothing_more_is_heard', async () => {
      const name = fresh('orders');
      const one = client();
      await joined(one, one.echo.channel(name).listen('Late', one.hear('late')));
      await joined(one, one.echo.private(name).listen('Late', one.hear('late')));
      one.echo.leave(name);
      await joined(one, one.echo.channel(fresh('fence')));
      await pusher.trigger([name, `private-${name}`], 'App\\Events\\Late', {});
      const response = await pusher.get({ path: '/channels', params: { filter_by_prefix: name } });
      assert.deepEqual(await response.json(), { channels: {} }, 'nobody is left in it');
      assert.deepEqual(one.heard.matching({ event: 'late' }), []);
    });

    test('a_cache_channel_works_by_its_full_name', async () => {
      const name = fresh('cache-rates');
      await pusher.trigger(name, 'App\\Events\\Rate', { euro: 1 });
      const one = client();
      await joined(one, one.echo.channel(name).listen('Rate', one.hear('rate')));
      await one.heard.until({ event: 'rate', data: { euro: 1 } });
    });

    test('a_private_channel_that_laravel_refuses_is_an_error', async () => {
      const one = client(undefined, 'refused');
      one.echo.private(fresh('orders')).error(one.hear('refused'));
      const [{ data }] = await one.heard.until({ event: 'refused' });
      assert.equal(data.status, 403);
    });

    test('signin_makes_a_user_of_the_connection', async () => {
      const one = client({ user_id: fresh('user') });
      one.echo.connector.pusher.user.bind('for-you', one.hear('for-you'));
      await joined(one, one.echo.channel('news'));
      one.echo.connector.signin();
      await one.echo.connector.pusher.user.signinDonePromise;
      const { id } = one.echo.connector.pusher.user.user_data;
      await joined(one, one.echo.channel(fresh('fence'))); // the subscription of the user's own channel was sent before it
      await pusher.sendToUser(id, 'for-you', { x: 1 });
      await one.heard.until({ event: 'for-you', data: { x: 1 } });
    });
  });
}
