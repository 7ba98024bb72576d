/** What stands in front of a backend that speaks WebSocket-over-HTTP: Debian's Pushpin, or Taut. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort, Program } from '../../peers/programs.js';
import { Server } from '../server.js';

/** Signs what goes to the backend, and what comes from its publisher. */
export const KEY = 'interop-grip-0123456789abcdef-0123456789abcdef';

const PARTS = ['condure', 'zurl', 'proxy', 'handler'];

/**
 * Pushpin with its own condure and zurl, in a folder of its own. Debian's packages, not its services: those share one
 * configuration.
 */
export class Pushpin {
  name = 'pushpin'; key = KEY; #program; #folder; #children = [];

  /** In front of the backend at this port. */
  static async start(port) {
    const pushpin = new Pushpin();
    pushpin.#folder = await mkdtemp(join(tmpdir(), 'taut-pushpin-'));
    await mkdir(join(pushpin.#folder, 'run'));
    await mkdir(join(pushpin.#folder, 'log'));
    await writeFile(join(pushpin.#folder, 'routes'), `* 127.0.0.1:${port},over_http\n`);
    try {
      await pushpin.#listen();
    } catch (error) {
      await pushpin.stop();
      throw error;
    }
    return pushpin;
  }

  async #listen() {
    for (let attempt = 0; ; attempt += 1) {
      const [http, control] = [await freePort(), await freePort()];
      await writeFile(join(this.#folder, 'pushpin.conf'), configuration(this.#folder, http, control));
      this.#program = new Program('pushpin', '--config', join(this.#folder, 'pushpin.conf'), '--merge-output');
      try {
        for (const part of PARTS) await this.#program.until(new RegExp(`\\[${part}\\] started$`, 'm'));
        this.#children = childrenOf(this.#program.pid);
        this.url = `ws://127.0.0.1:${http}`;
        this.control = `http://127.0.0.1:${control}`;
        return;
      } catch (error) {
        // One of the ports has been taken meanwhile.
        await this.#end();
        if (attempt === 4) throw error;
      }
    }
  }

  /** Waits until it reaches the backend: it says that it has started a moment before, in which it answers with 502 or ends a connection. */
  async ready() {
    const address = `${this.url.replace('ws', 'http')}/ready`;
    for (const end = Date.now() + 30_000; ;) {
      const { status, error } = await fetch(address).catch((error) => ({ status: 502, error }));
      if (status !== 502) return;
      if (Date.now() > end) throw new Error(`Pushpin does not reach the backend\n${this.output}`, { cause: error });
    }
  }

  get output() { return this.#program.output; }
  gripUrl() { return `${this.control}?key=${encodeURIComponent(KEY)}`; }

  async stop() {
    await this.#end();
    await rm(this.#folder, { recursive: true });
  }

  /** It ends its parts itself; should it fail to, they are ended here. */
  async #end() {
    if (this.#program.ended === undefined) await this.#program.stop();
    for (const pid of this.#children) {
      if (commandOf(pid).includes(this.#folder)) process.kill(pid, 'SIGKILL');
    }
    this.#children = [];
  }
}

/** Taut with one route, which is the backend's. */
export class Taut {
  name = 'taut'; key = KEY; #server;

  /** `route` is more of the route's settings, `backend` instead of the address of this port. */
  static async start(port, route = {}) {
    const taut = new Taut();
    taut.#server = await Server.start([{ path: '/{path...}', form: 'websocket-over-http', backend: `http://127.0.0.1:${port}`, secret: KEY, ...route }], { options: ['--max-message', '1MiB', '--max-event-data', '1MiB'] });
    taut.url = taut.#server.url;
    taut.control = taut.url.replace('ws', 'http');
    return taut;
  }

  async ready() {}

  get output() { return this.#server.output; }
  async until(pattern) { return this.#server.until(pattern); }
  gripUrl() { return `${this.control}/?iss=taut&key=${encodeURIComponent(KEY)}`; }
  async stop() { return this.#server.stop(); }
}

const ALL = { pushpin: Pushpin, taut: Taut };

/** Those that are asked for by TAUT_GRIP_PROXIES, a list with commas; by default both. */
export const PROXIES = (process.env.TAUT_GRIP_PROXIES ?? Object.keys(ALL).join(',')).split(',').map((name) => {
  if (!ALL[name]) throw new Error(`TAUT_GRIP_PROXIES names '${name}': there are ${Object.keys(ALL).join(', ')}`);
  return { name, start: ALL[name].start };
});

/** Debian's, but for ports, folders, the key and the buffers: with Debian's an answer above 16 KiB never arrives. */
function configuration(folder, http, control) {
  const settings = {
    rundir: `${folder}/run`,
    ipc_prefix: '',
    services: 'condure,zurl,pushpin-proxy,pushpin-handler',
    http_port: `127.0.0.1:${http}`,
    logdir: `${folder}/log`,
    client_buffer_size: 200_000,
    sig_key: KEY,
    updates_check: 'off',
    push_in_spec: 'ipc://{rundir}/push-in',
    push_in_sub_specs: 'ipc://{rundir}/push-in-sub',
    push_in_http_addr: '127.0.0.1',
    push_in_http_port: control,
    command_spec: 'ipc://{rundir}/command',
  };
  let text = readFileSync('/usr/share/pushpin/pushpin.conf.condure', 'utf8');
  for (const [name, value] of Object.entries(settings)) {
    const line = new RegExp(`^${name}=.*$`, 'm');
    if (!line.test(text)) throw new Error(`Pushpin's configuration has no '${name}'`);
    text = text.replace(line, () => `${name}=${value}`);
  }
  const zurl = ['zurl_out_specs=ipc://{rundir}/zurl-in', 'zurl_out_stream_specs=ipc://{rundir}/zurl-in-stream', 'zurl_in_specs=ipc://{rundir}/zurl-out'];
  return text.replace(/^\[proxy\]$/m, ['[proxy]', ...zurl].join('\n'));
}

function childrenOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
}

/** Nothing when it has ended: its number may be another's by then. */
function commandOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}
