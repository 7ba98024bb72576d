/** docs/compatibility.md says of every feature which tests hold it. Here it is held to that. */
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { test } from 'node:test';

const DOCUMENT = new URL('../../docs/compatibility.md', import.meta.url);

const sources = new Map();
for (const name of await readdir(new URL('.', import.meta.url))) {
  if (name.endsWith('.test.js')) sources.set(name, await readFile(new URL(name, import.meta.url), 'utf8'));
}

/** The rows of the tables: {feature, tests: [{file, title}]}. */
function rows(markdown) {
  const cells = markdown.split('\n').filter((line) => /^\|(?! feature |---)/.test(line)).map((line) => line.split(' | '));
  return cells.map((row) => {
    let file;
    const tests = [];
    for (const [, name] of row.at(-1).matchAll(/`([^`]+)`/g)) {
      if (/\.test\.\w+$/.test(name)) file = name;
      else tests.push({ file, title: name });
    }
    return { feature: row[0].slice(2), tests, columns: row.length };
  });
}

/** What is wrong with the rows, in words. */
function faults(markdown) {
  return rows(markdown).flatMap(({ feature, tests, columns }) => {
    if (columns !== 6) return [`${feature}: a row has 6 columns, this one ${columns}`];
    if (!tests.length) return [`${feature}: no test holds it`];
    return tests.flatMap(({ file, title }) => {
      const source = sources.get(file);
      if (source === undefined) return [`${feature}: there is no file ${file}`];
      const line = source.split('\n').find((text) => text.includes(`'${title}'`));
      if (!line) return [`${feature}: ${file} has no test ${title}`];
      return /\b(skip|todo)\b/.test(line) ? [`${feature}: ${title} does not run`] : [];
    });
  });
}

test('every_row_of_the_compatibility_tables_names_tests_that_exist', async () => {
  const markdown = await readFile(DOCUMENT, 'utf8');
  assert.ok(rows(markdown).length > 50, 'the tables have been found');
  assert.deepEqual(faults(markdown), []);
});

test('a_row_that_names_no_test_or_a_wrong_one_is_found', () => {
  const row = (cell) => `| x | yes | ? | ? | ? | ${cell} |`;
  assert.deepEqual(faults(row('`users.test.js` `a_wrong_signature_signs_nobody_in`')), []);
  assert.deepEqual(faults(row('')), ['x: no test holds it']);
  assert.deepEqual(faults(row('`users.test.js` `a_wrong_signature`')), ['x: users.test.js has no test a_wrong_signature']);
  assert.deepEqual(faults(row('`nobody.test.js` `x`')), ['x: there is no file nobody.test.js']);
  assert.deepEqual(faults('| x | yes |'), ['x: a row has 6 columns, this one 2']);
});
