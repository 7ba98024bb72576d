/** Three nodes are one server: whatever a client or a backend does on one of them, those on the others see it as if there were no others. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { within } from '../browser/server.js';
import { Client } from './client.js';
import { Cluster, fresh, onRedis } from './cluster.js';

const WITHIN = 5000;

let cluster;
let a, b, c;
let publisher;

before(async () => {
  cluster = await Cluster.start();
  [a, b, c] = cluster.nodes;
  publisher = cluster.publisher;
  await cluster.seasoned();
});
after(() => cluster?.stop());

/** A member of a channel on each node, with these users. */
const onEach = (channel, ...users) => Promise.all(cluster.nodes.map((node, index) => cluster.member(node, channel, users[index])));
const hook = (pattern, count) => cluster.history.until({ kind: 'webhook', ...pattern }, count);
const hooked = (pattern) => cluster.history.matching({ kind: 'webhook', ...pattern });

/** Waits until this holds: for what is told to nobody. */
async function eventually(what, holds) {
  let last;
  const come = (async () => {
    for (;;) {
      last = await holds();
      if (last === true) return;
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  })();
  await within(WITHIN, come, () => `${what}: ${JSON.stringify(last)}\n${cluster.logs()}`);
}

/** Waits until each node says this of a channel. */
async function eachSays(channel, expected, parameters) {
  for (const node of cluster.nodes) {
    await eventually(`node ${node.name} of ${channel}`, async () => {
      const { body } = await publisher.channel(node, channel, parameters);
      return Object.entries(expected).every(([key, value]) => body[key] === value) || body;
    });
  }
}

describe('a cluster of three nodes', { timeout: 120_000 }, () => {
  // ---- messages

  test('what_is_published_on_any_node_comes_to_the_clients_of_all', async () => {
    const channel = fresh('news');
    const clients = await onEach(channel);
    for (let round = 0; round < 10; round += 1) for (const node of cluster.nodes) assert.equal((await publisher.publish(node, channel)).status, 200);
    for (const client of clients) await client.until('event', { channel }, 30);
  });

  test('several_channels_and_a_batch_come_to_every_node_once', async () => {
    const channels = [fresh('one'), fresh('private-two'), fresh('presence-three')];
    const clients = await Promise.all(cluster.nodes.map(async (node) => {
      const client = await cluster.client(node);
      for (const channel of channels) await client.join(channel, channel.startsWith('presence-') ? `user-${node.name}` : undefined);
      return client;
    }));
    await publisher.publish(a, channels);
    await publisher.batch(b, channels);
    for (const client of clients) for (const channel of channels) await client.until('event', { channel }, 2);
    await publisher.publish(c, channels, { name: 'end' });
    for (const client of clients) {
      for (const channel of channels) {
        await client.until('event', { channel, event: 'end' });
        assert.equal(client.heard('event', { channel }).length, 3);
      }
    }
  });

  test('a_hundred_events_of_one_backend_stay_in_order_on_every_node', async () => {
    const channel = fresh('stream');
    const clients = await onEach(channel);
    for (let number = 0; number < 100; number += 1) await publisher.publish(a, channel);
    for (const client of clients) {
      await client.until('event', { channel }, 100);
      const numbers = client.heard('event', { channel }).map(({ number }) => number);
      assert.deepEqual(numbers, Array.from({ length: 100 }, (_, index) => numbers[0] + index));
    }
  });

  test('a_client_event_comes_to_the_other_nodes_with_its_user_and_not_to_its_sender', async () => {
    const channel = fresh('presence-room');
    const [ada, bob, cat] = await onEach(channel, 'ada', 'bob', 'cat');
    ada.trigger(channel);
    ada.trigger(channel);
    for (const other of [bob, cat]) {
      await other.until('event', { channel, by: ada.id }, 2);
      assert.deepEqual(other.heard('event', { channel }).map(({ number, userId }) => [number, userId]), [[1, 'ada'], [2, 'ada']]);
    }
    await publisher.publish(c, channel, { name: 'end' });
    await ada.until('event', { channel, event: 'end' });
    assert.equal(ada.heard('event', { channel }).length, 1);
  });

  test('the_connection_that_socket_id_names_is_left_out_on_whatever_node_it_is', async () => {
    const channel = fresh('news');
    const [one, two, three] = await onEach(channel);
    for (const node of cluster.nodes) await publisher.publish(node, channel, { exclude: two.socketId });
    await publisher.publish(a, channel, { name: 'end' });
    for (const client of [one, three]) await client.until('event', { channel }, 4);
    await two.until('event', { channel, event: 'end' });
    assert.equal(two.heard('event', { channel }).length, 1);
  });

  test('what_nobody_subscribes_to_any_more_is_heard_again_after_subscribing_again', async () => {
    const channel = fresh('news');
    const client = await cluster.member(b, channel);
    for (let round = 1; round <= 3; round += 1) {
      await publisher.publish(a, channel);
      await client.until('event', { channel }, round);
      client.unsubscribe(channel);
      await client.caughtUp();
      await client.join(channel);
    }
  });

  // ---- presence

  test('the_list_and_the_count_are_the_same_on_every_node', async () => {
    const channel = fresh('presence-room');
    const [ada, bob, cat] = [await cluster.member(a, channel, { user_id: 'ada', user_info: { name: 'Ada' } }), await cluster.member(b, channel, 'bob'), await cluster.client(c)];
    assert.deepEqual((await cat.join(channel, 'cat')).toSorted(), ['ada', 'bob', 'cat']);
    assert.deepEqual(cat.heard('subscribed', { channel })[0].infos.ada, { name: 'Ada' }, 'what the backend says of a user goes along');
    await ada.until('added', { channel, user: 'cat' });
    await bob.until('added', { channel, user: 'cat' });
    for (const node of cluster.nodes) assert.deepEqual(await publisher.users(node, channel), ['ada', 'bob', 'cat']);
    await eachSays(channel, { occupied: true, user_count: 3 }, { info: 'user_count' });
  });

  test('a_user_on_two_nodes_is_one_member_until_the_last_connection_ends', async () => {
    const channel = fresh('presence-room');
    const watcher = await cluster.member(c, channel, 'watcher');
    const [desk, phone] = [await cluster.member(a, channel, 'ada'), await cluster.member(b, channel, 'ada')];
    await watcher.until('added', { channel, user: 'ada' });
    await desk.leave();
    await cluster.member(a, channel, 'fence').then((fence) => fence.leave());
    await watcher.until('removed', { channel, user: 'fence' });
    assert.equal(watcher.heard('added', { channel, user: 'ada' }).length, 1);
    assert.equal(watcher.heard('removed', { channel, user: 'ada' }).length, 0);
    await phone.leave();
    await watcher.until('removed', { channel, user: 'ada' });
    assert.deepEqual(await publisher.users(b, channel), ['watcher']);
  });

  test('users_who_come_to_several_nodes_at_the_same_moment_are_added_once', async () => {
    const channel = fresh('presence-room');
    const watchers = await onEach(channel, 'wa', 'wb', 'wc');
    const users = Array.from({ length: 20 }, (_, index) => `user-${index}`);
    // Each on two nodes: there is always one that hears of a user from elsewhere alone.
    const clients = await Promise.all(users.flatMap((user, index) => [index % 3, (index + 1) % 3].map((node) => cluster.member(cluster.nodes[node], channel, user))));
    for (const watcher of watchers) for (const user of users) await watcher.until('added', { channel, user });
    await Promise.all(clients.map((client) => client.leave()));
    for (const watcher of watchers) {
      for (const user of users) {
        await watcher.until('removed', { channel, user });
        assert.equal(watcher.heard('added', { channel, user }).length, 1);
        assert.equal(watcher.heard('removed', { channel, user }).length, 1);
      }
    }
  });

  test('who_moves_to_another_node_is_there_at_the_end', async () => {
    const channel = fresh('presence-room');
    const watcher = await cluster.member(c, channel, 'watcher');
    let tab = await cluster.member(a, channel, 'ada');
    for (const node of [b, c, a, b]) {
      await tab.leave();
      tab = await cluster.member(node, channel, 'ada');
    }
    await eventually('who is there', async () => (await publisher.users(c, channel)).join() === 'ada,watcher');
    await watcher.caughtUp();
  });

  test('users_who_leave_one_node_while_they_come_to_another_are_there_at_the_end', async () => {
    const channel = fresh('presence-room');
    const watcher = await cluster.member(c, channel, 'watcher');
    const users = Array.from({ length: 30 }, (_, index) => `user-${index}`);
    const tabs = await Promise.all(users.map((user) => cluster.member(a, channel, user)));
    // Before, at the same time, and after.
    await Promise.all(users.map(async (user, index) => {
      const next = await cluster.client(b);
      if (index % 3 === 0) await Promise.all([tabs[index].leave(), next.join(channel, user)]);
      else if (index % 3 === 1) await next.join(channel, user).then(() => tabs[index].leave());
      else await tabs[index].leave().then(() => next.join(channel, user));
    }));
    for (const node of cluster.nodes) await eventually(`node ${node.name}`, async () => (await publisher.users(node, channel)).join() === [...users, 'watcher'].sort().join());
    await watcher.caughtUp();
  });

  test('a_full_channel_refuses_a_new_user_on_any_node', async () => {
    const limited = await Cluster.start({ app: { limits: { presence_members: 2 } } });
    try {
      const channel = fresh('presence-room');
      await limited.member(limited.nodes[0], channel, 'ada');
      await limited.member(limited.nodes[1], channel, 'bob');
      const third = await limited.client(limited.nodes[2]);
      third.subscribe(channel, 'cat');
      const { data } = await third.until('told', { event: 'pusher:subscription_error', channel });
      assert.equal(data.type, 'LimitReached', JSON.stringify(data));
      await limited.member(limited.nodes[2], channel, 'ada');
    } finally {
      await limited.stop();
    }
  });

  // ---- what the API tells

  test('every_node_lists_the_channels_of_all', async () => {
    const [one, two] = [fresh('presence-listed'), fresh('listed')];
    const [ada, bob] = [await cluster.member(a, one, 'ada'), await cluster.member(b, two)];
    const list = async (node) => (await publisher.channels(node)).body.channels;
    for (const node of cluster.nodes) await eventually(`node ${node.name}`, async () => (one in await list(node)) && two in await list(node));
    const { body } = await publisher.channels(c, { filter_by_prefix: 'presence-listed', info: 'user_count' });
    assert.deepEqual(body.channels[one], { user_count: 1 });
    await Promise.all([ada, bob].map((client) => client.leave()));
    for (const node of cluster.nodes) await eventually(`node ${node.name}`, async () => !((one in await list(node)) || two in await list(node)));
  });

  test('subscriptions_of_all_nodes_are_counted_and_told_to_all', async () => {
    const channel = fresh('counted');
    const [one, two, three] = await onEach(channel);
    for (const client of [one, two, three]) {
      await cluster.history.until({ kind: 'told', client: client.id, event: 'pusher_internal:subscription_count', channel, data: { subscription_count: 3 } });
    }
    await eachSays(channel, { subscription_count: 3 }, { info: 'subscription_count' });
    await one.leave();
    await eventually('fewer', () => three.heard('told', { event: 'pusher_internal:subscription_count', channel }).at(-1).data.subscription_count === 2);
    await eachSays(channel, { subscription_count: 2 }, { info: 'subscription_count' });
  });

  test('a_publish_is_told_the_counts_of_the_whole_cluster', async () => {
    const channel = fresh('presence-room');
    await onEach(channel, 'ada', 'bob', 'bob');
    await eventually('info', async () => {
      const { body } = await publisher.publish(b, channel, { info: 'user_count,subscription_count' });
      const { user_count, subscription_count } = body.channels[channel];
      return (user_count === 2 && subscription_count === 3) || body;
    });
  });

  // ---- cache channels

  test('a_newcomer_on_another_node_is_given_the_last_event_of_a_cache_channel', async () => {
    const channel = fresh('cache-rates');
    await publisher.publish(a, channel, { name: 'old' });
    await publisher.publish(a, channel, { name: 'last' });
    for (const node of cluster.nodes) {
      const client = await cluster.member(node, channel);
      await client.until('event', { channel, event: 'last' });
      await client.caughtUp();
      assert.deepEqual(client.heard('event', { channel }).map(({ event }) => event), ['last']);
    }
  });

  test('a_cache_miss_is_told_to_each_client_and_to_the_backend_once', async () => {
    const channel = fresh('cache-empty');
    const clients = await onEach(channel);
    for (const client of clients) await client.until('told', { event: 'pusher:cache_miss', channel });
    await hook({ name: 'cache_miss', channel });
    const fence = fresh('cache-fence');
    await cluster.member(a, fence);
    await hook({ name: 'cache_miss', channel: fence });
    assert.equal(hooked({ name: 'cache_miss', channel }).length, 1);
  });

  // ---- users

  test('what_is_sent_to_a_user_reaches_its_connections_on_every_node_and_nobody_else', async () => {
    const [user, other] = [fresh('ada'), fresh('bob')];
    const clients = await Promise.all(cluster.nodes.map((node) => cluster.client(node)));
    for (const client of clients.slice(0, 2)) await client.signin({ id: user });
    await clients[2].signin({ id: other });
    await publisher.publish(c, `#server-to-user-${user}`, { name: 'for-you' });
    await publisher.publish(a, `#server-to-user-${other}`, { name: 'end' });
    for (const client of clients.slice(0, 2)) await client.until('event', { event: 'for-you' });
    await clients[2].until('event', { event: 'end' });
    assert.equal(clients[2].heard('event', { event: 'for-you' }).length, 0);
  });

  test('terminating_a_user_ends_its_connections_on_every_node_for_good', async () => {
    const [user, other] = [fresh('ada'), fresh('bob')];
    const clients = await Promise.all(cluster.nodes.map((node) => cluster.client(node)));
    for (const client of clients) await client.signin({ id: user });
    const bystander = await cluster.client(b);
    await bystander.signin({ id: other });
    for (const client of clients) cluster.history.add('leaving', { client: client.id });
    assert.ok((await publisher.request(a, `/users/${user}/terminate_connections`, {})).status < 300);
    for (const client of clients) assert.equal((await client.until('closed')).code, 4009);
    await bystander.caughtUp();
  });

  test('a_watcher_is_told_of_users_on_other_nodes_who_come_and_go', async () => {
    const [ada, bob, cat] = [fresh('ada'), fresh('bob'), fresh('cat')];
    const status = (watcher, name, users) => cluster.history.until({ kind: 'told', client: watcher.id, event: 'pusher_internal:watchlist_events', data: { events: [{ name, user_ids: users }] } });
    const [desk, phone] = [await cluster.client(b), await cluster.client(c)];
    for (const client of [desk, phone]) await client.signin({ id: bob });
    const watcher = await cluster.client(a);
    await watcher.signin({ id: ada, watchlist: [bob, cat] });
    const told = (name) => watcher.heard('told', { event: 'pusher_internal:watchlist_events' })
      .flatMap(({ data }) => data.events).filter((event) => event.name === name).flatMap(({ user_ids: ids }) => ids);
    await eventually('who is online', async () => told('online').includes(bob) && told('offline').includes(cat));
    const late = await cluster.client(c);
    await late.signin({ id: cat });
    await status(watcher, 'online', [cat]);
    await desk.leave();
    await late.leave();
    await eventually('cat is offline', async () => told('offline').filter((user) => user === cat).length === 2);
    assert.ok(!told('offline').includes(bob), 'he has a connection on another node');
    await phone.leave();
    await status(watcher, 'offline', [bob]);
  });

  // ---- webhooks

  test('webhooks_are_told_once_for_the_whole_cluster', async () => {
    const [channel, fence] = [fresh('presence-hooked'), fresh('presence-fence')];
    const clients = await onEach(channel, 'ada', 'ada', 'bob');
    await hook({ name: 'channel_occupied', channel });
    await hook({ name: 'member_added', channel, user: 'bob' });
    await Promise.all(clients.map((client) => client.leave()));
    await hook({ name: 'channel_vacated', channel });
    await hook({ name: 'member_removed', channel, user: 'ada' });
    await hook({ name: 'member_removed', channel, user: 'bob' });
    for (const node of cluster.nodes) await cluster.member(node, fence, `user-${node.name}`).then((client) => client.leave());
    for (const node of cluster.nodes) await hook({ name: 'member_removed', channel: fence, user: `user-${node.name}` });
    const names = hooked({ channel }).filter(({ name }) => name !== 'subscription_count').map(({ name, user }) => `${name} ${user ?? ''}`).sort();
    assert.deepEqual(names, ['channel_occupied ', 'channel_vacated ', 'member_added ada', 'member_added bob', 'member_removed ada', 'member_removed bob']);
  });

  test('who_reloads_onto_another_node_is_not_told_to_the_backend', async () => {
    const channel = fresh('presence-reload');
    await cluster.member(a, channel, 'watcher');
    const tab = await cluster.member(a, channel, 'ada');
    await hook({ name: 'member_added', channel, user: 'ada' });
    await tab.leave();
    await cluster.member(b, channel, 'ada');
    const fence = fresh('presence-fence');
    await cluster.member(c, fence, 'eve').then((client) => client.leave());
    await hook({ name: 'member_removed', channel: fence, user: 'eve' });
    assert.equal(hooked({ channel, user: 'ada' }).length, 1);
  });

  // ---- others on the same engine

  test('a_cluster_with_another_prefix_on_the_same_engine_is_another_cluster', async () => {
    const other = await Cluster.start({ size: 2, beside: cluster });
    try {
      await other.whole();
      const channel = fresh('presence-room');
      const [here, there] = [await cluster.member(a, channel, 'here'), await other.member(other.nodes[0], channel, 'there')];
      await publisher.publish(b, channel);
      await other.publisher.publish(other.nodes[1], channel);
      for (const client of [here, there]) await client.until('event', { channel });
      assert.deepEqual(await publisher.users(b, channel), ['here']);
      assert.deepEqual(await other.publisher.users(other.nodes[1], channel), ['there']);
      for (const client of [here, there]) {
        await client.caughtUp();
        assert.equal(client.heard('event', { channel }).length, 1);
        assert.equal(client.heard('added', { channel }).length, 0);
      }
    } finally {
      await other.stop();
    }
  });

  test('where_only_backends_ask_for_counts_they_are_those_of_the_cluster_and_nobody_is_told', async () => {
    const other = await Cluster.start({ size: 2, beside: cluster, app: { subscription_count: 'info' } });
    try {
      await other.whole();
      const channels = [fresh('chat'), fresh('presence-room')];
      const clients = await Promise.all(other.nodes.map((node) => other.client(node)));
      for (const client of clients) for (const channel of channels) await client.join(channel, 'ada');
      for (const node of other.nodes) {
        await eventually(`node ${node.name}`, async () => {
          const { body } = await other.publisher.publish(node, channels, { info: 'subscription_count' });
          return channels.every((channel) => body.channels[channel].subscription_count === 2) || body;
        });
      }
      // What webhooks tell comes in the order in which it happened.
      for (const client of clients) await client.leave();
      await other.history.until({ kind: 'webhook', name: 'channel_vacated', channel: channels[0] });
      assert.deepEqual(other.history.matching({ kind: 'webhook', name: 'subscription_count' }), []);
      for (const client of clients) assert.deepEqual(client.heard('told', { event: 'pusher_internal:subscription_count' }), []);
    } finally {
      await other.stop();
    }
  });

  test('all_nodes_together_let_in_as_many_clients_as_the_limit_says', async () => {
    const PROBES = 2; // One client on each node, to see whether they hear of each other.
    const other = await Cluster.start({ size: 2, beside: cluster, app: { webhooks: [], limits: { connections: PROBES + 10 } } });
    try {
      await other.whole();
      const comes = async (node) => {
        const client = new Client(other.history, node);
        await Promise.race([client.until('open'), client.until('closed')]);
        return client;
      };
      const clients = await Promise.all(Array.from({ length: 30 }, (_, index) => comes(other.nodes[index % 2])));
      const isIn = (client) => client.heard('open').length === 1;
      assert.equal(clients.filter(isIn).length, 10);
      for (const client of clients.filter((one) => !isIn(one))) assert.equal(client.heard('closed')[0].code, 4004);
      // One node may have taken all places.
      const there = (node) => clients.filter((one) => isIn(one) && one.node === node);
      const [full, empty] = other.nodes.toSorted((one, two) => there(two).length - there(one).length);
      for (const client of there(full)) await client.leave();
      // The nodes hear of it in their own time.
      await eventually('room on the other node', async () => isIn(await comes(empty)));
    } finally {
      await other.stop();
    }
  });

  test('somebody_who_listens_to_everything_on_redis_keeps_no_query_waiting', onRedis, async () => {
    const spy = connect(cluster.engine.port, '127.0.0.1');
    try {
      spy.write('PSUBSCRIBE *\r\n');
      await once(spy, 'data');
      const channel = fresh('presence-room');
      await onEach(channel, 'ada', 'bob', 'cat');
      assert.equal((await publisher.publish(a, channel, { info: 'user_count' })).body.channels[channel].user_count, 3);
      await publisher.channels(b);
      await publisher.users(c, channel);
    } finally {
      spy.destroy();
    }
  });

  // ---- and all of it together

  test('the_history_of_all_this_is_as_it_must_be', async () => {
    await cluster.settle({ webhooks: true });
    cluster.check();
  });
});
