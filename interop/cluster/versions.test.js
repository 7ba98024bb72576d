/**
 * Nodes of two versions are one cluster, as they are while a new version is rolled out, or taken back: TAUT_BIN_BEFORE is the program of the commit before
 * the last change of what nodes say to each other (`before` builds it). Clients are connected and publish all the time, those whom a node closes come back
 * on another, and the checker (checker.js) reads the history.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { REPAIR } from './checker.js';
import { BEFORE, Cluster, passed } from './cluster.js';

const NOW = process.env.TAUT_BIN;
const WITHOUT = 'NOT CHECKED: whether this version works together with the one before. TAUT_BIN_BEFORE=$(interop/cluster/before) interop/cluster/test versions.test.js checks it';
const VERSIONS = BEFORE ? {} : { skip: WITHOUT };

const ROOM = 'presence-room';
const NEWS = 'news';
const RATES = 'cache-rates';

/** Milliseconds between two events of a client or a backend: a client may send ten in a second. */
const BREATH = 150;

/** A user whose client comes back, on the next node that lives, whenever its node closes it; it sends client events all the time. */
class Visitor {
  #cluster; #end; #work;

  static async come(cluster, node, user, end) {
    const visitor = new Visitor();
    Object.assign(visitor, { user });
    visitor.#cluster = cluster;
    visitor.#end = end;
    await visitor.#join(node);
    visitor.#work = visitor.#live();
    return visitor;
  }

  /** Waits until it has sent its last event, and gives its client. */
  async settled() {
    await this.#work;
    return this.client;
  }

  async #join(node) {
    this.client = await this.#cluster.member(node, ROOM, this.user);
    for (const channel of [NEWS, RATES]) await this.client.join(channel);
    await this.client.signin({ id: this.user });
  }

  async #live() {
    while (!this.#end.aborted) {
      if (this.client.isOpen) this.client.trigger(ROOM);
      else await this.#join(this.#next());
      await passed(BREATH);
    }
  }

  #next() {
    const { nodes } = this.#cluster;
    const at = nodes.indexOf(this.client.node);
    return [...nodes.slice(at + 1), ...nodes.slice(0, at + 1)].find(({ dead }) => !dead);
  }
}

/** Three nodes with these programs, two visitors on each, a user on all of them, and a backend for each that publishes all the time. */
async function inCluster(programs, story) {
  const cluster = await Cluster.start({ programs });
  const end = new AbortController();
  try {
    await cluster.seasoned();
    const visitors = [];
    for (const node of cluster.nodes) for (const user of [`one-${node.name}`, `two-${node.name}`, 'everywhere']) visitors.push(await Visitor.come(cluster, node, user, end.signal));
    const publishing = cluster.publishing([NEWS, ROOM, RATES], end.signal, BREATH);
    await story(cluster, visitors);
    end.abort();
    await publishing;
    for (const visitor of visitors) await visitor.settled();
    await cluster.settle({ webhooks: true });
    cluster.check();
    const acknowledged = cluster.history.matching({ kind: 'published', status: 200 }).length;
    assert.ok(acknowledged >= 10, `${acknowledged} publishes are not much of a history`);
    await cluster.stop();
  } catch (error) {
    end.abort();
    await cluster.stop().catch(() => {});
    throw error;
  }
}

/** Restarts a node as an update does. */
async function update(cluster, node, program) {
  await cluster.drain(node);
  await cluster.revive(node, program);
  await cluster.whole();
}

/** What the nodes say to each other beside events and members, from each to each. */
async function everythingIsHeard(cluster) {
  for (const from of cluster.nodes) {
    for (const to of cluster.nodes.filter((node) => node !== from)) {
      const user = `user-${from.name}-${to.name}`;
      const [client, watcher] = [await cluster.client(to), await cluster.client(from)];
      await watcher.signin({ id: `watcher-${user}`, watchlist: [user] });
      await client.signin({ id: user });
      await cluster.history.until({ kind: 'told', client: watcher.id, event: 'pusher_internal:watchlist_events', data: { events: [{ name: 'online', user_ids: [user] }] } });
      const { body } = await cluster.publisher.request(from, '/events', { name: 'for-you', channels: [`#server-to-user-${user}`], data: '1' });
      assert.deepEqual(body, {});
      await client.until('event', { event: 'for-you' });
      const cached = `cache-${user}`;
      await cluster.publisher.publish(from, cached, { name: 'kept' });
      await client.join(cached);
      await client.until('event', { channel: cached, event: 'kept' });
      await watcher.join(cached);
      await cluster.history.until({ kind: 'told', client: client.id, event: 'pusher_internal:subscription_count', channel: cached, data: { subscription_count: 2 } });
      cluster.history.add('leaving', { client: client.id });
      assert.equal((await cluster.publisher.request(from, `/users/${user}/terminate_connections`, {})).status, 200, 'the other node says that it has closed them');
      assert.equal((await client.until('closed')).code, 4009);
      await watcher.leave();
    }
  }
}

describe('two versions', { timeout: 180_000, concurrency: 2 }, () => {
  test('a_new_version_is_rolled_out_node_by_node_and_nothing_is_lost', VERSIONS, () => inCluster({ a: BEFORE, b: BEFORE, c: BEFORE }, async (cluster) => {
    for (const node of cluster.nodes) {
      await update(cluster, node, NOW);
      await everythingIsHeard(cluster);
    }
  }));

  test('a_new_version_is_taken_back_node_by_node_and_nothing_is_lost', VERSIONS, () => inCluster({}, async (cluster) => {
    for (const node of cluster.nodes) {
      await update(cluster, node, BEFORE);
      await everythingIsHeard(cluster);
    }
  }));

  for (const [dies, survive, programs] of [
    ['the_version_before', 'the_new_one', { b: BEFORE }],
    ['the_new_version', 'the_one_before', { a: BEFORE, c: BEFORE }],
  ]) {
    test(`a_node_of_${dies}_that_dies_is_missed_by_those_of_${survive}`, VERSIONS, () => inCluster(programs, async (cluster, visitors) => {
      const [, b] = cluster.nodes;
      const gone = await cluster.member(b, ROOM, 'gone');
      const others = visitors.filter(({ client }) => client.node !== b).map(({ client }) => client);
      for (const client of others) await client.until('added', { user: 'gone' });
      await cluster.kill(b);
      for (const client of others) await cluster.history.until({ kind: 'removed', client: client.id, user: 'gone' }, 1, cluster.lease + REPAIR);
      assert.ok(!gone.isOpen);
      await cluster.revive(b);
      await cluster.whole();
    }));
  }

  test('a_mixed_cluster_whose_engine_forgets_everything_is_told_it_again', VERSIONS, () => inCluster({ b: BEFORE }, async (cluster) => {
    await cluster.killEngine();
    await passed(500);
    await cluster.reviveEngine();
    await cluster.whole();
    await passed(cluster.lease + REPAIR);
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  }));
});
