/** Webhooks that the server really posts, taken by a real receiver and verified by the packages of npm and PyPI, and as PHP's does it. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Backend } from './backend.js';
import { NodePlatform } from './platforms.js';
import { NodePackage, PhpRequests, PythonPackage } from './sdks.js';
import { APP, Taut, fresh } from './taut.js';

const EVENTS = ['channel_occupied', 'channel_vacated', 'member_added', 'member_removed', 'client_event', 'cache_miss', 'subscription_count'];

/** An app that is about to change its key. */
const ROTATED = { id: '4', keys: [{ key: 'old-key', secret: 'old-secret' }, { key: 'new-key', secret: 'new-secret' }] };

let taut;
let backend;
let pusher;
const platform = new NodePlatform();

before(async () => {
  backend = await Backend.start();
  ROTATED.webhooks = [{ url: `${backend.origin}/hook/rotated` }];
  taut = await Taut.start({
    apps: [{
      subscription_count: true,
      webhooks: [
        { url: `${backend.origin}/hook`, events: EVENTS },
        { url: `${backend.origin}/hook/some`, events: ['channel_occupied'] },
        { url: `${backend.origin}/hook/private`, channel_prefix: 'private-', headers: { 'X-Told-By': 'taut' } },
      ],
    }, ROTATED],
  });
  pusher = taut.publisher();
});
afterEach(() => platform.leave());
after(async () => {
  await taut?.stop();
  await backend?.stop();
});

const client = (user_id) => platform.client({ taut, backend, member: user_id && { user_id } });
const hook = (pattern, count) => backend.hooks.until({ path: '/hook', ...pattern }, count);
const came = (pattern) => backend.hooks.matching({ path: '/hook', ...pattern });

describe('webhooks', { timeout: 120_000 }, () => {
  test('a_channel_is_told_when_it_is_occupied_and_when_it_is_vacated', async () => {
    const name = fresh('room');
    const [one, two] = [await client(), await client()];
    await one.join(name);
    const [{ event }] = await hook({ name: 'channel_occupied', channel: name });
    assert.deepEqual(event, { name: 'channel_occupied', channel: name });
    await two.join(name);
    await one.leave();
    await two.unsubscribe(name);
    const [{ event: vacated }] = await hook({ name: 'channel_vacated', channel: name });
    assert.deepEqual(vacated, { name: 'channel_vacated', channel: name });
    assert.equal(came({ name: 'channel_occupied', channel: name }).length, 1);
    assert.equal(came({ name: 'channel_vacated', channel: name }).length, 1);
  });

  test('a_member_is_told_once_however_many_connections_it_has', async () => {
    const name = fresh('presence-room');
    const [desk, phone] = [await client('ada'), await client('ada')];
    await desk.join(name);
    await phone.join(name);
    const [{ event }] = await hook({ name: 'member_added', channel: name });
    assert.deepEqual(event, { name: 'member_added', channel: name, user_id: 'ada' });
    await desk.leave();
    await phone.leave();
    const [{ event: removed }] = await hook({ name: 'member_removed', channel: name });
    assert.deepEqual(removed, { name: 'member_removed', channel: name, user_id: 'ada' });
    await hook({ name: 'channel_vacated', channel: name });
    assert.equal(came({ name: 'member_added', channel: name }).length, 1);
    assert.equal(came({ name: 'member_removed', channel: name }).length, 1);
  });

  // §14.4: up to 3 s of grace, so that a reload of a page is nothing to tell.
  test('who_is_back_at_once_has_not_left', async () => {
    const [name, fence] = [fresh('presence-room'), fresh('presence-fence')];
    const first = await client('ada');
    await first.join(name);
    await hook({ name: 'member_added', channel: name });
    await first.leave();
    const again = await client('ada');
    await again.join(name);
    // What leaves only now is told after whatever there would have been to tell of the first.
    const other = await client('bob');
    await other.join(fence);
    await other.leave();
    await hook({ name: 'channel_vacated', channel: fence });
    const told = came({ channel: name }).filter((one) => one.name !== 'subscription_count').map((one) => one.name).sort();
    assert.deepEqual(told, ['channel_occupied', 'member_added']);
  });

  test('a_client_event_is_told_with_its_data_as_a_string', async () => {
    const [room, doc] = [fresh('presence-room'), fresh('private-doc')];
    const one = await client('ada');
    await one.join(room);
    await one.trigger(room, 'client-typing', { x: [1, 'ü'] });
    const [{ event }] = await hook({ name: 'client_event', channel: room });
    assert.equal(typeof event.data, 'string');
    assert.deepEqual({ ...event, data: JSON.parse(event.data) }, {
      name: 'client_event',
      channel: room,
      event: 'client-typing',
      data: { x: [1, 'ü'] },
      socket_id: await one.connected(),
      user_id: 'ada',
    });
    const guest = await client();
    await guest.join(doc);
    await guest.trigger(doc, 'client-typing', {});
    const [{ event: anonymous }] = await hook({ name: 'client_event', channel: doc });
    assert.ok(!('user_id' in anonymous), JSON.stringify(anonymous));
  });

  test('a_cache_miss_and_a_subscription_count_are_told', async () => {
    const name = fresh('cache-rates');
    await (await client()).join(name);
    const [{ event }] = await hook({ name: 'cache_miss', channel: name });
    assert.deepEqual(event, { name: 'cache_miss', channel: name });
    const [{ event: count }] = await hook({ name: 'subscription_count', channel: name });
    assert.deepEqual(count, { name: 'subscription_count', channel: name, subscription_count: 1 });
  });

  test('a_webhook_gets_only_the_events_it_asks_for', async () => {
    const name = fresh('cache-rates');
    await (await client()).join(name);
    await backend.hooks.until({ path: '/hook/some', name: 'channel_occupied', channel: name });
    await hook({ name: 'cache_miss', channel: name });
    const others = backend.hooks.matching({ path: '/hook/some' }).filter((one) => one.name !== 'channel_occupied');
    assert.deepEqual(others, []);
  });

  test('a_webhook_gets_only_the_channels_it_asks_for_with_the_headers_it_asks_for', async () => {
    const [open, closed] = [fresh('room'), fresh('private-room')];
    const one = await client();
    await one.join(open);
    await one.join(closed);
    const [{ headers }] = await backend.hooks.until({ path: '/hook/private', name: 'channel_occupied', channel: closed });
    assert.equal(headers['x-told-by'], 'taut');
    await hook({ name: 'channel_occupied', channel: open });
    const others = backend.hooks.matching({ path: '/hook/private' }).filter(({ channel }) => !channel.startsWith('private-'));
    assert.deepEqual(others, []);
  });

  test('the_oldest_key_signs_the_webhooks_of_an_app_that_changes_its_key', async () => {
    const name = fresh('room');
    await (await platform.client({ taut, backend, key: 'new-key' })).join(name);
    const [{ headers, body }] = await backend.hooks.until({ path: '/hook/rotated', name: 'channel_occupied', channel: name });
    assert.equal(headers['x-pusher-key'], 'old-key');
    assert.ok(taut.publisher({ id: ROTATED.id, ...ROTATED.keys[0] }).webhook({ headers, rawBody: body }).isValid());
  });

  test('the_request_is_as_every_package_wants_it', async () => {
    const name = fresh('room');
    await (await client()).join(name);
    const [{ headers, body }] = await hook({ name: 'channel_occupied', channel: name });
    assert.equal(headers['content-type'], 'application/json', 'exactly: the package of npm compares it as a whole');
    assert.equal(headers['x-pusher-key'], APP.key);
    assert.match(headers['x-pusher-signature'], /^[0-9a-f]{64}$/);
    const { time_ms } = JSON.parse(body);
    assert.ok(Number.isInteger(time_ms) && Math.abs(Date.now() - time_ms) < 300_000, `time_ms ${time_ms}`);
  });

  for (const Package of [NodePackage, PythonPackage, PhpRequests]) {
    describe(Package.NAME, () => {
      const verifies = async (app, webhook) => {
        const sdk = new Package(taut.port, app);
        try {
          return await sdk.webhook(webhook);
        } finally {
          await sdk.close();
        }
      };

      test('a_genuine_webhook_is_accepted_and_a_forged_one_is_not', async () => {
        const name = fresh('presence-room');
        const one = await client('zoë');
        await one.join(name);
        const [webhook] = await hook({ name: 'member_added', channel: name });
        assert.deepEqual(await verifies(APP, webhook), [{ name: 'member_added', channel: name, user_id: 'zoë' }]);
        assert.equal(await verifies(APP, { ...webhook, body: webhook.body.replace('added', 'removed') }), null);
        assert.equal(await verifies({ ...APP, secret: 'a guess' }, webhook), null);
        assert.equal(await verifies({ ...APP, key: 'other-key' }, webhook), null);
      });
    });
  }

  test('what_the_receiver_fails_to_take_is_sent_again_with_the_same_time', async () => {
    const name = fresh('room');
    backend.answer('/hook', 500, 503);
    await (await client()).join(name);
    const failed = [...await hook({ status: 500 }), ...await hook({ status: 503 })];
    for (const { body } of failed) await hook({ status: 200, body }); // time_ms is in it: the very same body comes again
    await hook({ status: 200, name: 'channel_occupied', channel: name });
    assert.equal(came({ status: 200, name: 'channel_occupied', channel: name }).length, 1);
  });

  test('publishing_is_no_event_of_a_webhook', async () => {
    const name = fresh('cache-quiet');
    await pusher.trigger(name, 'tick', {});
    const one = await client();
    await one.join(name); // no cache_miss: there is something
    await hook({ name: 'channel_occupied', channel: name });
    const other = fresh('cache-other');
    await one.join(other);
    await hook({ name: 'cache_miss', channel: other });
    assert.deepEqual(came({ channel: name }).map((each) => each.name).filter((each) => each !== 'subscription_count'), ['channel_occupied']);
  });
});
