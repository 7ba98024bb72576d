/** Events published with Pusher's own server packages, received by the real pusher-js. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import PusherClient from 'pusher-js';
import { Server, within } from '../browser/server.js';
import { NodePackage, PythonPackage } from './sdks.js';

const SECRET = 'app-secret';
const MOST_BYTES = 10_240;
const PATIENCE = 10_000;

let server;
let subscribers = [];

before(async () => {
  server = await Server.start({
    options: ['--app', `1:app-key:${SECRET}`, '--app', '2:other-key:other-secret'],
    // The PyPI package refuses more than 30 KB by itself, so the server's own limit has to be below that to be seen.
    environment: { TAUT_MAX_EVENT_DATA: '10KiB' },
  });
});
after(async () => assert.equal(await server?.stop(), 0));
afterEach(() => {
  for (const subscriber of subscribers) subscriber.leave();
  subscribers = [];
});

/** A pusher-js that has subscribed to the channels and keeps what it hears. */
class Subscriber {
  heard = [];
  #client; #waiting = [];

  static async join(channels, key = 'app-key') {
    const subscriber = new Subscriber();
    subscribers.push(subscriber);
    subscriber.#client = new PusherClient(key, {
      cluster: '',
      wsHost: '127.0.0.1',
      wsPort: server.port,
      forceTLS: false,
      enabledTransports: ['ws'],
    });
    await Promise.all(channels.map((name) => subscriber.#subscribe(name)));
    return subscriber;
  }

  get socketId() { return this.#client.connection.socket_id; }
  leave() { this.#client.disconnect(); }

  /** Waits until an event of this name has come, and gives all that came up to then. */
  async until(event) {
    const come = new Promise((resolve) => { this.#waiting.push({ event, resolve }); this.#wake(); });
    await within(PATIENCE, come, () => `no event ${event} came, only ${JSON.stringify(this.heard)}`);
    return this.heard;
  }

  #subscribe(name) {
    const channel = this.#client.subscribe(name);
    channel.bind_global((event, data) => {
      if (event.startsWith('pusher:')) return;
      this.heard.push({ channel: name, event, data });
      this.#wake();
    });
    const subscribed = new Promise((resolve, reject) => {
      channel.bind('pusher:subscription_succeeded', resolve);
      channel.bind('pusher:subscription_error', (error) => reject(new Error(`${name}: ${JSON.stringify(error)}`)));
    });
    return within(PATIENCE, subscribed, () => `pusher-js could not subscribe to ${name} (${this.#client.connection.state})`);
  }

  #wake() {
    for (const { event, resolve } of this.#waiting) if (this.heard.some((one) => one.event === event)) resolve();
  }
}

for (const Package of [NodePackage, PythonPackage]) {
  const sdk = new Package();

  describe(`publishing with the package ${sdk.name}`, { timeout: 60_000 }, () => {
    const credentials = (changes) => ({ app_id: '1', key: 'app-key', secret: SECRET, host: '127.0.0.1', port: server.port, ...changes });
    const publish = (channels, event, data, socketId) => sdk.publish(credentials(), channels, event, data, socketId);
    after(() => sdk.close());

    test('an_event_reaches_every_subscriber_of_its_channel', async () => {
      const both = [await Subscriber.join(['news']), await Subscriber.join(['news'])];
      assert.deepEqual(await publish('news', 'headline', { title: 'Hello', list: [1, 2.5, null, true] }), {});
      for (const subscriber of both) {
        assert.deepEqual(await subscriber.until('headline'), [
          { channel: 'news', event: 'headline', data: { title: 'Hello', list: [1, 2.5, null, true] } },
        ]);
      }
    });

    test('an_event_for_several_channels_is_delivered_once_on_each', async () => {
      const [first, second] = [await Subscriber.join(['a', 'c']), await Subscriber.join(['b', 'x'])];
      assert.deepEqual(await publish(['a', 'b', 'c'], 'tick', { n: 1 }), {});
      await publish(['a', 'x'], 'end', {});
      const channels = (heard, event) => heard.filter((one) => one.event === event).map(({ channel }) => channel).sort();
      assert.deepEqual(channels(await first.until('end'), 'end'), ['a']);
      assert.deepEqual(channels(await second.until('end'), 'end'), ['x']);
      await publish('c', 'last', {}); // each channel has an order of its own: wait for the end of this one too
      await publish('b', 'last', {});
      assert.deepEqual(channels(await first.until('last'), 'tick'), ['a', 'c']);
      assert.deepEqual(channels(await second.until('last'), 'tick'), ['b']);
    });

    test('the_connection_named_by_socket_id_is_left_out', async () => {
      const [author, reader] = [await Subscriber.join(['doc']), await Subscriber.join(['doc'])];
      await publish('doc', 'changed', { by: 'author' }, author.socketId);
      await publish('doc', 'saved', {});
      const names = async (subscriber) => (await subscriber.until('saved')).map(({ event }) => event);
      assert.deepEqual(await names(author), ['saved']);
      assert.deepEqual(await names(reader), ['changed', 'saved']);
    });

    test('events_arrive_in_the_order_in_which_they_were_published', async () => {
      const subscriber = await Subscriber.join(['order']);
      for (let n = 0; n < 50; n += 1) await publish('order', n < 49 ? 'count' : 'done', n);
      const heard = await subscriber.until('done');
      assert.deepEqual(heard.map(({ data }) => data), Array.from({ length: 50 }, (_, n) => n));
    });

    test('the_connection_to_the_server_is_used_again', async () => {
      await publish('news', 'first', {});
      const before = sdk.connections;
      assert.ok(before >= 1);
      for (let n = 0; n < 10; n += 1) await publish('news', 'more', n);
      assert.equal(sdk.connections, before, 'ten more requests should need no new connection');
    });

    test('unicode_backslashes_and_control_characters_survive_in_names_and_data', async () => {
      const subscriber = await Subscriber.join(['odd']);
      const event = 'App\\Events\\Größe “👩🏽‍🚀”';
      const data = { text: 'ß € 漢字 👩🏽‍🚀 \u2028 \u2029 "quoted" \\ \n\t\u0001 \u0000 </script>', 'ключ': 'значение' };
      await publish('odd', event, data);
      assert.deepEqual(await subscriber.until(event), [{ channel: 'odd', event, data }]);
    });

    test('data_that_is_no_json_arrives_as_it_is', async () => {
      const subscriber = await Subscriber.join(['plain']);
      await publish('plain', 'text', 'just {text');
      assert.deepEqual((await subscriber.until('text'))[0].data, 'just {text');
    });

    test('data_of_the_greatest_size_arrives_and_one_byte_more_is_refused_with_413', async () => {
      const subscriber = await Subscriber.join(['large']);
      await assert.rejects(publish('large', 'too-large', 'x'.repeat(MOST_BYTES + 1)), (error) => {
        assert.equal(error.kind, sdk.errors[413]);
        assert.match(error.text, /^413: /);
        assert.match(error.text, new RegExp(`${MOST_BYTES}`), 'the answer names the limit');
        return true;
      });
      await publish('large', 'largest', 'x'.repeat(MOST_BYTES));
      const heard = await subscriber.until('largest');
      assert.deepEqual(heard, [{ channel: 'large', event: 'largest', data: 'x'.repeat(MOST_BYTES) }]);
    });

    test('a_wrong_secret_is_refused_with_401_and_publishes_nothing', async () => {
      const subscriber = await Subscriber.join(['guarded']);
      await assert.rejects(sdk.publish(credentials({ secret: 'guess' }), 'guarded', 'forged', {}), (error) => {
        assert.equal(error.kind, sdk.errors[401]);
        assert.match(error.text, /Invalid signature/);
        assert.ok(!error.text.includes(SECRET), 'the answer must not give the secret away');
        return true;
      });
      await publish('guarded', 'genuine', {});
      assert.deepEqual((await subscriber.until('genuine')).map(({ event }) => event), ['genuine']);
    });

    test('an_unknown_key_is_refused_with_401_and_an_unknown_app_with_404', async () => {
      const refusal = async (changes) => {
        try {
          await sdk.publish(credentials(changes), 'news', 'headline', {});
        } catch (error) {
          return error;
        }
        return assert.fail('the server should refuse');
      };
      const unknownKey = await refusal({ key: 'nobody' });
      assert.equal(unknownKey.kind, sdk.errors[401]);
      const unknownApp = await refusal({ app_id: '77' });
      assert.equal(unknownApp.kind, sdk.errors[404]);
      assert.match(unknownApp.text, /^404: /);
    });

    test('apps_do_not_hear_each_other', async () => {
      const [ours, theirs] = [await Subscriber.join(['shared']), await Subscriber.join(['shared'], 'other-key')];
      const other = credentials({ app_id: '2', key: 'other-key', secret: 'other-secret' });
      await publish('shared', 'ours', {});
      await sdk.publish(other, 'shared', 'theirs', {});
      await publish('shared', 'end', {});
      await sdk.publish(other, 'shared', 'end', {});
      const names = async (subscriber) => (await subscriber.until('end')).map(({ event }) => event);
      assert.deepEqual(await names(ours), ['ours', 'end']);
      assert.deepEqual(await names(theirs), ['theirs', 'end']);
    });
  });
}
