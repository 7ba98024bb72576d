/**
 * A stack with PHP at its end, as one process to whoever measures it: `start.mjs fpm|nginx|taut-fastcgi|taut-http|pushpin`.
 * It prints where the stack listens and which processes hold the clients' connections, and ends all of it when it is told to.
 * With `--version` it only prints what the stack consists of.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as passed } from 'node:timers/promises';

const WORKERS = 8;

const TAUT = '../target/release/taut';
const NGINX = '/usr/sbin/nginx';
// Debian names it by its version.
const FPM = join('/usr/sbin', readdirSync('/usr/sbin').filter((name) => name.startsWith('php-fpm')).sort().at(-1));

const [stack, option] = process.argv.slice(2);
if (option === '--version') {
  console.log(versions().join(', '));
  process.exit();
}
const isRoot = process.getuid() === 0;
const folder = mkdtempSync(join(tmpdir(), 'taut-bench-'));
const children = [];
let isEnding = false;
// Workers that have given up root read their script there, and connect to the socket.
chmodSync(folder, 0o755);

process.on('SIGTERM', end);

const name = stack === 'pushpin' ? 'events.php' : 'echo.php';
const script = join(folder, name);
copyFileSync(join('peers/routes', name), script);
const socket = join(folder, 'fpm.sock');
await startFpm();
const started = await {
  fpm: () => ({ address: `unix:${socket}` }),
  nginx: async () => ({ address: `127.0.0.1:${await startNginx()}` }),
  'taut-fastcgi': () => startTaut({ backend: `fastcgi://${socket}`, script }),
  'taut-http': async () => startTaut({ backend: `http://127.0.0.1:${await startNginx()}/` }),
  pushpin: async () => startPushpin(await startNginx()),
}[stack]();
const held = started.holders ? ` held by ${started.holders.map(({ pid }) => pid).join(', ')}` : '';
console.log(`listening on ${started.address}${held}`);

async function startFpm() {
  const file = write('fpm.conf', `[global]
daemonize = no
error_log = ${join(folder, 'fpm.log')}
[www]
${isRoot ? 'user = nobody' : ''}
listen = ${socket}
listen.mode = 0666
pm = static
pm.max_children = ${WORKERS}
`);
  start(FPM, ['-d', 'opcache.enable=1', '-F', '-R', '-y', file]);
  await listens(socket);
}

/** One worker process, as there is one core; no log of requests. */
async function startNginx() {
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const file = write('nginx.conf', `daemon off;
worker_processes 1;
pid ${join(folder, 'nginx.pid')};
error_log ${join(folder, 'nginx.log')};
${isRoot ? 'user nobody nogroup;' : ''}
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  ${temporary.map((name) => `${name}_temp_path ${join(folder, name)};`).join(' ')}
  server {
    listen 127.0.0.1:${port} backlog=1024;
    location / {
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME ${script};
      fastcgi_pass unix:${socket};
    }
  }
}
`);
  start(NGINX, ['-c', file, '-p', folder, '-e', join(folder, 'nginx.log')]);
  await listens(port);
  return port;
}

/** `taut serve` with one route; everything else is left at its default. */
async function startTaut(route) {
  const port = await freePort();
  const table = (name, entries) => `[[${name}]]\n${Object.entries(entries).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('')}`;
  const file = write('taut.toml', table('apps', { id: '1', key: 'app-key', secret: 'app-secret' }) + table('routes', { path: '/echo', ...route }));
  const taut = start(TAUT, ['serve', '--config', file, '--listen', `127.0.0.1:${port}`, '--shards', '1', '--drain-notice', '0', '--drain-timeout', '1', '--log-level', 'warn']);
  await listens(port);
  return { address: `127.0.0.1:${port}`, holders: [taut] };
}

/** Debian's Pushpin with a zurl of its own. Everything that is not said here is as Debian's files have it. */
async function startPushpin(backend) {
  const [port, push, publish, subscribe, command] = await freePorts(5);
  const run = join(folder, 'run');
  mkdirSync(run);
  const zurl = (name) => `ipc://${join(run, name)}`;
  const zurlFile = write('zurl.conf', `[General]
in_spec=${zurl('zurl-in')}
in_stream_spec=${zurl('zurl-in-stream')}
out_spec=${zurl('zurl-out')}
in_req_spec=${zurl('zurl-req')}
defpolicy=allow
max_open_requests=2000
buffer_size=200000
timeout=600
in_hwm=1000
out_hwm=1000
`);
  write('routes', `* 127.0.0.1:${backend},over_http\n`);
  const file = write('pushpin.conf', `[global]
include={libdir}/internal.conf
rundir=${run}
ipc_prefix=pushpin-
port_offset=0
stats_connection_ttl=120
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:${port}
logdir=${folder}
log_level=1
client_buffer_size=200000
client_maxconn=50000
condure_bin=condure
[proxy]
routesfile=${join(folder, 'routes')}
sig_iss=pushpin
sig_key=a key of 32 bytes for this bench.
updates_check=off
zurl_out_specs=${zurl('zurl-in')}
zurl_out_stream_specs=${zurl('zurl-in-stream')}
zurl_in_specs=${zurl('zurl-out')}
[handler]
push_in_spec=tcp://127.0.0.1:${push}
push_in_sub_specs=tcp://127.0.0.1:${subscribe}
push_in_http_addr=127.0.0.1
push_in_http_port=${publish}
command_spec=tcp://127.0.0.1:${command}
message_rate=2500
message_hwm=25000
`);
  const holders = [start('zurl', [`--config=${zurlFile}`, `--logfile=${join(folder, 'zurl.log')}`]), start('pushpin', [`--config=${file}`])];
  await listens(port);
  await answers(port);
  return { address: `127.0.0.1:${port}`, holders };
}

function versions() {
  const programs = { fpm: [], nginx: [NGINX], 'taut-fastcgi': [TAUT], 'taut-http': [TAUT, NGINX], pushpin: ['pushpin', 'condure', 'zurl', NGINX] }[stack];
  const options = { [NGINX]: '-v', [FPM]: '-v' };
  return [...programs, FPM].map((program) => {
    const { stdout, stderr } = spawnSync(program, [options[program] ?? '--version'], { encoding: 'utf8' });
    const line = (stdout || stderr).split('\n')[0];
    return line.replace(/^nginx version: nginx\//, 'nginx ').replace(/^Zurl/, 'zurl').replace(/ \(.*$/, '');
  });
}

function write(name, text) {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

function start(program, options) {
  // SIGTERM, since they have processes of their own to end.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', program, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  child.on('exit', (code, signal) => {
    if (isEnding) return;
    console.error(`${program} has ended (${code ?? signal})`);
    process.exitCode = 1;
    end();
  });
  children.push(child);
  return child;
}

async function freePort() {
  return (await freePorts(1))[0];
}

async function freePorts(count) {
  const listeners = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(listeners.map((listener) => once(listener, 'listening')));
  return listeners.map((listener) => {
    const { port } = listener.address();
    listener.close();
    return port;
  });
}

/** A port or a path; nothing tells when another process begins to listen. */
async function listens(where) {
  while (!isEnding) {
    const socket = connect(where);
    const isOpen = await once(socket, 'connect').then(() => true, () => false); // `once` fails by the event `error`.
    socket.destroy();
    if (isOpen) return;
    await passed(20);
  }
}

/** Pushpin's processes find each other after its port is open. */
async function answers(port) {
  while (!isEnding && !(await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: 'OPEN\r\n' }).catch(() => ({}))).ok) await passed(50);
}

async function end() {
  if (isEnding) return;
  isEnding = true;
  // Who asks ends before who is asked.
  for (const child of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
  process.exit();
}
