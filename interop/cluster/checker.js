/**
 * What must be true of a history (history.js), whatever happened in it. Pure: a list of entries in, a list of violations out.
 *
 * A promise holds within `slack` milliseconds where nothing is wrong. After a fault it holds again `lease + REPAIR` after its end, and a checker that
 * compares what a client was told with who was there looks back to before the fault: only who was there, or was not, all that time must be seen so.
 */

/** Milliseconds that the cluster has, after a lease, to find out and to tell. */
export const REPAIR = 3000;

/** Before its lease ends a node stops counting on it. */
const MARGIN = 2000;

/** Milliseconds after which a signal or a cut has surely taken effect. */
const EFFECT = 50;

/** Milliseconds for which webhooks hold a removal back. */
const HELD_BACK = 3000;

/** Milliseconds that a query may take. */
const QUERY = 1000;

/** The faults between a node and its engine, and those of the engine: nothing that is published during them can be acknowledged. */
const SEPARATES = ['cut', 'stalled', 'engine-killed', 'engine-paused'];

/** The faults during which a node, or each node, cannot renew its lease. An engine without memory is another matter: its nodes bring everybody back. */
const SUSPENDS = ['paused', 'cut', 'stalled', 'engine-paused', 'engine-busy'];

/**
 * The violations of a history: {rule, at, text}, by time. The rules are the letters of `RULES`.
 * `lease` and `slack` in milliseconds; `grace` as the app's presence-grace; `local`: the app wants publishes delivered locally while the engine is away;
 * `forgets`: the nodes, and not the engine, keep what webhooks have not been told.
 */
export function check(entries, { lease, slack = 1000, grace = 0, local = false, forgets = false }) {
  const world = new World(entries, { lease, slack, grace });
  const found = [];
  const violation = (rule, at, text) => found.push({ rule, at, text });
  for (const rule of [members, removals, webhooks, order, losses, answers, queries, closes, subscriptions]) rule(world, violation, { local, forgets });
  return found.sort((a, b) => a.at - b.at);
}

/** What each rule says, by the name that a violation has. */
export const RULES = {
  'added-twice': 'a client is told of a member that is in its list already',
  'removed-stranger': 'a client is told that somebody left who is not in its list',
  'list-doubled': 'a list has the same member twice',
  'false-removal': 'a client is told that somebody left who was there all the time',
  'false-arrival': 'a client is told of somebody who is not there',
  'missing-member': 'a list lacks somebody who was there all the time',
  ghost: 'a list has somebody who is not there',
  unequal: 'after quiet the lists are not what is there',
  'late-removal': 'the users of a dead node are not gone within the lease and three seconds',
  webhook: 'webhooks tell a change twice without a fault, one that was not, or none of one that was',
  double: 'a message comes twice',
  order: 'the messages of a publisher come in another order',
  loss: 'a message that was acknowledged does not come',
  excluded: 'a message comes to the connection that it excludes',
  'silently-local': 'a publish is acknowledged although the engine was away',
  unanswered: 'a request or a subscription is not answered',
  refused: 'a publish is refused although nothing is wrong',
  slow: 'a query takes longer than a second',
  closed: 'a connection is closed by a node that goes on',
};

/** What a history shows, in numbers, to be added up over many. */
export function report(entries, { lease, slack = 1000, grace = 0, forgets = false }) {
  const world = new World(entries, { lease, slack, grace });
  const violations = check(entries, { lease, slack, grace, forgets });
  const count = (...rules) => violations.filter(({ rule }) => rules.includes(rule)).length;
  const owed = deliveries(world);
  const removed = [];
  removals(world, () => {}, {}, (ms) => removed.push(ms));
  return {
    entries: entries.length,
    acknowledged: world.publishes.filter(({ status }) => status === 200).length,
    refused: world.publishes.filter(({ status }) => status === 503).length,
    promised: owed.filter(({ excused }) => !excused).length,
    losses: count('loss'),
    'lost in faults': owed.filter(({ excused, came }) => excused && !came).length,
    doubles: count('double', 'added-twice', 'list-doubled'),
    ghosts: count('ghost', 'unequal', 'late-removal', 'false-arrival'),
    flickers: count('false-removal', 'missing-member'),
    others: violations.length - count('loss', 'double', 'added-twice', 'list-doubled', 'ghost', 'unequal', 'late-removal', 'false-arrival', 'false-removal', 'missing-member'),
    'last removal, ms': Math.round(Math.max(0, ...removed)),
  };
}

// ---- what happened, as the rules need it ---------------------------------------------------------------------------------

class World {
  connections = new Map(); // client → {node, socketId, opened, leaving, closed, left}
  subscriptions = []; // {client, channel, user, node, asked, confirmed, leaving}
  faults = []; // {fault, node, start, end, whole}
  publishes = []; // {by, number, node, channels, exclude, via, at, status, answered}
  received = new Map(); // `client channel by number` → times

  constructor(entries, { lease, slack, grace }) {
    Object.assign(this, { entries, lease, slack, grace, ended: entries.at(-1)?.at ?? 0 });
    const published = new Map();
    for (const entry of entries) this.#take(entry, published);
    for (const fault of this.faults) {
      if (fault.fault === 'killed') fault.end = fault.start;
      fault.whole ??= Math.min(fault.end + this.recovery, this.ended + this.recovery);
    }
    this.byChannel = grouped(this.subscriptions);
  }

  get recovery() { return this.lease + REPAIR; }

  #take(entry, published) {
    const { at, client, channel } = entry;
    switch (entry.kind) {
      case 'open':
        return this.connections.set(client, { node: entry.node, socketId: entry.socketId, opened: at, leaving: Infinity, closed: Infinity });
      case 'leaving':
        this.connections.get(client).left = true;
        return this.#end(client, at);
      case 'closed': {
        const connection = this.connections.get(client);
        if (connection) Object.assign(connection, { closed: at, code: entry.code });
        return this.#end(client, at);
      }
      case 'subscribe':
        return this.subscriptions.push({ client, channel, user: entry.user, node: this.connections.get(client)?.node, asked: at, confirmed: Infinity, leaving: Infinity });
      case 'subscribed': {
        const asked = this.#open(client, channel).find(({ confirmed }) => confirmed === Infinity);
        if (asked) asked.confirmed = at;
        return undefined;
      }
      case 'unsubscribe': {
        for (const subscription of this.#open(client, channel)) subscription.leaving = at;
        return undefined;
      }
      case 'fault': {
        this.faults.push({ fault: entry.fault, node: entry.node, start: at, end: Infinity });
        if (entry.fault !== 'killed') return undefined;
        for (const [name, { node }] of this.connections) if (node === entry.node) this.#end(name, at);
        return undefined;
      }
      case 'healed': {
        const fault = this.faults.find((one) => one.end === Infinity && one.fault === entry.fault && one.node === entry.node);
        if (fault) fault.end = at;
        return undefined;
      }
      case 'whole': {
        for (const fault of this.faults) if (fault.end !== Infinity) fault.whole ??= at;
        return undefined;
      }
      case 'publish': {
        const publish = { ...entry, status: undefined, answered: Infinity };
        published.set(`${entry.by} ${entry.number}`, publish);
        return this.publishes.push(publish);
      }
      case 'published': return Object.assign(published.get(`${entry.by} ${entry.number}`), { status: entry.status, answered: at });
      case 'event': {
        if (entry.number === undefined) return undefined;
        const key = `${client} ${channel} ${entry.by} ${entry.number}`;
        return this.received.set(key, (this.received.get(key) ?? 0) + 1);
      }
      default: return undefined;
    }
  }

  #open(client, channel) {
    return this.subscriptions.filter((one) => one.client === client && one.channel === channel && one.leaving === Infinity);
  }

  #end(client, at) {
    const connection = this.connections.get(client);
    if (!connection || connection.leaving !== Infinity) return;
    connection.leaving = at;
    for (const subscription of this.subscriptions) if (subscription.client === client && subscription.leaving === Infinity) subscription.leaving = at;
  }

  of(channel) { return this.byChannel.get(channel) ?? []; }

  users(channel) { return new Set(this.of(channel).map(({ user }) => user).filter((user) => user !== undefined)); }

  /** Who is there at this moment, as the clients know it. */
  present(channel, at) {
    return new Set(this.of(channel).filter((one) => one.user !== undefined && one.confirmed <= at && one.leaving > at).map(({ user }) => user));
  }

  /** The faults of the engine and of these nodes. */
  faultsOf(nodes) { return this.faults.filter(({ node }) => node === undefined || nodes.includes(node)); }

  /** From when on a user has to have been there, or away, for a client of `viewer` to have to know it at `at`. */
  since(at, viewer, channel, user) {
    const nodes = [viewer, ...this.of(channel).filter((one) => one.user === user).map(({ node }) => node)];
    const faults = this.faultsOf(nodes).sort((a, b) => b.start - a.start);
    let since = at - this.slack - this.grace;
    for (const { start, end } of faults) if (start < at && end + this.recovery > since) since = Math.min(since, start - this.slack);
    return since;
  }

  /** Whether a node without its engine closes all of its clients: some see the others go before they themselves are closed. */
  isDrained(node, at) {
    const isOn = (faults) => this.faultsOf([node]).some(({ fault, start, end }) => faults.includes(fault) && start < at && end >= at);
    return isOn(['drained']) && isOn(SEPARATES);
  }

  /** Since when a node has not known what happens on the others, if that is so at `at`. */
  apartSince(node, at) {
    const apart = this.faultsOf([node]).filter(({ fault, start, whole }) => fault !== 'slowed' && start < at && whole > at);
    return apart.length ? Math.min(...apart.map(({ start }) => start)) : undefined;
  }

  /** Whether a subscription came and went while its node was without the engine, so that no other node could know of it. */
  isApart({ node, confirmed, leaving }) {
    return this.faultsOf([node]).some(({ fault, start, whole }) => SEPARATES.includes(fault) && start < confirmed && leaving < whole);
  }

  /** From when to when the engine has lost its memory: [start, whole] of each time. */
  memoryLost() { return this.faults.filter(({ fault }) => fault === 'engine-killed').map(({ start, whole }) => [start, whole]); }

  /**
   * From when to when no node was there to know what happens: each was dead, stood still or was without the engine. Nodes that live know afterwards what
   * they knew before; but one that has died may be the first to be back.
   */
  allAway() {
    const nodes = [...new Set([...this.connections.values()].map(({ node }) => node))];
    const away = this.faults.filter(({ fault }) => [...SUSPENDS, 'killed'].includes(fault));
    const at = (start) => nodes.map((node) => away.filter((one) => (one.node ?? node) === node && one.start <= start && one.whole > start));
    const all = away.map(({ start }) => [start, at(start)]).filter(([, faults]) => faults.every((some) => some.length) && faults.flat().some(({ fault }) => fault === 'killed'));
    return all.map(([start, faults]) => [start, Math.max(...faults.flat().map(({ whole }) => whole))]);
  }

  /** Was this user there all the time, on a node that could say so to `viewer`? */
  surelyPresent(channel, user, from, to, viewer) {
    let covered = from;
    const spans = this.of(channel).filter((one) => one.user === user && one.confirmed !== Infinity).flatMap((one) => this.#spans(one, viewer));
    spans.sort(([a], [b]) => a - b);
    for (const [start, end] of spans) if (start < covered || start <= from) covered = Math.max(covered, end);
    return covered > to;
  }

  /** Was this user nowhere all the time? */
  surelyAbsent(channel, user, from, to) {
    return !this.of(channel).some((one) => one.user === user && one.asked <= to && one.leaving >= from);
  }

  /**
   * When a subscription was there, without the times at which its node may have been taken for dead. Of one that came while its node was by itself, other
   * nodes know once all is whole again.
   */
  #spans({ confirmed, leaving, node }, viewer) {
    const apart = this.faultsOf([node]).filter(({ fault, start, whole }) => SEPARATES.includes(fault) && start < confirmed && confirmed < whole);
    const known = Math.max(confirmed, ...node === viewer ? [] : apart.map(({ whole }) => whole));
    let spans = [[known, leaving]];
    for (const { fault, start, end } of this.faultsOf([node])) {
      // Its clients are closed from then on, and others may hear of that before they do.
      if (fault === 'drained' && start > known) spans = spans.map(([from, to]) => [from, Math.min(to, start)]).filter(([from, to]) => from < to);
      const away = start + Math.max(0, this.lease - MARGIN);
      if (!SUSPENDS.includes(fault) || end < away) continue;
      spans = spans.flatMap(([from, to]) => [[from, Math.min(to, away)], [Math.max(from, end + this.recovery), to]].filter(([a, b]) => a < b));
    }
    return spans;
  }
}

function grouped(subscriptions) {
  const groups = new Map();
  for (const one of subscriptions) {
    if (!groups.has(one.channel)) groups.set(one.channel, []);
    groups.get(one.channel).push(one);
  }
  return groups;
}

// ---- presence ------------------------------------------------------------------------------------------------------------

/** Calls `visit(entry, list)` for each entry, with the list that the entry's client has of the entry's channel before it. */
function replay(world, visit) {
  const lists = new Map(); // `client channel` → Set of users
  for (const entry of world.entries) {
    const key = `${entry.client} ${entry.channel}`;
    visit(entry, lists.get(key), lists);
    if (entry.kind === 'subscribed' && entry.members) lists.set(key, new Set(entry.members));
    else if (entry.kind === 'added') lists.get(key)?.add(entry.user);
    else if (entry.kind === 'removed') lists.get(key)?.delete(entry.user);
    else if (entry.kind === 'unsubscribe') lists.delete(key);
  }
}

function members(world, violation) {
  const place = ({ client, channel }) => `${client} on ${world.connections.get(client)?.node}, ${channel}`;
  replay(world, (entry, list, lists) => {
    const { kind, at, client, channel, user } = entry;
    const viewer = world.connections.get(client)?.node;
    const wasThere = (one) => world.surelyPresent(channel, one, world.since(at, viewer, channel, one), at, viewer);
    const wasAway = (one) => world.surelyAbsent(channel, one, world.since(at, viewer, channel, one), at);
    const apart = viewer && world.apartSince(viewer, at);
    if (kind === 'subscribed' && entry.members) {
      const given = new Set(entry.members);
      if (given.size !== entry.members.length) violation('list-doubled', at, `${place(entry)}: ${entry.members}`);
      // A node that is by itself knows of the channels that its own clients were in.
      for (const one of apart === undefined ? world.users(channel) : []) if (!given.has(one) && wasThere(one)) violation('missing-member', at, `${place(entry)}: ${one} is not in ${[...given]}`);
      for (const one of given) if (wasAway(one)) violation('ghost', at, `${place(entry)}: ${one} is in ${[...given]}`);
    } else if (kind === 'added') {
      if (list?.has(user)) violation('added-twice', at, `${place(entry)}: ${user}`);
      if (wasAway(user)) violation('false-arrival', at, `${place(entry)}: ${user}`);
    } else if (kind === 'removed') {
      if (list && !list.has(user)) violation('removed-stranger', at, `${place(entry)}: ${user}`);
      // A node that is by itself tells of those who leave it, and cannot know that they are on another one too.
      const hasLeft = ({ leaving }) => leaving > apart && (leaving <= at || world.isDrained(viewer, at));
      const leftHere = apart !== undefined && world.of(channel).some((one) => one.user === user && one.node === viewer && hasLeft(one));
      if (!leftHere && wasThere(user)) violation('false-removal', at, `${place(entry)}: ${user}`);
    } else if (kind === 'query' && entry.settled) {
      const truth = sorted(world.present(channel, at));
      const told = sorted(entry.users ?? [`status ${entry.status}`]);
      if (told !== truth) violation('unequal', at, `the API of ${entry.node}, ${channel}: [${told}], but there are [${truth}]`);
    } else if (kind === 'settled') {
      for (const one of world.subscriptions) {
        if (one.user === undefined || one.confirmed > at || one.leaving <= at) continue;
        const truth = sorted(world.present(one.channel, at));
        const told = sorted(lists.get(`${one.client} ${one.channel}`) ?? []);
        if (told !== truth) violation('unequal', at, `${place(one)}: [${told}], but there are [${truth}]`);
      }
    }
  });
}

const sorted = (users) => [...users].sort().join(' ');

/** Users of a node that was killed. `told(ms)` hears how long each removal took. */
function removals(world, violation, _, told = () => {}) {
  const removed = new Map(); // `client channel user` → times
  for (const { kind, client, channel, user, at } of world.entries) {
    if (kind !== 'removed') continue;
    const key = `${client} ${channel} ${user}`;
    removed.set(key, [...(removed.get(key) ?? []), at]);
  }
  replay(world, (entry, _list, lists) => {
    if (entry.kind !== 'fault' || entry.fault !== 'killed') return;
    for (const viewer of world.subscriptions) {
      if (viewer.user === undefined || viewer.confirmed > entry.at || viewer.leaving <= entry.at) continue;
      let deadline = entry.at + world.lease + REPAIR;
      for (const { fault, start, end } of world.faultsOf([viewer.node])) {
        if (fault !== 'killed' && start < deadline && end + world.recovery > entry.at) deadline = Math.max(deadline, end + world.recovery);
      }
      for (const user of lists.get(`${viewer.client} ${viewer.channel}`) ?? []) {
        const last = Math.max(...world.of(viewer.channel).filter((one) => one.user === user).map(({ leaving }) => leaving));
        if (last !== entry.at) continue; // it is somewhere else, came back, or had left anyway
        const when = removed.get(`${viewer.client} ${viewer.channel} ${user}`)?.find((at) => at >= entry.at);
        if (when !== undefined) told(when - entry.at);
        if (viewer.leaving > deadline && world.ended > deadline && !(when <= deadline)) {
          violation('late-removal', deadline, `${viewer.client} on ${viewer.node}, ${viewer.channel}: ${user} was on ${entry.node}, ${when ? `gone after ${Math.round(when - entry.at)} ms` : 'and is still there'}`);
        }
      }
    }
  });
}

// ---- webhooks ------------------------------------------------------------------------------------------------------------

const FIRST = { channel_occupied: true, member_added: true, channel_vacated: false, member_removed: false };

function webhooks(world, violation, { forgets }) {
  const told = world.entries.filter(({ kind, name }) => kind === 'webhook' && name in FIRST).sort((a, b) => a.time - b.time);
  const clock = Math.min(...told.map(({ at, time }) => at - time));
  const state = new Map(); // `channel user` → {now, at, time}
  // Told at least once: a node that dies, or loses the engine, after it has posted cannot say so; an engine that has forgotten everything is told it again.
  const mayRepeat = (from, to) => world.faults.some(({ start, whole }) => start < to && whole + world.slack > from);
  for (const { at, time, name, channel, user } of told) {
    const key = `${channel} ${user ?? ''}`;
    const before = state.get(key) ?? { now: false, at, time };
    // Whoever tells it again may be a millisecond off, so the second one may have the earlier time.
    const [from, to] = [Math.min(before.time, time) + clock, Math.max(before.at, at)];
    if (before.now === FIRST[name] && !mayRepeat(from, to)) violation('webhook', at, `${name} of ${key} again`);
    if (!world.of(channel).some((one) => user === undefined || one.user === user)) violation('webhook', at, `${name} of ${key}, where nobody was`);
    state.set(key, { now: FIRST[name], at, time });
  }
  const settled = world.entries.findLast(({ kind, webhooks: too }) => kind === 'settled' && too);
  if (!settled) return;
  const forgotten = [...world.memoryLost(), ...(forgets ? world.allAway() : [])];
  const isForgotten = (moment) => forgotten.some(([start, end]) => start - HELD_BACK - world.slack < moment && moment < end);
  for (const channel of world.byChannel.keys()) {
    const expect = (key, truth, all) => {
      if ((state.get(key)?.now ?? false) === truth || all.some(({ asked, leaving }) => isForgotten(truth ? asked : leaving))) return;
      violation('webhook', settled.at, `${key} is told to be ${truth ? 'away, and is there' : 'there, and is away'}`);
    };
    const isHere = ({ confirmed, leaving }) => confirmed <= settled.at && leaving > settled.at;
    expect(`${channel} `, world.of(channel).some(isHere), world.of(channel));
    for (const user of world.users(channel)) {
      const all = world.of(channel).filter((one) => one.user === user);
      expect(`${channel} ${user}`, all.some(isHere), all);
      const wasKnown = all.some((one) => one.confirmed !== Infinity && !world.isApart(one) && !isForgotten(one.asked));
      if (wasKnown && !state.has(`${channel} ${user}`)) violation('webhook', settled.at, `nothing was told of ${user} in ${channel}`);
    }
  }
}

// ---- messages ------------------------------------------------------------------------------------------------------------

/**
 * In order is what a publisher sends through one node, each after the answer to the one before. Through several it is in order elsewhere, but a node gives
 * what is published there to its own clients at once, and may hear of what was published before on another node only then.
 */
function order(world, violation) {
  const last = new Map(); // `client channel by` → {number, node} of the last, by the node that it was published on
  const seen = new Set();
  const unsure = new Set(world.publishes.filter(({ via, status }) => via === 'http' && status !== 200).map(({ by, number }) => `${by} ${number}`));
  const publishes = new Map(world.publishes.map((publish) => [`${publish.by} ${publish.number}`, publish]));
  for (const { kind, at, client, channel, by, number } of world.entries) {
    if (kind !== 'event' || number === undefined) continue;
    const what = `${client} on ${world.connections.get(client).node}, ${channel}: ${by} ${number}`;
    const key = `${client} ${channel} ${by}`;
    const { exclude, via, node } = publishes.get(`${by} ${number}`) ?? {};
    const viewer = world.connections.get(client).node;
    const before = last.get(key) ?? new Map();
    const isLate = ([from, newest]) => number < newest && (from === node || from !== viewer);
    if (seen.has(`${key} ${number}`)) violation('double', at, what);
    else if (!unsure.has(`${by} ${number}`)) {
      for (const [from, newest] of [...before].filter(isLate)) violation('order', at, `${what} of ${node} after ${newest} of ${from}`);
    }
    seen.add(`${key} ${number}`);
    if (!unsure.has(`${by} ${number}`)) last.set(key, before.set(node, Math.max(number, before.get(node) ?? 0)));
    if ((exclude !== undefined && exclude === world.connections.get(client).socketId) || via === client) violation('excluded', at, what);
  }
}

function losses(world, violation) {
  for (const { publish, viewer, channel, excused, came } of deliveries(world)) {
    if (!excused && !came) violation('loss', publish.at, `${publish.by} ${publish.number}, published on ${publish.node}, does not come to ${viewer.client} on ${viewer.node}, ${channel}`);
  }
}

/** What was acknowledged, and to whom it is owed: {publish, viewer, channel, excused, came}. */
function deliveries(world) {
  return world.publishes.flatMap((publish) => {
    const { by, number, at, channels, via, exclude } = publish;
    // A client event is not acknowledged: nothing but a fault, or its sender's end, may lose it.
    const acknowledged = via === 'http' ? publish.answered : at + world.slack;
    if (via === 'http' ? publish.status !== 200 : !(world.connections.get(via).leaving > acknowledged)) return [];
    return channels.flatMap((channel) => world.of(channel).flatMap((viewer) => {
      if (viewer.confirmed > at || viewer.leaving < acknowledged + world.slack || world.ended < acknowledged + world.slack) return [];
      if (viewer.client === via || (exclude !== undefined && world.connections.get(viewer.client).socketId === exclude)) return [];
      const nodes = via === 'http' ? [viewer.node] : [viewer.node, publish.node];
      const excused = world.faultsOf(nodes).some(({ start, whole }) => start < acknowledged + world.slack && whole > at);
      return [{ publish, viewer, channel, excused, came: world.received.has(`${viewer.client} ${channel} ${by} ${number}`) }];
    }));
  });
}

// ---- requests ------------------------------------------------------------------------------------------------------------

function answers(world, violation, { local }) {
  for (const { by, number, at, node, via, status, answered } of world.publishes) {
    if (via !== 'http') continue;
    const what = `${by} ${number} on ${node}: ${status}`;
    const faults = world.faultsOf([node]);
    const within = faults.filter(({ start, whole }) => start < answered && whole > at);
    if (status === 200) {
      const away = faults.find(({ fault, start, end }) => SEPARATES.includes(fault) && at > start + EFFECT && answered < end);
      if (away && !local) violation('silently-local', at, `${what}, while ${away.fault}`);
    } else if (status === 503) {
      if (!within.length) violation('refused', at, what);
    } else if (!within.some(({ fault }) => ['killed', 'drained', 'paused'].includes(fault))) {
      violation('unanswered', at, what);
    }
  }
}

function queries(world, violation) {
  for (const { kind, at, node, path, status, took } of world.entries) {
    if (kind !== 'query') continue;
    const what = `${path} on ${node}: ${status} after ${Math.round(took)} ms`;
    const within = world.faultsOf([node]).filter(({ start, whole }) => start < at && whole > at - took);
    if (within.length) continue;
    if (status !== 200) violation('unanswered', at, what);
    else if (took > QUERY) violation('slow', at, what);
  }
}

function closes(world, violation) {
  for (const [client, { node, left, closed, leaving, code }] of world.connections) {
    const killed = world.faults.some((one) => one.node === node && (one.fault === 'killed' || one.fault === 'drained') && one.start <= closed);
    if (closed !== Infinity && !left && !killed) violation('closed', leaving, `${client} on ${node}, with ${code}`);
  }
}

function subscriptions(world, violation) {
  for (const { client, channel, node, asked, confirmed, leaving } of world.subscriptions) {
    if (confirmed !== Infinity) continue;
    const until = Math.min(leaving, world.ended);
    const patience = world.faultsOf([node]).reduce((late, { start, end }) => (start < late ? Math.max(late, end + world.recovery) : late), asked + world.slack + REPAIR);
    if (until > patience) violation('unanswered', asked, `${client} on ${node} asks for ${channel}`);
  }
}
