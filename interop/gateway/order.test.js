/** Two connections of one user that publish to one channel, on two nodes of which one is killed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Redis } from '../cluster/redis.js';
import { Backend } from './backend.js';
import { FORMS } from './forms.js';
import { Server } from './server.js';

const KEY = 'order-0123456789abcdef-0123456789abcdef';
const COUNT = 300;

for (const [form, { route }] of Object.entries(FORMS)) {
  test(`the_order_of_each_publisher_outlives_the_other_publishers_node_in_the_form_${form}`, { timeout: 120_000 }, async () => {
    let nodes;
    const publish = async (data) => {
      const body = JSON.stringify({ items: [{ channel: 'room', formats: { 'ws-message': { content: data } } }] });
      const response = await fetch(`${nodes[1].url.replace('ws', 'http')}/publish/`, { method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }, body });
      assert.equal(response.status, 200);
      return {};
    };
    const redis = await Redis.start();
    const backend = await Backend.start(({ event, data }) => {
      if (event === 'open') return { user: 'ann', subscribe: ['room'] };
      if (event !== 'text') return {};
      return form === 'plain' ? { publish: [{ channel: 'room', data }] } : publish(data);
    }, { form });
    const options = ['--cluster', `redis://127.0.0.1:${redis.port}`, '--cluster-ready', 'on'];
    const settings = { path: '/chat', backend: backend.url, timeout: 30, frames: 'raw', ...route, ...(form === 'plain' ? {} : { secret: KEY }) };
    nodes = await Promise.all([0, 1].map(() => Server.start([settings], { options })));
    try {
      for (const node of nodes) while ((await fetch(`${node.url.replace('ws', 'http')}/ready`)).status !== 200);
      const [first, second] = [await nodes[0].connect('/chat'), await nodes[1].connect('/chat')];
      const watcher = await nodes[1].connect('/chat');
      // A channel of other nodes is joined a moment after the client is let in.
      first.send('a:begin');
      while (!watcher.messages.includes('a:begin')) {
        await new Promise((resolve) => { setTimeout(resolve, 20); });
        if (!watcher.messages.includes('a:begin')) first.send('a:begin');
      }
      for (let count = 0; count < COUNT; count += 1) for (const [name, client] of [['a', first], ['b', second]]) client.send(`${name}:${count}`);
      await watcher.hears(/^a:20$/);
      await nodes[0].kill();
      await watcher.hears(new RegExp(`^b:${COUNT - 1}$`));
      assert.equal((await first.end()).code, 1006);
      const numbers = (name) => watcher.messages.filter((text) => text.startsWith(`${name}:`) && !text.endsWith('begin')).map((text) => Number(text.slice(2)));
      const upTo = (end) => Array.from({ length: end }, (_, number) => number);
      assert.deepEqual(numbers('b'), upTo(COUNT), 'all of the node that stays, once each and in order');
      const cut = numbers('a');
      assert.ok(cut.length > 20 && cut.length < COUNT, `${cut.length} of the node that was killed`);
      assert.deepEqual(cut, upTo(cut.length), 'of the other, without a gap up to its end');
      const told = backend.events.filter(({ event, data }) => event === 'text' && data.startsWith('a:') && !data.endsWith('begin')).map(({ data }) => Number(data.slice(2)));
      assert.deepEqual(told, upTo(told.length), 'and so was the backend told');
      assert.ok(told.length >= cut.length);
      second.send('b:after');
      await watcher.hears(/^b:after$/);
      for (const client of [second, watcher]) client.terminate();
      await backend.until('close', 2);
    } finally {
      await Promise.all(nodes.map((node) => node.stop()));
      await backend.stop();
      await redis.stop();
    }
  });
}
