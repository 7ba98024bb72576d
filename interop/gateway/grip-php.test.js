/**
 * A chat in PHP without a library, behind Pushpin and behind Taut over HTTP, and behind Taut over FastCGI.
 * TAUT_GRIP_PROXIES=pushpin or =taut runs one of them.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Program } from '../peers/programs.js';
import { Fpm } from './fpm.js';
import { KEY, PROXIES, Taut } from './grip/proxies.js';
import { subscribed } from './grip/subscribed.js';
import { Client, refused } from './server.js';

const CHAT = fileURLToPath(new URL('grip/chat.php', import.meta.url));

/** What all of them have in common. */
async function chats(proxy) {
  const nobody = await refused(`${proxy.url}/chat.php`);
  assert.deepEqual([nobody.status, nobody.body], [401, 'who are you?']);
  const clients = await Promise.all(['ann', 'bob', 'cid'].map(async (user) => {
    const client = new Client(`${proxy.url}/chat.php?user=${user}`, { headers: { 'Meta-User': 'evil', meta_user: 'evil' } });
    await client.opened();
    assert.equal(await client.next(), `hello ${user}`);
    return client;
  }));
  const [ann, bob, cid] = clients;
  await subscribed(proxy, 'room', ...clients);
  for (const text of ['hi', 'héllo 👋', '']) {
    ann.send(text);
    assert.equal(await ann.next(), `[ann] ${text}`);
  }
  for (const bytes of [Buffer.from([0, 255, 13, 10]), Buffer.alloc(20_000, 7)]) {
    ann.send(bytes);
    assert.deepEqual(await ann.next(), bytes);
  }
  const numbers = Array.from({ length: 20 }, (_, number) => String(number));
  for (const number of numbers) bob.send(number);
  for (const number of numbers) assert.equal(await bob.next(), `[bob] ${number}`);
  ann.send('all');
  for (const client of clients) assert.equal(await client.next(), 'from ann');
  bob.close(4002, 'dinner');
  // Taut answers a Close frame by itself, with its code (RFC 6455 §5.5.1); the reason is for the backend.
  assert.deepEqual(await bob.end(), { code: 4002, reason: proxy.name === 'taut' ? '' : 'dinner' });
  for (const client of [ann, cid]) assert.equal(await client.next(), `bob left: CLOSE ${Buffer.from('\x0f\xa2dinner', 'latin1').toString('hex')}`);
  cid.terminate();
  assert.equal(await ann.next(), 'cid left: DISCONNECT ');
  ann.send('bye');
  assert.deepEqual(await ann.end(), { code: 4001, reason: 'see you' });
}

describe('a chat in PHP without a library', () => {
  for (const { name, start } of PROXIES) {
    test(`talks_over_http_behind_${name}`, async () => {
      let proxy, backend;
      try {
        backend = await Program.onFreePort(async (port) => {
          await proxy?.stop();
          proxy = await start(port);
          return ['env', `KEY=${KEY}`, `CONTROL=${proxy.control}`, 'php', '-S', `127.0.0.1:${port}`, CHAT];
        });
        await proxy.ready();
        await chats(proxy);
      } catch (error) {
        throw new Error(`${backend?.output}`, { cause: error });
      } finally {
        await proxy?.stop();
        await backend?.stop();
      }
    });

    if (name === 'taut') {
      test('talks_over_fastcgi_behind_taut', async () => {
        let taut;
        const fpm = await Fpm.start({
          async environment({ address }) {
            taut = await Taut.start(0, { backend: address, script: CHAT });
            return { KEY, CONTROL: taut.control };
          },
        });
        try {
          await chats(taut);
        } catch (error) {
          throw new Error(fpm.output, { cause: error });
        } finally {
          await taut.stop();
          await fpm.stop();
        }
      });
    }
  }
});
