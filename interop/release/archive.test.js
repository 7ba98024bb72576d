/** The scripts that make a release, on the real program: what is in an archive, that it comes out the same twice, and which tags are refused. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { parse } from 'yaml';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const TAUT = process.env.TAUT_BIN ?? join(REPOSITORY, 'target/release/taut');
const EPOCH = '1700000000';
const RELEASE = join(REPOSITORY, 'deploy/release');
const TARGETS = parse(readFileSync(join(REPOSITORY, '.github/workflows/release.yml'), 'utf8')).jobs.build.strategy.matrix.include.map(({ target }) => target);
const version = execFileSync(join(RELEASE, 'version'), { encoding: 'utf8' }).trim();

let home;
before(() => { home = mkdtempSync(join(tmpdir(), 'taut-release-')); });
after(() => rmSync(home, { recursive: true }));

const nameOf = (target) => `taut-${version}-${target}`;

/** Any file will do where the program does not run: to compress the real one takes seconds. */
const SMALL = join(RELEASE, 'version');

/** Packs a program, as a machine with this umask does, and returns the folder with the archive. */
function pack(folder, target, { program = TAUT, umask = '022', extras = [] } = {}) {
  const out = join(home, folder);
  execFileSync('bash', ['-c', 'umask "$1"; shift; exec "$@"', '-', umask, join(RELEASE, 'package'), target, program, out, ...extras], {
    env: { ...process.env, SOURCE_DATE_EPOCH: EPOCH },
  });
  return out;
}

const list = (out, target) => execFileSync('tar', ['-tzf', join(out, `${nameOf(target)}.tar.gz`)], { encoding: 'utf8' }).trim().split('\n');

describe('an archive', { timeout: 120_000 }, () => {
  const target = 'x86_64-unknown-linux-gnu';

  test('has_the_program_the_licences_and_the_changelog_and_its_checksum_is_right', () => {
    const out = pack('whole', target);
    assert.deepEqual(list(out, target), ['', 'CHANGELOG.md', 'LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'taut'].map((name) => `${nameOf(target)}/${name}`));
    execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: out });
    execFileSync('tar', ['-xzf', `${nameOf(target)}.tar.gz`], { cwd: out });
    const said = execFileSync(join(out, nameOf(target), 'taut'), ['--version'], { encoding: 'utf8' });
    assert.ok(said.startsWith(`taut ${version}`), said);
  });

  test('comes_out_the_same_whoever_packs_it_and_when', () => {
    const touched = join(home, 'touched');
    cpSync(SMALL, touched);
    chmodSync(touched, 0o700);
    utimesSync(touched, 1, 1);
    const outs = [pack('one', target, { program: SMALL }), pack('two', target, { program: touched, umask: '077' })];
    const [one, two] = outs.map((out) => readFileSync(join(out, 'SHA256SUMS'), 'utf8'));
    assert.equal(one, two);
  });

  test('for_windows_has_taut_exe', () => {
    const out = pack('windows', 'x86_64-pc-windows-msvc', { program: SMALL });
    assert.ok(list(out, 'x86_64-pc-windows-msvc').includes(`${nameOf('x86_64-pc-windows-msvc')}/taut.exe`));
  });

  test('without_a_program_is_not_made', () => {
    const { status, stderr } = spawnSync(join(RELEASE, 'package'), [target, join(home, 'missing'), join(home, 'none')], { encoding: 'utf8' });
    assert.equal(status, 1);
    assert.match(stderr, /there is no program/);
    assert.ok(!existsSync(join(home, 'none')));
  });

  test('has_completions_and_man_pages', () => {
    const extras = join(home, 'extras');
    execFileSync(join(RELEASE, 'extras'), [TAUT, extras]);
    const names = list(pack('extra', target, { program: SMALL, extras: [extras] }), target);
    for (const name of ['completions/taut.bash', 'completions/_taut', 'completions/taut.fish', 'man/taut.1', 'man/taut-serve.1']) assert.ok(names.includes(`${nameOf(target)}/${name}`), name);
    assert.match(readFileSync(join(extras, 'completions/taut.bash'), 'utf8'), /complete .*taut/);
  });
});

test('cargo_binstall_finds_the_archive_of_every_target_and_the_program_in_it', () => {
  const manifest = readFileSync(join(REPOSITORY, 'crates/taut-cli/Cargo.toml'), 'utf8');
  const value = (name) => new RegExp(`^${name} = "(.*)"$`, 'm').exec(manifest)[1];
  assert.ok(TARGETS.length >= 7, TARGETS.join(' '));
  for (const target of TARGETS) {
    const words = { repo: 'https://forge.example/taut', version, target, bin: 'taut', 'binary-ext': target.includes('windows') ? '.exe' : '' };
    const expand = (template) => template.replace(/\{ ([\w-]+) \}/g, (_, word) => words[word] ?? assert.fail(`${word} is no word of binstall's`));
    assert.equal(expand(value('pkg-url')), `https://forge.example/taut/releases/download/v${version}/${nameOf(target)}.tar.gz`);
    const out = pack(`binstall-${target}`, target, { program: SMALL });
    assert.ok(list(out, target).includes(expand(value('bin-dir'))), target);
  }
});

describe('a program', () => {
  /** What the compiler is told, with these programs in the place of those that build. */
  function flags(folder, programs) {
    const bin = join(home, folder);
    mkdirSync(bin);
    const all = { cargo: `printf '%s\\n' "$RUSTFLAGS"`, cp: 'exit 0', ...programs };
    for (const [name, text] of Object.entries(all)) writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}`, CARGO_HOME: '/home/somebody/.cargo', TAUT_COMMIT: 'c', SOURCE_DATE_EPOCH: EPOCH };
    return execFileSync(join(RELEASE, 'build'), ['x86_64-pc-windows-msvc', join(home, folder)], { env, encoding: 'utf8' }).trim();
  }

  test('has_no_path_of_the_machine', () => {
    assert.equal(flags('unix', {}), `--remap-path-prefix=${REPOSITORY.replace(/\/$/, '')}=taut --remap-path-prefix=/home/somebody/.cargo=cargo`);
  });

  test('has_no_path_of_the_machine_on_windows_whose_shell_writes_them_otherwise', () => {
    const cygpath = `printf 'D:%s\\n' "$2" | tr / '\\\\'`;
    assert.match(flags('windows-paths', { cygpath }), /^--remap-path-prefix=D:(?:\\[^\\/ ]+)+=taut --remap-path-prefix=D:\\home\\somebody\\\.cargo=cargo$/);
  });
});

describe('a tag', () => {
  const SECTION = `## ${version} - 2026-12-01\n\n### Added\n\n- Everything.\n\n`;
  let tree;
  const edit = (path, change) => writeFileSync(join(tree, path), change(readFileSync(join(tree, path), 'utf8')));
  const check = (tag) => spawnSync(join(tree, 'deploy/release/check'), [tag], { encoding: 'utf8' });

  /** A copy of what the script reads, as it is when a release is ready, in a history of its own. */
  before(() => {
    tree = join(home, 'tree');
    const read = [
      'Cargo.toml', 'CHANGELOG.md', 'crates/taut-cli/Cargo.toml', 'crates/taut/Cargo.toml', 'deploy/release', 'deploy/helm/taut/Chart.yaml', 'deploy/debian/control',
      'deploy/prometheus/alerts.yml', 'docs/openapi.json', 'docs/asyncapi.json',
    ];
    for (const path of read) cpSync(join(REPOSITORY, path), join(tree, path), { recursive: true });
    const git = (...given) => execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', ...given], { cwd: tree });
    git('init', '--quiet');
    git('commit', '--quiet', '--allow-empty', '--message', 'A first commit');
    edit('CHANGELOG.md', (text) => text.replace('## Unreleased\n', `## Unreleased\n\n${SECTION}## 0.0.1 - 2020-01-01\n\n- Long ago.\n`));
    edit('Cargo.toml', (text) => (/^repository = /m.test(text) ? text : text.replace('license = ', 'repository = "https://forge.example/taut"\nlicense = ')));
    const [, address] = /^repository = "(.*)"$/m.exec(readFileSync(join(tree, 'Cargo.toml'), 'utf8'));
    edit('deploy/prometheus/alerts.yml', (text) => text.replaceAll('runbook_url: docs/', `runbook_url: ${address}/blob/main/docs/`));
    edit('deploy/debian/control', (text) => text.replace('.invalid>', '.example>'));
    edit('crates/taut-cli/Cargo.toml', (text) => (/^repository\.workspace/m.test(text) ? text : text.replace('license.workspace', 'repository.workspace = true\nlicense.workspace')));
  });

  test('of_the_version_is_released_with_what_the_build_has_to_know', () => {
    const { status, stdout, stderr } = check(`v${version}`);
    assert.equal(status, 0, stderr);
    assert.match(stdout, new RegExp(`^version=${version}\ncommit=[0-9a-f]{12} \\d{4}-\\d\\d-\\d\\d\nepoch=\\d+\n$`));
    assert.equal(execFileSync(join(tree, 'deploy/release/notes'), [version], { encoding: 'utf8' }).trim(), '### Added\n\n- Everything.');
  });

  const faults = [
    { name: 'of_another_version', tag: 'v9.9.9', says: /the tag is v9\.9\.9/ },
    { name: 'without_a_section_in_the_changelog', path: 'CHANGELOG.md', change: (text) => text.replace(SECTION, ''), says: /has no section/ },
    { name: 'without_a_repository', path: 'Cargo.toml', change: (text) => text.replace(/^repository = .*\n/m, ''), says: /has no repository/ },
    { name: 'with_a_crate_of_another_version', path: 'Cargo.toml', change: (text) => text.replace(`taut-proto", version = "${version}"`, 'taut-proto", version = "0.0.1"'), says: /another version.*taut-proto 0\.0\.1/ },
    { name: 'with_a_crate_that_asks_for_another_version', path: 'crates/taut/Cargo.toml', change: (text) => text.replace(`version = "${version}"`, 'version = "0.0.1"'), says: /another version.*taut-proto 0\.0\.1/ },
    { name: 'with_a_chart_of_another_version', path: 'deploy/helm/taut/Chart.yaml', change: (text) => text.replace(`\nversion: ${version}`, '\nversion: 0.0.1'), says: /Chart\.yaml has another version/ },
    { name: 'with_a_chart_for_another_version', path: 'deploy/helm/taut/Chart.yaml', change: (text) => text.replace(`appVersion: ${version}`, 'appVersion: 0.0.1'), says: /Chart\.yaml has another appVersion/ },
    { name: 'with_the_description_of_another_version', path: 'docs/asyncapi.json', change: (text) => text.replace(`"version": "${version}"`, '"version": "0.0.1"'), says: /asyncapi\.json has another version/ },
    { name: 'without_an_address_of_the_maintainers', path: 'deploy/debian/control', change: (text) => text.replace(/@\S+>/, '@taut.invalid>'), says: /no address where the maintainers can be reached/ },
    { name: 'with_alerts_that_lead_nowhere', path: 'deploy/prometheus/alerts.yml', change: (text) => text.replace(/(runbook_url: )\S+(docs\/)/, '$1$2'), says: /a runbook_url that does not begin with https:/ },
  ];
  for (const { name, tag = `v${version}`, path = 'CHANGELOG.md', change = (text) => text, says } of faults) {
    test(`${name}_is_refused`, () => {
      const whole = readFileSync(join(tree, path), 'utf8');
      edit(path, change);
      const { status, stderr } = check(tag);
      writeFileSync(join(tree, path), whole);
      assert.equal(status, 1, stderr);
      assert.match(stderr, says);
    });
  }
});

test('a_folder_with_files_of_any_name_has_its_checksums', () => {
  const folder = join(home, 'sums');
  mkdirSync(folder);
  for (const name of ['b', 'a', '-n']) writeFileSync(join(folder, name), name);
  execFileSync(join(RELEASE, 'checksums'), [folder]);
  execFileSync(join(RELEASE, 'checksums'), [folder]);
  execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: folder });
  assert.equal(readFileSync(join(folder, 'SHA256SUMS'), 'utf8').trim().split('\n').length, readdirSync(folder).length - 1);
});
