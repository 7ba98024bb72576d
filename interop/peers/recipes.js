/**
 * Reverse proxies as people set them up: by the recipes of docs/proxies.md, taken from that page, and in the careless ways that are found everywhere.
 * Each of `PROXIES` has a `name`, and `start(workshop, backend port)` gives a running one with its `port`.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Program } from './programs.js';
import { startNginx } from './proxies.js';

const page = await readFile(new URL('../../docs/proxies.md', import.meta.url), 'utf8');

/** A newer nginx than Debian's, which keeps connections to its upstreams open by default, where there is one for this machine. */
const NEW_NGINX = process.env.TAUT_NGINX;

export const PROXIES = [
  { name: 'nginx, by its recipe', start: nginx('nginx', recipe('nginx')) },
  { name: 'nginx, by the WebSocket location of its own documentation', start: nginx('nginx', location()) },
  { name: 'nginx, with Host $host', start: nginx('nginx', location('proxy_set_header Host $host;')) },
  { name: 'nginx, with Host localhost', start: nginx('nginx', location('proxy_set_header Host localhost;')) },
  ...(NEW_NGINX ? [
    { name: 'nginx with upstream keep-alive by default, by its recipe', start: nginx(NEW_NGINX, recipe('nginx')) },
    { name: 'nginx with upstream keep-alive by default, by its own documentation', start: nginx(NEW_NGINX, location()) },
  ] : []),
  { name: 'HAProxy, by its recipe', start: haproxy((text) => text) },
  { name: 'HAProxy, without forwardfor', start: haproxy((text) => replaced(text, '    option forwardfor\n', '')) },
  { name: 'HAProxy, with http-reuse always', start: haproxy((text) => replaced(text, '    option httpchk', '    http-reuse always\n    option httpchk')) },
  { name: 'HAProxy, which does not read HTTP', start: haproxy((text) => replaced(text, / +(?:mode http|option (?:forwardfor|httpchk.*))\n/g, '', 4), 'mode tcp') },
  { name: 'Caddy, by its recipe', start: caddy((text) => text) },
  { name: 'Caddy, which says nothing of the client', start: caddy((text) => replaced(text, /(reverse_proxy \S+)/, '$1 {\n        header_up -X-Forwarded-For\n        header_up Host localhost\n    }')) },
  { name: 'Apache httpd, by its recipe', start: apache((text) => text) },
  { name: 'Apache httpd, which says nothing of the client', start: apache((text) => replaced(text, 'ProxyPreserveHost On', 'ProxyAddHeaders Off')) },
  { name: 'http-proxy in Node.js, by its recipe', start: node((text) => text) },
  { name: 'http-proxy in Node.js, which says nothing of the client', start: node((text) => replaced(text, 'xfwd: true', 'changeOrigin: true')) },
];

/** The page's block in this language. */
function recipe(language) {
  const blocks = [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, 'gm'))];
  if (blocks.length !== 1) throw new Error(`docs/proxies.md should have one block of ${language}, and has ${blocks.length}`);
  return blocks[0][1];
}

/** What a recipe becomes when some of its text is replaced, which has to be there as often as that. */
function replaced(text, from, to, times = 1) {
  const found = [...text.matchAll(new RegExp(from instanceof RegExp ? from.source : escaped(from), 'g'))].length;
  if (found !== times) throw new Error(`the recipe has ${from} ${found} times, not ${times}:\n${text}`);
  return typeof from === 'string' ? text.replace(from, () => to) : text.replace(from, to);
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** A recipe for this backend. */
const before = (text, backend) => replaced(text, '127.0.0.1:6001', `127.0.0.1:${backend}`);

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

function nginx(program, text) {
  return (workshop, backend) => startNginx(program, workshop, (port) => replaced(before(text, backend), 'listen 80;', `listen 127.0.0.1:${port};`));
}

function haproxy(change, defaults = 'mode http') {
  return (workshop, backend) => Program.onFreePort(async (port) => ['haproxy', '-db', '-f', await workshop.write(`haproxy-${port}.cfg`, `
global
    maxconn 256
defaults
    ${defaults}
${replaced(before(change(recipe('haproxy')), backend), 'bind :80', `bind 127.0.0.1:${port}`)}
`)]);
}

function caddy(change) {
  return (workshop, backend) => Program.onFreePort(async (port) => {
    const site = replaced(before(change(recipe('caddyfile')), backend), 'realtime.example.com {', `:${port} {`);
    const file = await workshop.write(`Caddyfile-${port}`, `{\n  admin off\n  auto_https off\n  default_bind 127.0.0.1\n}\n${site}`);
    const folders = [`HOME=${workshop.path}`, `XDG_CONFIG_HOME=${workshop.path}`, `XDG_DATA_HOME=${workshop.path}`];
    return ['env', ...folders, 'caddy', 'run', '--adapter', 'caddyfile', '--config', file];
  });
}

function apache(change) {
  const modules = ['mpm_event', 'authz_core', 'proxy', 'proxy_http'];
  return (workshop, backend) => Program.onFreePort(async (port) => ['apache2', '-DFOREGROUND', '-f', await workshop.write(`apache-${port}.conf`, `
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
${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join('\n')}
Listen 127.0.0.1:${port}
${replaced(before(change(recipe('apache')), backend), '*:80', `127.0.0.1:${port}`)}
`)]);
}

function node(change) {
  return (workshop, backend) => Program.onFreePort(async (port) => {
    const listening = replaced(before(change(recipe('js')), backend), 'listen(80)', `listen(${port}, '127.0.0.1')`);
    // Its package is this folder's, and the program is elsewhere.
    const found = new URL('./node_modules/http-proxy/index.js', import.meta.url);
    return [process.execPath, await workshop.write(`proxy-${port}.mjs`, replaced(listening, "'http-proxy'", `'${fileURLToPath(found)}'`))];
  });
}
