/** Pictures of the pages, two of them for the README, made when TAUT_SCREENSHOTS names a folder for them. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENTS, launch, Tab } from './chromium.js';
import { connect, connected, Console, live, publish, subscribed } from './console.js';
import { Server } from './server.js';

const folder = process.env.TAUT_SCREENSHOTS;
const [own] = CLIENTS;
const ALL_SIZES = [['', 1280, 800], ['-375', 375, 720], ['-320', 320, 640], ['-landscape', 740, 340]];
// All of them take minutes: they are for who looks at them.
const SIZES = process.env.TAUT_SCREENSHOT_SIZES === 'all' ? ALL_SIZES : ALL_SIZES.slice(0, 2);

test('pictures_of_the_chat_page', { skip: !folder && 'TAUT_SCREENSHOTS is not set', timeout: 240_000 }, async (t) => {
  await mkdir(folder, { recursive: true });
  const browser = await launch();
  t.after(() => browser.close());
  let server = await Server.start();
  t.after(() => server.stop());
  for (const colorScheme of ['light', 'dark']) {
    const wide = { colorScheme, deviceScaleFactor: 2, viewport: { width: 560, height: 680 } };
    const left = await Tab.open(browser, server.origin, own, { ...wide, name: 'Calm Otter' });
    const save = (tab, name) => tab.page.screenshot({ path: join(folder, `${name}-${colorScheme}.png`) });
    await left.reaches('connected');
    await save(left, 'empty');
    const right = await Tab.open(browser, server.origin, own, { ...wide, name: 'Merry Wren' });
    const phone = await Tab.open(browser, server.origin, own, { ...wide, name: 'Quick Fox', viewport: { width: 360, height: 640 } });
    await Promise.all([right.reaches('connected'), phone.reaches('connected')]);
    const talk = [
      [left, 'Hello from the first tab.'],
      [right, 'And hello from the second! 👋'],
      [right, 'Your message took one frame to get here.'],
      [left, 'Stop the server and start it again: we both find it by ourselves.'],
      [phone, 'Same from a phone.'],
    ];
    for (const [tab, text] of talk) {
      await tab.send(text);
      await Promise.all([left, right, phone].map((each) => (each === tab ? each.sees(text) : each.hears(text))));
    }
    await save(phone, 'phone');
    for (const [size, width, height] of SIZES) {
      await phone.page.setViewportSize({ width, height });
      await save(phone, `talk${size}`);
    }
    await phone.page.setViewportSize({ width: 360, height: 640 });
    const pictures = await Promise.all([left, right].map((tab) => tab.page.screenshot()));
    await beside(browser, pictures, colorScheme, join(folder, `chat-${colorScheme}.png`));
    await right.page.locator('summary').click();
    await save(right, 'wire');

    await server.stop();
    await left.reaches('waiting');
    await save(left, 'waiting');
    server = await Server.start({ listen: `127.0.0.1:${server.port}` });
    await left.reaches('connected');
    await save(left, 'back');
    await Promise.all([left, right, phone].map((tab) => tab.close()));
  }
});

test('pictures_of_the_page_of_a_server_with_its_own_apps', { skip: !folder && 'TAUT_SCREENSHOTS is not set', timeout: 60_000 }, async (t) => {
  await mkdir(folder, { recursive: true });
  const browser = await launch();
  t.after(() => browser.close());
  const server = await Server.start({ options: ['--app', '1:app-key:app-secret'] });
  t.after(() => server.stop());
  for (const colorScheme of ['light', 'dark']) {
    for (const [size, width, height] of SIZES) {
      const page = await browser.newPage({ colorScheme, viewport: { width, height }, deviceScaleFactor: 2 });
      await page.goto(server.origin);
      await page.screenshot({ path: join(folder, `server${size}-${colorScheme}.png`) });
      await page.close();
    }
  }
});

test('pictures_of_the_console', { skip: !folder && 'TAUT_SCREENSHOTS is not set', timeout: 400_000 }, async (t) => {
  await mkdir(folder, { recursive: true });
  const browser = await launch();
  t.after(() => browser.close());
  const server = await Server.start();
  t.after(() => server.stop());
  const clients = [];
  t.after(() => clients.forEach((client) => client.disconnect()));
  const link = await server.consoleLink();
  const consoles = [];
  for (const colorScheme of ['light', 'dark']) {
    for (const [size, width, height] of SIZES) {
      const settings = { view: 'events', colorScheme, viewport: { width, height }, deviceScaleFactor: 2, mayFail: true };
      const console = await Console.open(browser, `${server.origin}/console`, settings);
      const { page } = console;
      const save = (name) => page.screenshot({ path: join(folder, `console-${name}${size}-${colorScheme}.png`) });
      await page.getByLabel('Token').waitFor();
      await save('login');
      await page.goto(link);
      await page.evaluate(() => { location.hash = 'events'; });
      await live(page);
      await save('empty');
      consoles.push({ console, save });
    }
  }
  t.after(() => Promise.all(consoles.map(({ console }) => console.close())));
  await traffic(server, clients);
  for (const { console: { page, sees }, save } of consoles) {
    const shipped = await sees('Published', 'order-shipped');
    await save('events');
    await shipped.click();
    await save('event');
    for (const view of ['Overview', 'Channels', 'Connections']) {
      await page.getByRole('link', { name: view, exact: true }).click();
      if (view !== 'Overview') await page.locator(`#${view.toLowerCase()} tbody tr`).first().waitFor();
      await save(view.toLowerCase());
      if (view === 'Overview') {
        await page.getByText('Client requests refused').click();
        await save('refusals');
      }
    }
    await page.getByRole('button', { name: /^Disconnect / }).first().click();
    await save('question');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('link', { name: 'Channels', exact: true }).click();
    await page.getByRole('button', { name: 'presence-room-7' }).click();
    await page.getByRole('complementary').getByText('chloe', { exact: true }).waitFor();
    await save('channel');
  }
});

/** Half a minute of what happens on a server, for the plots; the clients stay. */
async function traffic(server, clients) {
  const people = ['ann', 'ben', 'chloe', 'dev', 'emil', 'farah'];
  const rooms = [];
  const say = (channel, event, data) => publish(server, channel, event, JSON.stringify(data));
  const started = performance.now();
  for (let second = 0; performance.now() - started < 36_000; second += 1) {
    if (second % 4 === 0 && clients.length < people.length) {
      const pusher = connect(server, people[clients.length]);
      clients.push(pusher);
      await connected(pusher);
      const room = pusher.subscribe('presence-room-7');
      for (const name of ['orders', 'cache-scores', `private-user-${clients.length}`]) pusher.subscribe(name);
      await subscribed(room);
      rooms.push(room);
    }
    const pause = new Promise((resolve) => setTimeout(resolve, 600));
    for (let n = 0; n < 2 + (second * second) % 7; n += 1) {
      await say('orders', n % 2 ? 'order-paid' : 'order-created', { id: 48_120 + second * 3 + n, total: '84.50', currency: 'EUR', items: 3 });
    }
    rooms[second % rooms.length].trigger('client-typing', { user: people[second % rooms.length], draft: true });
    if (second % 3 === 0) await say('cache-scores', 'score', { home: second % 4, away: 1, minute: second });
    if (second % 5 === 0) await say('private-encrypted-payroll', 'paid', { nonce: 'bm9uY2U', ciphertext: 'c2VjcmV0' });
    if (second === 6) clients[0].subscribe('private-no');
    await pause;
  }
  clients.pop().disconnect();
  await say('orders', 'order-shipped', { id: 48_131, carrier: 'post', parcels: [{ weight: 1.2 }, { weight: 0.4 }] });
}

/** Puts two pictures side by side, as two windows on a desk. */
async function beside(browser, pictures, colorScheme, path) {
  const page = await browser.newPage({ viewport: { width: 1220, height: 776 }, deviceScaleFactor: 2 });
  const [desk, bar, edge] = colorScheme === 'dark' ? ['#07090b', '#242c32', '#333d44'] : ['#d9d3c5', '#ebe7dd', '#c5beae'];
  await page.setContent(`<style>
    body { margin: 0; height: 100vh; display: flex; gap: 28px; align-items: center; justify-content: center; background: ${desk} }
    div { border: 1px solid ${edge}; border-radius: 12px; overflow: hidden; box-shadow: 0 18px 40px rgb(0 0 0 / 22%) }
    p { margin: 0; height: 34px; background: ${bar} } p::before { content: ''; display: block; width: 10px; height: 10px; border-radius: 50%;
      position: relative; left: 14px; top: 12px; background: ${edge}; box-shadow: 18px 0 ${edge}, 36px 0 ${edge} }
    img { display: block; width: 560px; height: 680px }
  </style>${pictures.map((picture) => `<div><p></p><img src="data:image/png;base64,${picture.toString('base64')}"></div>`).join('')}`);
  await page.screenshot({ path });
  await page.close();
}
