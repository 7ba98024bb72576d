/** Takes the webhooks of a cluster and writes them into the history. */
import { once } from 'node:events';
import { createServer } from 'node:http';

export class Hooks {
  #server;

  static async start(history, host = '127.0.0.1') {
    const hooks = new Hooks();
    hooks.#server = createServer(async (request, response) => {
      let body = '';
      for await (const part of request.setEncoding('utf8')) body += part;
      response.writeHead(200).end();
      const { time_ms: time, events } = JSON.parse(body);
      for (const { name, channel, user_id: user, ...more } of events) history.add('webhook', { name, channel, ...(user !== undefined && { user }), time, ...more });
    }).listen(0, host);
    await once(hooks.#server, 'listening');
    hooks.url = `http://${host}:${hooks.#server.address().port}/hook`;
    return hooks;
  }

  async stop() {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}
