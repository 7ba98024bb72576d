/**
 * Network namespaces: one for each node, one for the engine, and one between them, the hub, in which clients, backends and webhooks are. Two bridges of
 * the hub are two networks, one to the clients and one to the engine, so that a node that is cut off from the engine keeps its clients. What is cut there
 * is silent: packets are lost, and nobody's connection is closed. Nothing outside of these namespaces is touched.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const NODES = ['a', 'b', 'c'];
const ENGINE = 'engine';
const PORT = 6379;

// Addresses for documentation (RFC 5737): they are nobody's, and each set of namespaces has them for itself.
const clients = (index) => `192.0.2.${index}`;
const engine = (index) => `198.51.100.${index}`;
const HUB = 1;
const indexOf = (name) => (name === ENGINE ? 10 : 11 + NODES.indexOf(name));

/** Where nobody is: what is sent there is lost. */
const NOBODY = '02:00:00:00:00:01';

const ip = (...words) => execFileSync('ip', words, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

/** Many commands of `ip` at once: a process for each takes its time. */
const batch = (options, lines) => execFileSync('ip', [...options, '-batch', '-'], { input: lines.join('\n'), stdio: ['pipe', 'pipe', 'pipe'], encoding: 'utf8' });

/** The interfaces in the namespace of a node or of the engine, by the bridge that each leads to, and their addresses. */
const interfaces = (name) => [...(name === ENGINE ? [] : [['clients', clients(indexOf(name))]]), ['engine', engine(indexOf(name))]];

/** Why there can be no network namespaces on this machine, or nothing. */
export function lacking() {
  const network = new Network(`taut-${process.pid}-probe`);
  try {
    network.build(['a']);
    return undefined;
  } catch (error) {
    return `there are no network namespaces here: ${(error.stderr || error.message).trim().split('\n')[0]}`;
  } finally {
    network.end();
  }
}

/** The namespaces of one test, and of nobody else. They end with this process at the latest. */
export class Network {
  static #count = 0;
  #prefix; #made = []; #atExit = () => this.end();

  constructor(prefix) { this.#prefix = prefix; }

  static make() {
    sweep();
    const network = new Network(`taut-${process.pid}-${(Network.#count += 1)}`);
    try {
      network.build(NODES);
    } catch (error) {
      network.end();
      throw error;
    }
    return network;
  }

  build(nodes) {
    ip('-V');
    process.on('exit', this.#atExit);
    const [hub, ...others] = ['hub', ENGINE, ...nodes].map((name) => `${this.#prefix}-${name}`);
    this.#made.push(hub, ...others);
    batch([], this.#made.map((namespace) => `netns add ${namespace}`));
    const bridges = [['clients', clients(HUB)], ['engine', engine(HUB)]].flatMap(([bridge, address]) => [
      `link add ${bridge} type bridge forward_delay 0`, `addr add ${address}/24 dev ${bridge}`, `link set ${bridge} up`]);
    const cables = others.flatMap((namespace) => interfaces(this.#nameOf(namespace)).flatMap(([bridge]) => {
      const end = `${bridge}-${this.#nameOf(namespace)}`;
      return [`link add ${end} type veth peer name ${bridge} netns ${namespace}`, `link set ${end} master ${bridge} up`];
    }));
    batch(['-n', hub], ['link set lo up', ...bridges, ...cables]);
    for (const namespace of others) {
      const ends = interfaces(this.#nameOf(namespace)).flatMap(([bridge, address]) => [`addr add ${address}/24 dev ${bridge}`, `link set ${bridge} up`]);
      batch(['-n', namespace], ['link set lo up', ...ends]);
    }
    // What needs the program `bridge` fails here, where it is seen what is missing.
    execFileSync('bridge', ['-n', hub, 'link', 'set', 'dev', `engine-${nodes[0]}`, 'state', '3'], { stdio: 'pipe' });
  }

  #nameOf(namespace) { return namespace.slice(this.#prefix.length + 1); }

  /** Runs a script of this folder in the hub, where `Links.here()` finds the rest; gives what it has printed, or fails with it. */
  async play(script, ...words) {
    const path = fileURLToPath(new URL(script, import.meta.url));
    const environment = { ...process.env, TAUT_NAMESPACES: this.#prefix };
    delete environment.NODE_TEST_CONTEXT;
    const child = spawn('ip', ['netns', 'exec', `${this.#prefix}-hub`, process.execPath, path, ...words.map(String)], { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
    let [output, errors] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => { output += text; });
    child.stderr.setEncoding('utf8').on('data', (text) => { errors += text; });
    const [code, signal] = await once(child, 'close');
    if (code !== 0) throw new Error(`${script} ${words.join(' ')} ended with ${code ?? signal}:\n${errors}${output}`);
    return output;
  }

  /** Ends whatever still runs in the namespaces, and the namespaces. */
  end() {
    process.off('exit', this.#atExit);
    for (const namespace of this.#made.splice(0).reverse()) remove(namespace);
  }
}

/** The links, for what runs in the hub: the `network` of a cluster. */
export class Links {
  host = clients(HUB);
  #prefix;

  static here() {
    const links = new Links();
    links.#prefix = process.env.TAUT_NAMESPACES;
    return links;
  }

  get engine() { return { within: this.#within(ENGINE), host: engine(indexOf(ENGINE)), port: PORT }; }

  /** A node's link to the engine, with the faults of a proxy (proxy.js), but silent ones. */
  link(name) {
    return {
      host: engine(indexOf(ENGINE)),
      port: PORT,
      node: { within: this.#within(name), host: clients(indexOf(name)) },
      // The cable is out: the node's interface has lost its carrier.
      cut: () => ip('link', 'set', `engine-${name}`, 'down'),
      stall: (...directions) => this.stall(name, ...directions),
      heal: () => this.heal(name),
      delay() {},
      throttle() {},
      async stop() {},
    };
  }

  /** Loses what goes to the engine ('up'), what comes from it ('down'), or both. */
  stall(name, ...directions) {
    if (directions.length !== 1) return this.#pass(name, false);
    const [from, to] = directions[0] === 'up' ? [name, ENGINE] : [ENGINE, name];
    return ip('-n', `${this.#prefix}-${from}`, 'neigh', 'replace', engine(indexOf(to)), 'lladdr', NOBODY, 'nud', 'permanent', 'dev', 'engine');
  }

  heal(name) {
    ip('link', 'set', `engine-${name}`, 'up');
    this.#pass(name, true);
    for (const [from, to] of [[name, ENGINE], [ENGINE, name]]) {
      const namespace = `${this.#prefix}-${from}`;
      if (ip('-n', namespace, 'neigh', 'show', engine(indexOf(to)), 'nud', 'permanent')) ip('-n', namespace, 'neigh', 'del', engine(indexOf(to)), 'dev', 'engine');
    }
  }

  #pass(name, open) { execFileSync('bridge', ['link', 'set', 'dev', `engine-${name}`, 'state', open ? '3' : '0'], { stdio: 'pipe' }); }

  #within(name) { return ['ip', 'netns', 'exec', `${this.#prefix}-${name}`]; }
}

/** Removes what a process has left that was killed. */
function sweep() {
  for (const [, namespace, pid] of ip('netns', 'list').matchAll(/^(taut-(\d+)-\S+)/gm)) if (!isAlive(Number(pid))) remove(namespace);
}

function remove(namespace) {
  if (!ip('netns', 'list').includes(namespace)) return;
  for (const pid of ip('netns', 'pids', namespace).split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
  ip('netns', 'del', namespace);
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
