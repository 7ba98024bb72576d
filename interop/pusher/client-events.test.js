/** Events from client to client with pusher-js, in Node.js and in Chromium. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { ChromiumPlatform, NodePlatform } from './platforms.js';
import { APP, Taut, fresh } from './taut.js';

const QUIET = { id: 'quiet', key: 'quiet-key', secret: APP.secret, client_events: false };
const TYPING = 'client-typing';

let taut;
let backend;
let signer; // for the other app
let pusher;

before(async () => {
  taut = await Taut.start({ apps: [{}, QUIET] });
  backend = await Backend.start();
  signer = await Backend.start(QUIET);
  pusher = taut.publisher();
});
after(async () => {
  await backend?.stop();
  await signer?.stop();
  await taut?.stop();
});

for (const platform of [new NodePlatform(), new ChromiumPlatform()]) {
  describe(`pusher-js in ${platform.name}`, { timeout: 300_000 }, () => {
    const client = (user_id, options) => platform.client({ taut, backend, member: user_id && { user_id }, ...options });
    before(() => platform.open());
    afterEach(() => platform.leave());
    after(() => platform.close());

    const joined = async (name, ...clients) => {
      for (const one of clients) await one.join(name, [TYPING, 'client-answer']);
    };

    test('on_a_presence_channel_the_others_hear_whose_event_it_is', async () => {
      const name = fresh('presence-doc');
      const [ada, bob] = [await client('ada'), await client('bob')];
      await joined(name, ada, bob);
      await ada.trigger(name, TYPING, { at: [1, { line: 2 }], 'ключ': '👩🏽‍🚀 \\ "' });
      const [heard] = await bob.until({ on: name, event: TYPING });
      assert.deepEqual(heard.data, { at: [1, { line: 2 }], 'ключ': '👩🏽‍🚀 \\ "' });
      assert.deepEqual(heard.metadata, { user_id: 'ada' });
      await bob.trigger(name, 'client-answer', 'a mere string');
      const [answer] = await ada.until({ on: name, event: 'client-answer' });
      assert.deepEqual([answer.data, answer.metadata], ['a mere string', { user_id: 'bob' }]);
      assert.deepEqual(await ada.heard({ on: name, event: TYPING }), [], 'the sender does not hear itself');
    });

    test('a_user_id_that_was_a_number_is_a_string_here_too', async () => {
      const name = fresh('presence-doc');
      const [one, two] = [await client(1), await client(2)];
      await joined(name, one, two);
      await one.trigger(name, TYPING, {});
      assert.deepEqual((await two.until({ on: name, event: TYPING }))[0].metadata, { user_id: '1' });
    });

    test('on_a_private_channel_it_comes_without_a_user', async () => {
      const name = fresh('private-doc');
      const [ada, bob] = [await client(), await client()];
      await joined(name, ada, bob);
      await ada.trigger(name, TYPING, { x: 1 });
      await bob.until({ on: name, event: TYPING, data: { x: 1 } });
      const [{ data: frame }] = await bob.heard({ on: 'frame', event: TYPING });
      assert.deepEqual(Object.keys(frame).sort(), ['channel', 'data', 'event']);
    });

    test('on_a_public_channel_it_is_refused', async () => {
      const name = fresh('doc');
      const [ada, bob] = [await client(), await client()];
      await joined(name, ada, bob);
      await ada.trigger(name, TYPING, {});
      const [{ data }] = await ada.until({ on: 'connection', event: 'error' });
      assert.match(data.message, /private|presence/);
      await pusher.trigger(name, 'end', {});
      await bob.until({ on: name, event: 'end' });
      assert.deepEqual(await bob.heard({ on: name, event: TYPING }), []);
      assert.equal(await ada.state(), 'connected');
    });

    test('who_is_not_subscribed_may_not_send', async () => {
      const name = fresh('private-doc');
      const [ada, bob] = [await client(), await client()];
      await ada.connected();
      await joined(name, bob);
      await ada.send(TYPING, {}, name);
      await ada.until({ on: 'connection', event: 'error' });
      await pusher.trigger(name, 'end', {});
      await bob.until({ on: name, event: 'end' });
      assert.deepEqual(await bob.heard({ on: name, event: TYPING }), []);
    });

    test('an_app_without_client_events_refuses_them', async () => {
      const name = fresh('private-doc');
      const [ada, bob] = [await client(undefined, { key: QUIET.key, backend: signer }), await client(undefined, { key: QUIET.key, backend: signer })];
      await joined(name, ada, bob);
      await ada.trigger(name, TYPING, {});
      const [{ data }] = await ada.until({ on: 'connection', event: 'error' });
      assert.match(data.message, /client/i);
      await taut.publisher(QUIET).trigger(name, 'end', {});
      await bob.until({ on: name, event: 'end' });
      assert.deepEqual(await bob.heard({ on: name, event: TYPING }), []);
    });

    test('too_many_at_once_are_refused_with_4301_and_the_connection_stays', async () => {
      const name = fresh('private-doc');
      const [ada, bob] = [await client(), await client()];
      await joined(name, ada, bob);
      for (let n = 0; n < 40; n += 1) ada.trigger(name, TYPING, n);
      const [{ data }] = await ada.until({ on: 'connection', event: 'error' });
      assert.equal(data.code, 4301);
      const heard = await bob.until({ on: name, event: TYPING }, 10);
      assert.deepEqual(heard.slice(0, 10).map(({ data: n }) => n), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      await pusher.trigger(name, 'end', {});
      await ada.until({ on: name, event: 'end' });
      assert.equal(await ada.state(), 'connected');
      await bob.trigger(name, 'client-answer', {});
      await ada.until({ on: name, event: 'client-answer' }, 1);
    });

    test('the_order_of_a_senders_events_is_kept', async () => {
      const name = fresh('private-doc');
      const [ada, bob] = [await client(), await client()];
      await joined(name, ada, bob);
      for (let n = 0; n < 10; n += 1) ada.trigger(name, TYPING, n);
      const heard = await bob.until({ on: name, event: TYPING }, 10);
      assert.deepEqual(heard.map(({ data }) => data), Array.from({ length: 10 }, (_, n) => n));
    });
  });
}
