/** Serves the page and what it imports, and authorizes subscriptions to the presence channel. */
import { createHmac } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { createServer } from 'node:http';

const { PORT = '8000', TAUT_HOST = '127.0.0.1', TAUT_PORT = '6001' } = process.env;
const { TAUT_KEY = 'app-key', TAUT_SECRET = 'app-secret' } = process.env;

// The browser imports the packages' own files, so there is no build step.
const files = new Map(['notes.js', 'sync.js'].map((name) => [`/${name}`, new URL(name, import.meta.url)]));
files.set('/pusher.js', new URL(import.meta.resolve('pusher-js/dist/web/pusher.min.js')));
files.set('/yjs.js', new URL(import.meta.resolve('yjs')));
const imports = { yjs: '/yjs.js' };
const lib0 = new URL('.', import.meta.resolve('lib0/buffer'));
for (const file of readdirSync(lib0, { recursive: true }).filter((name) => /^(\w+\/)?[\w.-]+\.js$/.test(name))) {
  files.set(`/lib0/${file}`, new URL(file, lib0));
  imports[`lib0/${file.slice(0, -3)}`] = `/lib0/${file}`;
}
const page = readFileSync(new URL('index.html', import.meta.url), 'utf8')
  .replace(/(?<="importmap">)\{\}/, () => JSON.stringify({ imports }))
  .replace(/(?<=id="server">)\{\}/, () => JSON.stringify({ host: TAUT_HOST, port: Number(TAUT_PORT), key: TAUT_KEY }));

/** The signature that a client needs to subscribe, or nothing. A real application asks its session who this is. */
function authorize(form) {
  const [socket, channel, name] = ['socket_id', 'channel_name', 'name'].map((field) => form.get(field) ?? '');
  if (!/^\d+\.\d+$/.test(socket) || !/^presence-note-[\w-]{1,50}$/.test(channel)) return undefined;
  // sync.js tells tabs apart by their user_id, so it is the id of the connection.
  const channel_data = JSON.stringify({ user_id: socket, user_info: { name: name.trim().slice(0, 40) || 'Guest' } });
  const signature = createHmac('sha256', TAUT_SECRET).update(`${socket}:${channel}:${channel_data}`).digest('hex');
  return { auth: `${TAUT_KEY}:${signature}`, channel_data };
}

const server = createServer(async (request, response) => {
  const answer = (status, type, body) => response.writeHead(status, { 'content-type': type }).end(body);
  const { pathname } = new URL(request.url, 'http://localhost');
  if (request.method === 'POST' && pathname === '/auth') {
    let body = '';
    for await (const part of request.setEncoding('utf8')) {
      body += part;
      if (body.length > 4096) return request.destroy();
    }
    const authorized = authorize(new URLSearchParams(body));
    return answer(authorized ? 200 : 403, 'application/json', JSON.stringify(authorized ?? {}));
  }
  if (pathname === '/') return answer(200, 'text/html; charset=utf-8', page);
  if (files.has(pathname)) return answer(200, 'text/javascript; charset=utf-8', readFileSync(files.get(pathname)));
  return answer(404, 'text/plain', 'There is nothing here.');
}).listen(PORT, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
