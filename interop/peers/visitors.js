/** Who comes through the proxies of recipes.js: a client, a backend that publishes, and requests. */
import assert from 'node:assert/strict';
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { on, once } from 'node:events';
import { request } from 'node:http';
import { request as secureRequest } from 'node:https';
import { WebSocket } from 'ws';
import { within } from '../browser/server.js';

export const PATIENCE = 10_000;
export const JSON_TYPE = { 'Content-Type': 'application/json' };

/** A client subscribes through the proxy, and hears what a backend publishes through it. */
export async function delivers(port, app, options) {
  const socket = await connect(port, app, options);
  socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'news' } }));
  assert.equal((await next(socket)).event, 'pusher_internal:subscription_succeeded');
  const answer = await publish(port, app, JSON.stringify({ name: 'headline', channel: 'news', data: 'it works' }), options);
  assert.equal(answer.status, 200, answer.body);
  assert.equal((await next(socket)).data, 'it works');
  socket.terminate();
}

/** A client without a WebSocket: it opens a stream, hears at once what comes, and what it sends by another request reaches the same node. */
export async function fallsBack(port, [, key]) {
  const session = randomBytes(6).toString('hex');
  const path = `/pusher/app/${key}/123/${session}`;
  const opening = request({ host: '127.0.0.1', port, method: 'POST', path: `${path}/xhr_streaming?protocol=7&client=js&version=8.6.0`, agent: false });
  const [stream] = await within(PATIENCE, once(opening.end(), 'response'), () => 'the stream did not open');
  let heard = '';
  const heardOf = (word) => new Promise((resolve, reject) => {
    const look = () => { if (heard.includes(word)) resolve(); };
    stream.on('data', look).on('close', () => reject(new Error(`the stream ended after ${heard}`)));
    look();
  });
  stream.setEncoding('utf8').on('data', (text) => { heard += text; });
  try {
    await within(PATIENCE, heardOf('connection_established'), () => heard);
    const body = JSON.stringify([JSON.stringify({ event: 'pusher:subscribe', data: { channel: 'news' } })]);
    const { status, body: answer } = await ask(port, 'POST', `${path}/xhr_send`, { headers: JSON_TYPE, body });
    assert.equal(status, 204, `what the session sent went elsewhere: ${answer}`);
    await within(PATIENCE, heardOf('subscription_succeeded'), () => heard);
  } finally {
    stream.on('error', () => {}).destroy();
  }
}

/** An open connection, which has been greeted. With the certificate `ca` it is over TLS. */
export async function connect(port, [, key], { ca } = {}) {
  const path = `/app/${key}?protocol=7&client=js&version=8.6.0&flash=false`;
  const socket = new WebSocket(`${ca ? 'wss' : 'ws'}://127.0.0.1:${port}${path}`, { ca });
  socket.messages = on(socket, 'message');
  assert.equal((await next(socket)).event, 'pusher:connection_established');
  return socket;
}

/** The next message, whether it has come already or is still to come. */
export async function next(socket) {
  const { value: [message] } = await within(PATIENCE, socket.messages.next(), () => `no message came (${socket.url})`);
  return JSON.parse(message);
}

/** Publishes as a backend does, by a signed request (https://pusher.com/docs/channels/library_auth_reference/rest-api/). */
export function publish(port, [id, key, secret], body, { call = 'events', ...options } = {}) {
  const path = `/apps/${id}/${call}`;
  const digest = createHash('md5').update(body).digest('hex');
  const query = `auth_key=${key}&auth_timestamp=${Math.floor(Date.now() / 1000)}&auth_version=1.0&body_md5=${digest}`;
  const signature = createHmac('sha256', secret).update(`POST\n${path}\n${query}`).digest('hex');
  return ask(port, 'POST', `${path}?${query}&auth_signature=${signature}`, { headers: JSON_TYPE, body, ...options });
}

/** One request on a connection of its own, unless there is an agent. */
export async function ask(port, method, path, { headers = {}, body, agent = false, ca } = {}) {
  const length = body === undefined ? {} : { 'Content-Length': Buffer.byteLength(body) };
  const options = { host: '127.0.0.1', port, method, path, headers: { ...headers, ...length }, agent, ca };
  const asking = ca ? secureRequest(options) : request(options);
  const answered = async () => {
    const [response] = await once(asking.end(body), 'response');
    const answer = { status: response.statusCode, headers: response.headers, body: '' };
    // A stream of events would not end by itself.
    if (/event-stream/.test(response.headers['content-type'])) {
      response.destroy();
      return answer;
    }
    for await (const part of response.setEncoding('utf8')) answer.body += part;
    return answer;
  };
  return within(PATIENCE, answered(), () => `${method} ${path} was not answered`);
}
