/**
 * Reverse proxies as people set them up: by the files of deploy/proxies, with other ports and addresses, and in the careless ways that are found
 * everywhere. Each of `PROXIES` has a `name`, and `start(workshop, backend port)` gives a running one with its `port`; `skip` says why it cannot be had.
 * `SECURE` are those that speak TLS and redirect from `plainPort`, and `BALANCERS` those that stand before two nodes: `start(workshop, port of one, port
 * of the other)`.
 */
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { fileURLToPath } from 'node:url';
import { within } from '../browser/server.js';
import { Program, freePort } from './programs.js';
import { nginxCommand } from './proxies.js';

/** Programs of PyPI, where they are built for this machine: an nginx that keeps connections to its upstreams by default, a Caddy newer than Debian's. */
const { TAUT_NGINX: NEW_NGINX, TAUT_CADDY: NEW_CADDY, TAUT_TRAEFIK: TRAEFIK, TAUT_ENVOY: ENVOY } = process.env;

const PATIENCE = 30_000;

/** Recipes for a program of PyPI. */
function builtFor(program, name, recipes) {
  return recipes.map((recipe) => ({ ...recipe, skip: !program && `PyPI has no ${name} for this machine` }));
}

const file = (name) => readFile(new URL(`../../deploy/proxies/${name}`, import.meta.url), 'utf8');
const recipes = Object.fromEntries(await Promise.all([
  'nginx.conf', 'nginx-tls.conf', 'nginx-nodes.conf', 'nginx-beside.conf', 'nginx-beside-location.conf', 'haproxy.cfg', 'haproxy-tls.cfg', 'haproxy-nodes.cfg', 'Caddyfile', 'Caddyfile-nodes',
  'apache.conf', 'apache-tls.conf', 'apache-nodes.conf', 'traefik.yml', 'traefik-taut.yml', 'traefik-tls.yml', 'traefik-taut-tls.yml',
  'traefik-taut-nodes.yml', 'envoy.yaml', 'envoy-tls.yaml', 'envoy-nodes.yaml', 'http-proxy.mjs',
].map(async (name) => [name, await file(name)])));

/** nginx with a site of its own: Taut has only some paths. What is the site's has SITE for an answer. */
export const SITE = 'the site';
export const besideASite = nginx('nginx', `${recipes['nginx-beside.conf']}
server {
    listen 80;

    location / { return 404 "${SITE}"; }
    location = /up { return 200 "${SITE}"; }
    ${recipes['nginx-beside-location.conf']}
}
`);

export const byNginx = nginx('nginx', recipes['nginx.conf']);

export const PROXIES = [
  { name: 'nginx, by its recipe', start: byNginx },
  { name: 'nginx, beside a site', start: besideASite },
  { name: 'nginx, by the WebSocket location of its own documentation', start: nginx('nginx', location()) },
  { name: 'nginx, with Host $host', start: nginx('nginx', location('proxy_set_header Host $host;')) },
  { name: 'nginx, with Host localhost', start: nginx('nginx', location('proxy_set_header Host localhost;')) },
  ...builtFor(NEW_NGINX, 'nginx', [
    { name: 'nginx with upstream keep-alive by default, by its recipe', start: nginx(NEW_NGINX, recipes['nginx.conf']) },
    { name: 'nginx with upstream keep-alive by default, by its own documentation', start: nginx(NEW_NGINX, location()) },
  ]),
  { name: 'HAProxy, by its recipe', start: haproxy() },
  { name: 'HAProxy, without forwardfor', start: haproxy((text) => replaced(text, '    option forwardfor\n', '')) },
  { name: 'HAProxy, with http-reuse always', start: haproxy((text) => replaced(text, '    option httpchk', '    http-reuse always\n    option httpchk')) },
  { name: 'HAProxy, which does not read HTTP', start: haproxy((text) => replaced(text, / +(?:mode http|option (?:forwardfor|httpchk.*))\n/g, '', 4), 'mode tcp') },
  { name: 'Caddy of Debian 12', start: caddy('caddy', olderCaddy) },
  { name: 'Caddy, which says nothing of the client', start: caddy('caddy', (text) => replaced(text, /\bstream_close_delay \w+/, 'header_up -X-Forwarded-For\n\t\theader_up Host localhost')) },
  ...builtFor(NEW_CADDY, 'Caddy', [{ name: 'Caddy, by its recipe', start: caddy(NEW_CADDY) }]),
  ...builtFor(TRAEFIK, 'Traefik', [
    { name: 'Traefik, by its recipe', start: traefik() },
    { name: 'Traefik, which does not pass the host on', start: traefik((text) => replaced(text, 'loadBalancer:', 'loadBalancer:\n        passHostHeader: false')) },
  ]),
  ...builtFor(ENVOY, 'Envoy', [
    { name: 'Envoy, by its recipe', start: envoy() },
    { name: 'Envoy, which says nothing of the client', start: envoy((text) => replaced(text, 'use_remote_address: true', 'skip_xff_append: true')) },
  ]),
  { name: 'Apache httpd, by its recipe', start: apache() },
  { name: 'Apache httpd, which says nothing of the client', start: apache((text) => replaced(text, 'ProxyPreserveHost On', 'ProxyAddHeaders Off')) },
  { name: 'http-proxy in Node.js, by its recipe', start: node() },
  { name: 'http-proxy in Node.js, which says nothing of the client', start: node((text) => replaced(text, 'xfwd: true', 'changeOrigin: true')) },
];

export const SECURE = [
  { name: 'nginx', start: secure((ports, workshop, backend) => placedNginx('nginx', workshop, ports, withCertificate(toward(recipes['nginx-tls.conf'], [backend]), workshop))) },
  { name: 'HAProxy', start: secure(async (ports, workshop, backend) => {
    const bundle = await workshop.write('haproxy.pem', await readFile(workshop.certificate, 'utf8') + await readFile(workshop.key, 'utf8'));
    return haproxyCommand(workshop, ports, replaced(toward(recipes['haproxy-tls.cfg'], [backend]), '/etc/haproxy/realtime.example.com.pem', bundle));
  }) },
  ...builtFor(TRAEFIK, 'Traefik', [{ name: 'Traefik', start: async (...options) => knowsItsBackend(await secure((ports, workshop, backend) => (
    traefikCommand(workshop, ports, recipes['traefik-tls.yml'], withCertificate(toward(recipes['traefik-taut-tls.yml'], [backend]), workshop))
  ))(...options), https) }]),
  ...builtFor(ENVOY, 'Envoy', [{ name: 'Envoy', start: secure((ports, workshop, backend) => (
    envoyCommand(workshop, ports, withCertificate(toward(recipes['envoy-tls.yaml'], [backend]), workshop))
  )) }]),
  { name: 'Apache httpd', start: secure((ports, workshop, backend) => (
    apacheCommand(workshop, ports, withCertificate(toward(recipes['apache-tls.conf'], [backend]), workshop))
  )) },
];

/**
 * `checks`: whether it asks for /ready. Without, it finds out by connections that fail. `keepsOrder`: whether all that an app publishes goes to one node.
 */
export const BALANCERS = [
  { name: 'nginx', checks: false, start: (workshop, ...nodes) => Program.onFreePort((port) => placedNginx('nginx', workshop, { port }, toward(recipes['nginx-nodes.conf'], nodes))) },
  { name: 'HAProxy', checks: true, keepsOrder: true, start: (workshop, ...nodes) => Program.onFreePort((port) => haproxyCommand(workshop, { port }, toward(recipes['haproxy-nodes.cfg'], nodes))) },
  { name: 'Caddy', checks: true, start: (workshop, ...nodes) => Program.onFreePort((port) => caddyCommand(...newestCaddy(workshop, port, toward(recipes['Caddyfile-nodes'], nodes)))) },
  ...builtFor(TRAEFIK, 'Traefik', [{ name: 'Traefik', checks: true, start: (workshop, ...nodes) => startTraefik(workshop, toward(recipes['traefik-taut-nodes.yml'], nodes)) }]),
  ...builtFor(ENVOY, 'Envoy', [{ name: 'Envoy', checks: true, start: (workshop, ...nodes) => Program.onFreePort((port) => envoyCommand(workshop, { port }, toward(recipes['envoy-nodes.yaml'], nodes))) }]),
  { name: 'Apache httpd', checks: true, start: (workshop, ...nodes) => Program.onFreePort((port) => apacheCommand(workshop, { port }, toward(recipes['apache-nodes.conf'], nodes))) },
];

export const [byEnvoy] = PROXIES.filter(({ name }) => name === 'Envoy, by its recipe');

/** Caddy by its recipe, which `reload` has read its configuration again. */
export const [reloadedCaddy] = builtFor(NEW_CADDY, 'Caddy', [{ name: 'Caddy', start: startReloadedCaddy }]);

/** nginx by its recipe, with something before it in its `http` block. */
export const nginxWith = (more) => nginx('nginx', `${more}\n${recipes['nginx.conf']}`);

// ---- one backend: the recipe, changed ------------------------------------------------------------------------------------

function nginx(program, text) {
  return (workshop, backend) => Program.onFreePort((port) => placedNginx(program, workshop, { port }, toward(text, [backend])));
}

function haproxy(change = unchanged, mode = 'mode http') {
  return (workshop, backend) => Program.onFreePort((port) => haproxyCommand(workshop, { port }, toward(change(recipes['haproxy.cfg']), [backend]), mode));
}

function caddy(program, change = unchanged) {
  return (workshop, backend) => Program.onFreePort((port) => caddyCommand(program, workshop, { port }, toward(change(recipes.Caddyfile), [backend])));
}

function traefik(change = unchanged) {
  return (workshop, backend) => startTraefik(workshop, toward(change(recipes['traefik-taut.yml']), [backend]));
}

function envoy(change = unchanged) {
  return (workshop, backend) => Program.onFreePort((port) => envoyCommand(workshop, { port }, toward(change(recipes['envoy.yaml']), [backend])));
}

function apache(change = unchanged) {
  return (workshop, backend) => Program.onFreePort((port) => apacheCommand(workshop, { port }, toward(change(recipes['apache.conf']), [backend])));
}

function node(change = unchanged) {
  return (workshop, backend) => Program.onFreePort(async (port) => {
    const listening = replaced(toward(change(recipes['http-proxy.mjs']), [backend]), 'listen(80)', `listen(${port}, '127.0.0.1')`);
    // Its package is this folder's, and the program is elsewhere.
    const found = new URL('./node_modules/http-proxy/index.js', import.meta.url);
    return [process.execPath, await workshop.write(`proxy-${port}.mjs`, replaced(listening, "'http-proxy'", `'${fileURLToPath(found)}'`))];
  });
}

/** A location as nginx's own documentation has it. */
function location(more = '') {
  return `
server {
    listen 80;

    location / {
        proxy_pass http://127.0.0.1:6001;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        ${more}
    }
}
`;
}

/** A proxy with a port for TLS, `port`, and one without, `plain`. */
function secure(command) {
  return async (workshop, backend) => {
    let plain;
    const program = await Program.onFreePort(async (port) => {
      plain = await freePort();
      return command({ port, plain }, workshop, backend);
    });
    program.plainPort = plain;
    return program;
  };
}

// ---- what runs them --------------------------------------------------------------------------------------------------------

function placedNginx(program, workshop, ports, text) {
  return nginxCommand(program, workshop, ports.port, ports.plain
    ? replaced(replaced(text, 'listen 443 ssl;', `listen 127.0.0.1:${ports.port} ssl;`), 'listen 80;', `listen 127.0.0.1:${ports.plain};`)
    : replaced(text, 'listen 80;', `listen 127.0.0.1:${ports.port};`));
}

async function haproxyCommand(workshop, { port, plain }, text, mode = 'mode http') {
  const placed = plain ? replaced(text, 'bind :443', `bind 127.0.0.1:${port}`) : text;
  return ['haproxy', '-db', '-f', await workshop.write(`haproxy-${port}.cfg`, `
global
    maxconn 256
defaults
    ${mode}
${replaced(placed, 'bind :80', `bind 127.0.0.1:${plain ?? port}`)}
`)];
}

async function caddyCommand(program, workshop, { port, admin = 'off' }, text) {
  const site = replaced(text, 'realtime.example.com {', `:${port} {`);
  const configuration = await workshop.write(`Caddyfile-${port}`, `{\n  admin ${admin}\n  auto_https off\n  default_bind 127.0.0.1\n}\n${site}`);
  return caddyIn(workshop, program, 'run', '--adapter', 'caddyfile', '--config', configuration);
}

function caddyIn({ path }, program, ...words) {
  return ['env', `HOME=${path}`, `XDG_CONFIG_HOME=${path}`, `XDG_DATA_HOME=${path}`, program, ...words];
}

function newestCaddy(workshop, port, text) {
  return NEW_CADDY ? [NEW_CADDY, workshop, { port }, text] : ['caddy', workshop, { port }, olderCaddy(text)];
}

async function startReloadedCaddy(workshop, backend) {
  const admin = `127.0.0.1:${await freePort()}`;
  const caddy = await Program.onFreePort((port) => caddyCommand(NEW_CADDY, workshop, { port, admin }, toward(recipes.Caddyfile, [backend])));
  caddy.reload = async () => {
    const configuration = `${workshop.path}/Caddyfile-${caddy.port}`;
    const reload = new Program(...caddyIn(workshop, NEW_CADDY, 'reload', '--force', '--address', admin, '--adapter', 'caddyfile', '--config', configuration));
    const code = await reload.end();
    if (code !== 0) throw new Error(`the reload ended with ${code}:\n${reload.output}`);
  };
  return caddy;
}

async function startTraefik(workshop, text) {
  return knowsItsBackend(await Program.onFreePort((port) => traefikCommand(workshop, { port }, recipes['traefik.yml'], text)), http);
}

/** Traefik listens before it has read where to. */
async function knowsItsBackend(traefik, { get }) {
  const status = () => new Promise((resolve) => {
    const asking = get({ host: '127.0.0.1', port: traefik.port, path: '/up', agent: false, rejectUnauthorized: false });
    asking.on('response', (response) => resolve(response.resume().statusCode)).on('error', resolve);
  });
  const answers = async () => {
    while (await status() !== 200) await new Promise((resolve) => { setTimeout(resolve, 20); });
  };
  await within(PATIENCE, answers(), () => `Traefik does not know its backend:\n${traefik.output}`);
  return traefik;
}

async function traefikCommand(workshop, { port, plain }, text, routes) {
  const hosts = routes.split('Host(`realtime.example.com`)').length - 1;
  const dynamic = await workshop.write(`traefik-taut-${port}.yml`, replaced(routes, 'Host(`realtime.example.com`)', 'PathPrefix(`/`)', hosts));
  const placed = plain ? replaced(replaced(text, '":443"', `"127.0.0.1:${port}"`), 'to: websecure', `to: ":${port}"`) : text;
  const listening = replaced(placed, '":80"', `"127.0.0.1:${plain ?? port}"`);
  const quiet = 'global:\n  checkNewVersion: false\n  sendAnonymousUsage: false\n';
  const main = await workshop.write(`traefik-${port}.yml`, quiet + replaced(listening, /filename: .*/, `filename: ${dynamic}`));
  return [TRAEFIK, `--configFile=${main}`];
}

async function envoyCommand(workshop, { port, plain }, text) {
  const place = (from, to) => (placed) => replaced(placed, `address: 0.0.0.0, port_value: ${from} }`, `address: 127.0.0.1, port_value: ${to} }`);
  const placed = plain ? place(443, port)(place(80, plain)(text)) : place(80, port)(text);
  return [ENVOY, '--disable-hot-restart', '--concurrency', '1', '-l', 'warning', '-c', await workshop.write(`envoy-${port}.yaml`, placed)];
}

const APACHE_MODULES = ['mpm_event', 'authz_core', 'proxy', 'proxy_http', 'alias', 'ssl', 'socache_shmcb', 'slotmem_shm', 'proxy_balancer', 'lbmethod_byrequests', 'proxy_hcheck'];

async function apacheCommand(workshop, { port, plain }, text) {
  const placed = plain ? replaced(text, '*:443', `127.0.0.1:${port}`) : text;
  return ['apache2', '-DFOREGROUND', '-f', await workshop.write(`apache-${port}.conf`, `
ServerRoot ${workshop.path}
ServerName localhost
DefaultRuntimeDir ${workshop.path}
PidFile ${workshop.path}/apache-${port}.pid
ErrorLog ${workshop.path}/apache-${port}.log
User www-data
Group www-data
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 64
${APACHE_MODULES.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
Listen 127.0.0.1:${port}
${plain ? `Listen 127.0.0.1:${plain}` : ''}
${replaced(placed, '*:80', `127.0.0.1:${plain ?? port}`)}
`)];
}

// ---- changes of a text -----------------------------------------------------------------------------------------------------

function unchanged(text) { return text; }

/** Debian 12's Caddy is 2.6, which does not know when to close streams. */
function olderCaddy(text) { return replaced(text, '\t\tstream_close_delay 5m\n', ''); }

/** A recipe for these backends: the one on this machine, or two nodes. */
function toward(text, ports) {
  const addresses = ports.length === 1 ? ['127.0.0.1'] : ['10.0.0.1', '10.0.0.2'];
  return addresses.reduce((changed, address, index) => {
    const found = new RegExp(`${escaped(address)}(:|, port_value: )6001`, 'g');
    return replaced(changed, found, `127.0.0.1$1${ports[index]}`, changed.match(found)?.length || 1);
  }, text);
}

const withCertificate = (text, workshop) => replaced(replaced(text, /\/\S+\/fullchain\.pem/, workshop.certificate), /\/\S+\/privkey\.pem/, workshop.key);

/** What a recipe becomes when some of its text is replaced, which has to be there as often as that. */
function replaced(text, from, to, times = 1) {
  const found = [...text.matchAll(new RegExp(from instanceof RegExp ? from.source : escaped(from), 'g'))].length;
  if (found !== times) throw new Error(`the recipe has ${from} ${found} times, not ${times}:\n${text}`);
  return typeof from === 'string' ? text.replaceAll(from, () => to) : text.replace(from, to);
}

function escaped(text) { return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'); }
