/**
 * What is kept when nodes die or stand still, when the engine goes away and comes back, and when the network between them is bad. Each test has a cluster
 * of its own, and in the end the checker (checker.js) reads its whole history: no member removed who was there, nobody left over, nothing lost that was
 * acknowledged, nothing twice, nothing acknowledged while the engine was away.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { REPAIR } from './checker.js';
import { Cluster, onRedis, passed } from './cluster.js';

/** Each of these tests mostly waits: so many clusters run at the same time. */
const AT_ONCE = 5;

const ROOM = 'presence-room';
const NEWS = 'news';

/**
 * Three nodes with a member on each, one user on all of them, and a backend for each that publishes all the time. `checks` is what the checker has to know
 * of the app, and `webhooks`: they must have told everything in the end.
 */
async function inCluster(story, { checks = {}, webhooks = false, ...options } = {}) {
  const cluster = await Cluster.start(options);
  const stage = { cluster, nodes: cluster.nodes, publisher: cluster.publisher, clients: [] };
  const end = new AbortController();
  try {
    for (const node of cluster.nodes) {
      for (const user of [`only-${node.name}`, 'everywhere']) {
        const client = await cluster.member(node, ROOM, user);
        await client.join(NEWS);
        stage.clients.push(client);
      }
    }
    stage.at = (node) => stage.clients.find((client) => client.node === node);
    await cluster.seasoned();
    const publishing = Promise.all(cluster.nodes.map((node) => publishAlways(cluster, node, end.signal)));
    await story(stage);
    end.abort();
    await publishing;
    await cluster.settle({ webhooks });
    cluster.check(checks);
    await cluster.stop();
  } catch (error) {
    end.abort();
    await cluster.stop().catch(() => {});
    throw error;
  }
}

/** A backend that publishes through one node, one event after the other, while the node lives. */
async function publishAlways(cluster, node, signal) {
  const backend = cluster.backend();
  while (!signal.aborted) {
    if (!node.dead) await backend.publish(node, NEWS);
    await passed(100);
  }
}

/** Waits until this holds: for what is told to nobody. */
async function eventually(what, holds) {
  const asked = performance.now();
  while (!await holds()) {
    if (performance.now() - asked > 10_000) throw new Error(`not within ten seconds: ${what}`);
    await passed(50);
  }
}

const published = (cluster, after, status) => cluster.history.matching({ kind: 'published', status }).filter(({ at }) => at > after);

describe('nodes that fail', { timeout: 120_000, concurrency: AT_ONCE }, () => {
  test('the_users_of_a_node_that_is_killed_are_removed_once_within_the_lease_and_who_is_elsewhere_stays', () => inCluster(async ({ cluster, nodes: [a, b, c], at }) => {
    await cluster.kill(b);
    await Promise.all([a, c].map((node) => cluster.history.until({ kind: 'removed', client: at(node).id, user: 'only-b' }, 1, cluster.lease + REPAIR)));
    await passed(500);
    for (const node of [a, c]) {
      assert.equal(at(node).heard('removed', { user: 'only-b' }).length, 1);
      assert.equal(at(node).heard('removed').length, 1);
    }
  }));

  test('webhooks_of_a_dead_nodes_users_are_told_once', () => inCluster(async ({ cluster, nodes: [, b] }) => {
    await cluster.kill(b);
    await cluster.history.until({ kind: 'webhook', name: 'member_removed', user: 'only-b' }, 1, cluster.lease + REPAIR + 4000);
  }, { webhooks: true }));

  test('a_node_that_is_killed_and_started_again_is_one_of_them_again', () => inCluster(async ({ cluster, nodes: [a, b] }) => {
    await cluster.kill(b);
    await passed(500);
    await cluster.revive(b);
    await cluster.whole();
    await cluster.member(b, ROOM, 'only-b').then((client) => client.join(NEWS));
    await cluster.member(a, ROOM, 'newcomer');
  }));

  test('two_nodes_that_die_at_once_leave_no_ghosts', () => inCluster(async ({ cluster, nodes: [a, b, c], at }) => {
    await cluster.kill(b, c);
    for (const user of ['only-b', 'only-c']) await cluster.history.until({ kind: 'removed', client: at(a).id, user }, 1, cluster.lease + REPAIR);
  }));

  test('queries_are_answered_within_a_second_whatever_nodes_are_dead', () => inCluster(async ({ cluster, nodes: [a, b, c], publisher }) => {
    await cluster.kill(b, c);
    for (let round = 0; round < 20; round += 1) {
      await publisher.channels(a, { info: 'user_count', filter_by_prefix: 'presence-' });
      await publisher.channel(a, NEWS, { info: 'subscription_count' });
      await publisher.users(a, ROOM);
      await passed(250);
    }
  }));

  test('a_node_that_stands_still_for_less_than_its_lease_loses_nobody', () => inCluster(async ({ cluster, nodes: [, b] }) => {
    cluster.pause(b);
    await passed(cluster.lease - 2200);
    cluster.resume(b);
    await cluster.whole();
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  }));

  test('a_node_that_stands_still_for_longer_than_its_lease_is_gone_and_comes_back_with_its_users', () => inCluster(async ({ cluster, nodes: [a, b, c], at, publisher }) => {
    cluster.pause(b);
    for (const node of [a, c]) await cluster.history.until({ kind: 'removed', client: at(node).id, user: 'only-b' }, 1, cluster.lease + REPAIR);
    const [away] = cluster.history.matching({ kind: 'removed' });
    await cluster.member(a, ROOM, 'came-meanwhile');
    await at(c).leave();
    cluster.resume(b);
    for (const node of [a]) await cluster.history.until({ kind: 'added', client: at(node).id, user: 'only-b' }, 2);
    await cluster.history.until({ kind: 'added', client: at(b).id, user: 'came-meanwhile' });
    await cluster.history.until({ kind: 'removed', client: at(b).id, user: 'only-c' });
    await cluster.whole();
    assert.ok(away.at > 0);
    assert.ok((await publisher.users(b, ROOM)).includes('only-b'));
  }));

  test('a_node_that_is_told_to_stop_hands_its_users_over_without_waiting_for_the_lease', () => inCluster(async ({ cluster, nodes: [a, b], at }) => {
    const started = performance.now();
    await cluster.drain(b);
    await cluster.history.until({ kind: 'removed', client: at(a).id, user: 'only-b' });
    assert.ok(performance.now() - started < cluster.lease, 'it says goodbye');
    await cluster.revive(b);
    await cluster.whole();
  }));

  test('a_user_who_moves_from_a_node_that_stops_has_not_left_for_webhooks', () => inCluster(async ({ cluster, nodes }) => {
    // One of them tells webhooks, and holds the removal back when it stops.
    let mover = await cluster.member(nodes.at(-1), ROOM, 'mover');
    await cluster.history.until({ kind: 'webhook', name: 'member_added', user: 'mover' });
    for (const [index, node] of nodes.entries()) {
      const next = nodes[(index + 1) % nodes.length];
      const [moved, witness] = await Promise.all([cluster.member(node, ROOM, 'mover'), cluster.member(next, ROOM, 'witness')]);
      await mover.leave();
      await moved.leave();
      await witness.until('removed', { user: 'mover' });
      // It comes behind the removal, and is not held back.
      await witness.join(`after-${node.name}`);
      await cluster.history.until({ kind: 'webhook', name: 'channel_occupied', channel: `after-${node.name}` });
      await cluster.drain(node);
      mover = await cluster.member(next, ROOM, 'mover');
      await cluster.revive(node);
      await cluster.whole();
    }
    await cluster.settle({ webhooks: true });
    const told = cluster.history.matching({ kind: 'webhook', user: 'mover' }).map(({ name }) => name);
    assert.ok(!told.includes('member_removed'), told.join());
  }, { webhooks: true }));

  test('a_user_who_moves_from_a_dying_node_to_a_living_one_is_there_at_the_end', () => inCluster(async ({ cluster, nodes: [a, b, c], at }) => {
    await cluster.kill(b);
    await cluster.member(c, ROOM, 'only-b').then((client) => client.join(NEWS));
    await passed(cluster.lease + REPAIR);
    assert.deepEqual(at(a).heard('removed').map(({ user }) => user), [], 'it was nowhere for less than a lease');
  }));
});

describe('an engine that fails', { timeout: 120_000, concurrency: AT_ONCE }, () => {
  test('publishes_are_refused_while_the_engine_is_away_and_clients_stay_connected', () => inCluster(async ({ cluster, clients, publisher, nodes: [a] }) => {
    await cluster.killEngine();
    const killed = performance.now();
    await passed(1500);
    assert.ok(published(cluster, killed + 100, 503).length > 0, 'they say 503');
    for (const client of clients) await client.caughtUp();
    const { status, took } = await publisher.publish(a, NEWS);
    assert.equal(status, 503);
    assert.ok(took < 5000, `refused after ${took} ms`);
    await cluster.reviveEngine();
    await cluster.whole();
  }));

  test('an_app_that_wants_so_is_published_locally_while_the_engine_is_away', () => inCluster(async ({ cluster, publisher, at, nodes: [a, b] }) => {
    await cluster.killEngine();
    await passed(500);
    assert.equal((await publisher.publish(a, NEWS, { name: 'local' })).status, 200);
    await at(a).until('event', { event: 'local' });
    await at(b).caughtUp();
    assert.equal(at(b).heard('event', { event: 'local' }).length, 0);
    await cluster.reviveEngine();
    await cluster.whole();
  }, { app: { limits: { 'cluster-publish-away': 'local' } }, checks: { local: true } }));

  test('operators_see_that_the_engine_is_away_and_that_it_is_back', () => inCluster(async ({ cluster, publisher, nodes: [a] }) => {
    const get = async (path) => {
      const response = await fetch(`http://127.0.0.1:${a.port}${path}`, { headers: { authorization: 'Bearer seen-by-operators-only' } });
      return { status: response.status, text: await response.text() };
    };
    const state = async () => JSON.parse((await get('/nodes')).text);
    const { engine, nodes } = await state();
    assert.equal(engine.state, 'joined');
    assert.deepEqual(nodes.map(({ name, here }) => [name, here]), [['a', true], ['b', false], ['c', false]]);
    assert.match((await get('/metrics')).text, /^taut_cluster_nodes 3$/m);
    await cluster.killEngine();
    await eventually('not ready', async () => (await get('/ready')).status === 503);
    assert.equal((await state()).engine.state, 'away');
    await cluster.reviveEngine();
    await eventually('ready', async () => (await get('/ready')).status === 200);
    await eventually('all are back', async () => (await state()).nodes.length === 3);
    assert.equal((await publisher.publish(a, NEWS)).status, 200, 'who is ready takes publishes');
    await cluster.whole();
    const told = a.program.output.split('\n').filter((text) => /cluster|engine/i.test(text));
    assert.ok(told.length <= 8, `it says when it goes and when it comes, and no more: ${told.join('\n')}`);
  }, { options: ['--metrics-token', 'seen-by-operators-only', '--cluster-ready', 'on'] }));

  test('an_engine_that_comes_back_without_its_memory_is_told_everything_and_nobody_flickers', () => inCluster(async ({ cluster, nodes: [a, , c] }) => {
    await cluster.killEngine();
    await passed(500);
    await cluster.reviveEngine();
    await cluster.whole();
    await cluster.member(a, ROOM, 'newcomer');
    await cluster.member(c, ROOM, 'everywhere');
    await passed(cluster.lease + REPAIR);
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  }));

  test('an_engine_that_is_away_for_longer_than_a_lease_comes_back_and_who_left_meanwhile_is_gone', () => inCluster(async ({ cluster, at, nodes: [, b] }) => {
    await cluster.killEngine();
    await passed(1000);
    await at(b).leave();
    await passed(cluster.lease + 1000);
    await cluster.reviveEngine();
    await cluster.whole();
  }));

  test('an_engine_that_is_away_twice_within_a_lease_is_told_everything', () => inCluster(async ({ cluster }) => {
    for (let round = 0; round < 2; round += 1) {
      await cluster.killEngine();
      await passed(300);
      await cluster.reviveEngine();
      await passed(700);
    }
    await cluster.whole();
  }));

  test('an_engine_that_stands_still_for_a_while_loses_nobody', () => inCluster(async ({ cluster }) => {
    cluster.pauseEngine();
    await passed(cluster.lease - 2200);
    cluster.resumeEngine();
    await cluster.whole();
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  }));

  test('an_engine_that_stands_still_for_longer_than_a_lease_has_the_right_list_afterwards', () => inCluster(async ({ cluster, at, nodes: [, b] }) => {
    cluster.pauseEngine();
    await passed(1000);
    await at(b).leave();
    await passed(cluster.lease);
    cluster.resumeEngine();
    await cluster.whole();
  }));

  test('an_engine_that_forgets_everything_without_closing_a_connection_is_told_everything', () => inCluster(async ({ cluster, nodes: [a] }) => {
    await cluster.forgetAll();
    await passed(1000);
    await cluster.member(a, ROOM, 'newcomer');
    await passed(cluster.lease + REPAIR);
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
    await cluster.whole();
  }));

  test('an_engine_that_forgets_its_scripts_is_given_them_again', onRedis, () => inCluster(async ({ cluster, nodes: [a, b, c] }) => {
    for (let round = 0; round < 5; round += 1) {
      await cluster.breakEngine('scripts-gone', 'SCRIPT', 'FLUSH');
      await cluster.mendEngine('scripts-gone');
      await Promise.all([a, b, c].map((node) => cluster.member(node, ROOM, `newcomer-${round}-${node.name}`).then((client) => client.leave())));
    }
    await cluster.whole();
  }));

  // A script that runs too long answers everybody with BUSY; no memory, with OOM; a replica, with READONLY.
  for (const [what, begin, end] of [
    ['busy', ['CONFIG', 'SET', 'busy-reply-threshold', '100'], ['SCRIPT', 'KILL']],
    ['full', ['CONFIG', 'SET', 'maxmemory', '1'], ['CONFIG', 'SET', 'maxmemory', '0']],
    ['a_replica', ['REPLICAOF', '127.0.0.1', '1'], ['REPLICAOF', 'NO', 'ONE']],
  ]) {
    test(`an_engine_that_is_${what}_for_a_while_has_the_right_list_afterwards`, onRedis, () => inCluster(async ({ cluster, at, nodes: [a, b] }) => {
      await cluster.breakEngine(what, ...begin);
      const script = what === 'busy' && cluster.engine.command('EVAL', 'while true do end', '0').catch(() => {});
      await passed(300);
      const late = await cluster.client(a);
      late.subscribe(ROOM, 'late');
      await at(b).leave();
      await passed(1000);
      await cluster.mendEngine(what, ...end);
      await script;
      await cluster.whole();
    }));
  }

  for (const type of ['pubsub', 'normal']) {
    test(`connections_of_type_${type}_that_the_engine_closes_are_opened_again`, () => inCluster(async ({ cluster, nodes: [a, b] }) => {
      for (let round = 0; round < 3; round += 1) {
        await cluster.dropConnections(type);
        await passed(200);
        await cluster.member(round % 2 ? a : b, ROOM, `newcomer-${round}`);
      }
      await cluster.whole();
      assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
    }));
  }
});

describe('a network that fails', { timeout: 120_000, concurrency: AT_ONCE }, () => {
  test('a_node_that_is_cut_off_goes_on_for_its_own_clients_and_ends_with_the_same_list', () => inCluster(async ({ cluster, nodes: [a, b, c], at, publisher }) => {
    cluster.cut(b);
    await passed(500);
    assert.equal((await publisher.publish(b, NEWS)).status, 503);
    assert.equal((await publisher.publish(a, NEWS)).status, 200, 'the others go on');
    for (const node of [a, c]) await cluster.history.until({ kind: 'removed', client: at(node).id, user: 'only-b' }, 1, cluster.lease + REPAIR);
    await cluster.member(a, ROOM, 'came-meanwhile');
    await at(c).leave();
    cluster.heal(b);
    await cluster.history.until({ kind: 'added', client: at(a).id, user: 'only-b' }, 2);
    await cluster.history.until({ kind: 'added', client: at(b).id, user: 'came-meanwhile' });
    await cluster.whole();
  }));

  test('a_user_whom_a_backend_closes_is_closed_on_a_node_that_was_cut_off_too', () => inCluster(async ({ cluster, nodes: [a, b, c], at, publisher }) => {
    const before = await cluster.client(b);
    await before.signin({ id: 'ada' });
    cluster.cut(b);
    for (const node of [a, c]) await cluster.history.until({ kind: 'removed', client: at(node).id, user: 'only-b' }, 1, cluster.lease + REPAIR);
    assert.equal((await publisher.request(a, '/users/ada/terminate_connections', {})).status, 200);
    await passed(2000);
    const after = await cluster.client(b);
    await after.signin({ id: 'ada' });
    cluster.heal(b);
    cluster.history.add('leaving', { client: before.id });
    assert.equal((await before.until('closed')).code, 4009);
    await cluster.whole();
    await after.caughtUp();
    assert.ok(after.isOpen, 'who came afterwards was not meant');
  }));

  test('a_node_that_is_cut_off_for_less_than_its_lease_loses_nobody', () => inCluster(async ({ cluster, nodes: [, b] }) => {
    cluster.cut(b);
    await passed(cluster.lease - 2200);
    cluster.heal(b);
    await cluster.whole();
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  }));

  for (const [direction, what] of [['up', 'is_not_heard'], ['down', 'hears_nothing']]) {
    test(`a_node_that_${what}_by_the_engine_for_a_while_ends_with_the_same_list`, () => inCluster(async ({ cluster, nodes: [a, b, c], at }) => {
      cluster.stall(b, direction);
      await cluster.member(a, ROOM, 'came-meanwhile');
      await passed(cluster.lease + 1000);
      await at(c).leave();
      cluster.heal(b);
      await cluster.whole();
    }));
  }

  test('a_node_that_is_cut_off_because_it_hears_too_slowly_ends_with_the_same_list', onRedis, () => inCluster(async ({ cluster, nodes: [a, b, c], publisher, at }) => {
    cluster.stall(b, 'down');
    // Redis closes a subscriber for which it would have to keep more than it may: what was under way is lost.
    for (let round = 0; round < 200; round += 1) await publisher.request(a, '/events', { name: 'large', channels: [NEWS], data: 'x'.repeat(10_000) });
    await cluster.member(a, ROOM, 'came-meanwhile');
    await at(c).leave();
    cluster.heal(b);
    await cluster.whole();
  }, { engine: ['--client-output-buffer-limit', 'pubsub 256kb 0 0'] }));

  test('a_node_far_from_the_engine_is_as_good_as_the_others', () => inCluster(async ({ cluster, nodes: [a, b, c] }) => {
    cluster.delay(b, 100);
    const [one, two] = [await cluster.member(b, ROOM, 'far'), await cluster.member(a, ROOM, 'near')];
    await one.until('added', { user: 'near' });
    await one.leave();
    await two.until('removed', { user: 'far' });
    await cluster.member(c, ROOM, 'far');
    await passed(1000);
    assert.deepEqual(cluster.history.matching({ kind: 'published', status: 503 }), []);
    cluster.heal(b);
  }));

  test('a_reload_from_node_to_node_is_one_pair_at_most', () => inCluster(async ({ cluster, nodes: [a, b, c], at }) => {
    let tab = await cluster.member(b, ROOM, 'moving');
    for (const node of [c, b, c, b]) {
      await tab.leave();
      tab = await cluster.member(node, ROOM, 'moving');
    }
    await passed(1000);
    const [came, went] = ['added', 'removed'].map((kind) => at(a).heard(kind, { user: 'moving' }).length);
    assert.ok(came - went === 1 && went <= 4, `${came} times added, ${went} removed`);
  }));
});
