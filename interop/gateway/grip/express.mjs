/** The program of grip.test.js on Express, with serve-grip. Usage: GRIP_URL=… KEY=… node express.mjs PORT */
import express from 'express';
import { createWebSocketControlMessage, Item, validateSig, WebSocketMessageFormat } from '@fanoutio/grip';
import { ServeGrip } from '@fanoutio/serve-grip';

const { GRIP_URL, KEY } = process.env;
const serveGrip = new ServeGrip({ grip: GRIP_URL, gripVerifyKey: KEY });
const app = express();

/** Prints each request on a line, so that the tests can wait for it. */
app.post('/chat', (req, res, next) => {
  const parts = [];
  req.on('data', (part) => parts.push(part));
  req.on('end', async () => {
    const body = Buffer.concat(parts).subarray(0, 2000).toString('base64');
    const verified = await validateSig(req.get('Grip-Sig') ?? '', KEY);
    console.log(`request ${JSON.stringify({ url: req.url, headers: req.headers, body, verified, signed: req.grip?.isSigned })}`);
  });
  next();
});

app.use(serveGrip);

/** The example of the library's page for streams. */
app.get('/api/stream', async (req, res) => {
  if (!req.grip.isProxied) return res.status(501).end();
  const gripInstruct = res.grip.startInstruct();
  gripInstruct.addChannel('test');
  gripInstruct.setHoldStream();
  res.setHeader('Content-Type', 'text/event-stream');
  return res.end('data: [stream open]\n\n');
});

app.post('/api/publish', async (req, res) => {
  await serveGrip.getPublisher().publishHttpStream('test', 'data: {"text":"nëws"}\n\n');
  res.end('published');
});

app.post('/chat', (req, res) => {
  const ws = req.grip.wsContext;
  if (!ws) return res.status(400).send('not a WebSocket\n');
  if (ws.isOpening()) {
    const { user } = req.query;
    if (!user) return res.status(401).set('WWW-Authenticate', 'Bearer').type('json').send('{"error":"who are you?"}');
    if (/\bchat\.v2\b/.test(req.get('Sec-WebSocket-Protocol'))) res.set('Sec-WebSocket-Protocol', 'chat.v2');
    res.cookie('seen', '1');
    ws.accept();
    ws.meta.user = user;
    ws.subscribe('room');
    ws.send(`hello ${user}`);
  }
  while (ws.canRecv()) {
    const message = ws.recvRaw();
    if (message === null) {
      ws.close(ws.closeCode ?? undefined);
      break;
    }
    if (typeof message === 'string') answer(ws, message);
    else ws.sendBinary(message);
  }
  return res.status(200).end();
});

function answer(ws, text) {
  switch (text) {
    case 'leave': return ws.unsubscribe('room');
    case 'bye': return ws.close(4001);
    case 'close': return ws.close();
    case 'detach': return ws.detach();
    case 'forget': return delete ws.meta.user;
    case 'keep-alive': return ws.sendControl(createWebSocketControlMessage('keep-alive', { content: 'still here', timeout: 2 }));
    case 'quiet':
      ws.sendControl(createWebSocketControlMessage('set-meta', { name: 'user', value: ws.meta.user }));
      return ws.sendControl(createWebSocketControlMessage('subscribe', { channel: 'quiet', filters: ['skip-self'] }));
    case 'fail': throw new Error('secret trace');
    default: return ws.send(`[${ws.meta.user ?? 'nobody'}] ${text}`);
  }
}

app.post('/publish', express.json(), async ({ body: { channel = 'room', text, binary, close } }, res) => {
  const content = binary === undefined ? text : Buffer.from(binary, 'base64');
  const format = close === undefined ? new WebSocketMessageFormat(content) : new WebSocketMessageFormat(null, true, close);
  try {
    await serveGrip.getPublisher().publish(channel, new Item(format));
    res.send('published');
  } catch (error) {
    res.status(502).send(`${error.context?.statusCode} ${error.message}`);
  }
});

app.use((error, req, res, next) => res.status(500).send(`<pre>${error.stack}</pre>`)); // eslint-disable-line no-unused-vars
app.listen(Number(process.argv[2]), '127.0.0.1');
