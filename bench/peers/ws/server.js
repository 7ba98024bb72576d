// An echo server over the npm package ws, without compression. The native `bufferutil` is installed beside it, since ws
// uses it by itself where it finds it; without it this would be a slower ws than people can have. `utf-8-validate` is
// not: since Node 18.14 ws takes Node's own `buffer.isUtf8` in its place.

import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { WebSocketServer } from 'ws';

const require = createRequire(import.meta.url);
let native = true;
try {
  // `bufferutil` itself falls back to JavaScript without a word, so what it would load is loaded here.
  require('node-gyp-build')(dirname(require.resolve('bufferutil/package.json')));
} catch {
  native = false;
}

const versions =
  `${require('ws/package.json').version} on node ${process.versions.node}, ` +
  (native ? 'with bufferutil' : 'WITHOUT bufferutil');

if (process.argv[2] === '--version') {
  console.log(versions);
  process.exit(0);
}
if (!native) {
  console.error(`ws ${versions}: its native part is not installed, so it is slower than it could be`);
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });

server.on('listening', () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});

server.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('error', (error) => console.error(`connection: ${error.message}`));
});
