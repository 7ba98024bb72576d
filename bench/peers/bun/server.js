// A subset of the Pusher protocol over Bun's own publish and subscribe: enough for what is measured, and no more. It
// checks neither keys nor signatures, knows no limits and keeps no counts; channels are Bun's topics.

const APP = /^\/app\/[^/]+$/;
const EVENTS = /^\/apps\/[^/]+\/events$/;

const random = () => Math.floor(Math.random() * 1e10);

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  async fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (APP.test(pathname)) {
      if (server.upgrade(request)) return undefined;
      return new Response('this is where WebSocket clients connect', { status: 426 });
    }
    if (request.method !== 'POST' || !EVENTS.test(pathname)) return new Response('not found', { status: 404 });
    let event;
    try {
      event = await request.json();
    } catch {
      return new Response('the body is no JSON', { status: 400 });
    }
    const { name, data, channel, channels = [channel] } = event;
    for (const channel of channels) server.publish(channel, JSON.stringify({ event: name, channel, data }));
    return new Response('{}', { headers: { 'content-type': 'application/json' } });
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      const data = JSON.stringify({ socket_id: `${random()}.${random()}`, activity_timeout: 120 });
      socket.send(JSON.stringify({ event: 'pusher:connection_established', data }));
    },
    message(socket, text) {
      let message;
      try {
        message = JSON.parse(text);
      } catch {
        return;
      }
      const { event, data } = message;
      if (event === 'pusher:ping') {
        socket.send('{"event":"pusher:pong","data":"{}"}');
      } else if (event === 'pusher:subscribe') {
        const { channel } = data;
        socket.subscribe(channel);
        socket.send(JSON.stringify({ event: 'pusher_internal:subscription_succeeded', channel, data: '{}' }));
      } else if (event === 'pusher:unsubscribe') {
        socket.unsubscribe(data.channel);
      }
    },
  },
});

console.log(`listening on ${server.hostname}:${server.port}`);

process.on('SIGTERM', () => process.exit(0));
