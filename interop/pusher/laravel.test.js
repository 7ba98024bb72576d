/** Laravel on both ends: Illuminate's broadcaster under PHP authorises and broadcasts, Echo listens. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import Echo from 'laravel-echo';
import PusherInNode from 'pusher-js/node.js';
import { within } from '../browser/server.js';
import { Heard } from './heard.js';
import { clientOptions } from './platforms.js';
import { APP, MASTER_KEY, Taut, fresh } from './taut.js';

let taut;
let laravel;
let echoes = [];

before(async () => {
  taut = await Taut.start();
  laravel = await Laravel.start(taut.port);
});
afterEach(() => {
  for (const echo of echoes.splice(0)) echo.disconnect();
});
after(async () => {
  await laravel?.stop();
  await taut?.stop();
});

/** broadcasting.php under PHP's own web server, on a port of the system's choosing. */
class Laravel {
  #process;

  static async start(port) {
    const laravel = new Laravel();
    const script = fileURLToPath(new URL('./broadcasting.php', import.meta.url));
    const app = { ...APP, host: '127.0.0.1', port, master_key: MASTER_KEY };
    laravel.#process = spawn('php', ['-d', 'display_errors=stderr', '-S', '127.0.0.1:0', script], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TAUT_PUSHER_APP: JSON.stringify(app) },
    });
    let log = '';
    const listening = new Promise((resolve, reject) => {
      for (const stream of [laravel.#process.stdout, laravel.#process.stderr]) {
        stream.setEncoding('utf8').on('data', (text) => {
          log += text;
          const origin = /Development Server \((http:\/\/127\.0\.0\.1:\d+)\) started/.exec(log)?.[1];
          if (origin) resolve(origin);
        });
      }
      laravel.#process.on('error', reject);
      laravel.#process.on('exit', (code) => reject(new Error(`php ended (exit code ${code})\n${log}`)));
    });
    laravel.origin = await within(15_000, listening, () => `php does not say where it listens\n${log}`);
    return laravel;
  }

  /** An event of the application, as if a request of the client with this socket_id had caused it. */
  async broadcast(channels, event, payload, socketId = '') {
    const response = await fetch(`${this.origin}/broadcast`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json', ...(socketId && { 'x-socket-id': socketId }) },
      body: JSON.stringify({ channels, event, payload }),
    });
    assert.equal(response.status, 200, await response.text());
  }

  async stop() {
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    await ended;
  }
}

describe('laravel-echo with Illuminate', { timeout: 120_000 }, () => {
  function client(user) {
    const { channelAuthorization: _, userAuthentication: __, ...options } = clientOptions({ taut });
    const echo = new Echo({
      broadcaster: 'reverb',
      key: APP.key,
      Pusher: PusherInNode,
      ...options,
      authEndpoint: `${laravel.origin}/broadcasting/auth`,
      auth: { headers: { ...(user && { 'X-User': JSON.stringify(user) }) } },
    });
    echoes.push(echo);
    const heard = new Heard();
    return { echo, heard, hear: (event) => (data) => heard.add({ event, data }) };
  }

  const joined = ({ hear, heard }, channel) => {
    const told = hear(`joined ${channel.name}`);
    // It may have happened already: Echo tells that only to those who have asked before.
    if (channel.subscription.subscribed) told();
    else channel.subscribed(told);
    return heard.until({ event: `joined ${channel.name}` });
  };

  test('an_event_is_broadcast_on_a_channel_of_each_kind', async () => {
    const room = fresh('r');
    const one = client([7, 'Zoë']);
    const shipped = (channel, kind) => joined(one, channel.listen('OrderShipped', one.hear(kind)));
    await shipped(one.echo.channel('news'), 'public');
    await shipped(one.echo.private('orders.7'), 'private');
    await shipped(one.echo.join(`room.${room}`), 'presence');
    const event = 'App\\Events\\OrderShipped';
    await laravel.broadcast([{ kind: '', name: 'news' }], event, { order: 1 });
    await one.heard.until({ event: 'public', data: { order: 1 } });
    await laravel.broadcast([{ kind: 'private', name: 'orders.7' }, { kind: 'presence', name: `room.${room}` }], event, { order: 2 });
    await one.heard.until({ event: 'private', data: { order: 2 } });
    await one.heard.until({ event: 'presence', data: { order: 2 } });
  });

  test('illuminate_authorises_only_its_own_users', async () => {
    const guest = client([8, 'Guest']);
    guest.echo.private('orders.7').error(guest.hear('refused'));
    const [{ data }] = await guest.heard.until({ event: 'refused' });
    assert.equal(data.status, 403);
    const owner = client([8, 'Owner']);
    await joined(owner, owner.echo.private('orders.8'));
  });

  test('members_whose_ids_are_numbers_in_PHP_are_here_joining_and_leaving', async () => {
    const room = fresh('room.r');
    const [ada, zoe] = [client([1, 'Ada']), client([2, 'Zoë'])];
    await joined(ada, ada.echo.join(room).here(ada.hear('here')).joining(ada.hear('joining')).leaving(ada.hear('leaving')));
    await ada.heard.until({ event: 'here', data: [{ id: 1, name: 'Ada' }] });
    await joined(zoe, zoe.echo.join(room).here(zoe.hear('here')));
    await zoe.heard.until({ event: 'here', data: [{ id: 1, name: 'Ada' }, { id: 2, name: 'Zoë' }] });
    await ada.heard.until({ event: 'joining', data: { id: 2, name: 'Zoë' } });
    zoe.echo.leave(room);
    await ada.heard.until({ event: 'leaving', data: { id: 2, name: 'Zoë' } });
  });

  test('broadcast_toOthers_leaves_out_whoever_caused_it', async () => {
    const [ada, bob] = [client([9, 'Ada']), client([9, 'Ada'])];
    for (const one of [ada, bob]) {
      await joined(one, one.echo.private('orders.9').listen('Changed', one.hear('changed')).listen('Saved', one.hear('saved')));
    }
    await laravel.broadcast([{ kind: 'private', name: 'orders.9' }], 'App\\Events\\Changed', {}, ada.echo.socketId());
    await laravel.broadcast([{ kind: 'private', name: 'orders.9' }], 'App\\Events\\Saved', {});
    for (const one of [ada, bob]) await one.heard.until({ event: 'saved' });
    assert.equal(ada.heard.matching({ event: 'changed' }).length, 0);
    assert.equal(bob.heard.matching({ event: 'changed' }).length, 1);
  });
});
