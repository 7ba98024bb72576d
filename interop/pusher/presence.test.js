/** Presence channels with pusher-js, in Node.js and in Chromium: who is there, who comes, and who goes. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { APP, Taut, fresh } from './taut.js';

const SMALL = { id: 'small', key: 'small-key', secret: APP.secret, limits: { presence_members: 2 } };
const PATIENT = { id: '4', key: 'patient-key', secret: APP.secret, presence_grace: '3s' };
const REFUSED = 'pusher:subscription_error';
const ADDED = 'pusher:member_added';
const REMOVED = 'pusher:member_removed';

let taut;
let backend;
let signer, patientSigner; // for the other apps
let pusher;

before(async () => {
  taut = await Taut.start({ apps: [{}, SMALL, PATIENT] });
  backend = await Backend.start();
  signer = await Backend.start(SMALL);
  patientSigner = await Backend.start(PATIENT);
  pusher = taut.publisher();
});
after(async () => {
  await backend?.stop();
  await signer?.stop();
  await patientSigner?.stop();
  await taut?.stop();
});

const ADA = { user_id: 'ada', user_info: { name: 'Ada', age: 36 } };
const BOB = { user_id: 'bob', user_info: { name: 'Bob' } };
const CAT = { user_id: 'cat' };

for (const platform of [new NodePlatform(), new ChromiumPlatform()]) {
  describe(`pusher-js in ${platform.name}`, { timeout: 300_000 }, () => {
    const client = (member, options) => platform.client({ taut, backend, member, ...options });
    before(() => platform.open());
    afterEach(() => platform.leave());
    after(() => platform.close());

    /** All that a client has heard of who came and went, when an event published after that has come. */
    const comingsAndGoings = async (recorder, name, publisher = pusher) => {
      const rollCall = fresh('roll-call'); // an earlier one has perhaps been heard already
      await publisher.trigger(name, rollCall, {});
      await recorder.until({ on: name, event: rollCall });
      const all = await recorder.heard({ on: name });
      return all.filter(({ event }) => [ADDED, REMOVED].includes(event)).map(({ event, data }) => [event, data.id]);
    };

    test('whoever_joins_is_given_all_members_and_finds_itself_among_them', async () => {
      const name = fresh('presence-room');
      const [ada, bob] = [await client(ADA), await client(BOB)];
      assert.deepEqual(await ada.join(name), { members: { ada: ADA.user_info }, count: 1, me: { id: 'ada', info: ADA.user_info } });
      assert.deepEqual(await bob.join(name), {
        members: { ada: ADA.user_info, bob: BOB.user_info },
        count: 2,
        me: { id: 'bob', info: BOB.user_info },
      });
    });

    test('the_others_hear_of_who_comes_and_who_goes_and_the_one_itself_does_not', async () => {
      const name = fresh('presence-room');
      const [ada, bob] = [await client(ADA), await client(BOB)];
      await ada.join(name);
      await bob.join(name);
      const [added] = await ada.until({ on: name, event: ADDED });
      assert.deepEqual(added.data, { id: 'bob', info: BOB.user_info });
      assert.equal((await ada.members(name)).count, 2);
      assert.deepEqual(await comingsAndGoings(bob, name), []);
      await bob.unsubscribe(name);
      const [removed] = await ada.until({ on: name, event: REMOVED });
      assert.deepEqual(removed.data, { id: 'bob', info: BOB.user_info });
      assert.deepEqual((await ada.members(name)).members, { ada: ADA.user_info });
    });

    test('a_connection_that_ends_has_left_at_once', async () => {
      const name = fresh('presence-room');
      const [ada, bob] = [await client(ADA), await client(BOB)];
      await ada.join(name);
      await bob.join(name);
      await bob.leave();
      assert.equal((await ada.until({ on: name, event: REMOVED }))[0].data.id, 'bob');
    });

    test('a_page_that_reconnects_within_the_grace_is_not_seen_to_go_and_after_it_is', async () => {
      const name = fresh('presence-room');
      const app = { key: PATIENT.key, backend: patientSigner };
      const [ada, bob, cat] = [await client(ADA, app), await client(BOB, app), await client(CAT, app)];
      for (const one of [ada, bob, cat]) await one.join(name);
      await bob.leave();
      await cat.leave();
      const left = performance.now();
      const again = await client(BOB, app);
      assert.equal((await again.join(name)).count, 3, 'who may be back is a member');
      const [removed] = await ada.until({ on: name, event: REMOVED }); // by then the grace of the first connection of bob is over, too
      assert.equal(removed.data.id, 'cat');
      assert.ok(performance.now() - left > 2500, 'not before the grace is over');
      const heard = await comingsAndGoings(ada, name, taut.publisher(PATIENT));
      assert.deepEqual(heard, [[ADDED, 'bob'], [ADDED, 'cat'], [REMOVED, 'cat']]);
      assert.equal((await ada.members(name)).count, 2);
    });

    test('who_unsubscribes_has_left_at_once_whatever_the_grace', async () => {
      const name = fresh('presence-room');
      const app = { key: PATIENT.key, backend: patientSigner };
      const [ada, bob, cat] = [await client(ADA, app), await client(BOB, app), await client(CAT, app)];
      for (const one of [ada, bob, cat]) await one.join(name);
      await bob.leave();
      await cat.unsubscribe(name);
      const removed = await ada.until({ on: name, event: REMOVED }, 2);
      assert.deepEqual(removed.map(({ data }) => data.id), ['cat', 'bob']);
    });

    test('two_connections_of_one_user_are_one_member_until_the_last_has_gone', async () => {
      const name = fresh('presence-room');
      const [ada, desk, phone] = [await client(ADA), await client(BOB), await client({ ...BOB, user_info: { name: 'Bob on his phone' } })];
      await ada.join(name);
      await desk.join(name);
      const seen = await phone.join(name);
      assert.equal(seen.count, 2);
      assert.deepEqual(seen.members, { ada: ADA.user_info, bob: BOB.user_info }, 'what the first connection said stays');
      assert.deepEqual(await comingsAndGoings(ada, name), [[ADDED, 'bob']]);
      assert.deepEqual(await comingsAndGoings(desk, name), []);
      await desk.leave();
      const cat = await client(CAT); // comes later than the end of the first connection, whenever the server hears of that
      await cat.join(name);
      assert.deepEqual(await comingsAndGoings(ada, name), [[ADDED, 'bob'], [ADDED, 'cat']]);
      await phone.leave();
      await ada.until({ on: name, event: REMOVED });
      assert.deepEqual(await comingsAndGoings(ada, name), [[ADDED, 'bob'], [ADDED, 'cat'], [REMOVED, 'bob']]);
    });

    test('ids_that_are_numbers_are_told_as_strings', async () => {
      const name = fresh('presence-room');
      const [one, two] = [await client({ user_id: 1, user_info: { name: 'One' } }), await client({ user_id: 2 })];
      await one.join(name);
      const seen = await two.join(name);
      assert.deepEqual(Object.keys(seen.members), ['1', '2']);
      assert.equal(seen.count, 2);
      const [added] = await one.until({ on: name, event: ADDED });
      assert.equal(added.data.id, '2');
      const [frame] = await one.heard({ on: 'frame', event: 'pusher_internal:member_added' });
      assert.strictEqual(frame.data.data.user_id, '2');
      const again = await client({ user_id: '1' });
      assert.equal((await again.join(name)).count, 2, 'the number 1 and the string 1 are the same user');
    });

    test('a_member_without_user_info_is_told_as_null', async () => {
      const name = fresh('presence-room');
      const [ada, cat] = [await client(ADA), await client(CAT)];
      await cat.join(name);
      const seen = await ada.join(name);
      assert.equal(seen.members.cat ?? null, null);
      assert.deepEqual(seen.members.ada, ADA.user_info);
      assert.ok('cat' in seen.members);
    });

    test('a_full_channel_refuses_a_new_user_but_not_another_connection_of_a_member', async () => {
      const name = fresh('presence-lift');
      const app = { key: SMALL.key, backend: signer };
      const [ada, bob, cat] = [await client(ADA, app), await client(BOB, app), await client(CAT, app)];
      await ada.join(name);
      await bob.join(name);
      await cat.subscribe(name);
      const [{ data }] = await cat.until({ on: name, event: REFUSED });
      assert.equal(typeof data.status, 'number');
      assert.match(data.error, /member/i);
      assert.equal((await (await client(ADA, app)).join(name)).count, 2);
      await bob.leave();
      await ada.until({ on: name, event: REMOVED });
      assert.equal((await (await client(CAT, app)).join(name)).count, 2, 'there is room again');
    });

    // §7.3: the backend signs without channel_data, and the server knows from the sign-in who it is.
    test('a_signed_in_user_is_a_member_without_channel_data', async () => {
      const name = fresh('presence-room');
      const user = { id: 'dora', user_info: { name: 'Dora' } };
      const [ada, dora] = [await client(ADA), await client(undefined, { user })];
      await ada.join(name);
      assert.equal((await dora.signin()).id, 'dora');
      const seen = await dora.join(name);
      assert.deepEqual(seen.me, { id: 'dora', info: { name: 'Dora' } });
      assert.deepEqual((await ada.until({ on: name, event: ADDED }))[0].data, { id: 'dora', info: { name: 'Dora' } });
    });

    test('presence_cache_channels_have_members_too', async () => {
      const name = fresh('presence-cache-room');
      const [ada, bob] = [await client(ADA), await client(BOB)];
      await ada.join(name);
      assert.equal((await bob.join(name)).count, 2);
      assert.equal((await ada.until({ on: name, event: ADDED }))[0].data.id, 'bob');
    });
  });
}
