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

/** Stories share a cluster, and three clusters are as many as a small machine has room for beside the other files. */
const partition = (name, ...stories) => test(name, NAMESPACES, async () => {
  const network = Network.make();
  networks.add(network);
  try {
    await network.play('./partitions.js', ...stories);
  } finally {
    network.end();
    networks.delete(network);
  }
});

describe('a network that loses packets', { timeout: 120_000, concurrency: 3 }, () => {
  partition(
    'who_is_cut_off_silently_is_gone_within_the_lease_keeps_its_clients_and_comes_back',
    'a_node_that_is_cut_off_silently_for_less_than_its_lease_loses_nobody',
    'a_node_that_is_cut_off_silently_is_gone_within_the_lease_and_serves_its_own_clients',
    'an_engine_that_nobody_reaches_is_away_for_all_and_comes_back_to_all',
  );
  partition(
    'a_pulled_cable_and_the_loss_of_one_direction_end_with_the_same_list',
    'a_node_whose_cable_is_pulled_ends_with_the_same_list',
    'a_node_that_is_not_heard_by_the_engine_ends_with_the_same_list',
    'a_node_that_does_not_hear_the_engine_ends_with_the_same_list',
  );
  partition('events_of_a_client_stay_in_order_over_a_cut', 'what_a_client_sends_before_and_after_a_cut_stays_in_order');
});
