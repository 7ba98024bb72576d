/**
 * What namespaces.test.js tells of. `ip netns exec taut-…-hub node partitions.js NAME...` plays these stories, one after the other in one cluster, and ends
 * with 0 if all was well.
 */
import assert from 'node:assert/strict';
import { REPAIR } from './checker.js';
import { Cluster, fresh, passed } from './cluster.js';
import { Links } from './namespaces.js';

const ROOM = 'presence-room';
const NEWS = 'news';

const STORIES = {
  async a_node_that_is_cut_off_silently_is_gone_within_the_lease_and_serves_its_own_clients({ cluster, nodes: [a, b, c], at, clients, publisher }) {
    const leaving = await cluster.member(c, ROOM, 'leaving');
    cluster.stall(b);
    const cut = performance.now();
    const others = clients.filter(({ node }) => node !== b);
    for (const client of others) await cluster.history.until({ kind: 'removed', client: client.id, user: 'only-b' }, 1, cluster.lease + REPAIR);
    assert.ok(performance.now() - cut < cluster.lease + REPAIR);
    assert.deepEqual(others.flatMap((client) => client.heard('removed', { user: 'everywhere' })), [], 'who is elsewhere stays');
    assert.equal(await isReady(b), false);
    assert.equal(await isReady(a), true);
    assert.equal((await publisher.publish(b, NEWS)).status, 503);
    assert.equal((await publisher.publish(a, NEWS)).status, 200, 'the others go on');
    const [one, two] = clients.filter(({ node }) => node === b);
    one.trigger(ROOM, 'client-local');
    await two.until('event', { event: 'client-local', by: one.id });
    await cluster.member(a, ROOM, 'came-meanwhile');
    await leaving.leave();
    for (const client of [one, two]) assert.ok(client.isOpen);
    cluster.heal(b);
    await cluster.history.until({ kind: 'added', client: at(a).id, user: 'only-b' }, 2, 20_000);
    await cluster.history.until({ kind: 'added', client: at(b).id, user: 'came-meanwhile' }, 1, 20_000);
    await cluster.whole();
    assert.equal(await isReady(b), true);
  },

  async a_node_that_is_cut_off_silently_for_less_than_its_lease_loses_nobody({ cluster, nodes: [, b] }) {
    cluster.stall(b);
    await passed(cluster.lease - 2200);
    cluster.heal(b);
    await cluster.whole();
    assert.deepEqual(cluster.history.matching({ kind: 'removed' }), []);
  },

  a_node_whose_cable_is_pulled_ends_with_the_same_list: (stage) => meanwhile(stage, (cluster, b) => cluster.cut(b)),
  a_node_that_is_not_heard_by_the_engine_ends_with_the_same_list: (stage) => meanwhile(stage, (cluster, b) => cluster.stall(b, 'up')),
  a_node_that_does_not_hear_the_engine_ends_with_the_same_list: (stage) => meanwhile(stage, (cluster, b) => cluster.stall(b, 'down')),

  async an_engine_that_nobody_reaches_is_away_for_all_and_comes_back_to_all({ cluster, nodes, publisher }) {
    const leaving = await cluster.member(nodes[1], ROOM, fresh('leaving'));
    cluster.history.add('fault', { fault: 'engine-paused' });
    cluster.network.stall('engine');
    await passed(cluster.lease);
    for (const node of nodes) {
      assert.equal(await isReady(node), false);
      assert.equal((await publisher.publish(node, NEWS)).status, 503);
    }
    await leaving.leave();
    await passed(1000);
    cluster.network.heal('engine');
    cluster.history.add('healed', { fault: 'engine-paused' });
    await cluster.whole();
  },

  /** What the kernel still has of a connection that the node has given up is sent once the network is back, maybe behind what came by the new one. */
  async what_a_client_sends_before_and_after_a_cut_stays_in_order({ cluster, nodes: [, b], at, hush }) {
    // What is on its way when the network goes is an event of the client.
    await hush();
    const end = new AbortController();
    const sending = (async () => {
      while (!end.signal.aborted) {
        at(b).trigger(ROOM);
        await passed(110);
      }
    })();
    await passed(500);
    cluster.stall(b);
    await passed(cluster.lease + 700);
    cluster.heal(b);
    await cluster.whole();
    await passed(1500);
    end.abort();
    await sending;
  },
};

/** Somebody comes and somebody goes elsewhere, while a node is apart for longer than its lease. */
async function meanwhile({ cluster, nodes: [a, b, c] }, part) {
  const leaving = await cluster.member(c, ROOM, fresh('leaving'));
  part(cluster, b);
  await cluster.member(a, ROOM, fresh('coming'));
  await passed(cluster.lease + 1000);
  await leaving.leave();
  cluster.heal(b);
  await cluster.whole();
}

async function isReady(node) {
  return (await fetch(`http://${node.host}:${node.port}/ready`)).status === 200;
}

/** Three nodes with a member on each, one user on all of them, and a backend for each that publishes all the time. */
async function play(stories) {
  const cluster = await Cluster.start({ network: Links.here(), options: ['--cluster-ready', 'on'] });
  const end = new AbortController();
  try {
    const clients = [];
    for (const node of cluster.nodes) {
      for (const user of [`only-${node.name}`, 'everywhere']) {
        const client = await cluster.member(node, ROOM, user);
        await client.join(NEWS);
        clients.push(client);
      }
    }
    await cluster.seasoned();
    const publishing = cluster.publishing(NEWS, end.signal);
    const at = (node) => clients.find((client) => client.node === node);
    for (const story of stories) await story({ cluster, nodes: cluster.nodes, clients, publisher: cluster.publisher, at, hush: () => { end.abort(); return publishing; } });
    end.abort();
    await publishing;
    await cluster.settle();
    cluster.check();
    await cluster.stop();
  } catch (error) {
    end.abort();
    await cluster.stop().catch(() => {});
    throw error;
  }
}

await play(process.argv.slice(2).map((name) => STORIES[name]));
