/**
 * A network that loses packets and closes nothing: three nodes and their engine, each in a network namespace of its own (namespaces.js). What happens in it is in
 * partitions.js, which runs in the namespace between them.
 */
import { after, describe, test } from 'node:test';
import { Network, lacking } from './namespaces.js';

const WITHOUT = lacking();
const NAMESPACES = WITHOUT ? { skip: `NOT CHECKED: partitions without closed connections, as ${WITHOUT}` } : {};

const networks = new Set();
after(() => { for (const network of networks) network.end(); });
// A runner that has waited too long for this file ends it like that: `exit` then ends the namespaces.
process.once('SIGTERM', () => process.exit(1));

const partition = (name) => test(name, NAMESPACES, async () => {
  const network = Network.make();
  networks.add(network);
  try {
    await network.play('./partitions.js', name);
  } finally {
    network.end();
    networks.delete(network);
  }
});

/** Each of these tests mostly waits: all of them at the same time. */
describe('a network that loses packets', { timeout: 120_000, concurrency: 6 }, () => {
  partition('a_node_that_is_cut_off_silently_is_gone_within_the_lease_and_serves_its_own_clients');
  partition('a_node_that_is_cut_off_silently_for_less_than_its_lease_loses_nobody');
  partition('a_node_whose_cable_is_pulled_ends_with_the_same_list');
  partition('a_node_that_is_not_heard_by_the_engine_ends_with_the_same_list');
  partition('a_node_that_does_not_hear_the_engine_ends_with_the_same_list');
  partition('an_engine_that_nobody_reaches_is_away_for_all_and_comes_back_to_all');
});
