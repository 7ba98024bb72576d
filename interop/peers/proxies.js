/** What stands between: each a plain process with a configuration of its own in the workshop's folder. */
import { readFile } from 'node:fs/promises';
import { Program } from './programs.js';

/**
 * Reverse proxies, by name: `(workshop, backend port, {tls, idle})` starts one, which gives up silence after `idle`
 * seconds and says by X-Forwarded-For who comes. At nginx's `/page` there is an empty page, and `/moved` leads to `/`.
 * HAProxy does without reading HTTP in `mode: 'tcp'`, and says by the PROXY protocol who comes if told to `send` that.
 */
export const REVERSE = { nginx, haproxy };

/** Starts this nginx with what `inside(port)` gives of its `http` block. */
function startNginx(program, workshop, inside) {
  return Program.onFreePort((port) => nginxCommand(program, workshop, port, inside(port)));
}

/** The command line of this nginx with that `inside` its `http` block; the port names its files. */
export async function nginxCommand(program, workshop, port, inside) {
  return [program, '-p', workshop.path, '-e', 'stderr', '-c', await workshop.write(`nginx-${port}.conf`, `
daemon off;
${process.getuid() === 0 ? 'user root; # whose folder this is: large bodies are written there' : ''}
pid ${workshop.path}/nginx-${port}.pid;
error_log stderr warn;
worker_processes 1;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path ${workshop.path}/nginx-body;
  proxy_temp_path ${workshop.path}/nginx-proxy;
  fastcgi_temp_path ${workshop.path}/nginx-fastcgi;
  uwsgi_temp_path ${workshop.path}/nginx-uwsgi;
  scgi_temp_path ${workshop.path}/nginx-scgi;
  ${inside}
}
`)];
}

async function nginx(workshop, backend, { tls = false, idle = 60 }) {
  return startNginx('nginx', workshop, (port) => `
  server {
    listen 127.0.0.1:${port}${tls ? ' ssl' : ''};
    ${tls ? `ssl_certificate ${workshop.certificate}; ssl_certificate_key ${workshop.key};` : ''}
    location = /page {
      default_type text/html;
      return 200 "<title>A page</title>";
    }
    location = /moved {
      return 307 /;
    }
    location / {
      proxy_pass http://127.0.0.1:${backend};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout ${idle}s;
      proxy_send_timeout ${idle}s;
    }
  }
`);
}

async function haproxy(workshop, backend, { tls = false, idle = 60, mode = 'http', send = '' }) {
  const both = await readFile(workshop.certificate, 'utf8') + await readFile(workshop.key, 'utf8');
  const bundle = await workshop.write('haproxy.pem', both);
  return Program.onFreePort(async (port) => ['haproxy', '-db', '-f', await workshop.write(`haproxy-${port}.cfg`, `
global
  maxconn 64
defaults
  mode ${mode}
  retries 0
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  timeout tunnel ${idle}s
frontend in
  bind 127.0.0.1:${port}${tls ? ` ssl crt ${bundle}` : ''}
  ${mode === 'http' ? 'option forwardfor' : ''}
  default_backend out
backend out
  server one 127.0.0.1:${backend} ${send}
`)]);
}

/** tinyproxy, for CONNECT: it says where it connects to. */
export async function tinyproxy(workshop, credentials) {
  return Program.onFreePort(async (port) => ['tinyproxy', '-d', '-c', await workshop.write(`tinyproxy-${port}.conf`, `
Port ${port}
Listen 127.0.0.1
Allow 127.0.0.1
Timeout 60
MaxClients 16
LogLevel Connect
PidFile "${workshop.path}/tinyproxy-${port}.pid"
${credentials ? `BasicAuth ${credentials.user} ${credentials.password}` : ''}
`)]);
}

/** tinyproxy behind HAProxy, which ends TLS for it. */
export async function secureTinyproxy(workshop, credentials) {
  const behind = await tinyproxy(workshop, credentials);
  const front = await haproxy(workshop, behind.port, { tls: true, mode: 'tcp' });
  return {
    port: front.port,
    forget: () => behind.forget(),
    until: (pattern) => behind.until(pattern),
    stop: () => Promise.all([front.stop(), behind.stop()]),
  };
}

/** microsocks, for SOCKS5: it says where it connects to. */
export async function microsocks(workshop, credentials) {
  const login = credentials ? ['-u', credentials.user, '-P', credentials.password] : [];
  return Program.onFreePort((port) => ['microsocks', '-i', '127.0.0.1', '-p', port, ...login]);
}
