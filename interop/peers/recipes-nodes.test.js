/** Proxies before two nodes, by the files of deploy/proxies: sessions of the fallbacks stay where they are, and a node that leaves gets no more clients. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Server, within } from '../browser/server.js';
import { Workshop } from './programs.js';
import { BALANCERS } from './recipes.js';
import { ask, connect, fallsBack, next, publish } from './visitors.js';

const APP = ['1', 'key-one', 'secret-one'];
const TOKEN = 'a-token-for-the-metrics';

/** Each has two requests, which reach the same node by luck in one of two cases. */
const SESSIONS = 12;

/** If so many clients in a row come to one node, the other gets none. */
const IN_A_ROW = 12;

/** Longer than all of this takes: a second signal ends it. */
const NOTICE = 60;

/** Until a proxy has found out that a node leaves: two checks, two seconds apart, and some more. */
const NOTICED_WITHIN = 20_000;

describe('taut serve on two nodes behind a proxy', { concurrency: true }, () => {
  let workshop;
  before(async () => { workshop = await Workshop.open(); });
  after(() => workshop?.close());

  for (const { name, skip, checks, keepsOrder, start } of BALANCERS) {
    test(`behind ${name}, sessions stay on a node, and a node that leaves gets no more clients`, { skip }, async () => {
      const nodes = [await startNode(), await startNode()];
      let proxy;
      try {
        proxy = await start(workshop, ...nodes.map(({ port }) => port));
        await bothServe(proxy, nodes);
        for (let number = 0; number < SESSIONS; number += 1) await fallsBack(proxy.port, APP);
        if (keepsOrder) await publishesToOne(proxy, nodes);
        if (checks) await staysOutOf(nodes[0], proxy);
        else {
          await staysInDespiteA503(nodes[0], proxy);
          await nodes[0].stop();
        }
        for (let number = 0; number < IN_A_ROW; number += 1) (await connect(proxy.port, APP)).terminate();
      } finally {
        // Ctrl-C does not wait for a load balancer to notice, and a second signal for nothing.
        for (const node of nodes) node.signal('SIGINT');
        await Promise.all(nodes.map((node) => node.stop()));
        await proxy?.stop();
      }
    });
  }
});

/** A node: how many clients it has had, and how often it was asked whether it is ready. */
async function startNode() {
  const options = ['--trusted-proxies', '127.0.0.1', '--drain-notice', String(NOTICE), '--drain-timeout', '2', '--metrics-token', TOKEN, '--app', APP.join(':')];
  const server = await Server.start({ options });
  const count = async (metric) => {
    const { body } = await ask(server.port, 'GET', '/metrics', { headers: { Authorization: `Bearer ${TOKEN}` } });
    return Number(body.split('\n').find((line) => line.startsWith(`${metric} `))?.slice(metric.length) ?? 0);
  };
  return Object.assign(server, {
    opened: () => count('taut_connections_opened_total'),
    published: () => count('taut_events_published_total{app="1"}'),
    checked: () => count('taut_http_requests_total{route="/ready",status="200"}'),
  });
}

/** Clients come until each node has had one. */
async function bothServe(proxy, nodes) {
  const served = async () => {
    do (await connect(proxy.port, APP)).terminate();
    while ((await Promise.all(nodes.map((node) => node.opened()))).includes(0));
  };
  await within(NOTICED_WITHIN, served(), () => `all clients come to one node:\n${proxy.output}`);
}

/** Events of one app all reach the same node. */
async function publishesToOne(proxy, nodes) {
  const event = JSON.stringify({ name: 'headline', channel: 'news', data: 'it works' });
  for (let number = 0; number < IN_A_ROW; number += 1) assert.equal((await publish(proxy.port, APP, event)).status, 200);
  const published = await Promise.all(nodes.map((node) => node.published()));
  assert.deepEqual(published.sort((one, other) => one - other), [0, IN_A_ROW]);
}

/** A node that answers one request with 503 is not taken for dead: the answer arrives, and so do further clients. */
async function staysInDespiteA503(node, proxy) {
  // Where nobody has asked, nobody is waited for.
  await ask(node.port, 'GET', '/ready');
  node.signal('SIGTERM');
  const arrives = async () => { while ((await ask(proxy.port, 'GET', '/ready')).status !== 503); };
  await within(NOTICED_WITHIN, arrives(), () => `no 503 comes through:\n${proxy.output}`);
  const before = await node.opened();
  const comes = async () => {
    do (await connect(proxy.port, APP)).terminate();
    while (await node.opened() === before);
  };
  await within(NOTICED_WITHIN, comes(), () => `no client comes to a node that has answered with 503:\n${proxy.output}`);
}

/** The node says at /ready that it will leave; soon only the other gets clients, and those it has stay. */
async function staysOutOf(node, proxy) {
  const guests = [];
  while (!guests.length) {
    const before = await node.opened();
    const guest = await connect(proxy.port, APP);
    if (await node.opened() > before) guests.push(guest);
    else guest.terminate();
  }
  // Where nobody has asked, nobody is waited for.
  const isChecked = async () => { while (!await node.checked()); };
  await within(NOTICED_WITHIN, isChecked(), () => `nobody has asked for /ready:\n${proxy.output}`);
  node.signal('SIGTERM');
  const left = async () => {
    for (let row = 0; row < IN_A_ROW; row += 1) {
      const before = await node.opened();
      (await connect(proxy.port, APP)).terminate();
      if (await node.opened() > before) row = -1;
    }
  };
  await within(NOTICED_WITHIN, left(), () => `clients still come to a node that leaves:\n${proxy.output}`);
  guests[0].send(JSON.stringify({ event: 'pusher:ping', data: {} }));
  assert.equal((await next(guests[0])).event, 'pusher:pong');
  guests[0].terminate();
}
