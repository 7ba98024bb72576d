/** The checker sees what is wrong: each test gives it a history with one fault, and the same history without. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { REPAIR, RULES, check, report } from './checker.js';

const LEASE = 3000;
const LONG = LEASE + REPAIR + 5000; // ms: everything has been told by then
const ROOM = 'presence-room';

/** The rules that this history breaks. */
const broken = (story, options = {}) => [...new Set(check(story.entries, { lease: LEASE, ...options }).map(({ rule }) => rule))].sort();

/** Writes a history: time stands still until `wait`. Ada is on node a, Bob on b. */
class Story {
  entries = [];
  #now = 1000;

  wait(ms) { this.#now += ms; return this; }
  add(kind, entry = {}) { this.entries.push({ at: this.#now, kind, ...entry }); return this; }
  open(client, node) { return this.add('open', { client, node, socketId: `${client}.1` }); }
  leave(client) { return this.add('leaving', { client }).add('closed', { client, code: 1006 }); }
  joined(client, user, members, channel = ROOM) { return this.add('subscribe', { client, channel, user }).add('subscribed', { client, channel, members }); }
  joins(client, channel) { return this.add('subscribe', { client, channel }).add('subscribed', { client, channel }); }
  told(kind, client, user, channel = ROOM) { return this.add(kind, { client, channel, user }); }
  publish(number, { by = 'p', node = 'a', channels = ['news'], exclude, status = 200, took = 10 } = {}) {
    this.add('publish', { by, number, node, channels, exclude, via: 'http' });
    return status === undefined ? this : this.wait(took).add('published', { by, number, status, took });
  }
  hears(client, number, { by = 'p', channel = 'news' } = {}) { return this.add('event', { client, channel, event: 'tick', by, number }); }
  hook(name, channel, user) { return this.add('webhook', { name, channel, user, time: this.#now }); }
  fault(fault, node) { return this.add('fault', { fault, node }); }
  healed(fault, node) { return this.add('healed', { fault, node }); }
  settled(more) { return this.wait(LONG).add('settled', more).wait(LONG).add('end'); }
}

const both = () => new Story().open('ca', 'a').open('cb', 'b').joined('ca', 'ada', ['ada']).joined('cb', 'bob', ['ada', 'bob']).told('added', 'ca', 'bob');
const listeners = () => new Story().open('ca', 'a').open('cb', 'b').joins('ca', 'news').joins('cb', 'news').wait(2000);
const heard = (story, ...numbers) => numbers.reduce((one, number) => one.publish(number).hears('ca', number).hears('cb', number), story);

describe('the checker', () => {
  test('a_history_in_which_all_is_well_has_no_violations', () => {
    const story = heard(both().joins('ca', 'news').joins('cb', 'news'), 1, 2).wait(5000).leave('cb').told('removed', 'ca', 'bob').settled();
    assert.deepEqual(check(story.entries, { lease: LEASE }), []);
    assert.equal(report(story.entries, { lease: LEASE }).promised, 4);
  });

  test('every_violation_has_a_rule_that_is_explained', () => {
    const stories = [both().told('added', 'ca', 'bob'), both().told('removed', 'ca', 'nobody'), both().settled().told('removed', 'ca', 'bob')];
    for (const story of stories) for (const rule of broken(story)) assert.ok(RULES[rule], rule);
  });

  test('a_member_who_is_added_twice_is_seen', () => assert.deepEqual(broken(both().told('added', 'ca', 'bob')), ['added-twice']));
  test('a_stranger_who_is_removed_is_seen', () => {
    assert.deepEqual(broken(both().wait(50).leave('cb').told('removed', 'ca', 'bob').told('removed', 'ca', 'bob')), ['removed-stranger']);
  });
  test('a_list_with_a_member_twice_is_seen', () => {
    assert.deepEqual(broken(both().open('cc', 'c').joined('cc', 'cat', ['ada', 'bob', 'bob', 'cat']).told('added', 'ca', 'cat').told('added', 'cb', 'cat')), ['list-doubled']);
  });
  test('a_removal_of_somebody_who_stays_is_seen', () => {
    assert.deepEqual(broken(both().wait(5000).told('removed', 'ca', 'bob')), ['false-removal']);
    assert.deepEqual(broken(both().wait(5000).open('cx', 'a').joined('cx', 'bob', ['ada', 'bob']).wait(5000).leave('cb').wait(100).told('removed', 'ca', 'bob')), ['false-removal'], 'on two nodes');
  });
  test('a_removal_just_after_somebody_came_back_is_none_as_it_may_be_of_before', () => {
    const story = both().wait(5000).leave('cb').open('cx', 'a').joined('cx', 'bob', ['ada', 'bob']).wait(200).told('removed', 'ca', 'bob').told('added', 'ca', 'bob').settled();
    assert.deepEqual(broken(story), []);
  });
  test('an_arrival_of_somebody_who_is_away_is_seen', () => {
    assert.deepEqual(broken(both().wait(5000).leave('cb').told('removed', 'ca', 'bob').wait(5000).told('added', 'ca', 'bob')), ['false-arrival']);
  });
  test('a_newcomers_list_without_a_member_is_seen', () => {
    assert.deepEqual(broken(both().wait(5000).open('cc', 'c').joined('cc', 'cat', ['ada', 'cat'])), ['missing-member']);
  });
  test('a_ghost_in_a_newcomers_list_is_seen', () => {
    const story = both().wait(5000).leave('cb').told('removed', 'ca', 'bob').wait(5000).open('cc', 'c').joined('cc', 'cat', ['ada', 'bob', 'cat']);
    assert.deepEqual(broken(story), ['ghost']);
  });
  test('lists_that_differ_after_quiet_are_seen_at_clients_and_at_the_api', () => {
    assert.deepEqual(broken(both().wait(5000).leave('cb').settled()), ['unequal'], 'a ghost');
    assert.deepEqual(broken(both().open('cc', 'c').joined('cc', 'cat', ['ada', 'bob', 'cat']).told('added', 'ca', 'cat').settled()), ['unequal'], 'somebody whom one does not know');
    const query = (users) => both().wait(LONG).add('query', { node: 'c', path: 'users', channel: ROOM, status: 200, took: 5, users, settled: true });
    assert.deepEqual(broken(query(['ada'])), ['unequal']);
    assert.deepEqual(broken(query(['ada', 'bob'])), []);
  });

  test('users_of_a_dead_node_that_are_not_removed_in_time_are_seen', () => {
    const dead = () => both().wait(5000).fault('killed', 'b').add('closed', { client: 'cb', code: 1006 });
    assert.deepEqual(broken(dead().wait(LEASE).told('removed', 'ca', 'bob').settled()), []);
    assert.deepEqual(broken(dead().wait(LEASE + REPAIR + 100).told('removed', 'ca', 'bob').settled()), ['late-removal']);
    assert.deepEqual(broken(dead().settled()), ['late-removal', 'unequal']);
    assert.equal(report(dead().wait(2500).told('removed', 'ca', 'bob').settled().entries, { lease: LEASE })['last removal, ms'], 2500);
  });
  test('a_user_of_a_dead_node_who_is_elsewhere_too_must_stay', () => {
    const story = both().open('cx', 'a').joined('cx', 'bob', ['ada', 'bob']).wait(5000).fault('killed', 'b').add('closed', { client: 'cb', code: 1006 });
    assert.deepEqual(broken(story.wait(LEASE).told('removed', 'ca', 'bob')), ['false-removal']);
  });
  test('a_node_that_was_away_for_less_than_its_lease_must_keep_its_users_and_a_longer_one_may_lose_them', () => {
    const paused = (ms) => both().wait(5000).fault('paused', 'b').wait(ms).healed('paused', 'b').wait(300).told('removed', 'ca', 'bob').wait(300).told('added', 'ca', 'bob').settled();
    assert.deepEqual(broken(paused(500)), ['false-removal']);
    assert.deepEqual(broken(paused(LEASE + 1000)), []);
  });
  test('a_node_by_itself_may_tell_of_those_who_leave_it_and_of_nobody_else', () => {
    const apart = () => both().open('cx', 'a').joined('cx', 'bob', ['ada', 'bob']).wait(5000).fault('cut', 'a').wait(200);
    assert.deepEqual(broken(apart().leave('cx').wait(5).told('removed', 'ca', 'bob').wait(200).healed('cut', 'a').told('added', 'ca', 'bob').settled()), []);
    assert.deepEqual(broken(apart().told('removed', 'ca', 'bob')), ['false-removal']);
    assert.deepEqual(broken(apart().open('cc', 'a').joined('cc', 'cat', ['cat'])), []);
  });
  test('who_comes_to_a_node_by_itself_is_known_to_others_once_all_is_whole_again', () => {
    const moved = (at) => both().wait(5000).fault('cut', at).wait(500).open('cx', 'b').joined('cx', 'ada', ['ada', 'bob']).wait(100).leave('ca').wait(5).told('removed', 'cb', 'ada');
    const cut = () => both().open('cc', 'c').joined('cc', 'cat', ['ada', 'bob', 'cat']).told('added', 'ca', 'cat').told('added', 'cb', 'cat').wait(5000).fault('cut', 'b').wait(500);
    const moves = (story) => story.open('cx', 'b').joined('cx', 'ada', ['ada', 'bob', 'cat']).wait(100).leave('ca').wait(5);
    assert.deepEqual(broken(moves(cut()).told('removed', 'cc', 'ada')), []);
    assert.deepEqual(broken(moves(cut()).told('removed', 'cb', 'ada')), ['false-removal'], 'it knows better');
    assert.deepEqual(broken(moves(cut().healed('cut', 'b').add('whole').wait(5000)).told('removed', 'cc', 'ada')), ['false-removal'], 'all is whole');
    assert.deepEqual(broken(moved('c')), ['false-removal'], 'its node was not by itself');
  });
  test('a_node_that_stops_without_its_engine_may_tell_of_those_whom_it_closes_and_of_nobody_else', () => {
    const stops = (...faults) => faults.reduce((story, [fault, node]) => story.fault(fault, node).wait(100), both().open('cx', 'a').joined('cx', 'bob', ['ada', 'bob']).wait(5000));
    const drained = ['drained', 'a'];
    assert.deepEqual(broken(stops(['engine-killed'], drained).told('removed', 'ca', 'bob').wait(5).leave('cx').leave('ca')), []);
    assert.deepEqual(broken(stops(drained).told('removed', 'ca', 'bob').wait(5).leave('cx').leave('ca')), ['false-removal'], 'the engine knows better');
    assert.deepEqual(broken(stops(['engine-killed'], drained).told('removed', 'cb', 'bob')), ['false-removal'], 'who is on another node');
  });
  test('an_engine_that_lost_its_memory_is_no_reason_to_remove_anybody', () => {
    const story = both().wait(5000).fault('engine-killed').wait(4000).healed('engine-killed').wait(1000).told('removed', 'ca', 'bob').wait(10).told('added', 'ca', 'bob').settled();
    assert.deepEqual(broken(story), ['false-removal']);
  });

  test('webhooks_that_do_not_alternate_are_seen', () => {
    const story = () => both().hook('channel_occupied', ROOM).hook('member_added', ROOM, 'ada').hook('member_added', ROOM, 'bob');
    assert.deepEqual(broken(story().settled({ webhooks: true })), []);
    assert.deepEqual(broken(story().hook('channel_occupied', ROOM)), ['webhook']);
    assert.deepEqual(broken(story().hook('member_added', ROOM, 'bob')), ['webhook']);
    assert.deepEqual(broken(both().hook('channel_vacated', ROOM)), ['webhook']);
    assert.deepEqual(broken(story().hook('member_added', ROOM, 'nobody')), ['webhook']);
  });
  test('a_webhook_may_be_told_again_around_a_fault_and_not_afterwards', () => {
    const again = () => both().hook('channel_occupied', ROOM).wait(100).fault('engine-killed').wait(100).healed('engine-killed').wait(100).hook('channel_occupied', ROOM);
    assert.deepEqual(broken(again()), []);
    assert.deepEqual(broken(again().wait(100).add('whole').wait(2000).hook('channel_occupied', ROOM).wait(2000).hook('channel_occupied', ROOM)), ['webhook']);
  });
  test('a_webhook_that_is_told_again_may_be_a_millisecond_off', () => {
    const told = (story, time) => story.add('webhook', { name: 'channel_occupied', channel: ROOM, time });
    assert.deepEqual(broken(told(told(both().wait(5000), 900).wait(10).fault('cut', 'a').wait(4000), 899)), []);
    assert.deepEqual(broken(told(told(both().wait(5000), 900).wait(4000), 899)), ['webhook']);
  });
  test('a_webhook_that_is_missing_after_quiet_is_seen', () => {
    assert.deepEqual(broken(both().hook('channel_occupied', ROOM).hook('member_added', ROOM, 'ada').settled({ webhooks: true })), ['webhook']);
    const left = both().hook('channel_occupied', ROOM).hook('member_added', ROOM, 'ada').hook('member_added', ROOM, 'bob').wait(5000).leave('cb').told('removed', 'ca', 'bob');
    assert.deepEqual(broken(left.settled({ webhooks: true })), ['webhook']);
  });

  test('what_webhooks_had_not_been_told_may_be_lost_with_what_knew_it', () => {
    const hooked = () => both().hook('channel_occupied', ROOM).hook('member_added', ROOM, 'ada').hook('member_added', ROOM, 'bob').wait(1000);
    const gone = (story) => story.leave('cb').told('removed', 'ca', 'bob');
    const restarted = (story) => story.fault('engine-killed').wait(100).healed('engine-killed').wait(100).add('whole').wait(100);
    const settled = (story) => story.settled({ webhooks: true });
    assert.deepEqual(broken(settled(restarted(gone(hooked())))), []);
    assert.deepEqual(broken(settled(restarted(gone(hooked()).wait(5000)))), ['webhook'], 'it was told long before');
    assert.deepEqual(broken(settled(gone(restarted(hooked())))), ['webhook'], 'it has happened afterwards');
    const away = (story, ...faults) => {
      for (const [fault, node] of faults) story.fault(fault, node);
      story.wait(100);
      for (const [fault, node] of faults) story.healed(fault, node);
      return story.wait(100).add('whole');
    };
    const left = (...faults) => settled(away(gone(hooked()), ...faults));
    assert.deepEqual(broken(left(['paused', 'a'], ['killed', 'b']), { forgets: true }), []);
    assert.deepEqual(broken(left(['engine-paused'], ['killed', 'b']), { forgets: true }), []);
    assert.deepEqual(broken(left(['paused', 'a'], ['killed', 'b'])), ['webhook'], 'the engine knows it');
    assert.deepEqual(broken(left(['killed', 'b']), { forgets: true }), ['webhook'], 'the other node knows it');
    assert.deepEqual(broken(left(['paused', 'a'], ['paused', 'b']), { forgets: true }), ['webhook'], 'both know it');
  });
  test('who_came_and_went_while_its_node_was_by_itself_need_not_be_told', () => {
    const visit = (fault) => {
      const story = new Story().open('ca', 'a').open('cc', 'a').joined('ca', 'ada', ['ada']).hook('channel_occupied', ROOM).hook('member_added', ROOM, 'ada').wait(2000);
      if (fault) story.fault(fault, 'a').wait(10);
      story.joined('cc', 'cid', ['ada', 'cid']).told('added', 'ca', 'cid').wait(100).leave('cc').told('removed', 'ca', 'cid');
      if (fault) story.healed(fault, 'a').wait(10).add('whole');
      return story.settled({ webhooks: true });
    };
    assert.deepEqual(broken(visit()), ['webhook']);
    assert.deepEqual(broken(visit('cut')), []);
    assert.deepEqual(broken(visit('slowed')), ['webhook']);
  });
  test('clients_of_a_node_that_drains_may_be_seen_to_go_before_they_are_closed', () => {
    const drained = (fault) => both().wait(5000).fault(fault, 'b').wait(50).told('removed', 'ca', 'bob').wait(5).leave('cb').healed(fault, 'b').wait(10).add('whole');
    assert.deepEqual(broken(drained('drained')), []);
    assert.deepEqual(broken(drained('slowed')), ['false-removal']);
  });
  test('a_removal_that_is_told_again_is_judged_by_when_it_happened', () => {
    const again = (wait) => {
      const story = new Story().open('ca', 'a').joined('ca', 'ada', ['ada']).add('webhook', { name: 'member_added', channel: ROOM, user: 'ada', time: 1000 });
      story.wait(1000).leave('ca').fault('cut', 'a').wait(1000).healed('cut', 'a').wait(10).add('whole').wait(wait);
      return story.add('webhook', { name: 'member_removed', channel: ROOM, user: 'ada', time: 3010 + wait }).wait(3000).add('webhook', { name: 'member_removed', channel: ROOM, user: 'ada', time: 3010 + wait });
    };
    assert.deepEqual(broken(again(500)), []);
    assert.deepEqual(broken(again(1500)), ['webhook']);
  });

  test('a_message_that_comes_twice_is_seen', () => assert.deepEqual(broken(heard(listeners(), 1).hears('ca', 1)), ['double']));
  test('messages_in_another_order_are_seen', () => {
    assert.deepEqual(broken(listeners().publish(1).publish(2).hears('ca', 2).hears('ca', 1)), ['order']);
    assert.deepEqual(broken(listeners().fault('engine-killed').publish(1, { status: 503 }).publish(2, { status: 503 }).hears('ca', 2).hears('ca', 1)), [], 'neither was acknowledged');
  });
  test('messages_that_were_published_on_two_nodes_may_be_overtaken_only_by_those_of_ones_own_node', () => {
    const overtaken = (node, client) => listeners().publish(1, { node: 'c' }).publish(2, { node }).hears(client, 2).hears(client, 1);
    assert.deepEqual(broken(overtaken('b', 'cb')), []);
    assert.deepEqual(broken(overtaken('b', 'ca')), ['order']);
  });
  test('a_message_that_was_acknowledged_and_does_not_come_is_seen', () => {
    assert.deepEqual(broken(heard(listeners(), 1).publish(2).hears('ca', 2).settled()), ['loss']);
    const event = listeners().add('publish', { by: 'ca', number: 1, node: 'a', channels: ['news'], via: 'ca' });
    assert.deepEqual(broken(event.settled()), ['loss'], 'of a client');
  });
  test('a_message_during_a_fault_may_be_lost_until_the_cluster_is_whole_again', () => {
    const story = (whole) => {
      const one = listeners().fault('cut', 'b').publish(1).hears('ca', 1).wait(2000).healed('cut', 'b');
      if (whole) one.wait(100).add('whole').wait(100);
      return one.publish(2).hears('ca', 2).settled();
    };
    assert.deepEqual(broken(story(false)), []);
    assert.deepEqual(broken(story(true)), ['loss']);
    assert.deepEqual(broken(listeners().fault('cut', 'c').publish(1).hears('ca', 1).settled()), ['loss'], 'a fault of another node');
  });
  test('a_message_to_the_excluded_connection_is_seen', () => {
    assert.deepEqual(broken(listeners().publish(1, { exclude: 'cb.1' }).hears('ca', 1).settled()), []);
    assert.deepEqual(broken(listeners().publish(1, { exclude: 'cb.1' }).hears('ca', 1).hears('cb', 1)), ['excluded']);
  });

  test('a_publish_that_is_acknowledged_while_the_engine_is_away_is_seen', () => {
    const away = (status) => listeners().fault('engine-killed').wait(500).publish(1, { status }).wait(500).healed('engine-killed').settled();
    assert.deepEqual(broken(away(503)), []);
    assert.deepEqual(broken(away(200)), ['silently-local']);
    assert.deepEqual(broken(away(200), { local: true }), [], 'the app wants that');
    const cut = (node) => listeners().fault('cut', 'b').wait(500).publish(1, { node }).hears('ca', 1).wait(500).healed('cut', 'b').settled();
    assert.deepEqual(broken(cut('b')), ['silently-local']);
    assert.deepEqual(broken(cut('a')), [], 'the other node is not cut off');
  });
  test('a_publish_that_is_refused_or_not_answered_without_a_reason_is_seen', () => {
    assert.deepEqual(broken(listeners().publish(1, { status: 503 })), ['refused']);
    assert.deepEqual(broken(listeners().publish(1, { status: 0 })), ['unanswered']);
    assert.deepEqual(broken(listeners().fault('paused', 'a').publish(1, { status: 0 })), []);
  });
  test('a_query_that_takes_longer_than_a_second_is_seen_even_when_another_node_is_dead', () => {
    const query = (took, status = 200) => listeners().fault('killed', 'c').wait(2000).add('query', { node: 'a', path: '/channels', status, took });
    assert.deepEqual(broken(query(900)), []);
    assert.deepEqual(broken(query(1100)), ['slow']);
    assert.deepEqual(broken(query(10, 503)), ['unanswered']);
  });
  test('a_connection_that_a_living_node_closes_is_seen', () => {
    assert.deepEqual(broken(listeners().fault('engine-killed').wait(100).add('closed', { client: 'ca', code: 4200 })), ['closed']);
    assert.deepEqual(broken(listeners().fault('killed', 'a').add('closed', { client: 'ca', code: 1006 })), []);
  });
  test('a_subscription_that_is_never_answered_is_seen', () => {
    assert.deepEqual(broken(listeners().add('subscribe', { client: 'ca', channel: 'other' }).settled()), ['unanswered']);
  });
});
