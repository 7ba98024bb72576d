/** What no server package sends: HTTP requests byte by byte, signed by hand, with every quirk of every package and every mistake. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { RawClient, hmac } from './frames.js';
import { APP, Taut, fresh } from './taut.js';

const OTHER = { id: '4', key: 'other-key', secret: 'other-secret', subscription_count: true };
const BRIEF = { id: '6', key: 'brief-key', secret: 'brief-secret', limits: { cache_ttl: 1 } };
const DISABLED = { id: '5', key: 'disabled-key', secret: 'x', enabled: false };

let taut;
const clients = [];

before(async () => {
  taut = await Taut.start({ apps: [{ limits: { event_data: 10_240 } }, OTHER, BRIEF, DISABLED] });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.leave();
});
after(() => taut?.stop());

async function joined(channel, member) {
  const client = await RawClient.open(taut.port);
  clients.push(client);
  await client.join(channel, member);
  return client;
}

const md5 = (text) => createHash('md5').update(text).digest('hex');
const now = () => Math.floor(Date.now() / 1000);

/**
 * Sends a request and gives {status, headers, text, json}. `query` is on the wire what it says, `signed` what is signed of it if that differs;
 * the rest is as it should be unless a test says otherwise.
 */
async function send(method, path, options = {}) {
  const { query = {}, signed = query, body, app = APP, auth = {}, signature, wirePath = path, agent, headers = {}, port = taut.port } = options;
  const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const parameters = { auth_key: app.key, auth_timestamp: now(), auth_version: '1.0', ...(text && { body_md5: md5(text) }), ...auth };
  for (const [name, value] of Object.entries(parameters)) if (value === undefined) delete parameters[name];
  const join = (pairs) => Object.entries(pairs).map(([name, value]) => `${name}=${value}`).join('&');
  const lowered = Object.fromEntries(Object.entries({ ...signed, ...parameters }).map(([name, value]) => [name.toLowerCase(), value]));
  const sorted = Object.fromEntries(Object.entries(lowered).sort(([a], [b]) => (a < b ? -1 : 1)));
  const auth_signature = signature ?? hmac(app.secret, `${method}\n${path}\n${join(sorted)}`);
  const request = httpRequest({
    host: '127.0.0.1',
    port,
    method,
    path: `${wirePath}?${join({ ...query, ...parameters, auth_signature })}`,
    headers: { ...(text !== undefined && { 'content-type': 'application/json' }), ...headers },
    agent,
  });
  request.end(text);
  const [response] = await once(request, 'response');
  let answer = '';
  for await (const part of response.setEncoding('utf8')) answer += part;
  const json = /^application\/json/.test(response.headers['content-type']) ? JSON.parse(answer) : undefined;
  return { status: response.statusCode, headers: response.headers, text: answer, json };
}

const CHANNELS = `/apps/${APP.id}/channels`;
const EVENTS = `/apps/${APP.id}/events`;
const BATCH = `/apps/${APP.id}/batch_events`;
const EVENT = { name: 'x', channels: ['news'], data: '{}' };

async function refused(status, text, ...parameters) {
  const answer = await send(...parameters);
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.text, text);
  assert.ok(!answer.text.includes(APP.secret), 'an answer never has the secret in it');
}

describe('signatures of requests', { timeout: 60_000 }, () => {
  for (const { title, parameters } of [
    { title: 'a_signed_request_is_answered', parameters: ['GET', CHANNELS] },
    { title: 'the_md5_of_nothing_may_be_signed_as_python_does', parameters: ['GET', CHANNELS, { auth: { body_md5: md5('') } }] },
    {
      title: 'commas_may_come_as_they_are',
      parameters: ['GET', `/apps/${OTHER.id}/channels/x`, { app: OTHER, query: { info: 'subscription_count,subscription_count' } }],
    },
    {
      title: 'commas_may_come_percent_encoded',
      parameters: ['GET', `/apps/${OTHER.id}/channels/x`, {
        app: OTHER,
        query: { info: 'subscription_count%2Csubscription_count' },
        signed: { info: 'subscription_count,subscription_count' },
      }],
    },
    { title: 'names_of_parameters_are_signed_in_lower_case', parameters: ['GET', CHANNELS, { query: { Filter_By_Prefix: 'presence-' } }] },
    {
      title: 'lists_of_php_are_signed_as_one_value',
      parameters: ['GET', CHANNELS, { query: { 'filter[0]': 'a', 'filter[1]': 'b' }, signed: { filter: 'a,b' } }],
    },
    {
      title: 'lists_of_php_may_come_percent_encoded',
      parameters: ['GET', CHANNELS, { query: { 'filter%5B0%5D': 'a', 'filter%5B1%5D': 'b' }, signed: { filter: 'a,b' } }],
    },
    { title: 'unknown_parameters_are_signed_and_ignored', parameters: ['GET', CHANNELS, { query: { zebra: '1', Aardvark: '2' } }] },
    { title: 'a_timestamp_of_nine_minutes_ago_is_taken', parameters: ['GET', CHANNELS, { auth: { get auth_timestamp() { return now() - 540; } } }] },
    {
      title: 'a_timestamp_of_nine_minutes_ahead_is_taken',
      parameters: ['GET', CHANNELS, { auth: { get auth_timestamp() { return now() + 540; } } }],
    },
    { title: 'a_path_with_escapes_may_be_signed_as_it_is_sent', parameters: ['GET', `${CHANNELS}/presence-a%3Db/users`] },
    {
      title: 'a_path_with_escapes_may_be_signed_without_them',
      parameters: ['GET', `${CHANNELS}/presence-a=b/users`, { wirePath: `${CHANNELS}/presence-a%3Db/users` }],
    },
  ]) {
    test(title, async () => {
      const answer = await send(...parameters);
      assert.equal(answer.status, 200, answer.text);
      assert.match(answer.headers['content-type'], /^application\/json/);
      assert.equal(typeof answer.json, 'object');
    });
  }

  for (const { title, status = 401, text = /./, parameters } of [
    {
      title: 'a_wrong_signature_is_refused',
      text: /Invalid signature: you should have sent HmacSHA256Hex/,
      parameters: ['GET', CHANNELS, { signature: '0'.repeat(64) }],
    },
    { title: 'an_empty_signature_is_refused', parameters: ['GET', CHANNELS, { signature: '' }] },
    { title: 'the_key_of_another_app_is_refused', parameters: ['GET', CHANNELS, { app: OTHER }] },
    {
      title: 'the_key_of_nobody_is_refused',
      text: /Unknown auth_key/,
      parameters: ['GET', CHANNELS, { app: { key: 'nobody', secret: APP.secret } }],
    },
    { title: 'a_request_without_a_key_is_refused', parameters: ['GET', CHANNELS, { auth: { auth_key: undefined } }] },
    {
      title: 'a_timestamp_of_eleven_minutes_ago_is_refused',
      text: /Timestamp expired/,
      parameters: ['GET', CHANNELS, { auth: { get auth_timestamp() { return now() - 660; } } }],
    },
    {
      title: 'a_timestamp_of_eleven_minutes_ahead_is_refused',
      text: /Timestamp expired/,
      parameters: ['GET', CHANNELS, { auth: { get auth_timestamp() { return now() + 660; } } }],
    },
    { title: 'a_request_without_a_timestamp_is_refused', parameters: ['GET', CHANNELS, { auth: { auth_timestamp: undefined } }] },
    { title: 'a_timestamp_that_is_no_number_is_refused', parameters: ['GET', CHANNELS, { auth: { auth_timestamp: 'now' } }] },
    {
      title: 'a_timestamp_with_a_sign_is_refused',
      text: /Invalid auth_timestamp/,
      parameters: ['GET', CHANNELS, { auth: { get auth_timestamp() { return `+${now()}`; } } }],
    },
    {
      title: 'a_signature_that_comes_twice_is_refused',
      text: /more than once: auth_signature/,
      parameters: ['GET', CHANNELS, { query: { AUTH_SIGNATURE: 'x' }, signed: {} }],
    },
    { title: 'another_auth_version_is_refused', parameters: ['GET', CHANNELS, { auth: { auth_version: '2.0' } }] },
    { title: 'a_body_md5_of_another_body_is_refused', parameters: ['POST', EVENTS, { body: EVENT, auth: { body_md5: md5('another') } }] },
    { title: 'a_body_without_its_md5_is_refused', parameters: ['POST', EVENTS, { body: EVENT, auth: { body_md5: undefined } }] },
    { title: 'an_md5_of_something_with_no_body_is_refused', parameters: ['GET', CHANNELS, { auth: { body_md5: md5('something') } }] },
    { title: 'a_parameter_that_was_not_signed_is_refused', parameters: ['GET', CHANNELS, { query: { info: 'user_count' }, signed: {} }] },
    { title: 'a_signature_for_another_method_is_refused', parameters: ['GET', CHANNELS, { signature: hmac(APP.secret, `POST\n${CHANNELS}\n`) }] },
  ]) {
    test(title, () => refused(status, text, ...parameters));
  }

  test('a_disabled_app_answers_403', () => refused(403, /./, 'GET', `/apps/${DISABLED.id}/channels`, { app: DISABLED }));
  test('an_unknown_app_answers_404', () => refused(404, /./, 'GET', '/apps/77/channels'));
  test('an_unknown_path_answers_404', () => refused(404, /./, 'GET', `/apps/${APP.id}/nothing`));

  for (const { title, method, path, allowed } of [
    { title: 'to_get_events_is_a_405_that_says_what_is_allowed', method: 'GET', path: EVENTS, allowed: 'POST' },
    { title: 'to_get_a_batch_is_a_405_that_says_what_is_allowed', method: 'GET', path: BATCH, allowed: 'POST' },
    { title: 'to_post_channels_is_a_405_that_says_what_is_allowed', method: 'POST', path: CHANNELS, allowed: 'GET' },
    { title: 'to_delete_channels_is_a_405_that_says_what_is_allowed', method: 'DELETE', path: CHANNELS, allowed: 'GET' },
  ]) {
    test(title, async () => {
      const answer = await send(method, path);
      assert.equal(answer.status, 405, answer.text);
      assert.match(answer.headers.allow, new RegExp(`\\b${allowed}\\b`));
    });
  }

  test('a_connection_is_kept_and_used_again', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    let connections = 0;
    const create = agent.createConnection.bind(agent);
    agent.createConnection = (...parameters) => { connections += 1; return create(...parameters); };
    try {
      for (let n = 0; n < 5; n += 1) {
        await send('POST', EVENTS, { body: EVENT, agent });
        await send('GET', CHANNELS, { agent });
        await send('GET', CHANNELS, { agent, signature: 'wrong' });
      }
      assert.equal(connections, 1);
    } finally {
      agent.destroy();
    }
  });
});

describe('publishing', { timeout: 60_000 }, () => {
  /** Publishes, and gives what comes to a channel of that publication's own. */
  async function published(event) {
    const name = fresh('news');
    const client = await joined(name);
    const answer = await send('POST', EVENTS, { body: { name: 'x', data: '{}', channels: [name], ...event } });
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(answer.json, {});
    return (await client.until(event.name ?? 'x', name))[0];
  }

  test('an_empty_string_is_data', async () => assert.equal((await published({ data: '' })).data, ''));
  test('data_that_is_no_string_goes_out_as_its_json', async () => {
    assert.deepEqual(JSON.parse((await published({ data: { a: [1, null] } })).data), { a: [1, null] });
    assert.equal((await published({ data: 7 })).data, '7');
  });
  test('an_events_name_may_have_200_characters', async () => {
    await published({ name: 'ü'.repeat(200) });
    await published({ name: 'x'.repeat(200) });
  });
  test('data_is_measured_in_bytes', async () => {
    assert.equal((await published({ data: 'x'.repeat(10_240) })).data.length, 10_240);
    await refused(413, /10240/, 'POST', EVENTS, { body: { ...EVENT, data: 'x'.repeat(10_241) } });
    await refused(413, /10240/, 'POST', EVENTS, { body: { ...EVENT, data: 'ü'.repeat(5_121) } });
  });
  test('escapes_in_a_body_do_not_count', async () => {
    assert.equal((await published({ data: '\u0001'.repeat(10_240) })).data.length, 10_240);
  });

  test('a_channel_that_is_named_twice_hears_the_event_once', async () => {
    const name = fresh('news');
    const client = await joined(name);
    await send('POST', EVENTS, { body: { ...EVENT, channels: [name, name] } });
    await send('POST', EVENTS, { body: { ...EVENT, name: 'end', channels: [name] } });
    await client.until('end', name);
    assert.equal(client.heard.matching({ event: 'x' }).length, 1);
  });

  test('one_channel_may_be_spelled_channel', async () => {
    const name = fresh('news');
    const client = await joined(name);
    const answer = await send('POST', EVENTS, { body: { name: 'x', data: '{}', channel: name } });
    assert.deepEqual([answer.status, answer.json], [200, {}]);
    await client.until('x', name);
  });

  test('an_unoccupied_channel_is_no_failure', async () => {
    assert.deepEqual((await send('POST', EVENTS, { body: { ...EVENT, channels: [fresh('nobody')] } })).json, {});
  });

  const names = (count) => Array.from({ length: count }, (_, n) => `n${n}`);
  for (const { title, status = 400, text = /./, body } of [
    { title: 'a_body_that_is_no_json_is_refused', body: '{"name":' },
    { title: 'a_body_that_is_no_object_is_refused', body: '[]' },
    { title: 'an_event_without_a_name_is_refused', body: { channels: ['news'], data: '{}' } },
    { title: 'an_event_without_data_is_refused', body: { name: 'x', channels: ['news'] } },
    { title: 'an_event_without_channels_is_refused', body: { name: 'x', data: '{}' } },
    { title: 'an_empty_list_of_channels_is_refused', body: { ...EVENT, channels: [] } },
    { title: 'one_hundred_and_one_channels_are_refused', text: /100/, body: { ...EVENT, channels: names(101) } },
    { title: 'a_name_of_201_characters_is_refused', text: /200/, body: { ...EVENT, name: 'x'.repeat(201) } },
    { title: 'a_channel_name_of_201_characters_is_refused', text: /200/, body: { ...EVENT, channels: ['x'.repeat(201)] } },
    { title: 'an_illegal_channel_name_is_refused', body: { ...EVENT, channels: ['news', 'a b'] } },
    { title: 'an_internal_channel_is_refused', body: { ...EVENT, channels: ['#news'] } },
    { title: 'an_event_of_the_protocol_is_refused', body: { ...EVENT, name: 'pusher:connection_established' } },
    { title: 'an_internal_event_is_refused', body: { ...EVENT, name: 'pusher_internal:member_added' } },
    { title: 'an_encrypted_channel_among_several_is_refused', body: { ...EVENT, channels: ['private-encrypted-a', 'b'] } },
    { title: 'a_socket_id_of_another_form_is_refused', body: { ...EVENT, socket_id: 'abc' } },
  ]) {
    test(title, () => refused(status, text, 'POST', EVENTS, { body }));
  }

  test('one_hundred_channels_are_taken', async () => {
    assert.equal((await send('POST', EVENTS, { body: { ...EVENT, channels: names(100) } })).status, 200);
  });

  test('a_socket_id_of_nobody_excludes_nobody', async () => {
    await published({ socket_id: '1.1' });
  });
});

describe('batches', { timeout: 60_000 }, () => {
  const items = (count, more = {}) => Array.from({ length: count }, () => ({ name: 'x', channel: 'news', data: '{}', ...more }));

  test('ten_events_are_taken_and_eleven_refused', async () => {
    assert.deepEqual((await send('POST', BATCH, { body: { batch: items(10) } })).json, {});
    await refused(400, /^\{"error":"Batch too large: .*10/, 'POST', BATCH, { body: { batch: items(11) } });
  });

  test('one_bad_event_keeps_the_others_from_being_published', async () => {
    const name = fresh('news');
    const client = await joined(name);
    for (const bad of [{ channel: 'a b' }, { name: 'x'.repeat(201) }, { data: undefined }, { name: 'pusher:x' }]) {
      await refused(400, /./, 'POST', BATCH, { body: { batch: [...items(2, { channel: name }), ...items(1, bad)] } });
    }
    await refused(413, /10240/, 'POST', BATCH, { body: { batch: [...items(2, { channel: name }), ...items(1, { data: 'x'.repeat(10_241) })] } });
    await send('POST', EVENTS, { body: { ...EVENT, name: 'end', channels: [name] } });
    await client.until('end', name);
    assert.deepEqual(client.heard.matching({ event: 'x' }), []);
  });

  test('a_batch_of_ten_large_events_fits', async () => {
    const name = fresh('news');
    const client = await joined(name);
    const answer = await send('POST', BATCH, { body: { batch: items(10, { channel: name, data: 'x'.repeat(10_240) }) } });
    assert.equal(answer.status, 200, answer.text);
    await client.until('x', name, 10);
  });

  for (const { title, body } of [
    { title: 'a_body_without_a_batch_is_refused', body: { name: 'x' } },
    { title: 'a_batch_that_is_no_list_is_refused', body: { batch: {} } },
  ]) {
    test(title, () => refused(400, /./, 'POST', BATCH, { body }));
  }
});

describe('asking for channels', { timeout: 60_000 }, () => {
  test('an_empty_list_is_an_object', async () => {
    const answer = await send('GET', CHANNELS, { query: { filter_by_prefix: fresh('nobody') } });
    assert.equal(answer.text, '{"channels":{}}');
  });

  test('a_channel_is_listed_while_somebody_is_in_it', async () => {
    const name = fresh('news');
    const client = await joined(name);
    const list = async () => (await send('GET', CHANNELS, { query: { filter_by_prefix: name } })).json;
    assert.deepEqual(await list(), { channels: { [name]: {} } });
    client.send({ event: 'pusher:unsubscribe', data: { channel: name } });
    await client.caughtUp();
    assert.deepEqual(await list(), { channels: {} });
  });

  test('channels_of_users_are_not_listed', async () => {
    const client = await RawClient.open(taut.port);
    clients.push(client);
    const id = fresh('ada');
    client.signin({ id });
    await client.until('pusher:signin_success');
    client.subscribe(`#server-to-user-${id}`, { auth: '' });
    await client.until('pusher_internal:subscription_succeeded');
    const { json } = await send('GET', CHANNELS);
    assert.deepEqual(Object.keys(json.channels).filter((name) => name.startsWith('#')), []);
  });

  test('subscription_count_is_told_only_where_the_app_wants_it', async () => {
    await refused(400, /./, 'GET', `${CHANNELS}/news`, { query: { info: 'subscription_count' } });
    const answer = await send('GET', `/apps/${OTHER.id}/channels/news`, { app: OTHER, query: { info: 'subscription_count' } });
    assert.equal(answer.status, 200, answer.text);
  });

  test('subscription_count_is_told_of_presence_channels_beside_user_count', async () => {
    const name = fresh('presence-room');
    for (const user_id of ['1', '1', '2']) {
      const client = await RawClient.open(taut.port, `/app/${OTHER.key}?protocol=7`);
      clients.push(client);
      client.subscribe(name, client.signed(name, { user_id }, OTHER));
      await client.until('pusher_internal:subscription_succeeded', name);
    }
    const query = { info: 'user_count,subscription_count' };
    const { json } = await send('GET', `/apps/${OTHER.id}/channels/${name}`, { app: OTHER, query });
    assert.deepEqual(json, { occupied: true, user_count: 2, subscription_count: 3 });
    const list = await send('GET', `/apps/${OTHER.id}/channels`, { app: OTHER, query: { ...query, filter_by_prefix: name } });
    assert.deepEqual(list.json, { channels: { [name]: { user_count: 2, subscription_count: 3 } } });
  });

  test('an_unknown_attribute_is_refused_or_ignored_but_breaks_nothing', async () => {
    const { status } = await send('GET', `${CHANNELS}/news`, { query: { info: 'weather' } });
    assert.ok([200, 400].includes(status), `${status}`);
  });

  test('a_cached_event_is_forgotten_when_its_time_is_over', async () => {
    const name = fresh('cache-rates');
    const cached = async () => (await send('GET', `/apps/${BRIEF.id}/channels/${name}`, { app: BRIEF, query: { info: 'cache' } })).json.cache;
    await send('POST', `/apps/${BRIEF.id}/events`, { app: BRIEF, body: { ...EVENT, channels: [name] } });
    assert.equal((await cached()).data, '{}');
    const began = Date.now();
    while (await cached()) assert.ok(Date.now() - began < 10_000, 'its time is one second');
    const client = await RawClient.open(taut.port, `/app/${BRIEF.key}?protocol=7`);
    clients.push(client);
    await client.join(name);
    await client.until('pusher:cache_miss', name);
  });

  test('the_cached_event_is_told_as_it_was_published', async () => {
    const name = fresh('cache-rates');
    await send('POST', EVENTS, { body: { ...EVENT, channels: [name], data: '{"b":1, "a":2}' } });
    const { json } = await send('GET', `${CHANNELS}/${name}`, { query: { info: 'cache' } });
    assert.equal(json.cache.data, '{"b":1, "a":2}');
    assert.ok(json.cache.ttl > 0 && json.cache.ttl <= 1800);
  });
});

describe('terminating', { timeout: 60_000 }, () => {
  const signedIn = async (id) => {
    const client = await RawClient.open(taut.port);
    clients.push(client);
    client.signin({ id });
    await client.until('pusher:signin_success');
    return client;
  };

  for (const { title, path, wirePath, body } of [
    { title: 'a_user_is_terminated_with_an_empty_body', path: (id) => `/apps/${APP.id}/users/${id}/terminate_connections` },
    { title: 'a_user_is_terminated_with_an_empty_object', path: (id) => `/apps/${APP.id}/users/${id}/terminate_connections`, body: {} },
    { title: 'a_user_is_terminated_by_the_path_of_python', path: (id) => `/users/${id}/terminate_connections`, body: {} },
    {
      title: 'a_user_is_terminated_with_an_escaped_user_id',
      path: (id) => `/apps/${APP.id}/users/${encodeURIComponent(id)}/terminate_connections`,
      body: {},
    },
    {
      title: 'a_user_is_terminated_with_a_user_id_that_is_escaped_but_not_so_signed',
      path: (id) => `/apps/${APP.id}/users/${id}/terminate_connections`,
      wirePath: (id) => `/apps/${APP.id}/users/${encodeURIComponent(id)}/terminate_connections`,
      body: {},
    },
  ]) {
    test(title, async () => {
      const id = fresh(/escaped/.test(title) ? 'Zoë 7' : 'zoe');
      const client = await signedIn(id);
      const answer = await send('POST', path(id), { body, ...(wirePath && { wirePath: wirePath(id) }) });
      assert.equal(answer.status, 200, answer.text);
      assert.deepEqual(answer.json, {});
      assert.equal((await client.closed()).code, 4009);
    });
  }

  test('a_user_who_is_not_there_is_no_failure', async () => {
    assert.deepEqual((await send('POST', `/apps/${APP.id}/users/${fresh('nobody')}/terminate_connections`, { body: {} })).json, {});
  });

  test('another_apps_user_of_the_same_id_stays', async () => {
    const id = fresh('ada');
    const client = await signedIn(id);
    assert.equal((await send('POST', `/apps/${OTHER.id}/users/${id}/terminate_connections`, { app: OTHER, body: {} })).status, 200);
    await client.caughtUp();
    await refused(401, /./, 'POST', `/users/${id}/terminate_connections`, { app: { key: OTHER.key, secret: 'a guess' }, body: {} });
    await client.caughtUp();
  });
});

describe('behind a prefix', { timeout: 60_000 }, () => {
  let prefixed;
  before(async () => {
    prefixed = await Taut.start({ options: ['--path-prefix', '/realtime'] });
  });
  after(() => prefixed?.stop());

  test('a_prefix_may_be_signed_or_left_out_as_php_does', async () => {
    for (const path of [`/realtime${CHANNELS}`, CHANNELS]) {
      const answer = await send('GET', path, { wirePath: `/realtime${CHANNELS}`, port: prefixed.port });
      assert.equal(answer.status, 200, answer.text);
    }
  });
});
