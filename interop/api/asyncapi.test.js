/** /console/asyncapi.json: that it is AsyncAPI, and that it says what Taut sends to its clients. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Parser } from '@asyncapi/parser';
import Ajv from 'ajv/dist/2020.js';
import Pusher from 'pusher';
import { WebSocket } from 'ws';
import { Server, within } from '../browser/server.js';

const [ID, KEY, SECRET] = ['1', 'key-one', 'secret-one'];
const PATIENCE = 10_000;
const CONFIGURATION = `
[[apps]]
id = "${ID}"
key = "${KEY}"
secret = "${SECRET}"
watchlist = true
subscription-count = true
`;

let folder, taut, console_, document;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'taut-api-'));
  const config = join(folder, 'taut.toml');
  await writeFile(config, CONFIGURATION);
  taut = await Server.start({ options: ['--config', config, '--console-listen', '0', '--drain-notice', '0'] });
  console_ = await taut.ownConsole();
  document = await (await fetch(`${console_}/asyncapi.json`)).json();
});
after(async () => {
  assert.equal(await taut?.stop(), 0);
  await rm(folder, { recursive: true, force: true });
});

test('it_is_asyncapi', async () => {
  const { document: parsed, diagnostics } = await new Parser().parse(JSON.stringify(document));
  const errors = diagnostics.filter(({ severity }) => severity === 0);
  assert.deepEqual(errors, []);
  assert.equal(parsed.version(), '3.0.0');
  assert.equal(parsed.operations().length, 2);
});

test('the_file_in_docs_is_what_is_served', async () => {
  assert.deepEqual(document, JSON.parse(await readFile(new URL('../../docs/asyncapi.json', import.meta.url), 'utf8')));
});

test('the_versions_of_the_protocol_are_those_that_are_served', async () => {
  const { minimum, maximum } = document.components.schemas.Query.properties.protocol;
  const first = async (protocol) => {
    const socket = new WebSocket(`ws://127.0.0.1:${taut.port}/app/${KEY}?protocol=${protocol}`);
    const [data] = await once(socket, 'message');
    socket.terminate();
    return JSON.parse(data).event;
  };
  for (const good of [minimum, maximum]) assert.equal(await first(good), 'pusher:connection_established', good);
  for (const bad of [minimum - 1, maximum + 1]) assert.equal(await first(bad), 'pusher:error', bad);
});

describe('a session of two clients', () => {
  const heard = [], said = [];

  /** A client that keeps what it hears and says. */
  class Client {
    #messages = []; #wake = () => {};

    static async open() {
      const client = new Client();
      client.socket = new WebSocket(`ws://127.0.0.1:${taut.port}/app/${KEY}?protocol=7&client=test&version=1`);
      client.socket.on('message', (data) => {
        const message = JSON.parse(data);
        heard.push(message);
        client.#messages.push(message);
        client.#wake();
      });
      await once(client.socket, 'open');
      client.id = JSON.parse((await client.hears('pusher:connection_established')).data).socket_id;
      return client;
    }

    says(message) {
      said.push(message);
      this.socket.send(JSON.stringify(message));
    }

    subscribes(channel, data = {}) {
      const signed = [this.id, channel, ...(data.channel_data ? [data.channel_data] : [])].join(':');
      this.says({ event: 'pusher:subscribe', data: { channel, auth: signature(signed), ...data } });
    }

    /** The next message of this name; those before it are left out. */
    async hears(name) {
      const come = async () => {
        for (;;) {
          const index = this.#messages.findIndex(({ event }) => event === name);
          if (index >= 0) return this.#messages.splice(0, index + 1).pop();
          await new Promise((resolve) => { this.#wake = resolve; });
        }
      };
      return within(PATIENCE, come(), () => `${name} did not come`);
    }
  }

  const signature = (text) => `${KEY}:${createHmac('sha256', SECRET).update(text).digest('hex')}`;
  const schemas = () => document.components.schemas;
  const listed = (action) => document.operations[action].messages.map(({ $ref }) => $ref.split('/').pop());

  test('is_described', async () => {
    const backend = new Pusher({ appId: ID, key: KEY, secret: SECRET, host: '127.0.0.1', port: String(taut.port), useTLS: false });
    const [ann, bob] = [await Client.open(), await Client.open()];
    const channel_data = (user_id) => JSON.stringify({ user_id, user_info: { name: user_id } });
    ann.subscribes('presence-room', { channel_data: channel_data('ann') });
    await ann.hears('pusher_internal:subscription_succeeded');
    bob.subscribes('presence-room', { channel_data: channel_data('bob') });
    await ann.hears('pusher_internal:member_added');
    await bob.hears('pusher_internal:subscription_succeeded');
    bob.says({ event: 'client-typing', channel: 'presence-room', data: { text: 'h' } });
    await ann.hears('client-typing');
    bob.says({ event: 'pusher:unsubscribe', data: { channel: 'presence-room' } });
    await ann.hears('pusher_internal:member_removed');
    ann.subscribes('private-x', { auth: 'key-one:0' });
    await ann.hears('pusher:subscription_error');
    ann.subscribes('cache-news');
    await ann.hears('pusher:cache_miss');
    bob.subscribes('cache-news');
    await ann.hears('pusher_internal:subscription_count');
    await backend.trigger('cache-news', 'headline', { title: 'It works' });
    await ann.hears('headline');
    ann.says({ event: 'client-x', channel: 'cache-news', data: {} });
    await ann.hears('pusher:error');
    ann.says({ event: 'pusher:ping', data: {} });
    await ann.hears('pusher:pong');
    ann.says({ event: 'pusher:pong', data: {} });
    const user_data = JSON.stringify({ id: 'ann', watchlist: ['bob'] });
    ann.says({ event: 'pusher:signin', data: { auth: signature(`${ann.id}::user::${user_data}`), user_data } });
    await ann.hears('pusher:signin_success');
    await ann.hears('pusher_internal:watchlist_events');
    for (const { socket } of [ann, bob]) socket.terminate();

    const ajv = new Ajv({ strict: false, validateFormats: false });
    ajv.addSchema(document, 'document');
    const seen = { receive: new Set(), send: new Set() };
    for (const [action, messages] of [['receive', said], ['send', heard]]) {
      for (const message of messages) {
        const found = listed(action).filter((id) => ajv.validate({ $ref: `document#/components/schemas/${id}` }, message));
        assert.equal(found.length, 1, `${JSON.stringify(message)} is ${found.join(' and ') || 'not described'}`);
        assertTextsHoldJson(schemas()[found[0]], message);
        seen[action].add(found[0]);
      }
      assert.deepEqual([...seen[action]].sort(), listed(action).sort(), 'every event was seen');
    }
  });

  /** What is said to hold JSON does. */
  function assertTextsHoldJson(schema, value) {
    if (schema.contentMediaType === 'application/json') assert.equal(typeof JSON.parse(value), 'object');
    for (const [name, field] of Object.entries(schema.properties ?? {})) {
      if (value[name] !== undefined) assertTextsHoldJson(field, value[name]);
    }
  }
});
