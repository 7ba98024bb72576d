/** Debian's php-fpm with a pool of its own, on a Unix socket, and nginx in front of it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../peers/programs.js';

export class Fpm {
  #program; #folder;

  /** `pool` is more of the pool's configuration, `environment` what scripts find in theirs. */
  static async start({ workers = 4, pool = '', environment = {} } = {}) {
    const fpm = new Fpm();
    fpm.#folder = await mkdtemp(join(tmpdir(), 'taut-fpm-'));
    fpm.socket = join(fpm.#folder, 'fpm.sock');
    const variables = Object.entries(environment).map(([name, value]) => `env[${name}] = "${value}"\n`).join('');
    await writeFile(join(fpm.#folder, 'fpm.conf'), `[global]
daemonize = no
[www]
user = ${process.getuid() === 0 ? 'nobody' : ''}
listen = ${fpm.socket}
listen.mode = 0666
pm = static
pm.max_children = ${workers}
catch_workers_output = yes
${variables}${pool}
`);
    await fpm.restart();
    return fpm;
  }

  get address() { return `fastcgi://${this.socket}`; }
  get output() { return this.#program.output; }

  async restart() {
    this.#program = new Program(binary(), '-F', '-O', '-R', '-y', join(this.#folder, 'fpm.conf'));
    await this.#program.until(/ready to handle connections/);
  }

  signal(name) { this.#program.signal(name); }

  /** Ends it; the folder of its socket stays. */
  async end() { if (this.#program.ended === undefined) await this.#program.stop(); }

  async stop() {
    await this.end();
    await rm(this.#folder, { recursive: true });
  }
}

/** Debian names it by its version. */
function binary() {
  const found = readdirSync('/usr/sbin').filter((name) => name.startsWith('php-fpm')).sort().at(-1);
  if (!found) throw new Error("there is no php-fpm: Debian has it in 'php-fpm'");
  return join('/usr/sbin', found);
}
