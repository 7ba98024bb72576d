/** Debian's php-fpm with a pool of its own, on a Unix socket, and nginx in front of it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from '../peers/programs.js';

export class Fpm {
  #program; #folder;

  /** `pool` is more of the pool's configuration, `environment` what scripts find in theirs, or a function that gives it. */
  static async start({ workers = 4, pool = '', environment = {} } = {}) {
    const fpm = new Fpm();
    fpm.#folder = await mkdtemp(join(tmpdir(), 'taut-fpm-'));
    fpm.socket = join(fpm.#folder, 'fpm.sock');
    const given = typeof environment === 'function' ? await environment(fpm) : environment;
    const variables = Object.entries(given).map(([name, value]) => `env[${name}] = "${value}"\n`).join('');
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

  /** How many workers it has now. */
  get workers() { return readFileSync(`/proc/${this.#program.pid}/task/${this.#program.pid}/children`, 'utf8').split(' ').filter(Boolean).length; }

  signal(name) { this.#program.signal(name); }

  /** Ends it; the folder of its socket stays. */
  async end() { if (this.#program.ended === undefined) await this.#program.stop(); }

  async stop() {
    await this.end();
    await rm(this.#folder, { recursive: true });
  }
}

/** nginx in front of a php-fpm, as people configure it. */
export class Nginx {
  #program; #folder;

  /**
   * `scripts` are files by the path that they answer at, `parameters` what they find in their environment. With a
   * workshop as `secure` it speaks HTTP/2 and HTTP/1.1 over TLS; `http` is more of its configuration.
   */
  static async start(fpm, scripts, parameters = {}, { secure, http = '' } = {}) {
    const nginx = new Nginx();
    const folder = await mkdtemp(join(tmpdir(), 'taut-nginx-'));
    nginx.#folder = folder;
    const more = Object.entries(parameters).map(([name, value]) => `fastcgi_param ${name} ${value};`).join(' ');
    const locations = Object.entries(scripts).map(([path, file]) => `
    location = ${path} {
      include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME ${file}; ${more} fastcgi_pass unix:${fpm.socket};
    }`).join('');
    nginx.#program = await Program.onFreePort(async (port) => {
      const file = join(folder, 'nginx.conf');
      await writeFile(file, `${process.getuid() === 0 ? 'user root;' : ''}
daemon off; pid ${folder}/nginx.pid; error_log stderr;
events {}
http {
  access_log off; ${http}
  client_body_temp_path ${folder}/body; fastcgi_temp_path ${folder}/fastcgi; proxy_temp_path ${folder}/proxy;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server {
    listen 127.0.0.1:${port}${secure ? ` ssl http2; ssl_certificate ${secure.certificate}; ssl_certificate_key ${secure.key}` : ''};${locations}
  }
}
`);
      return ['/usr/sbin/nginx', '-c', file];
    });
    nginx.url = `${secure ? 'https' : 'http'}://127.0.0.1:${nginx.#program.port}`;
    return nginx;
  }

  async stop() {
    await this.#program.stop('SIGQUIT');
    await rm(this.#folder, { recursive: true });
  }
}

/** Debian names it by its version. */
function binary() {
  const found = readdirSync('/usr/sbin').filter((name) => name.startsWith('php-fpm')).sort().at(-1);
  if (!found) throw new Error("there is no php-fpm: Debian has it in 'php-fpm'");
  return join('/usr/sbin', found);
}
