/** Pictures of the chat page for the README, made when TAUT_SCREENSHOTS names a folder for them. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENTS, launch, Tab } from './chromium.js';
import { Server } from './server.js';

const folder = process.env.TAUT_SCREENSHOTS;
const [own] = CLIENTS;

test('pictures_of_the_chat_page', { skip: !folder && 'TAUT_SCREENSHOTS is not set', timeout: 120_000 }, async (t) => {
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
