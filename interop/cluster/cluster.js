/** Three nodes of `taut serve` on one engine, each behind a proxy of its own, with clients, publishers and webhooks, and one history of all of it. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../peers/programs.js';
import { REPAIR, check } from './checker.js';
import { APP, Client } from './client.js';
import { History, line } from './history.js';
import { Hooks } from './hooks.js';
import { Nats } from './nats.js';
import { Proxy } from './proxy.js';
import { Publisher } from './publisher.js';
import { Redis } from './redis.js';

const TAUT = process.env.TAUT_BIN;

/** The program before the last change of what nodes say to each other, as ./before builds it. */
export const BEFORE = process.env.TAUT_BIN_BEFORE;

/** What these tests are told by variables is no setting of the program, which refuses names that look like its own. */
const UNSET = Object.keys(process.env).filter((name) => name.startsWith('TAUT_')).flatMap((name) => ['-u', name]);

/**
 * `cluster`, or `mixed`, where node b is the program before; and for seeing what the tests see: `alone`, one node is all three; `apart`, the nodes know
 * nothing of each other.
 */
export const SHAPE = process.env.TAUT_CLUSTER_SHAPE ?? 'cluster';

/** `redis`, or `nats`. */
const ENGINE = process.env.TAUT_CLUSTER_ENGINE ?? 'redis';

/** For tests of what Redis alone has or does. */
export const onRedis = ENGINE === 'redis' ? {} : { skip: `this is about Redis, and the engine is ${ENGINE}` };

/** Seconds of a lease in these tests. */
const LEASE = 3;

/** Milliseconds from a webhook's event to its request: removals are held back for three seconds. */
const WEBHOOK_GRACE = 3500;

const PROBE_WITHIN = 400;
const WHOLE_WITHIN = 20_000;

export class Cluster {
  static #count = 0;
  history = new History();
  nodes = [];
  #isGuest; #folder; #options; #programs; #prefix; #probes = new Map(); #probe = 0; #clients = [];

  /**
   * Starts an engine and `size` nodes, called a, b, c …; `app` is more of the app's configuration, `options` more of the command line, `engine` of the
   * engine's. With `beside`, another cluster, they share that one's engine. `programs` are those of single nodes, by name, where they are not the one
   * under test. `network` has a namespace for each node and for the engine (namespaces.js): its links are in the place of proxies.
   */
  static async start({ size = 3, lease = LEASE, app = {}, options = [], engine, beside, network, programs = SHAPE === 'mixed' ? { b: BEFORE } : {} } = {}) {
    const cluster = new Cluster();
    Object.assign(cluster, { lease: lease * 1000, publisher: new Publisher(cluster.history) });
    try {
      cluster.engine = beside?.engine ?? await { redis: Redis, nats: Nats }[ENGINE].start(engine, network?.engine);
      cluster.#isGuest = beside !== undefined;
      Object.assign(cluster, { network });
      cluster.#programs = programs;
      cluster.hooks = await Hooks.start(cluster.history, network?.host);
      cluster.#folder = await mkdtemp(join(tmpdir(), 'taut-cluster-'));
      cluster.#prefix = `test-${(Cluster.#count += 1)}`;
      cluster.#options = ['--config', join(cluster.#folder, 'taut.toml'), '--drain-timeout', '1', ...options];
      await writeFile(join(cluster.#folder, 'taut.toml'), toml({ ...APP, subscription_count: true, watchlist: true, webhooks: [{ url: cluster.hooks.url }], ...app }));
      for (const name of [...'abcdefghijklmnopqrstuvwxyz'].slice(0, size)) cluster.nodes.push(await cluster.#node(name));
      // Who comes before is let in whatever the limits are.
      if (!['alone', 'apart'].includes(SHAPE)) await Promise.all(cluster.nodes.map(({ program }) => program.until(/has joined the cluster/)));
    } catch (error) {
      await cluster.#end().catch(() => {});
      throw error;
    }
    return cluster;
  }

  /** Starts one more node. */
  async grow() {
    const node = await this.#node(String.fromCharCode('a'.charCodeAt(0) + this.nodes.length));
    this.nodes.push(node);
    return node;
  }

  // ---- who uses it

  async client(node) {
    const client = await Client.open(this.history, node);
    this.#clients.push(client);
    return client;
  }

  /** Connects to a node and joins a channel. */
  async member(node, channel, member) {
    const client = await this.client(node);
    await client.join(channel, member);
    return client;
  }

  /** A backend for each node, which publishes there, one event after the other, while the node lives: until the signal. */
  async publishing(channels, signal, breath = 100) {
    await Promise.all(this.nodes.map(async (node) => {
      const backend = this.backend();
      while (!signal.aborted) {
        if (!node.dead) await backend.publish(node, channels);
        await passed(breath);
      }
    }));
  }

  /** Another backend: the order of what it publishes has nothing to do with that of others. */
  backend() { return new Publisher(this.history); }

  // ---- what goes wrong: the history hears of it before it happens, and of its end when it is over

  get living() { return this.nodes.filter(({ dead }) => !dead); }

  async kill(...nodes) {
    for (const node of nodes) {
      this.#fault('killed', node);
      node.dead = true;
      this.#probes.delete(node.name);
    }
    await Promise.all(nodes.map(({ program }) => program.stop('SIGKILL')));
  }

  /** Ends a node as a rolling upgrade does. */
  async drain(node) {
    this.#fault('drained', node);
    node.dead = true;
    this.#probes.delete(node.name);
    assert.equal(await node.program.stop('SIGTERM'), 0, node.program.output);
    this.#healed('drained', node);
  }

  /** Starts a node again that was killed or drained, at the same port and with the same name, and from now on with this program, if one is given. */
  async revive(node, program) {
    if (program) this.#programs = { ...this.#programs, [node.name]: program };
    node.program = await this.#program(node.name, node.port, node.proxy);
    node.dead = false;
    this.#healed('killed', node);
  }

  pause(node) { this.#fault('paused', node); node.program.signal('SIGSTOP'); }
  resume(node) { node.program.signal('SIGCONT'); this.#healed('paused', node); }

  cut(node) { this.#fault('cut', node); node.proxy.cut(); }
  stall(node, ...directions) { this.#fault('stalled', node); node.proxy.stall(...directions); }
  delay(node, ms) { this.#fault('slowed', node); node.proxy.delay(ms); }
  throttle(node, rate) { this.#fault('slowed', node); node.proxy.throttle(rate); }

  /** Ends whatever is wrong between a node and the engine. */
  heal(node) {
    node.proxy.heal();
    for (const fault of ['cut', 'stalled', 'slowed']) this.#healed(fault, node);
  }

  async killEngine() { this.#fault('engine-killed'); await this.engine.kill(); }
  async reviveEngine() { await this.engine.restart(); this.#healed('engine-killed'); }
  pauseEngine() { this.#fault('engine-paused'); this.engine.pause(); }
  resumeEngine() { this.engine.resume(); this.#healed('engine-paused'); }

  /** Redis closes the connections of a type, `pubsub` or `normal`; on another engine all are closed. */
  async dropConnections(type) {
    this.#fault('engine-dropped');
    if (ENGINE === 'redis') await this.engine.command('CLIENT', 'KILL', 'TYPE', type);
    else for (const { proxy } of this.living) proxy.drop();
    this.#healed('engine-dropped');
  }

  /** Tells Redis to be in some state, and to be in it no more. */
  async breakEngine(state, ...command) { this.#fault(`engine-${state}`); return this.engine.command(...command); }
  async mendEngine(state, ...command) {
    if (command.length) await this.engine.command(...command);
    this.#healed(`engine-${state}`);
  }

  /** The engine forgets everything, and closes no connection. */
  async forgetAll() {
    this.#fault('engine-forgetful');
    await this.engine.forget(this.#prefix);
    this.#healed('engine-forgetful');
  }

  #fault(fault, node) { this.history.add('fault', { fault, node: node?.name }); }

  #healed(fault, node) {
    const open = this.history.matching({ kind: 'fault', fault, node: node?.name }).length > this.history.matching({ kind: 'healed', fault, node: node?.name }).length;
    if (open) this.history.add('healed', { fault, node: node?.name });
  }

  // ---- what is true in the end

  /** Waits until what is published on any living node comes to clients of every other, and gives how many milliseconds that took. */
  async whole(patience = WHOLE_WITHIN) {
    const asked = performance.now();
    while (SHAPE !== 'apart' && !await this.#isWhole()) {
      if (performance.now() - asked > patience) throw new Error(`the nodes do not hear of each other within ${patience} ms\n${this.logs()}`);
    }
    this.history.add('whole');
    return performance.now() - asked;
  }

  /** Waits until the engine has been there for a lease: before, it keeps those whom it does not know, as it may have forgotten them. */
  async seasoned() {
    await this.whole();
    await passed(this.lease);
  }

  async #isWhole() {
    for (const node of this.living) {
      if (!this.#probes.get(node.name)?.isOpen) this.#probes.set(node.name, await this.member(node, 'probe'));
    }
    const expected = [];
    for (const node of this.living) {
      const data = `probe ${(this.#probe += 1)}`;
      const { status } = await this.publisher.request(node, '/events', { name: 'probe', channels: ['probe'], data });
      if (status !== 200) return this.#pause();
      for (const probe of this.#probes.values()) expected.push(this.history.until({ kind: 'event', client: probe.id, data }, 1, PROBE_WITHIN).then(() => true, () => false));
    }
    return (await Promise.all(expected)).every((came) => came) || this.#pause();
  }

  async #pause() {
    await passed(100);
    return false;
  }

  /** Waits as long as the cluster may need to tell everything, and asks each node who is in each presence channel. */
  async settle({ webhooks = false } = {}) {
    await passed(this.lease + REPAIR + (webhooks ? WEBHOOK_GRACE : 0));
    this.history.add('settled', { webhooks });
    const channels = new Set(this.history.matching({ kind: 'subscribe' }).map(({ channel }) => channel).filter((channel) => channel.startsWith('presence-')));
    for (const node of this.living) for (const channel of channels) await this.publisher.users(node, channel, { settled: true });
  }

  violations(options = {}) { return check(this.history.entries, { ...this.promised, ...options }); }

  /** What the checker has to know of this cluster. */
  get promised() { return { lease: this.lease, forgets: ENGINE === 'nats' }; }

  /** Fails if the history is not as it must be. */
  check(options) {
    const violations = this.violations(options);
    if (!violations.length) return;
    const { at } = violations[0];
    const around = this.history.entries.filter((entry) => Math.abs(entry.at - at) < 500 || entry.kind === 'fault' || entry.kind === 'healed' || entry.kind === 'whole');
    const told = violations.slice(0, 20).map((one) => `${(one.at / 1000).toFixed(3)} ${one.rule}: ${one.text}`);
    assert.fail(`${violations.length} violations:\n${told.join('\n')}\n\naround the first:\n${around.slice(0, 150).map(line).join('\n')}\n\n${this.logs()}`);
  }

  logs() { return this.nodes.map(({ name, program }) => `---- node ${name}\n${program.output.slice(-3000)}`).join('\n'); }

  /** Ends everything; the nodes that live have to end well. */
  async stop() {
    const codes = await this.#end();
    for (const [name, code] of codes) assert.equal(code, 0, `node ${name}\n${this.logs()}`);
    for (const { program } of this.nodes) assert.doesNotMatch(program.output, /panicked/);
  }

  async #end() {
    const codes = await Promise.all(this.living.filter((node) => node.twin === undefined).map(async ({ name, program }) => {
      program.signal('SIGCONT');
      return [name, await program.stop()];
    }));
    for (const { proxy } of this.nodes) await proxy.stop();
    await this.hooks?.stop();
    if (!this.#isGuest) await this.engine?.stop();
    if (this.#folder) await rm(this.#folder, { recursive: true });
    return codes;
  }

  async #node(name) {
    const proxy = this.network?.link(name) ?? await Proxy.start(() => this.engine.port);
    if (SHAPE === 'alone' && this.nodes.length) return { ...this.nodes[0], name, proxy, twin: this.nodes[0] };
    const program = await this.#program(name, 0, proxy);
    return { name, program, proxy, host: proxy.node.host, port: program.port, dead: false };
  }

  async #program(name, port, proxy) {
    const together = ['alone', 'apart'].includes(SHAPE) ? [] : [
      '--cluster', `${this.engine.scheme}://${proxy.host}:${proxy.port}`, '--cluster-prefix', this.#prefix, '--cluster-lease', `${this.lease / 1000}`, '--cluster-name', name];
    const { within, host } = proxy.node;
    return Program.listening(...within, 'env', ...UNSET, this.#programs[name] ?? TAUT, 'serve', '--listen', `${host}:${port}`, '--shards', '2', ...this.#options, ...together);
  }
}

/** Time that has to pass because time is what is tested: a lease, an outage. What can be waited for is waited for. */
export const passed = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** The same name with a number that no other test of this process has. */
export const fresh = (name) => `${name}-${(freshest += 1)}`;
let freshest = 0;

function toml(app) {
  return `[[apps]]\n${Object.entries(app).map(([key, value]) => `${key} = ${inline(value)}\n`).join('')}`;
}

function inline(value) {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([key, part]) => `${key} = ${inline(part)}`).join(', ')} }`;
}
