/**
 * Random rounds: users come, go and move between three nodes and publish, while nodes, engine and network fail, all by a schedule that a seed draws in
 * advance. In the end everything is healed, and the checker reads the history.
 */
import { Cluster, passed } from './cluster.js';
import { report } from './checker.js';
import { Client } from './client.js';

const NODES = ['a', 'b', 'c'];
const USERS = Array.from({ length: 8 }, (_, index) => `user-${index}`);
const PRESENCE = ['presence-one', 'presence-two'];
const OTHERS = ['news', 'private-doc'];

/** Milliseconds of a round in which something happens. */
const LENGTH = 6000;

/** The faults with their weights, and how long each may last in milliseconds: shorter and longer than a lease. */
const FAULTS = [
  ['kill', 4, 300, 2500],
  ['kill-two', 1, 300, 2500],
  ['pause', 4, 200, 5500],
  ['cut', 4, 200, 5500],
  ['stall-up', 2, 200, 5500],
  ['stall-down', 2, 200, 5500],
  ['delay', 2, 500, 3000],
  ['throttle', 1, 500, 3000],
  ['kill-engine', 3, 100, 4500],
  ['pause-engine', 2, 100, 4500],
  ['drop-pubsub', 2, 0, 0],
  ['drop-normal', 2, 0, 0],
  ['drain', 2, 300, 2500],
];

/** What a user may do, with weights. */
const ACTIONS = [['join', 30], ['leave', 18], ['move', 8], ['unsubscribe', 6], ['publish', 30], ['batch', 4], ['trigger', 10], ['query', 6]];

/** The schedule of a seed: steps {at, act, …} by time. It depends on nothing else. */
export function schedule(seed) {
  const random = generator(seed);
  const between = (low, high) => low + Math.floor(random() * (high - low + 1));
  const one = (list) => list[between(0, list.length - 1)];
  const weighted = (list) => {
    let left = random() * list.reduce((sum, [, weight]) => sum + weight, 0);
    return list.find(([, weight]) => (left -= weight) < 0) ?? list.at(-1);
  };
  const steps = [];
  let actors = 0;
  const join = (at) => steps.push({ at, act: 'join', actor: (actors += 1), node: one(NODES), user: one(USERS), channels: [one(PRESENCE), ...OTHERS.filter(() => random() < 0.7)] });
  for (let first = 0; first < 9; first += 1) join(first * 10);
  for (let at = 200; at < LENGTH; at += between(5, 90)) {
    const [act] = weighted(ACTIONS);
    const actor = between(1, actors);
    if (act === 'join') join(at);
    else if (act === 'move') steps.push({ at, act: 'leave', actor }, { at: at + between(0, 40), act: 'join', actor: (actors += 1), like: actor, node: one(NODES) });
    else steps.push({ at, act, actor, node: one(NODES), backend: between(0, 1), channels: [...PRESENCE, ...OTHERS].filter(() => random() < 0.4), excludes: random() < 0.3 });
  }
  for (let count = between(1, 2); count > 0; count -= 1) {
    const [fault, , low, high] = weighted(FAULTS);
    const at = between(800, LENGTH / 2);
    const nodes = fault === 'kill-two' ? NODES.toSorted(() => random() - 0.5).slice(0, 2) : [one(NODES)];
    steps.push({ at, act: 'fault', fault, nodes }, { at: at + between(low, high), act: 'heal', fault, nodes });
  }
  return steps.sort((x, y) => x.at - y.at);
}

/** Plays the schedule of a seed on a cluster of its own, and gives {seed, violations, report, text}. `options` are the cluster's. */
export async function round(seed, options) {
  const steps = schedule(seed);
  const cluster = await Cluster.start(options);
  try {
    await cluster.seasoned();
    const stage = new Stage(cluster);
    const started = performance.now();
    for (const step of steps) {
      await passed(Math.max(0, step.at - (performance.now() - started)));
      stage.act(step);
    }
    await stage.end();
    const healed = performance.now();
    await cluster.whole();
    const whole = performance.now() - healed;
    await stage.afterwards();
    await cluster.settle({ webhooks: true });
    let text = '';
    try {
      cluster.check();
    } catch (error) {
      text = error.message;
    }
    return { seed, violations: cluster.violations(), report: { ...report(cluster.history.entries, cluster.promised), 'whole again, ms': Math.round(whole) }, text, faults: faults(steps) };
  } finally {
    await cluster.stop();
  }
}

/** The faults of a schedule, to be read. */
export const faults = (steps) => steps.filter(({ act }) => act === 'fault' || act === 'heal').map(({ at, act, fault, nodes }) => `${at} ms ${act === 'heal' ? 'end of ' : ''}${fault}${/engine|drop/.test(fault) ? '' : ` ${nodes}`}`).join(', ');

/** Those who play: clients by number, and two backends that publish one event after the other. */
class Stage {
  #cluster; #actors = new Map(); #open = new Map(); #works = []; #queues; #backends;

  constructor(cluster) {
    this.#cluster = cluster;
    this.#backends = [cluster.backend(), cluster.backend()];
    this.#queues = [Promise.resolve(), Promise.resolve()];
  }

  act(step) {
    const work = this[step.act](step);
    if (work) this.#works.push(work);
  }

  join({ actor, like, node: name, user, channels }) {
    const before = this.#actors.get(like);
    const node = this.#node(name);
    if (node.dead || (like !== undefined && !before)) return;
    const client = new Client(this.#cluster.history, node);
    const self = { client, user: user ?? before.user, channels: channels ?? before.channels };
    this.#actors.set(actor, self);
    const { history } = this.#cluster;
    // It may never come in: its node dies. Whether a living one lets everybody in is for the checker to say.
    self.ready = Promise.race([history.until({ kind: 'open', client: client.id }, 1, 30_000).then(() => true), history.until({ kind: 'closed', client: client.id }, 1, 60_000).then(() => false)]);
    self.ready.catch(() => {});
    this.#with(actor, () => {
      for (const channel of self.channels) client.subscribe(channel, channel.startsWith('presence-') ? self.user : undefined);
    });
  }

  leave({ actor }) {
    return this.#with(actor, ({ client }) => client.isOpen && client.leave());
  }

  unsubscribe({ actor }) {
    return this.#with(actor, ({ client, channels }) => { if (client.isOpen && channels.length) client.unsubscribe(channels.pop()); });
  }

  trigger({ actor }) {
    return this.#with(actor, ({ client, channels }) => {
      const [channel] = channels.filter((one) => client.heard('subscribed', { channel: one }).length);
      if (client.isOpen && channel?.startsWith('p')) client.trigger(channel);
    });
  }

  publish({ backend, node, channels, excludes, actor }) {
    const exclude = excludes ? this.#actors.get(actor)?.client.socketId : undefined;
    if (channels.length) this.#queue(backend, node, (publisher, at) => publisher.publish(at, channels, { exclude }));
  }

  batch({ backend, node, channels }) {
    if (channels.length) this.#queue(backend, node, (publisher, at) => publisher.batch(at, channels));
  }

  query({ node }) {
    if (this.#node(node).dead) return undefined;
    return Promise.all([this.#backends[0].channels(this.#node(node)), this.#backends[1].users(this.#node(node), PRESENCE[0])]);
  }

  fault({ fault, nodes: names }) {
    const nodes = names.map((name) => this.#node(name)).filter((node) => !node.dead && !node.busy);
    const cluster = this.#cluster;
    if (fault.endsWith('engine') && this.#open.size) return undefined;
    if (!fault.endsWith('engine') && !nodes.length) return undefined;
    this.#open.set(`${fault} ${names}`, { fault, nodes: names });
    const [node] = nodes;
    switch (fault) {
      case 'kill': case 'kill-two': return cluster.kill(...nodes);
      case 'drain': node.busy = true; return cluster.drain(node);
      case 'pause': node.busy = true; return cluster.pause(node);
      case 'cut': node.busy = true; return cluster.cut(node);
      case 'stall-up': node.busy = true; return cluster.stall(node, 'up');
      case 'stall-down': node.busy = true; return cluster.stall(node, 'down');
      case 'delay': node.busy = true; return cluster.delay(node, 150);
      case 'throttle': node.busy = true; return cluster.throttle(node, 20_000);
      case 'kill-engine': return cluster.killEngine();
      case 'pause-engine': return cluster.pauseEngine();
      default: return [...this.#open.values()].some((one) => one.fault.endsWith('engine')) ? undefined : cluster.dropConnections(fault.slice('drop-'.length));
    }
  }

  async heal({ fault, nodes: names }) {
    if (!this.#open.delete(`${fault} ${names}`)) return;
    const cluster = this.#cluster;
    if (fault === 'kill-engine') await cluster.reviveEngine();
    else if (fault === 'pause-engine') cluster.resumeEngine();
    else if (!fault.startsWith('drop-')) for (const name of names) await this.#restore(this.#node(name));
  }

  /** Ends every fault that is still there, and waits for what was begun. */
  async end() {
    for (const one of [...this.#open.values()]) await this.heal(one);
    await Promise.all(this.#works);
    await Promise.all(this.#queues);
  }

  /** When all is well again, everything that is published must come. */
  async afterwards() {
    for (const node of this.#cluster.living) await this.#backends[0].publish(node, [...PRESENCE, ...OTHERS]);
    for (const { client } of this.#actors.values()) if (client.isOpen) await client.caughtUp();
  }

  async #restore(node) {
    const cluster = this.#cluster;
    if (node.dead) {
      await node.program.end();
      await cluster.revive(node);
    } else if (node.busy) {
      cluster.resume(node);
      cluster.heal(node);
    }
    node.busy = false;
  }

  #node(name) { return this.#cluster.nodes.find((node) => node.name === name); }

  /** Does something with an actor that is connected. */
  #with(actor, action) {
    const self = this.#actors.get(actor);
    return self?.ready.then((open) => open && action(self), () => {});
  }

  #queue(backend, name, publish) {
    this.#queues[backend] = this.#queues[backend].then(() => {
      const node = this.#node(name);
      return node.dead ? undefined : publish(this.#backends[backend], node);
    });
  }
}

/** Numbers between 0 and 1 that depend on the seed alone (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
