/** Connections of HTTP/1.1 that are used again, and backends that close them as the next event comes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { FORMS } from './forms.js';
import { Server } from './server.js';

const ERROR = { code: 1011, reason: 'backend error' };
const texts = (backend) => backend.events.filter(({ event }) => event === 'text').map(({ data }) => data);

for (const [form, { route }] of Object.entries(FORMS)) {
  describe(`a backend that closes connections, told in the form ${form}`, () => {
    /** Plays a story on a server whose route is a backend's; `served` is called with each socket whose answer was written. */
    async function played(answer, story, served = () => {}) {
      const backend = await Backend.start((event, request, response) => {
        response.on('finish', () => served(request.socket));
        return answer(event, request);
      }, { form });
      const server = await Server.start([{ path: '/chat', backend: backend.url, timeout: 3, ...route }]);
      try {
        await story(server, backend);
      } finally {
        assert.equal(await server.stop(), 0, server.output);
        await backend.stop();
      }
    }
    const echo = ({ event, data }) => (event === 'text' ? { send: data } : {});

    test('after_each_answer_gets_the_next_event_over_another', () => {
      let closed;
      const sockets = new Set();
      return played(echo, async (server, backend) => {
        const client = await server.connect('/chat');
        for (let count = 0; count < 20; count += 1) {
          await closed;
          client.send(`message ${count}`);
          assert.equal(await client.next(), `message ${count}`);
        }
        assert.equal(texts(backend).length, 20);
        assert.equal(sockets.size, 21);
        assert.deepEqual(await server.results(), { answered: 21 });
        client.terminate();
      }, (socket) => {
        sockets.add(socket);
        closed = once(socket, 'close');
        socket.end();
      });
    });

    test('as_an_event_comes_over_one_does_not_get_it_twice', () => played((event, request) => {
      if (event.data !== 'reset') return echo(event);
      request.socket.resetAndDestroy();
      return undefined;
    }, async (server, backend) => {
      for (let count = 0; count < 10; count += 1) {
        const client = await server.connect('/chat');
        client.send('kept');
        assert.equal(await client.next(), 'kept');
        client.send('reset');
        assert.deepEqual(await client.end(), ERROR);
      }
      assert.equal(texts(backend).filter((data) => data === 'reset').length, 10);
      await backend.until('close', 10);
      assert.equal((await server.results()).failed, 10);
    }));

    test('at_any_moment_gets_no_event_twice_and_each_client_is_told', () => played(echo, async (server, backend) => {
      const outcomes = { answered: 0, failed: 0 };
      await Promise.all(Array.from({ length: 8 }, async (_, number) => {
        let client = await server.connect('/chat').catch(() => undefined);
        for (let count = 0; count < 50; count += 1) {
          // The event that lets a client in may meet the end of a connection, too: then it comes again.
          while (!client) client = await server.connect('/chat').catch(() => undefined);
          const text = `${number}-${count}`;
          client.send(text);
          const heard = await Promise.race([client.next(), client.end()]);
          if (heard === text) outcomes.answered += 1;
          else {
            assert.deepEqual(heard, ERROR);
            outcomes.failed += 1;
            client = undefined;
          }
        }
        client?.terminate();
      }));
      assert.equal(outcomes.answered + outcomes.failed, 400);
      assert.ok(outcomes.answered > 200, JSON.stringify(outcomes));
      const told = texts(backend);
      assert.equal(new Set(told).size, told.length, 'no event is told twice');
      assert.ok(told.length >= outcomes.answered);
    }, (socket) => setTimeout(() => socket.destroy(), Math.random() * 4)));
  });
}
