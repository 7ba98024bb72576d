/** `presence-grace`: a user who comes back in time, to whatever node, has never been away; one who does not leaves once the time is over. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Cluster, fresh } from './cluster.js';

const GRACE = 3000;
/** The nodes look once per second whose grace is over, and at least four times per lease who has stopped. */
const LATE = 2500;

let cluster;
let a, b, c;

before(async () => {
  cluster = await Cluster.start({ app: { presence_grace: `${GRACE / 1000}s` } });
  [a, b, c] = cluster.nodes;
  await cluster.seasoned();
});
after(() => cluster?.stop());

const hook = (pattern) => cluster.history.until({ kind: 'webhook', ...pattern });

/** Who has come and gone in a channel, as a client was told, once it has been told that this user has left; and when that was. */
async function comingsAndGoings(client, channel, user) {
  const { at } = await client.until('removed', { channel, user });
  const told = ['added', 'removed'].flatMap((kind) => client.heard(kind, { channel })).sort((one, other) => one.at - other.at);
  return { at, told: told.map((entry) => `${entry.kind} ${entry.user}`) };
}

describe('a cluster whose users may be away for three seconds', { timeout: 120_000 }, () => {
  test('a_user_who_comes_back_to_another_node_has_not_left', async () => {
    const channel = fresh('presence-room');
    const ada = await cluster.member(c, channel, 'ada');
    const [bob, cat] = [await cluster.member(a, channel, 'bob'), await cluster.member(b, channel, 'cat')];
    await bob.leave();
    await cat.leave();
    const left = cat.heard('closed')[0].at;
    const again = await cluster.client(b);
    assert.deepEqual((await again.join(channel, 'bob')).sort(), ['ada', 'bob', 'cat'], 'who may be back is a member');
    const { at, told } = await comingsAndGoings(ada, channel, 'cat');
    assert.deepEqual(told, ['added bob', 'added cat', 'removed cat']);
    assert.ok(at - left >= GRACE - 100 && at - left < GRACE + LATE, `${at - left} ms`);
    assert.deepEqual((await comingsAndGoings(again, channel, 'cat')).told, ['removed cat']);
    await hook({ name: 'member_removed', channel, user: 'cat' });
  });

  test('who_unsubscribes_has_left_at_once', async () => {
    const channel = fresh('presence-room');
    const ada = await cluster.member(c, channel, 'ada');
    const [bob, cat] = [await cluster.member(a, channel, 'bob'), await cluster.member(b, channel, 'cat')];
    await bob.leave();
    cat.unsubscribe(channel);
    const { told } = await comingsAndGoings(ada, channel, 'bob');
    assert.deepEqual(told, ['added bob', 'added cat', 'removed cat', 'removed bob']);
  });

  test('a_user_who_moves_from_a_node_that_is_stopped_to_another_has_not_left', async () => {
    const channel = fresh('presence-room');
    const ada = await cluster.member(c, channel, 'ada');
    const bob = await cluster.member(a, channel, 'bob');
    await cluster.member(a, channel, 'cat');
    await ada.until('added', { channel, user: 'cat' });
    const drained = cluster.drain(a);
    await bob.until('closed');
    const left = bob.heard('closed')[0].at;
    const again = await cluster.member(b, channel, 'bob');
    assert.ok(again.heard('subscribed', { channel })[0].at - left < 1000);
    await drained;
    const { at, told } = await comingsAndGoings(ada, channel, 'cat');
    assert.deepEqual(told, ['added bob', 'added cat', 'removed cat']);
    assert.ok(at - left >= GRACE - 100, `${at - left} ms`);
    assert.deepEqual((await comingsAndGoings(again, channel, 'cat')).told, ['removed cat']);
    assert.deepEqual(await cluster.publisher.users(b, channel), ['ada', 'bob']);
    await cluster.revive(a);
  });
});
