/** The documentation as a book: all pages are in it, its links lead somewhere, it loads nothing from elsewhere, and it fits on a phone. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, extname, join, normalize } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { launch } from '../browser/chromium.js';
import { Page, REPOSITORY, guide, pages, resolve } from './pages.js';

const MDBOOK = process.env.TAUT_MDBOOK ?? 'mdbook';
const summary = new Page('docs/SUMMARY.md');
const chapters = [...summary.prose.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)].map(([, name, target]) => ({ name, path: resolve(summary, target) }));

let book;
let log;
let files;
before(() => {
  book = mkdtempSync(join(tmpdir(), 'taut-book-'));
  const build = spawnSync(MDBOOK, ['build', '--dest-dir', book], { cwd: REPOSITORY, encoding: 'utf8', env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } });
  log = `${build.stdout}${build.stderr}`;
  assert.equal(build.status, 0, log);
  files = new Map(readdirSync(book, { recursive: true }).filter((name) => name.endsWith('.html')).map((name) => [name, readFileSync(join(book, name), 'utf8')]));
});
after(() => rmSync(book, { recursive: true }));

/** What people read: not the list of chapters by itself, which pages without scripts show in a frame, and not the page for wrong addresses. */
const shown = () => [...files].filter(([name]) => !['toc.html', '404.html'].includes(name));

test('it_is_built_without_a_warning', () => {
  assert.doesNotMatch(log, /WARN|ERROR/, log);
});

test('every_page_of_docs_is_in_the_book_by_its_title', () => {
  const docs = pages.filter(({ path }) => path.startsWith('docs/') && path !== 'docs/SUMMARY.md').map(({ path }) => path);
  const listed = chapters.map(({ path }) => path);
  assert.deepEqual(listed.filter((path) => path.startsWith('docs/')).sort(), docs.sort());
  assert.deepEqual(listed.filter((path) => path.startsWith('crates/')).sort(), guide.map(({ path }) => path).sort());
  assert.equal(new Set(listed).size, listed.length, 'a page is there twice');
  for (const { name, path } of chapters.filter((one) => !one.path.startsWith('crates/'))) assert.equal(name, new Page(path).title, path);
});

test('the_title_of_every_page_is_its_first_heading', () => {
  for (const [name, html] of shown()) {
    const [, title] = /<title>(.*?)<\/title>/s.exec(html);
    const [, heading] = /<main>.*?<h1\b[^>]*>(.*?)<\/h1>/s.exec(html) ?? [];
    assert.ok(heading, `${name} has no heading`);
    assert.equal(title.replace(/ - Taut$/, ''), heading.replace(/<[^>]*>/g, '').trim(), name);
  }
});

test('every_link_and_anchor_of_the_book_leads_somewhere', () => {
  const ids = new Map([...files].map(([name, html]) => [name, new Set([...html.matchAll(/\bid="([^"]+)"/g)].map(([, id]) => unescape(id)))]));
  const wrong = [];
  let count = 0;
  for (const [name, html] of files) {
    if (name === '404.html') continue; // its links are from the root, as it is shown for any address
    const tags = (html.match(/<[a-z][^<>]*>/gi) ?? []).join('\n');
    for (const [, target] of tags.matchAll(/\b(?:href|src|srcset)="([^"]*)"/g)) {
      if (/^(https?|data):/.test(target)) continue;
      count += 1;
      const [path, anchor] = unescape(decodeURI(target)).split('#');
      const file = path ? normalize(join(dirname(name), path)) : name;
      const exists = files.has(file) || (extname(file) !== '.html' && readable(file));
      if (!exists || (anchor && !ids.get(file)?.has(anchor))) wrong.push(`${name}: ${target}`);
    }
  }
  assert.ok(wrong.length === 0, wrong.join('\n'));
  assert.ok(count > 1000, `only ${count} were found`);
});

test('no_page_has_text_that_is_still_a_link_of_rustdoc', () => {
  for (const [name, html] of shown()) assert.doesNotMatch(html.replace(/<code[^>]*>.*?<\/code>/gs, ''), /\]\(crate|crate::/, name);
});

test('the_search_index_finds_what_the_pages_say', () => {
  const [name] = readdirSync(book).filter((file) => file.startsWith('searchindex'));
  const index = readFileSync(join(book, name), 'utf8');
  for (const term of ['presence-grace', 'slow-reader', 'into_bytes', 'taut_refusals_total', 'GatewayClient']) assert.ok(index.includes(term), term);
});

test('its_colours_are_those_of_the_other_pages', () => {
  const mine = readFileSync(join(REPOSITORY, 'book/book.css'), 'utf8');
  const base = readFileSync(join(REPOSITORY, 'web/base.css'), 'utf8');
  const colours = (text) => Object.fromEntries([...text.matchAll(/--(paper|card|ink|soft|line|accent): (#\w+);/g)].map(([, name, value]) => [name, value]));
  const [light, dark] = base.split('prefers-color-scheme: dark');
  assert.deepEqual(colours(/html\.light \{(.*?)\}/s.exec(mine)[1]), colours(light));
  assert.deepEqual(colours(/html\.navy \{(.*?)\}/s.exec(mine)[1]), colours(dark));
});

describe('in Chromium', { timeout: 180_000 }, () => {
  let browser;
  let server;
  let origin;
  before(async () => {
    browser = await launch();
    server = createServer((request, response) => {
      const path = normalize(decodeURI(new URL(request.url, 'http://127.0.0.1').pathname));
      const content = readable(path === '/' ? 'index.html' : path);
      response.writeHead(content ? 200 : 404, { 'content-type': TYPES[extname(path)] ?? 'text/html' }).end(content || '');
    });
    await new Promise((listening) => { server.listen(0, '127.0.0.1', listening); });
    origin = `http://127.0.0.1:${server.address().port}`;
  });
  after(async () => {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
  });

  // A page takes half a second on a busy machine. The sources of examples look alike, and a desk has room for what fits on a phone.
  const shapes = [
    { name: 'every_page_fits_on_a_phone', width: 360, colorScheme: 'light', isSeen: (name) => !name.startsWith('examples/') },
    { name: 'pages_have_their_colours_in_the_dark', width: 1280, colorScheme: 'dark', isSeen: (name) => /^(index|architecture|examples\/php)\.html$/.test(name) },
  ];
  for (const { name: title, width, colorScheme, isSeen } of shapes) {
    test(`${title}_and_loads_nothing_from_elsewhere`, async () => {
      const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
      const page = await context.newPage();
      const wrong = [];
      page.on('request', (request) => { if (!request.url().startsWith(origin) && !request.url().startsWith('data:')) wrong.push(`asked for ${request.url()}`); });
      page.on('response', (response) => { if (response.status() >= 400) wrong.push(`${response.status()} for ${response.url()}`); });
      page.on('pageerror', (error) => wrong.push(error.stack));
      for (const [name] of shown().filter(([one]) => isSeen(one))) {
        await page.goto(`${origin}/${name}`, { waitUntil: 'domcontentloaded' });
        const [own, background] = await page.evaluate(() => [document.documentElement.scrollWidth, getComputedStyle(document.documentElement).backgroundColor]);
        if (own > width) wrong.push(`${name} is ${own} wide`);
        // What is wider than the page is scrolled by itself.
        const cut = await page.evaluate(() => [...document.querySelectorAll('main pre > code, main table')].filter((one) => {
          const box = one.closest('.table-wrapper') ?? one;
          return box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== 'auto';
        }).length);
        const thin = await page.evaluate(() => [...document.querySelectorAll('main td')].filter((cell) => cell.innerText.length > 12 && cell.clientWidth < 30).length);
        if (thin) wrong.push(`${name}: ${thin} cells are too narrow to be read`);
        if (cut) wrong.push(`${name}: ${cut} blocks or tables cannot be scrolled`);
        assert.equal(background, colorScheme === 'dark' ? 'rgb(18, 22, 26)' : 'rgb(246, 244, 239)', name);
      }
      assert.ok(wrong.length === 0, wrong.join('\n'));
      await context.close();
    });
  }

  test('a_search_finds_a_setting_and_leads_to_it', async () => {
    const context = await browser.newContext({ viewport: { width: 360, height: 800 } });
    const page = await context.newPage();
    await page.goto(`${origin}/index.html`);
    await page.keyboard.press('s');
    await page.locator('#mdbook-searchbar').pressSequentially('cluster-publish-away');
    const first = page.locator('#mdbook-searchresults a').first();
    await first.waitFor({ state: 'visible', timeout: 20_000 });
    await first.click();
    await page.waitForURL(/highlight=/);
    assert.match(await page.locator('main').innerText(), /cluster-publish-away/);
    await context.close();
  });

  test('the_reader_chooses_between_light_and_dark_alone', async () => {
    const page = await browser.newPage();
    await page.goto(`${origin}/index.html`);
    await page.locator('#mdbook-theme-toggle').click();
    const offered = await page.locator('#mdbook-theme-list button:visible').evaluateAll((all) => all.map((one) => one.id.replace('mdbook-theme-', '')));
    assert.deepEqual(offered, ['default_theme', 'light', 'navy']);
    await page.close();
  });
});

const TYPES = { '.css': 'text/css', '.js': 'text/javascript', '.svg': 'image/svg+xml', '.png': 'image/png' };

/** The content of a file of the book, or false. */
function readable(name) {
  try {
    return readFileSync(join(book, name));
  } catch {
    return false;
  }
}

function unescape(text) {
  return text.replace(/&#x([0-9a-f]+);/gi, (_, code) => String.fromCodePoint(parseInt(code, 16))).replace(/&quot;/g, '"').replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&');
}
