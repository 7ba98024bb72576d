/** Every block of README.md and of the pages in docs/ runs as it stands, against the server that README.md starts. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import Pusher from 'pusher';
import { PAGES, Workshop, blocksOf, isCompiled } from './blocks.js';

/** Blocks that nobody runs here, and why. */
const EXCEPTIONS = [
  { language: 'text', reason: 'a picture, or the form of something' },
  ...['nginx', 'haproxy', 'caddyfile', 'yaml', 'apache', 'js'].map((language) => (
    { page: 'docs/proxies.md', language, reason: 'interop/peers runs the files that this page shows' }
  )),
  { page: 'docs/kubernetes.md', language: 'yaml', reason: 'interop/operate renders the chart with them' },
  ...['alerts', 'metrics'].map((name) => ({ page: `docs/${name}.md`, language: 'yaml', reason: 'interop/operate gives it to promtool' })),
  { page: 'README.md', language: 'toml', reason: 'for Cargo.toml: the tests of the library read it' },
  ...['ruby', 'go'].map((language) => (
    { page: 'docs/publish.md', language, reason: 'the tests install no package of Pusher\'s for these' }
  )),
  ...['ini', 'sh'].map((language) => (
    { page: 'docs/deploy.md', language, reason: 'interop/deploy runs the blocks of this page' }
  )),
];

const isException = ({ page, language }) => EXCEPTIONS.some((one) => one.language === language && (one.page ?? page) === page);
const blocks = PAGES.flatMap(blocksOf);
const title = ({ page, line, language }) => `${page}_line_${line}_runs_as_${language}`;
const listens = ({ language, text }) => language === 'js' && /\.subscribe\(/.test(text);
const publishes = ({ language, text }) => Boolean({ js: /\.trigger\(/, python: /\.trigger\(/, sh: /auth_signature=|^taut publish /m }[language]?.test(text));

let workshop;
before(() => { workshop = new Workshop(); });
after(() => workshop.close());

async function succeeds(run) {
  assert.equal(await run.end(), 0, run.output);
}

/** A shell script ends by itself, or serves until it is told to end. */
async function runsInShell({ text }) {
  const run = workshop.run(['bash', '-euo', 'pipefail', '-c', text], {});
  const serves = await run.says('listening on');
  const code = await run.stop();
  assert.ok(code === 0 || (serves && code === 'SIGTERM'), `${code}: ${run.output}`);
}

function runJavaScript({ text }, environment) {
  const options = typeof WebSocket === 'undefined' ? ['--experimental-websocket'] : [];
  const page = new URL('./page.js', import.meta.url).href;
  const file = /\brequire\(/.test(text) ? 'block.cjs' : 'block.mjs';
  return workshop.run(['node', '--no-warnings', ...options, '--import', page, 'FILE'], { file, text, environment });
}

const runPython = ({ text }) => workshop.run([process.env.TAUT_PYTHON ?? 'python3', 'FILE'], { file: 'block.py', text });

const PUBLISHERS = {
  js: runJavaScript,
  python: runPython,
  sh: ({ text }) => workshop.run(['bash', '-euo', 'pipefail', '-c', text], {}),
};

const RUNNERS = {
  sh: runsInShell,
  js: (block) => succeeds(runJavaScript(block, { TOKEN_SECRET: 'a secret of thirty-two bytes or more' })),
  python: (block) => succeeds(runPython(block)),
  toml: ({ text }) => succeeds(workshop.run(['taut', 'serve', '--check', '--config', 'FILE'], { file: 'taut.toml', text })),
  php: ({ text }) => succeeds(workshop.run(['php', '-l', 'FILE'], { file: 'block.php', text: `<?php\n${text}` })),
  json: async ({ text }) => assert.doesNotThrow(() => JSON.parse(text)),
  env: ({ text }) => succeeds(workshop.run(['taut', 'serve', '--check', '--env-file', 'FILE'], { file: 'laravel.env', text })),
  sql: ({ text }) => succeeds(workshop.run(['python3', '-c', 'import sqlite3, sys; sqlite3.connect(":memory:").executescript(sys.stdin.read())'], { input: text })),
  rust: async ({ page }) => assert.ok(isCompiled(page), `${page} has Rust, but the documentation of no crate includes it`),
};

describe('blocks of the pages', { timeout: 300_000 }, () => {
  for (const block of blocks.filter((one) => !isException(one) && !listens(one) && !publishes(one))) {
    test(title(block), async () => {
      const run = RUNNERS[block.language];
      assert.ok(run, `${block.page}:${block.line}: nobody knows how to run ${block.language}: add it here, or to the exceptions with a reason`);
      await run(block);
    });
  }
});

describe('blocks of the pages for the server that README.md starts', { timeout: 300_000 }, () => {
  let server;
  before(async () => {
    const first = blocks.find(({ page, language, text }) => page === 'README.md' && language === 'sh' && /\bserve\b/.test(text));
    server = workshop.run(['bash', '-euo', 'pipefail', '-c', first.text], {});
    assert.ok(await server.says('listening on http://127.0.0.1:6001'), server.output);
  });
  after(() => server?.stop());

  const listeners = blocks.filter(listens);
  const publishers = blocks.filter(publishes);
  test('README_md_has_blocks_that_listen_and_blocks_that_publish', () => {
    assert.ok(listeners.length >= 2 && publishers.length >= 2, `${listeners.length} listen, ${publishers.length} publish`);
  });

  const backend = new Pusher({ appId: '1', key: 'app-key', secret: 'app-secret', host: '127.0.0.1', port: '6001', useTLS: false });
  const isOccupied = async () => (await (await backend.get({ path: '/channels/news' })).json()).occupied;

  for (const listener of listeners) {
    // Each once at least: who listens need not know who publishes.
    for (const publisher of listener === listeners[0] ? publishers : publishers.slice(0, 1)) {
      test(`what_${publisher.page}_line_${publisher.line}_publishes_is_heard_by_line_${listener.line}`, async () => {
        const run = runJavaScript(listener);
        try {
          while (!(await isOccupied())) assert.equal(run.code, undefined, run.output);
          await succeeds(PUBLISHERS[publisher.language](publisher));
          assert.ok(await run.says('It works'), run.output);
        } finally {
          await run.stop();
        }
        while (await isOccupied());
      });
    }
  }

  test('the_address_of_an_app_may_be_given_as_one_text', async () => {
    const pusher = Pusher.forURL('http://app-key:app-secret@127.0.0.1:6001/apps/1');
    assert.equal((await pusher.trigger('news', 'headline', {})).status, 200);
  });
});
