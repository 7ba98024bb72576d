/** `taut serve` behind proxies that speak TLS, by the files of deploy/proxies: clients and backends come through, and plain HTTP leads to HTTPS. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { Server } from '../browser/server.js';
import { Workshop } from './programs.js';
import { SECURE } from './recipes.js';
import { ask, delivers } from './visitors.js';

const APP = ['1', 'key-one', 'secret-one'];

describe('taut serve behind proxies that speak TLS', { concurrency: false }, () => {
  let workshop, taut;
  before(async () => {
    workshop = await Workshop.open();
    taut = await Server.start({ options: ['--trusted-proxies', '127.0.0.1', '--drain-notice', '0', '--app', APP.join(':')] });
  });
  after(async () => {
    await workshop?.close();
    assert.equal(await taut?.stop(), 0);
  });

  for (const { name, skip, start } of SECURE) {
    test(`behind ${name}, clients get events over wss and plain HTTP is redirected`, { skip }, async () => {
      const proxy = await start(workshop, taut.port);
      try {
        await delivers(proxy.port, APP, { ca: await readFile(workshop.certificate) });
        const { status, headers } = await ask(proxy.plainPort, 'GET', '/up', { headers: { Host: 'realtime.example.com' } });
        assert.ok([301, 308].includes(status), `${status}`);
        assert.match(headers.location, /^https:\/\/realtime\.example\.com(?::\d+)?\/up$/);
      } finally {
        await proxy.stop();
      }
    });
  }
});
