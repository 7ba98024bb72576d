/**
 * `taut serve` with a configuration of the test's own making, and the real server package of npm to publish through it. With TAUT_NODES=3 these are three
 * nodes on a Redis of their own behind HAProxy, which spreads connections and requests over them: no test has to know.
 * A backend's publishes all go through one node, as order is promised there (docs/guarantees.md).
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Pusher from 'pusher';
import { Server } from '../browser/server.js';
import { Redis } from '../cluster/redis.js';
import { Program } from '../peers/programs.js';

/** The package of PyPI takes no id but a number. */
export const APP = { id: '3', key: 'app-key', secret: 'app-secret' };
export const MASTER_KEY = Buffer.from('the master key of these tests, 32').subarray(0, 32).toString('base64');

export const NODES = Number(process.env.TAUT_NODES ?? 1);

export class Taut {
  #servers = []; #folder; #options; #redis; #proxy;

  /** Starts a server for these apps; what an app leaves out is as in APP. */
  static async start({ apps = [{}], options = [], listen = '127.0.0.1:0' } = {}) {
    const taut = new Taut();
    taut.#folder = await mkdtemp(join(tmpdir(), 'taut-pusher-'));
    const file = join(taut.#folder, 'taut.toml');
    await writeFile(file, toml(apps.map((app) => ({ ...(app.keys ? { id: APP.id } : APP), ...app }))));
    taut.#options = ['--config', file, ...options];
    try {
      if (NODES > 1) taut.#redis = await Redis.start();
      await taut.#serve(Array(NODES).fill(listen));
      if (NODES > 1) taut.#proxy = await haproxy(taut.#folder, taut.#servers);
    } catch (error) {
      await taut.#end();
      throw error;
    }
    return taut;
  }

  get port() { return (this.#proxy ?? this.#servers[0]).port; }
  get origin() { return `http://127.0.0.1:${this.port}`; }
  get log() { return this.#servers.map((server) => server.log).join('\n'); }

  /** The package `pusher` of npm, for this server. */
  publisher({ id, key, secret } = APP, more = {}) {
    return new Pusher({ appId: id, key, secret, host: '127.0.0.1', port: this.port, useTLS: false, encryptionMasterKeyBase64: MASTER_KEY, ...more });
  }

  /** Ends the server, runs `meanwhile`, and starts it again at the same port. */
  async restart(meanwhile = async () => {}) {
    const addresses = this.#servers.map(({ port }) => `127.0.0.1:${port}`);
    for (const server of this.#servers) assert.equal(await server.stop(), 0);
    await meanwhile();
    await this.#serve(addresses);
  }

  /** Ends the server, which has to end well. */
  async stop() {
    for (const code of await this.#end()) assert.equal(code, 0, this.log);
    assert.doesNotMatch(this.log, /panicked/);
  }

  async #serve(addresses) {
    const together = (name) => (this.#redis ? ['--cluster', `redis://127.0.0.1:${this.#redis.port}`, '--cluster-name', name] : []);
    this.#servers = [];
    for (const [index, listen] of addresses.entries()) {
      this.#servers.push(await Server.start({ listen, options: [...this.#options, ...together(`node-${index}`)] }));
    }
  }

  /** Ends everything, and gives how the servers ended. */
  async #end() {
    const codes = await Promise.all(this.#servers.map((server) => server.stop()));
    await this.#proxy?.stop();
    await this.#redis?.stop();
    await rm(this.#folder, { recursive: true });
    return codes;
  }
}

/**
 * HAProxy as docs/proxies.md has it, before several nodes: each connection and request goes to the next, but those of one fallback session to the same,
 * and what backends publish to the one that its key stands for, as docs/scaling.md advises.
 */
function haproxy(folder, servers) {
  const targets = servers.map((server, index) => `    server taut${index} 127.0.0.1:${server.port}`).join('\n');
  return Program.onFreePort(async (port) => {
    const file = join(folder, `haproxy-${port}.cfg`);
    await writeFile(file, `
global
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
    retries 5
    option redispatch
frontend realtime
    bind 127.0.0.1:${port}
    option forwardfor
    use_backend publishes if METH_POST { path_beg /apps/ }
    default_backend taut
backend publishes
    balance url_param auth_key
    option http-server-close
${targets}
backend taut
    balance roundrobin
    option http-server-close
    stick-table type string len 64 size 10k expire 10m
    stick on path,field(6,/) if { path_beg /pusher/app/ }
    stick on path,field(4,/) if { path_reg ^/pusher/[0-9]+/ }
${targets}
`);
    return ['haproxy', '-db', '-f', file];
  });
}

/** The same name with a number that no other test of this process has. */
export const fresh = (name) => `${name}-${(freshest += 1)}`;
let freshest = 0;

/** Everything below [[apps]] is written inline: the tests need no more of TOML. */
function toml(apps) {
  return apps.map((app) => `[[apps]]\n${Object.entries(app).map(([key, value]) => `${key} = ${inline(value)}\n`).join('')}`).join('\n');
}

function inline(value) {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([key, part]) => `${key} = ${inline(part)}`).join(', ')} }`;
}
