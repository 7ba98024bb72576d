/** The documentation as files, on a forge or in an editor: links lead somewhere, and what pages name exists. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Page, REPOSITORY, guide, pages, resolve } from './pages.js';

const TAUT = process.env.TAUT_BIN ?? join(REPOSITORY, 'target/release/taut');

/** Flags of other programs, which pages name too. */
const FOREIGN_FLAGS = {
  'bench/run': ['fanout'],
  'cargo': ['locked', 'release', 'features', 'path', 'test', 'lib', 'config', 'example', 'open', 'workspace', 'help', 'version', 'all', 'check', 'git'],
  'curl': ['fail-with-body', 'silent', 'show-error', 'header', 'data-raw', 'insecure'],
  'apt-get': ['no-install-recommends'],
  'docker': ['detach', 'name', 'network', 'restart', 'rm', 'stop-timeout', 'ulimit'],
  'gh': ['repo'],
  'git': ['tags'],
  'journalctl': ['unit'],
  'kubectl': ['previous'],
  'mdbook': ['open'],
  'nats': ['replicas'],
  'nginx': ['with-stream'],
  'redis-cli': ['cluster'],
  'systemctl': ['now'],
  'websocat': ['base64', 'print-ping-rtts', 'socks5'],
  'wscat': ['auth', 'slash'],
  'taut, before it was called otherwise': ['tls-cert'],
};
const OLD_FLAGS = FOREIGN_FLAGS['taut, before it was called otherwise'];

/** Words in backticks that look like settings and are none, with what they are. */
const FOREIGN_SETTINGS = {
  'cluster-announce-ip': 'Redis', 'cluster-preferred-endpoint-type': 'Redis', 'cluster-node-timeout': 'Redis', 'cluster-require-full-coverage': 'Redis',
  'tls-webpki-roots': 'a feature of the library', 'min-replicas-to-write': 'Redis', 'min-replicas-max-lag': 'Redis', 'client-output-buffer-limit': 'Redis',
};

/** Variables of what builds the program, and not of the program. */
const BUILD_VARIABLES = ['TAUT_COMMIT'];

/** Pages about what is behind the program, which have flags and variables of scripts and tests. */
const BEHIND = /^(ARCHITECTURE|CONTRIBUTING|docs\/measurements|docs\/releasing)\.md$|^bench\/|^interop\//;
const front = pages.filter(({ path }) => !BEHIND.test(path));

const read = (path) => readFileSync(join(REPOSITORY, path), 'utf8');
const at = (page, { line }) => `${page.path}:${line}`;

/** Fails with all that was found at once: a page is mended in one go. */
function nothing(found, what) {
  assert.ok(found.length === 0, `${what}:\n${found.join('\n')}`);
}

test('every_page_begins_with_its_title_and_has_no_other', () => {
  for (const page of pages) {
    assert.match(page.text, /^# \S/, page.path);
    assert.equal(page.headings.filter(({ level }) => level === 1).length, page.path === 'docs/SUMMARY.md' ? 7 : 1, page.path);
  }
});

test('every_link_leads_to_a_file_and_every_anchor_to_a_heading', () => {
  const wrong = [];
  let count = 0;
  for (const page of pages) {
    for (const link of page.links.filter(({ target }) => !/^[a-z]+:/.test(target))) {
      count += 1;
      const path = resolve(page, link.target);
      const anchor = link.target.split('#')[1];
      if (!existsSync(join(REPOSITORY, path))) wrong.push(`${at(page, link)}: ${link.target}`);
      else if (anchor && !(path.endsWith('.md') && new Page(path).anchors.has(anchor))) wrong.push(`${at(page, link)}: ${link.target} has no such heading`);
    }
  }
  nothing(wrong, 'these links lead nowhere');
  assert.ok(count > 100, `only ${count} links were found`);
});

test('links_to_other_places_are_by_https', () => {
  const wrong = pages.flatMap((page) => page.links
    .filter(({ target }) => /^[a-z]+:/.test(target) && !/^https:\/\/[\w.-]+\.[a-z]+(\/|$)|^http:\/\/(127\.0\.0\.1|localhost)[:/]/.test(target))
    .map((link) => `${at(page, link)}: ${link.target}`));
  nothing(wrong, 'these are not');
});

describe('what pages name', () => {
  const known = flagsAndCommands();
  const variables = new Set(read('docs/configuration.md').match(/\bTAUT_[A-Z_]+\b/g));
  const settings = new Set([...read('docs/configuration.md').matchAll(/^\| `([a-z][\w.-]*)` \|/gm)].map(([, name]) => name.replaceAll('_', '-')));

  test('flags_are_flags_of_the_program', () => {
    const foreign = new Set(Object.values(FOREIGN_FLAGS).flat());
    const wrong = front.flatMap((page) => [...page.spans, ...page.commands].flatMap((one) => [...one.text.matchAll(/(?<![\w-])--([a-z][a-z0-9-]+)/g)]
      .filter(([, flag]) => !known.flags.has(flag) && !foreign.has(flag)).map(([flag]) => `${at(page, one)}: ${flag}`)));
    nothing(wrong, 'no command has these flags');
    assert.ok(known.flags.size > 50, `only ${known.flags.size} flags are known`);
  });

  test('flags_after_a_command_are_its_own', () => {
    let count = 0;
    const wrong = front.flatMap((page) => [...page.spans, ...page.commands].flatMap((one) => [...one.text.matchAll(/(?:^|[\s;&|(])taut ([a-z]+\b[^|;&]*)/g)].flatMap(([, words]) => {
      const [command, rest] = commandOf(words.split(/\s+/));
      if (!known.of.has(command)) return [];
      const flags = rest.flatMap((word) => /^\[?--([a-z][a-z0-9-]+)/.exec(word)?.slice(1) ?? []);
      count += flags.length;
      return flags.filter((flag) => !known.of.get(command).has(flag) && !OLD_FLAGS.includes(flag)).map((flag) => `${at(page, one)}: taut ${command} --${flag}`);
    })));
    nothing(wrong, 'these commands have no such flags');
    assert.ok(count > 50, `only ${count} flags were found`);
  });

  /** The longest path of commands that these words begin with, and what follows. */
  function commandOf(words) {
    let length = 1;
    while (length < words.length && known.of.has(words.slice(0, length + 1).join(' '))) length += 1;
    return [words.slice(0, length).join(' '), words.slice(length)];
  }

  test('commands_are_commands_of_the_program', () => {
    const wrong = front.flatMap((page) => [...page.spans, ...page.commands].flatMap((one) => [...one.text.matchAll(/(?:^|[\s;&|(])taut ([a-z]+)\b(?! *[=:])/g)]
      .filter(([, command]) => !known.commands.has(command) && command !== CONTAINER).map(([, command]) => `${at(page, one)}: taut ${command}`)));
    nothing(wrong, 'there are no such commands');
    assert.ok(known.commands.has('serve'));
  });

  test('settings_are_settings', () => {
    const families = new Set([...settings].filter((name) => name.includes('-')).map((name) => name.split('-')[0]));
    const wrong = front.flatMap((page) => page.spans.flatMap((one) => {
      const [, name] = /^([a-z]+(?:-[a-z]+)+)(?: = .*)?$/.exec(one.text) ?? [];
      if (!name || !families.has(name.split('-')[0]) || name.startsWith('taut-')) return [];
      // In `[limits]` they have no `max-`.
      const isKnown = settings.has(name) || settings.has(`max-${name}`) || known.flags.has(name) || name in FOREIGN_SETTINGS;
      return isKnown ? [] : [`${at(page, one)}: ${name}`];
    }));
    nothing(wrong, 'docs/configuration.md has no such settings');
    assert.ok(settings.size > 80, `only ${settings.size} settings are known`);
  });

  test('variables_are_variables_of_settings', () => {
    const scripts = new Set(['examples', 'crates/taut-cli'].flatMap((folder) => mentioned(folder, /\bTAUT_[A-Z_]+\b/g)));
    const wrong = front.flatMap((page) => [...page.spans, ...page.commands].flatMap((one) => (one.text.match(/\bTAUT_[A-Z_]*[A-Z]\b/g) ?? [])
      .filter((name) => !variables.has(name) && !scripts.has(name) && name !== 'TAUT_LISTN').map((name) => `${at(page, one)}: ${name}`)));
    nothing(wrong, 'nothing reads these variables');
  });

  test('variables_in_deploy_are_variables_of_settings', () => {
    const found = [...mentioned('deploy', /\bTAUT_[A-Z_]*[A-Z]\b/g), ...read('Dockerfile').match(/\bTAUT_[A-Z_]*[A-Z]\b/g)];
    assert.ok(found.length > 10, found.join(' '));
    nothing([...new Set(found)].filter((name) => !variables.has(name) && !BUILD_VARIABLES.includes(name)), 'docs/configuration.md has no such variables');
  });

  test('metrics_are_metrics', () => {
    const metrics = new Set([...read('docs/metrics.md').match(/\b(taut|process)_[a-z_]+\b/g), 'process_control_timeout']); // the last is php-fpm's
    const crates = new Set(readdirSync(join(REPOSITORY, 'crates')).map((name) => name.replace('-', '_')));
    const wrong = front.filter(({ path }) => path !== 'docs/metrics.md').flatMap((page) => page.spans.flatMap((one) => (one.text.match(/\b(taut|process)_[a-z_]*[a-z]\b/g) ?? [])
      .filter((name) => !crates.has(name) && ![...metrics].some((metric) => metric === name || metric.startsWith(`${name}_`)))
      .map((name) => `${at(page, one)}: ${name}`)));
    nothing(wrong, 'docs/metrics.md has no such metrics');
  });

  test('files_are_there', () => {
    const folders = /^(crates|docs|examples|interop|bench|web|fuzz|tests\.d|deploy|book)\/[\w./-]+$/;
    const wrong = [...pages, ...guide].flatMap((page) => page.spans
      .filter(({ text }) => folders.test(text) && !/[A-Z]{4}|\*/.test(text) && !existsSync(join(REPOSITORY, text)))
      .map((one) => `${at(page, one)}: ${one.text}`));
    nothing(wrong, 'these are not');
  });

  test('parts_of_the_tests_are_there', () => {
    const parts = new Set(['quick', ...readdirSync(join(REPOSITORY, 'tests.d')).map((name) => name.replace(/^\d+-/, ''))]);
    const wrong = pages.flatMap((page) => page.spans.flatMap((one) => [...(/^\.\/test((?: [a-z]+)+)$/.exec(one.text)?.[1] ?? '').matchAll(/[a-z]+/g)]
      .filter(([part]) => !parts.has(part)).map(([part]) => `${at(page, one)}: ./test ${part}`)));
    nothing(wrong, 'there are no such parts');
  });
});

/** In `docker exec taut taut health` the first is the name of a container. */
const CONTAINER = 'taut';

/** What `--help` of the program and of all its commands says there is: all flags and commands, and the flags `of` each command. */
function flagsAndCommands() {
  const flags = new Set();
  const commands = new Set();
  const of = new Map();
  const ask = (path) => {
    const help = execFileSync(TAUT, [...path, '--help'], { encoding: 'utf8' });
    const own = [...help.matchAll(/^\s+(?:-\w, )?--([a-z][a-z0-9-]*)/gm)].map(([, flag]) => flag);
    for (const flag of own) flags.add(flag);
    of.set(path.join(' '), new Set(own));
    const [, list = ''] = /^Commands:\n((?: {2}.*\n|\n)*)/m.exec(help) ?? [];
    for (const [, name] of list.matchAll(/^ {2}([a-z][\w-]*)/gm)) {
      if (!path.length) commands.add(name);
      // What follows `taut connect curl` are curl's own options.
      if (name !== 'help' && name !== 'curl') ask([...path, name]);
    }
  };
  ask([]);
  return { flags, commands, of };
}

function mentioned(folder, what) {
  if (!existsSync(join(REPOSITORY, folder))) return [];
  return readdirSync(join(REPOSITORY, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes('node_modules') && !entry.name.endsWith('.md'))
    .flatMap((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8').match(what) ?? []);
}
