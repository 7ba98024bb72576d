/** /console/openapi.json: that it is OpenAPI, and that Taut does what it says, whatever Schemathesis sends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Server } from '../browser/server.js';

/** Of the development app, whose console is where clients connect. */
const APP = 'app-key:app-secret';
const METRICS_TOKEN = 'token-of-this-test';
/** Examples of each operation: TAUT_EXAMPLES_EACH=1000 looks longer, and with another seed each time. */
const MORE = process.env.TAUT_EXAMPLES_EACH;

let taut, url;
before(async () => {
  taut = await Server.start({ options: ['--metrics-token', METRICS_TOKEN, '--drain-notice', '0'] });
  url = `${taut.origin}/console/openapi.json`;
});
after(async () => assert.equal(await taut?.stop(), 0));

test('it_is_openapi_3_1', async () => {
  const validator = new Validator();
  assert.deepEqual(await validator.validate(await (await fetch(url)).json()), { valid: true });
  assert.equal(validator.version, '3.1');
});

test('the_file_in_docs_is_what_is_served', async () => {
  const served = await (await fetch(url)).json();
  assert.deepEqual(served, JSON.parse(await readFile(new URL('../../docs/openapi.json', import.meta.url), 'utf8')));
});

test('schemathesis_finds_nothing', async () => {
  const program = join(dirname(process.env.TAUT_PYTHON), 'schemathesis');
  // In threads, the generator of CPython 3.11 fails at times.
  const options = ['--no-color', 'run', url, '--workers', '1', '--phases', 'examples,coverage,fuzzing', '--max-examples', MORE ?? '8'];
  const environment = { TAUT_APP: APP, TAUT_METRICS_TOKEN: METRICS_TOKEN, SCHEMATHESIS_HOOKS: 'signature', PYTHONPATH: '.' };
  const child = spawn(program, [...options, ...(MORE ? [] : ['--seed', '1'])], {
    env: { ...process.env, ...environment, PYTHONDONTWRITEBYTECODE: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { printed += text; });
  const [code] = await once(child, 'close');
  assert.equal(code, 0, printed);
  const [, operations, tested] = /Selected: \d+\/(\d+)\n\s+Tested: (\d+)/.exec(printed) ?? assert.fail(printed);
  assert.equal(operations, tested, printed);
});
