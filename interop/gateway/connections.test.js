/** What an application sends to single connections and users, from any request and on any node. */
import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Redis } from '../cluster/redis.js';
import { Backend } from './backend.js';
import { APP, Server } from './server.js';

const BEARER = { authorization: `Bearer ${APP.secret}` };

/** A request to a server's HTTP API: {status, body}. */
async function ask(server, method, path, { headers = BEARER, body } = {}) {
  const response = await fetch(`${server.url.replace('ws', 'http')}${path}`, { method, headers, body });
  return { status: response.status, body: await response.text() };
}

/** The same, signed as Pusher's libraries sign. */
function signed(server, method, path, body) {
  const time = Math.floor(Date.now() / 1000);
  const query = `auth_key=${APP.key}&auth_timestamp=${time}&auth_version=1.0&body_md5=${createHash('md5').update(body).digest('hex')}`;
  const signature = createHmac('sha256', APP.secret).update(`${method}\n${path}\n${query}`).digest('hex');
  return ask(server, method, `${path}?${query}&auth_signature=${signature}`, { headers: {}, body: body || undefined });
}

/** Lets in whoever says in the query who they are, and answers no message. */
const letIn = ({ event, request }) => (event === 'open' ? { user: request.query.user } : {});

/** A client, and what its connection is called. */
async function connected(server, backend, user) {
  const client = await server.connect(`/chat?user=${user}`);
  const opened = (await backend.until('open')).filter(({ request }) => request.query.user === user);
  return [client, opened.at(-1).connection];
}

describe('sending to connections', () => {
  let backend, server;
  before(async () => {
    backend = await Backend.start(letIn);
    server = await Server.start([{ path: '/chat', backend: backend.url }]);
  });
  after(async () => {
    await server.stop();
    await backend.stop();
  });

  test('a_connection_gets_what_is_sent_to_it_and_no_other_does', async () => {
    const [ann, id] = await connected(server, backend, 'ann');
    const [bob] = await connected(server, backend, 'bob');
    for (const [path, headers] of [
      [`/apps/1/connections/${id}/send`, BEARER],
      [`/connections/${id}/send`, BEARER],
      [`/@connections/${id}`, BEARER],
      [`/connections/${id}/send`, { authorization: `Basic ${btoa(`${APP.key}:${APP.secret}`)}` }],
    ]) {
      assert.deepEqual(await ask(server, 'POST', path, { headers, body: 'héllo' }), { status: 200, body: '{}' }, path);
      assert.equal(await ann.next(), 'héllo');
    }
    assert.equal((await signed(server, 'POST', `/apps/1/connections/${id}/send`, 'signed')).status, 200);
    assert.equal(await ann.next(), 'signed');
    for (const [body, type] of [[Buffer.from([0, 255]), 'text/plain'], [Buffer.from('abc'), 'application/octet-stream']]) {
      await ask(server, 'POST', `/connections/${id}/send`, { headers: { ...BEARER, 'content-type': type }, body });
      assert.deepEqual(await ann.next(), body);
    }
    assert.equal((await ask(server, 'GET', `/@connections/${id}`)).status, 200);
    assert.deepEqual(bob.messages, []);
    for (const client of [ann, bob]) client.terminate();
  });

  test('all_connections_of_a_user_get_what_is_sent_to_the_user', async () => {
    const [first] = await connected(server, backend, 'cid');
    const [second] = await connected(server, backend, 'cid');
    const [other] = await connected(server, backend, 'dan');
    for (const path of ['/apps/1/users/cid/send', '/users/cid/send']) {
      assert.equal((await ask(server, 'POST', path, { body: path })).status, 200);
      for (const client of [first, second]) {
        assert.deepEqual(await client.json(), { channel: '#server-to-user-cid', event: 'message', data: path });
      }
    }
    assert.equal((await signed(server, 'POST', '/apps/1/users/cid/terminate_connections', '')).status, 200);
    for (const client of [first, second]) await client.end();
    assert.deepEqual([other.messages, other.closed], [[], undefined]);
    other.terminate();
  });

  test('a_connection_is_closed_as_the_request_says_and_the_backend_is_told', async () => {
    for (const [method, path, body, code, reason] of [
      ['POST', 'connections/ID/close', undefined, 1000, ''],
      ['POST', 'apps/1/connections/ID/close', '{"code":4123,"reason":"kicked"}', 4123, 'kicked'],
      ['DELETE', '@connections/ID', undefined, 1000, ''],
    ]) {
      const [client, id] = await connected(server, backend, `closed-${path.length}`);
      assert.equal((await ask(server, method, `/${path.replace('ID', id)}`, { body })).status, 200);
      assert.deepEqual(await client.end(), { code, reason });
      for (const [again, where] of [['GET', `/@connections/${id}`], ['POST', `/connections/${id}/send`], ['DELETE', `/@connections/${id}`]]) {
        assert.equal((await ask(server, again, where, { body: again === 'POST' ? 'x' : undefined })).status, 410, where);
      }
    }
    const closed = await backend.until('close', 3);
    assert.ok(closed.some((event) => event.code === 4123));
  });

  test('an_answer_publishes_to_another_connection', async () => {
    const [ann, id] = await connected(server, backend, 'eve');
    const [bob] = await connected(server, backend, 'fay');
    backend.answerWith(({ event, data }) => (event === 'text' ? { publish: [{ connection: data, event: 'poke', data: { by: 'fay' } }] } : {}));
    bob.send(id);
    assert.deepEqual(await ann.json(), { channel: `#server-to-connection-${id}`, event: 'poke', data: { by: 'fay' } });
    backend.answerWith(letIn);
    for (const client of [ann, bob]) client.terminate();
  });

  test('strangers_and_mistakes_are_refused', async () => {
    const [client, id] = await connected(server, backend, 'gil');
    const send = (path, options) => ask(server, 'POST', path, { body: 'x', ...options }).then(({ status }) => status);
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { authorization: 'Digest x' }, { authorization: `Bearer ${APP.key}` }]) {
      assert.equal(await send(`/connections/${id}/send`, { headers }), 401, JSON.stringify(headers));
      assert.equal(await send('/users/gil/send', { headers }), 401, JSON.stringify(headers));
    }
    assert.equal(await send('/connections/1.2/send'), 410);
    assert.equal(await send('/connections/seven/send'), 400);
    assert.equal(await send(`/apps/2/connections/${id}/send`), 404);
    assert.equal(await send(`/connections/${id}/send`, { body: 'x'.repeat(200_000) }), 413);
    for (const body of ['{', '[]', '{"code":1006}', '{"code":999}', '{"code":"x"}', JSON.stringify({ reason: 'x'.repeat(124) })]) {
      assert.equal(await send(`/connections/${id}/close`, { body }), 400, body);
    }
    assert.deepEqual([client.messages, client.closed], [[], undefined]);
    // A channel of a connection is the server's: nobody subscribes or publishes there by its name.
    const event = JSON.stringify({ name: 'x', channels: [`#server-to-connection-${id}`], data: '{}' });
    assert.equal((await signed(server, 'POST', '/apps/1/events', event)).status, 400);
    const listed = await signed(server, 'GET', '/apps/1/channels', '');
    assert.deepEqual(JSON.parse(listed.body), { channels: {} });
    client.terminate();
  });
});

test('a_connection_is_found_on_whatever_node_it_is', async () => {
  const redis = await Redis.start();
  const backend = await Backend.start(letIn);
  const options = ['--cluster', `redis://127.0.0.1:${redis.port}`, '--cluster-ready', 'on'];
  const nodes = await Promise.all([0, 1].map(() => Server.start([{ path: '/chat', backend: backend.url }], { options })));
  try {
    for (const node of nodes) while ((await ask(node, 'GET', '/ready')).status !== 200);
    const [client, id] = await connected(nodes[0], backend, 'ann');
    // It is told to the engine a moment after the client is let in.
    const heard = client.hears(/^hello$/);
    let isOver = false;
    heard.then(() => { isOver = true; });
    while (!isOver) assert.ok([200, 202].includes((await ask(nodes[1], 'POST', `/connections/${id}/send`, { body: 'hello' })).status));
    client.messages.length = 0;
    assert.equal((await ask(nodes[1], 'POST', '/users/ann/send', { body: 'you' })).status, 200);
    await client.hears(/"you"/);
    assert.equal((await ask(nodes[0], 'GET', `/@connections/${id}`)).status, 200);
    assert.equal((await ask(nodes[1], 'GET', `/@connections/${id}`)).status, 202, 'another node may have it');
    assert.equal((await ask(nodes[1], 'POST', `/connections/${id}/close`, { body: '{"code":4001}' })).status, 202);
    assert.deepEqual(await client.end(), { code: 4001, reason: '' });
    const listed = await signed(nodes[1], 'GET', '/apps/1/channels', '');
    assert.deepEqual(JSON.parse(listed.body), { channels: {} });
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
    await backend.stop();
    await redis.stop();
  }
});

test('a_client_of_a_route_waits_until_its_node_has_a_place_of_those_that_the_nodes_share', async () => {
  const redis = await Redis.start();
  const backend = await Backend.start(letIn);
  const options = ['--cluster', `redis://127.0.0.1:${redis.port}`, '--cluster-ready', 'on', '--max-connections', '6'];
  const nodes = await Promise.all([0, 1].map(() => Server.start([{ path: '/chat', backend: backend.url }], { options })));
  try {
    for (const node of nodes) while ((await ask(node, 'GET', '/ready')).status !== 200);
    // None is refused, though each node has no place at first, and the other's places later.
    const clients = [];
    for (const node of [0, 1, 0, 1, 1, 1]) clients.push(await nodes[node].connect('/chat?user=ann'));
    assert.equal((await backend.until('open', 6)).length, 6);
    for (const node of nodes) {
      const { status, headers } = await node.refused('/chat?user=ann');
      assert.deepEqual([status, headers['retry-after'] !== undefined], [503, true]);
    }
    assert.equal((await backend.until('open', 6)).length, 6, 'the backend is not asked about who finds no place');
    clients[0].close();
    await clients[0].end();
    await backend.until('close');
    // The other node gives the place back a moment later.
    for (let left = 1000; clients.length === 6 && left > 0; left -= 1) {
      await nodes[1].connect('/chat?user=ann').then((client) => clients.push(client), (error) => assert.match(error.message, /503/));
    }
    assert.equal(clients.length, 7);
    for (const client of clients) client.terminate();
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
    await backend.stop();
    await redis.stop();
  }
});
