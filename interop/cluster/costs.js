/** What a cluster asks of its engine, counted by Redis itself (INFO commandstats, which counts what scripts call too): see ./costs. */
import { parseArgs } from 'node:util';
import WebSocket from 'ws';
import { APP, hmac } from './client.js';
import { Cluster, passed } from './cluster.js';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '10' },
    publishes: { type: 'string', default: '1000' },
    clients: { type: 'string', default: '10000' },
    room: { type: 'string', default: '100' },
  },
});
const [NODES, PUBLISHES, CLIENTS, ROOM] = ['nodes', 'publishes', 'clients', 'room'].map((name) => Number(values[name]));

/** Seconds of quiet that say what the nodes ask of the engine anyway. */
const QUIET = 5;

/** So many connections are opened at a time: more would wait in a queue of the kernel. */
const OPENING = 200;

/** Runs `work`, and gives how often each command was called meanwhile, without what is called anyway, and how many seconds it took. */
async function counted(cluster, idle, work) {
  await cluster.engine.command('CONFIG', 'RESETSTAT');
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  const calls = await cluster.engine.calls();
  for (const own of ['info', 'config|resetstat']) delete calls[own];
  for (const [name, each] of Object.entries(idle)) if (calls[name]) calls[name] = Math.max(0, Math.round(calls[name] - each * seconds));
  return { calls, seconds, result };
}

async function atRest(cluster) {
  const { calls } = await counted(cluster, {}, () => passed(QUIET * 1000));
  return Object.fromEntries(Object.entries(calls).map(([name, count]) => [name, count / QUIET]));
}

const listed = (calls, divisor = 1) => Object.entries(calls).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a)
  .map(([name, count]) => `${name} ${Number((count / divisor).toFixed(3))}`).join(', ') || '–';
const row = (name, text) => console.log(`${name.padEnd(40)}${text}`);

async function publishing() {
  const cluster = await Cluster.start({ size: NODES });
  try {
    const interested = { none: [], one: cluster.nodes.slice(1, 2), all: cluster.nodes };
    for (const [name, nodes] of Object.entries(interested)) await Promise.all(nodes.map((node) => cluster.member(node, `news-${name}`)));
    await passed(1000);
    const idle = await atRest(cluster);
    row(`${NODES} nodes at rest, per second`, listed(idle));
    for (const name of Object.keys(interested)) {
      const { calls, result } = await counted(cluster, idle, async () => {
        for (let number = 0; number < PUBLISHES; number += 1) await cluster.publisher.publish(cluster.nodes[0], `news-${name}`);
        const all = PUBLISHES * interested[name].length;
        if (all) await cluster.history.until({ kind: 'event', channel: `news-${name}` }, all);
        return all;
      });
      row(`a publish, of interest to ${name}`, `${listed(calls, PUBLISHES)}; heard ${result / PUBLISHES} times`);
    }
  } finally {
    await cluster.stop();
  }
}

/** A client that counts its confirmations and keeps nothing. */
class Crowd {
  #sockets = [];

  async arrive(nodes) {
    let next = 0;
    const work = async () => {
      while (next < CLIENTS) {
        const number = next;
        next += 1;
        await this.#one(number, nodes[number % nodes.length]);
      }
    };
    await Promise.all(Array.from({ length: OPENING }, work));
  }

  leave() {
    for (const socket of this.#sockets.splice(0)) socket.terminate();
  }

  #one(number, node) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${node.port}/app/${APP.key}?protocol=7&client=js&version=8.6.0`, { perMessageDeflate: false });
      this.#sockets.push(socket);
      let confirmed = 0;
      socket.on('error', reject);
      socket.on('message', (bytes) => {
        const text = bytes.toString();
        if (text.startsWith('{"event":"pusher:connection_established"')) {
          const { socket_id: id } = JSON.parse(JSON.parse(text).data);
          const data = JSON.stringify({ user_id: `user-${number}` });
          const [own, room] = [`private-user-${number}`, `presence-room-${Math.floor(number / ROOM)}`];
          socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: own, auth: `${APP.key}:${hmac(`${id}:${own}`)}` } }));
          socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: room, channel_data: data, auth: `${APP.key}:${hmac(`${id}:${room}:${data}`)}` } }));
        } else if (text.includes('pusher_internal:subscription_succeeded') && (confirmed += 1) === 2) {
          socket.off('error', reject);
          socket.on('error', () => {});
          resolve();
        }
      });
    });
  }
}

async function reconnecting() {
  const cluster = await Cluster.start({ size: 3, app: { webhooks: [], subscription_count: false, limits: { connections: CLIENTS * 2 } } });
  const crowd = new Crowd();
  try {
    const idle = await atRest(cluster);
    for (const what of ['come', 'go and come back at once']) {
      const { calls, seconds } = await counted(cluster, idle, async () => {
        crowd.leave();
        await crowd.arrive(cluster.nodes);
      });
      row(`${CLIENTS} clients ${what}`, `${Object.values(calls).reduce((sum, count) => sum + count, 0)} commands in ${seconds.toFixed(1)} s: ${listed(calls)}`);
    }
    const memory = (await cluster.engine.command('INFO', 'memory')).match(/used_memory_human:(\S+)/)[1];
    row('memory of Redis then', memory);
  } finally {
    crowd.leave();
    await cluster.stop();
  }
}

console.log(`each client has a private channel of its own and is in a presence channel with ${ROOM - 1} others`);
await publishing();
await reconnecting();
