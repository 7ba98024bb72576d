/** `taut serve` with a configuration of the test's own making, and the real server package of npm to publish through it. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Pusher from 'pusher';
import { Server } from '../browser/server.js';

/** The package of PyPI takes no id but a number. */
export const APP = { id: '3', key: 'app-key', secret: 'app-secret' };
export const MASTER_KEY = Buffer.from('the master key of these tests, 32').subarray(0, 32).toString('base64');

export class Taut {
  #server; #folder; #options;

  /** Starts a server for these apps; what an app leaves out is as in APP. */
  static async start({ apps = [{}], options = [], listen = '127.0.0.1:0' } = {}) {
    const taut = new Taut();
    taut.#folder = await mkdtemp(join(tmpdir(), 'taut-pusher-'));
    const file = join(taut.#folder, 'taut.toml');
    await writeFile(file, toml(apps.map((app) => ({ ...(app.keys ? { id: APP.id } : APP), ...app }))));
    taut.#options = ['--config', file, ...options];
    try {
      await taut.#serve(listen);
    } catch (error) {
      await rm(taut.#folder, { recursive: true });
      throw error;
    }
    return taut;
  }

  get port() { return this.#server.port; }
  get origin() { return this.#server.origin; }
  get log() { return this.#server.log; }

  /** The package `pusher` of npm, for this server. */
  publisher({ id, key, secret } = APP, more = {}) {
    return new Pusher({ appId: id, key, secret, host: '127.0.0.1', port: this.port, useTLS: false, encryptionMasterKeyBase64: MASTER_KEY, ...more });
  }

  /** Ends the server, runs `meanwhile`, and starts it again at the same port. */
  async restart(meanwhile = async () => {}) {
    const listen = `127.0.0.1:${this.port}`;
    assert.equal(await this.#server.stop(), 0);
    await meanwhile();
    await this.#serve(listen);
  }

  /** Ends the server, which has to end well. */
  async stop() {
    const code = await this.#server.stop();
    await rm(this.#folder, { recursive: true });
    assert.equal(code, 0, this.log);
    assert.doesNotMatch(this.log, /panicked/);
  }

  async #serve(listen) {
    this.#server = await Server.start({ listen, options: this.#options });
  }
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
