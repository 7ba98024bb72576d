/** The end of a connection is told at least once, whatever becomes of the request. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Backend } from './backend.js';
import { Server } from './server.js';

const TIMEOUT = 1; // seconds

/** What a backend does with the first request that tells of an end; the next one is answered. */
const FAULTS = {
  is_reset_before_an_answer: (request) => { request.socket.resetAndDestroy(); },
  is_reset_in_the_middle_of_the_answer: (request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
    response.write('{"publish":', () => request.socket.resetAndDestroy());
  },
  is_not_answered_in_time: () => {},
  is_answered_by_a_proxy_with_502: (request, response) => { response.writeHead(502).end('Bad Gateway'); },
  is_answered_by_a_proxy_with_503: (request, response) => { response.writeHead(503).end(); },
  is_answered_by_a_proxy_with_504: (request, response) => { response.writeHead(504).end(); },
};

/** Gives the backend, which has then been told of everything. */
async function played(answer, story) {
  const backend = await Backend.start(answer);
  const server = await Server.start([{ path: '/chat/{room}', backend: backend.url, timeout: TIMEOUT }]);
  try {
    await story(server, backend);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
  return backend;
}

describe('the end of a connection', () => {
  for (const [fault, fail] of Object.entries(FAULTS)) {
    test(`whose_request_${fault}_is_told_again_with_the_same_id`, () => {
      let failures = 0;
      const answer = ({ event }, request, response) => {
        if (event !== 'close' || failures > 0) return {};
        failures += 1;
        fail(request, response);
        return new Promise(() => {});
      };
      return played(answer, async (server, backend) => {
        const client = await server.connect('/chat/1');
        client.close(4000, 'bye');
        const [first, second] = await backend.until('close', 2);
        assert.deepEqual([first.attempt, second.attempt], [1, 2]);
        assert.equal(first.headers['webhook-id'], second.headers['webhook-id']);
        assert.deepEqual([second.seq, second.code, second.reason], [2, 4000, 'bye']);
      });
    });
  }

  test('that_a_handler_of_the_application_fails_is_told_once', async () => {
    const answer = ({ event }, _, response) => {
      if (event !== 'close') return {};
      response.writeHead(500).end();
      return new Promise(() => {});
    };
    const { events } = await played(answer, async (server, backend) => {
      const client = await server.connect('/chat/1');
      client.close(1000);
      await backend.until('close');
    });
    assert.deepEqual(events.map(({ event, attempt }) => [event, attempt]), [['open', 1], ['close', 1]]);
  });
});
