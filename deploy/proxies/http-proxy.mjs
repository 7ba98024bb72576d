import { Agent, createServer } from 'node:http';
import httpProxy from 'http-proxy';

const proxy = httpProxy.createProxyServer({
  target: 'http://127.0.0.1:6001',
  xfwd: true,
  agent: new Agent({ keepAlive: true }),
});
proxy.on('error', (error, request, answer) => {
  if (answer?.writeHead) answer.writeHead(502);
  answer?.end();
});
const server = createServer((request, response) => proxy.web(request, response));
server.on('upgrade', (request, socket, head) => proxy.ws(request, socket, head));
server.listen(80);
