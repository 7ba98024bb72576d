/** A backend: publishes and asks over HTTP, one request after the other, each signed, and everything goes into the history. */
import { createHash } from 'node:crypto';
import { APP, hmac } from './client.js';

/** Milliseconds after which a request counts as not answered. */
const PATIENCE = 10_000;

export class Publisher {
  static #count = 0;
  #history; #number = 0;

  constructor(history) {
    this.id = `p${(Publisher.#count += 1)}`;
    this.#history = history;
  }

  /** Publishes one event to a channel, or to several, and gives {status, body}. */
  async publish(node, channels, { name = 'tick', exclude, info } = {}) {
    const names = [channels].flat();
    const entry = this.#publish(node, names, exclude);
    const body = { name, channels: names, data: JSON.stringify(entry), ...(exclude && { socket_id: exclude }), ...(info && { info }) };
    return this.#answered(node, [entry], '/events', body);
  }

  /** Publishes one event to each channel in one request. */
  async batch(node, channels, { name = 'tick' } = {}) {
    const entries = channels.map((channel) => this.#publish(node, [channel]));
    const batch = channels.map((channel, index) => ({ name, channel, data: JSON.stringify(entries[index]) }));
    return this.#answered(node, entries, '/batch_events', { batch });
  }

  /** A request that is not in the history as a publish: POST with a body, else GET. */
  async request(node, path, body, parameters = {}) {
    const asked = performance.now();
    try {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const response = await fetch(`http://${node.host}:${node.port}${signed(path, text, parameters)}`, {
        method: text === undefined ? 'GET' : 'POST',
        ...(text !== undefined && { body: text, headers: { 'content-type': 'application/json' } }),
        signal: AbortSignal.timeout(PATIENCE),
      });
      const answer = await response.text();
      return { status: response.status, took: performance.now() - asked, body: response.headers.get('content-type')?.includes('json') ? JSON.parse(answer) : answer };
    } catch (error) {
      return { status: 0, took: performance.now() - asked, body: String(error.cause ?? error) };
    }
  }

  /** The channels' list as a node tells it, or one channel. */
  async channels(node, parameters) { return this.#query(node, '/channels', {}, parameters); }
  async channel(node, name, parameters) { return this.#query(node, `/channels/${encodeURIComponent(name)}`, { channel: name }, parameters); }

  /** The users of a presence channel as a node tells them, sorted. `settled`: they must be those who are there. */
  async users(node, channel, { settled = false } = {}) {
    const answer = await this.request(node, `/channels/${encodeURIComponent(channel)}/users`);
    const users = answer.body?.users?.map(({ id }) => id).sort();
    this.#history.add('query', { node: node.name, path: 'users', channel, status: answer.status, took: answer.took, users, settled });
    return users;
  }

  async #query(node, path, more, parameters) {
    const answer = await this.request(node, path, undefined, parameters);
    this.#history.add('query', { node: node.name, path, status: answer.status, took: answer.took, ...more });
    return answer;
  }

  #publish(node, channels, exclude) {
    const entry = { by: this.id, number: (this.#number += 1) };
    this.#history.add('publish', { ...entry, node: node.name, channels, exclude, via: 'http' });
    return entry;
  }

  async #answered(node, entries, path, body) {
    const { status, took, body: answer } = await this.request(node, path, body);
    for (const entry of entries) this.#history.add('published', { ...entry, status, took });
    return { status, took, body: answer };
  }
}

/** The path with what Pusher's API wants in its query. */
function signed(path, body, more) {
  const parameters = {
    auth_key: APP.key,
    auth_timestamp: Math.floor(Date.now() / 1000),
    auth_version: '1.0',
    ...(body !== undefined && { body_md5: createHash('md5').update(body).digest('hex') }),
    ...more,
  };
  const sorted = Object.keys(parameters).sort();
  const method = body === undefined ? 'GET' : 'POST';
  const signature = hmac(`${method}\n/apps/${APP.id}${path}\n${sorted.map((key) => `${key}=${parameters[key]}`).join('&')}`);
  return `/apps/${APP.id}${path}?${sorted.map((key) => `${key}=${encodeURIComponent(parameters[key])}`).join('&')}&auth_signature=${signature}`;
}
