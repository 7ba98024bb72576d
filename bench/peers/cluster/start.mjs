/**
 * Several nodes of a channel server on one engine, as one process to whoever measures them: `start.mjs taut|sockudo redis|nats NODES`.
 * It prints where they listen, and ends them when it is told to end.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as passed } from 'node:timers/promises';

const [server, kind, nodes] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'taut-bench-'));
const children = [];

process.on('SIGTERM', end);

const engine = await freePort();
if (kind === 'nats') start('nats-server', ['-a', '127.0.0.1', '-p', `${engine}`, '-js', '-sd', folder]);
else start('redis-server', ['--port', `${engine}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder]);
await listens(engine);
const ports = [];
for (let node = 0; node < Number(nodes); node += 1) ports.push(await { taut, sockudo }[server](node));
console.log(`listening on ${ports.map((port) => `127.0.0.1:${port}`).join(', ')}`);

async function taut(node) {
  const port = await freePort();
  const options = ['--listen', `127.0.0.1:${port}`, '--app', '1:app-key:app-secret', '--shards', '1', '--cluster', `${kind}://127.0.0.1:${engine}`, '--cluster-ready', 'on', '--drain-notice', '0'];
  start('../target/release/taut', ['serve', '--cluster-name', `node-${node}`, ...options]);
  await listens(port);
  await isReady(port);
  return port;
}

/** The configuration of one that is alone, but for what nodes need. */
async function sockudo(node) {
  const port = await freePort();
  const config = JSON.parse(readFileSync('peers/sockudo/config.json', 'utf8'));
  const url = `redis://127.0.0.1:${engine}`;
  config.adapter = { driver: 'redis', redis: { redis_pub_options: { url }, redis_sub_options: { url } } };
  config.database = { redis: { host: '127.0.0.1', port: engine } };
  config.instance = { process_id: `node-${node}` };
  const path = join(folder, `node-${node}.json`);
  writeFileSync(path, JSON.stringify(config));
  start('target/sockudo/bin/sockudo', ['--config', path], { PORT: `${port}`, RUST_LOG: 'warn' });
  await listens(port);
  return port;
}

function start(program, options, environment = {}) {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', program, ...options], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'ignore', program === 'nats-server' ? 'ignore' : 'inherit'], // its log goes there
  });
  child.on('exit', () => {
    if (children.includes(child)) throw new Error(`${program} has ended`);
  });
  children.push(child);
}

async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  listener.close();
  return port;
}

/** Nothing tells when another process begins to listen. */
async function listens(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const isOpen = await once(socket, 'connect').then(() => true, () => false); // `once` fails by the event `error`.
    socket.destroy();
    if (isOpen) return;
    await passed(20);
  }
}

/** A node is ready once it has joined the cluster. */
async function isReady(port) {
  while (!(await fetch(`http://127.0.0.1:${port}/ready`).catch(() => ({}))).ok) await passed(20);
}

async function end() {
  const ending = children.splice(0).reverse();
  for (const child of ending) {
    child.kill('SIGTERM');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
}
