/** docs/routes.openapi.yaml: that it is OpenAPI, and that it says what Taut sends and takes. */
import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import Ajv2020 from 'ajv/dist/2020.js';
import { parse } from 'yaml';
import { within } from '../browser/server.js';
import { Backend } from './backend.js';
import { APP, Server } from './server.js';

const PATIENCE = 30_000;
const DOCUMENT = parse(await readFile(new URL('../../docs/routes.openapi.yaml', import.meta.url), 'utf8'));
const EVENT = DOCUMENT.webhooks.event.post;
const EVENT_BODY = EVENT.requestBody.content['application/json'];
const ANSWER_BODY = EVENT.responses['200'].content['application/json'];
const { schemas } = DOCUMENT.components;
const APPLIED_IN_PLACE = ['allOf', 'anyOf', 'oneOf'];

/** What a reference in the document means, or the thing itself. */
const resolved = (node) => node.$ref?.slice(2).split('/').reduce((part, name) => part[name], DOCUMENT) ?? node;

const AJV = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
AJV.addVocabulary(['discriminator', 'example', 'components']);
const STRICT = structuredClone(schemas);
Object.values(STRICT).forEach(closeWithin);
const checks = new Map();

/** What is wrong with a value by a schema of the document: undefined if nothing is. */
function errors(schema, value) {
  if (!checks.has(schema)) checks.set(schema, AJV.compile({ ...schema, components: { schemas } }));
  return checks.get(schema)(value) ? undefined : AJV.errorsText(checks.get(schema).errors);
}

/** Checks a value by a schema of the document. Fields that the schema does not name are errors. */
function assertDescribed(schema, value, what) {
  if (!checks.has(what)) {
    const root = structuredClone(schema);
    close(root);
    closeWithin(root);
    checks.set(what, AJV.compile({ ...root, components: { schemas: STRICT } }));
  }
  const check = checks.get(what);
  assert.ok(check(value), `${what}: ${AJV.errorsText(check.errors)}: ${JSON.stringify(value)}`);
}

/** Makes fields that an object of this schema has and the schema does not name an error. */
function close(schema) {
  const isOfObjects = ['$ref', 'properties', ...APPLIED_IN_PLACE].some((keyword) => schema[keyword]);
  if (isOfObjects) schema.unevaluatedProperties = false;
}

/** The same for the objects within. Not for those that an object is made of: each names only some of its fields. */
function closeWithin(schema) {
  for (const keyword of APPLIED_IN_PLACE) schema[keyword]?.forEach(closeWithin);
  for (const value of [...Object.values(schema.properties ?? {}), schema.items, schema.additionalProperties]) {
    if (typeof value !== 'object') continue;
    close(value);
    closeWithin(value);
  }
}

/** All parts of the document, with their names. */
function* parts(node = DOCUMENT, path = '') {
  if (typeof node !== 'object' || node === null) return;
  yield [path, node];
  for (const [name, value] of Object.entries(node)) yield* parts(value, `${path}/${name}`);
}

describe('docs/routes.openapi.yaml', () => {
  test('is_openapi_3_1', async () => {
    const validator = new Validator();
    assert.deepEqual(await validator.validate(structuredClone(DOCUMENT)), { valid: true });
    assert.equal(validator.version, '3.1');
  });

  test('its_examples_and_names_are_right', () => {
    let examples = 0;
    for (const [path, { schema, example, examples: several }] of parts()) {
      if (!schema || (example === undefined && !several)) continue;
      for (const value of example === undefined ? Object.values(several).map((it) => it.value) : [example]) {
        assertDescribed(schema, value, path);
        examples += 1;
      }
    }
    assert.ok(examples > 10, `${examples} examples`);
    for (const [name, reference] of Object.entries(schemas.Event.discriminator.mapping)) {
      assert.equal(resolved({ $ref: reference }).properties.event.const, name);
    }
    assert.deepEqual(schemas.Event.oneOf.map(({ $ref }) => $ref), Object.values(schemas.Event.discriminator.mapping));
    const operations = [...parts()].flatMap(([, { operationId }]) => operationId ?? []);
    assert.equal(new Set(operations).size, operations.length);
  });
});

/** What Taut has sent to a backend: bodies and headers, checked by the description. */
class Requests {
  all = [];

  keep(body, { headers, method }) { this.all.push({ body, headers, method }); }

  get events() { return this.all.flatMap(({ body }) => body.events ?? [body]); }

  check() {
    const parameters = EVENT.parameters.map(resolved);
    // What the client has sent, and what belongs to HTTP.
    const others = 'cookie authorization origin user-agent accept-language host content-type content-length'.split(' ');
    const described = [...others, ...parameters.map(({ name }) => name.toLowerCase())];
    for (const { body, headers, method } of this.all) {
      assert.equal(method, 'POST');
      assert.equal(headers['content-type'], 'application/json');
      assertDescribed(EVENT_BODY.schema, body, 'a request');
      for (const { name, required, schema } of parameters) {
        const value = headers[name.toLowerCase()];
        assert.ok(value !== undefined || !required, `${name} is missing`);
        if (value !== undefined) assertDescribed(schema, schema.type === 'integer' ? Number(value) : value, name);
      }
      assert.deepEqual(Object.keys(headers).filter((name) => !described.includes(name)), []);
    }
  }
}

/** Plays a story with a backend whose requests are kept and checked. */
async function checked(answer, story, route = {}) {
  const requests = new Requests();
  const backend = await Backend.start((body, request, response) => {
    requests.keep(body, request);
    // Node.js closes a connection that was idle for 5 seconds, and a timer's event may be under way at that moment.
    response.setHeader('connection', 'close');
    return answer(body, request, response);
  });
  const server = await Server.start([{ path: '/r%C3%A4ume/{room}', backend: backend.url, ...route }]);
  try {
    await story(server, backend, requests);
  } finally {
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  }
  requests.check();
  return requests;
}

describe('what Taut sends', () => {
  test('single_events_are_as_described', async () => {
    const requests = await checked(({ event, data, attempt, request }, _, response) => {
      if (event === 'open' && request.query.user) {
        const user = { id: request.query.user, info: { name: 'Zoë' } };
        return { user, meta: { 'ü': { list: [1, null] } }, protocol: request.protocols[1], timer: 5 };
      }
      if (data === 'fail') response.writeHead(500).end();
      else if (data === 'again' && attempt === 1) response.writeHead(429, { 'retry-after': '0' }).end();
      else return data === 'end' ? { close: { code: 4003, reason: 'énough' } } : { send: 'ok' };
      return undefined;
    }, async (server, backend) => {
      const path = '/r%C3%A4ume/42%C3%A9';
      const origin = server.url.replace('ws', 'http');
      // Node.js writes a header's characters as bytes.
      const utf8 = Buffer.from('té').toString('latin1');
      const headers = { Cookie: 'sid=1; b=2', Authorization: 'Bearer x', 'User-Agent': utf8, 'Accept-Language': 'de, en' };
      const query = 'user=zo%C3%AB&t[]=1&t[]=2&t[]=3&=e&x&x=&b=1+2';
      const ann = await server.connect(`${path}?${query}`, { headers, origin, protocols: ['a', 'b.1'] });
      for (const message of ['hello', '', 'héllo \u0000 \u{1F600}"', Buffer.from([0, 255, 254]), Buffer.alloc(0), 'again']) {
        ann.send(message);
        assert.equal(await ann.next(), 'ok');
      }
      for (const end of [
        (client) => client.close(4001, 'bÿe'),
        (client) => client.close(1000),
        (client) => client.close(),
        (client) => client.terminate(),
        (client) => client.send('end'),
        (client) => client.send('fail'),
      ]) {
        const client = await server.connect(path);
        end(client);
        await client.end();
      }
      await backend.until('timer');
      await backend.until('close', 6);
      // The server ends it.
      assert.equal(await server.end(), 0, server.output);
      await ann.end();
      await backend.until('close', 7);
    });
    const { events } = requests;
    assert.deepEqual([...new Set(events.map(({ event }) => event))].sort(), ['binary', 'close', 'open', 'text', 'timer']);
    const codes = events.filter(({ event }) => event === 'close').map(({ code }) => code).sort();
    assert.deepEqual(codes, [1000, 1005, 1006, 1011, 1012, 4001, 4003]);
    const [open] = events;
    assert.deepEqual(open.request.query, { user: 'zoë', 't[]': ['1', '2', '3'], '': 'e', x: ['', ''], b: '1 2' });
    assert.deepEqual([open.request.headers['user-agent'], open.params], ['té', { room: '42é' }]);
    const { user, meta } = events.find(({ data }) => data === 'hello');
    assert.deepEqual([user, meta], [{ id: 'zoë', info: { name: 'Zoë' } }, { 'ü': { list: [1, null] } }]);
    assert.ok(events.some(({ attempt }) => attempt === 2));
  });

  test('batches_are_as_described', async () => {
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    let begin, over;
    const begun = new Promise((resolve) => { begin = resolve; });
    const end = new Promise((resolve) => { over = resolve; });
    const requests = await checked(async ({ events: [{ event, data }] }) => {
      if (event === 'close') over();
      if (data !== 'first') return {};
      begin();
      await held;
      return { user: 7, meta: { 'ü': 1 } };
    }, async (server) => {
      const client = await server.connect('/r%C3%A4ume/1');
      client.send('first');
      await within(PATIENCE, begun, () => 'the first message does not come');
      for (const message of ['a', Buffer.from([1]), 'ü', 'b']) client.send(message);
      // They have been read.
      client.ping('');
      await client.pong();
      release();
      client.close(1000);
      await within(PATIENCE, end, () => 'no close event comes');
    }, { batch: 3 });
    const kinds = requests.all.map(({ body: { events } }) => events.map(({ event }) => event));
    assert.deepEqual(kinds, [['open'], ['text'], ['text', 'binary', 'text'], ['text'], ['close']]);
    assert.deepEqual(requests.events.at(-1).user, { id: '7' });
  });
});

const x = (count) => 'x'.repeat(count);
const list = (item, count) => Array(count).fill(item).join(',');

/** Answers that the schema calls valid and Taut carries out; with what a client and later events show of it. */
const carriedOut = (rows) => rows.map(([body, seen]) => ({ body, isValid: true, isDone: true, ...seen }));

/** Answers that the schema calls invalid and Taut refuses. */
const refused = (bodies) => bodies.map((body) => ({ body, isValid: false, isDone: false }));

/** Answers with something that Taut leaves out: why, and what the log says. It does the rest. */
const leftOut = (isValid, rows) => rows.map(([body, why, logged, seen]) => (
  { body, isValid, isDone: true, why, logged, ...seen }
));

/** Answers that Taut refuses for what a schema cannot say: why. The descriptions say it. */
const refusedBeyond = (rows) => rows.map(([body, why]) => ({ body, isValid: true, isDone: false, why }));

/** Answers to a message. */
const ANSWERS = [
  ...carriedOut([
    ['{}'], ['[]'], [' [ ]\n'],
    ['{"user":"zoë"}', { user: { id: 'zoë' } }],
    ['{"user":7}', { user: { id: '7' } }],
    ['{"user":-7}', { user: { id: '-7' } }],
    ['{"user":null}', { user: null }],
    ['{"user":{"id":7,"info":{"name":"Zoë"}}}', { user: { id: '7', info: { name: 'Zoë' } } }],
    ['{"user":{"id":"a","info":null}}', { user: { id: 'a' } }],
    ['{"meta":{"room":"42","old":null}}', { meta: { room: '42' } }],
    ['{"meta":{}}'], ['{"meta":[]}', { meta: {} }],
    ['{"subscribe":["room-1",{"channel":"private-a;b=c@d,e.f_g","info":{"n":1}}]}'],
    ['{"unsubscribe":["room-0",{"channel":"room-00"}]}'],
    ['{"send":"hi"}', { messages: ['hi'] }],
    ['{"send":{"json":{"a":[1,2.0]}}}', { messages: ['{"a":[1,2.0]}'] }],
    ['{"send":{"json":null}}', { messages: ['null'] }],
    ['{"send":["",{"json":"text"}]}', { messages: ['', '"text"'] }],
    ['{"send":[{"binary":"AP8="},{"binary":"AP8"}]}', { messages: [Buffer.from([0, 255]), Buffer.from([0, 255])] }],
    ['{"send":{"binary":""}}', { messages: [Buffer.alloc(0)] }],
    [
      '{"subscribe":["r"],"publish":[{"channel":"r","event":"said","data":{"from":"7"}}]}',
      { messages: ['{"channel":"r","event":"said","data":{"from":"7"}}'] },
    ],
    ['{"subscribe":["r"],"publish":[{"channel":"r","data":"x","except":"self"}]}'],
    [
      '{"user":7,"publish":[{"user":7,"data":"as it is"}]}',
      { messages: ['{"channel":"#server-to-user-7","event":"message","data":"as it is"}'] },
    ],
    ['{"publish":[{"connection":"1.2","data":null},{"user":"a","data":[]},{"user":7,"event":"é","data":false}]}'],
    ['{"send":[],"publish":[],"subscribe":[],"unsubscribe":[]}'],
    ['{"timer":0}'], ['{"timer":5}'], ['{"timer":2592000}'],
    ['{"close":1000}', { closed: { code: 1000, reason: '' } }],
    ['{"close":4999}', { closed: { code: 4999, reason: '' } }],
    ['{"close":{"code":3000}}', { closed: { code: 3000, reason: '' } }],
    ['{"close":{"code":4000,"reason":"énough"}}', { closed: { code: 4000, reason: 'énough' } }],
    // The most that is taken.
    [`{"send":[${list('""', 1000)}]}`, { messages: Array(1000).fill('') }],
    [`{"publish":[${list('{"user":1,"data":1}', 100)}]}`],
    [`{"subscribe":[${list('"a"', 100)}]}`],
    [`{"unsubscribe":[${list('"a"', 100)}]}`],
    [`{"publish":[{"user":1,"data":1,"event":"${'é'.repeat(200)}"}]}`],
    [`{"close":{"code":1000,"reason":"${x(123)}"}}`, { closed: { code: 1000, reason: x(123) } }],
  ]),
  ...refused([
    '{"user":true}', '{"user":""}', `{"user":"${x(129)}"}`, '{"user":7.5}', '{"user":{}}', '{"user":{"id":null}}', '{"user":{"info":1}}',
    '{"user":["a"]}', '{"meta":null}', '{"meta":[1]}', '{"meta":"a"}',
    '{"subscribe":"a"}', '{"subscribe":{"0":"a"}}', '{"subscribe":["a",7]}', '{"subscribe":[{"info":1}]}',
    '{"subscribe":[{"channel":1}]}', '{"subscribe":null}',
    '{"unsubscribe":[null]}', '{"unsubscribe":[{}]}', '{"unsubscribe":[{"channel":[]}]}', '{"unsubscribe":null}',
    '{"send":null}', '{"send":["a","b",7]}', '{"send":{}}', '{"send":[{"json":1,"binary":""}]}',
    '{"send":[{"binary":7}]}', '{"send":[{"binary":"_-"}]}', '{"send":{"binary":"AP9"}}', '{"send":{"binary":"A"}}',
    '{"publish":{"channel":"a","data":1}}', '{"publish":["a"]}', '{"publish":[{"data":1}]}',
    '{"publish":[{"data":1,"channel":"a","user":"b"}]}', '{"publish":[{"data":1,"connection":"1.2","user":"b"}]}',
    '{"publish":[{"channel":"a"}]}', '{"publish":[{"channel":7,"data":1}]}', '{"publish":[{"connection":7,"data":1}]}',
    '{"publish":[{"user":null,"data":1}]}', '{"publish":[{"channel":"a","event":"","data":1}]}',
    '{"publish":[{"channel":"a","event":1,"data":1}]}', '{"publish":[{"channel":"a","data":1,"except":"c7"}]}',
    '{"publish":[{"channel":"a","data":1,"except":null}]}',
    '{"timer":4}', '{"timer":5.5}', '{"timer":-5}', '{"timer":2592001}', '{"timer":"30"}', '{"timer":null}',
    '{"close":true}', '{"close":999}', '{"close":1001}', '{"close":2999}', '{"close":5000}', '{"close":"1000"}',
    '{"close":{"code":1006}}', '{"close":{"reason":"a"}}', '{"close":{"code":1000,"reason":7}}', '{"close":null}',
    '[1]', '[{}]', 'null', '"a"', '7',
    // One more than the most.
    `{"send":[${list('""', 1001)}]}`,
    `{"publish":[${list('{"user":1,"data":1}', 101)}]}`,
    `{"subscribe":[${list('"a"', 101)}]}`,
    `{"unsubscribe":[${list('"a"', 101)}]}`,
    `{"publish":[{"user":1,"data":1,"event":"${'é'.repeat(201)}"}]}`,
    `{"close":{"code":1000,"reason":"${x(124)}"}}`,
  ]),
  // Here Taut is more lenient than the schema.
  ...leftOut(false, [
    ['{"sned":1}', 'unknown field', /the answer has the unknown field \\?"sned/],
    ['{"user":{"id":"a","nmae":1}}', 'unknown field', /user has the unknown field \\?"nmae/, { user: { id: 'a' } }],
    ['{"send":{"json":1,"knid":1}}', 'unknown field', /send has the unknown field \\?"knid/, { messages: ['1'] }],
    [
      '{"publish":[{"channel":"a","data":1,"socket_id":"1.2"}]}',
      'unknown field', /publish\[0\] has the unknown field \\?"socket_id/,
    ],
    ['{"subscribe":[{"channel":"a","ifno":1}]}', 'unknown field', /subscribe\[0\] has the unknown field \\?"ifno/],
    ['{"unsubscribe":[{"channel":"a","info":1}]}', 'unknown field', /unsubscribe\[0\] has the unknown field \\?"info/],
    ['{"subscribe":["not a channel"]}', 'wrong name', /a backend's subscription was refused .*"not a channel"/],
    ['{"unsubscribe":["not a channel"]}', 'nobody is in a channel with a wrong name'],
    ['{"publish":[{"channel":"not a channel","data":1}]}', 'wrong name', /publish was refused .*a character that is not/],
    ['{"publish":[{"connection":"seven","data":1}]}', 'wrong id', /publish was refused .*not the id of a connection/],
  ]),
  ...leftOut(true, [
    ['{"protocol":"a"}', 'for open only', /has \\?"protocol\\?", which only the answer to open may/],
    ['{"headers":{"X-A":"a"}}', 'for open only', /has \\?"headers\\?", which only the answer to open/],
    [
      '{"publish":[{"channel":"a","event":"pusher:x","data":1}]}',
      'the name is reserved', /a backend's publish was refused .*are reserved for the server/,
    ],
    ['{"subscribe":["presence-a"]}', 'a presence channel needs a user', /a presence channel is for users/],
  ]),
  ...refusedBeyond([
    ['{"user":7.0}', 'numbers are read as they are written'],
    ['{"user":1e3}', 'numbers are read as they are written'],
    ['{"timer":30.0}', 'numbers are read as they are written'],
    ['{"user":"a","user":"b"}', 'a name is there twice'],
    ['{"send":[{"json":1,"json":1}]}', 'a name is there twice'],
    [`{"user":{"id":"a","info":"${x(4097)}"}}`, 'bytes'],
    [`{"meta":{"a":"${x(4089)}"}}`, 'bytes'],
    [`{"close":{"code":1000,"reason":"é${x(122)}"}}`, 'bytes'],
    [`{"publish":[{"user":1,"data":"${x(102_401)}"}]}`, 'bytes'],
    [`{"send":"${x(1 << 20)}"}`, 'bytes'],
    [`{"meta":${'{"a":'.repeat(17)}1${'}'.repeat(17)}}`, 'depth'],
    [`{"send":{"json":${'['.repeat(31)}${']'.repeat(31)}}}`, 'depth'],
  ]),
];

/** Answers to `open`, to a client that offers `chat.v1` and `chat.v2` if it is to get one of them. */
const HANDSHAKES = [
  ...carriedOut([
    ['{"protocol":"chat.v1"}', { protocol: 'chat.v1' }],
    ['{"headers":[]}'],
    ['{"headers":{"set-cookie":["a=1","b=2"]}}', { headers: { 'set-cookie': ['a=1', 'b=2'] } }],
    ['{"headers":{"X-Node":"1\\t2"}}', { headers: { 'x-node': '1\t2' } }],
    [`{"headers":{"X-A":[${list('""', 32)}]}}`],
    ['{"user":"a","send":"hi"}', { messages: ['hi'] }],
  ]),
  ...refused([
    '{"protocol":null}', '{"headers":["a"]}', '{"headers":"a"}', '{"headers":null}', '{"headers":{"Content-Type":"a"}}',
    '{"headers":{"X-":"a"}}', '{"headers":{"X-a b":"a"}}', '{"headers":{"X-a\\r\\nb":"a"}}', '{"headers":{"":"a"}}',
    '{"headers":{"é":"a"}}', '{"headers":{"X-A":7}}', '{"headers":{"X-A":[[]]}}', '{"headers":{"X-A":"a\\r\\nb"}}',
    '{"headers":{"X-A":["a","\\u0000"]}}', '{"headers":{"X-A":"\\u007f"}}', `{"headers":{"X-A":[${list('""', 33)}]}}`,
    '{"send":7}',
  ]),
  ...leftOut(false, [['{"prtocol":"chat.v1"}', 'unknown field', /the answer has the unknown field \\?"prtocol/]]),
  ...refusedBeyond([
    ['{"protocol":"CHAT.v1"}', 'the client does not offer it'],
    [`{"headers":{"X-A":"${x(8190)}"}}`, 'bytes'],
    [`{"headers":{"X-A":[${list('""', 20)}],"X-B":[${list('""', 20)}]}}`, 'values of all headers'],
  ]),
];

describe('what Taut takes', () => {
  /** Whether the schema says of an answer what the table says. */
  function assertJudged({ body, isValid }) {
    const wrong = errors(ANSWER_BODY.schema, JSON.parse(body));
    assert.equal(wrong === undefined, isValid, `${body.slice(0, 200)}: ${wrong ?? 'valid'}`);
  }

  const reply = (response, body) => response.setHeader('content-type', 'application/json').end(body);

  test('answers_are_carried_out_if_they_are_as_described_and_refused_otherwise', async () => {
    const told = [];
    const backend = await Backend.start(({ event, data, user, meta }, _, response) => {
      if (event !== 'text') return {};
      if (data !== 'next') return void reply(response, ANSWERS[data].body);
      told.push({ user, meta });
      return { send: 'done' };
    });
    const server = await Server.start([{ path: '/chat', backend: backend.url }]);
    for (const [index, row] of ANSWERS.entries()) {
      const { body, isDone, logged, messages = [], user, meta, closed } = row;
      const what = body.slice(0, 200);
      assertJudged(row);
      const client = await server.connect('/chat');
      client.send(String(index));
      if (!isDone || closed) {
        assert.deepEqual(await client.end(), closed ?? { code: 1011, reason: 'backend error' }, what);
        continue;
      }
      client.send('next');
      await Promise.race([client.hears(/^done$/), client.end()]);
      assert.equal(client.closed, undefined, `${what} was refused`);
      const heard = [];
      while (heard.length <= messages.length) heard.push(await client.next());
      // What is published takes a way of its own.
      assert.deepEqual([...heard.filter((it) => it !== 'done'), ...client.messages], messages, what);
      if (user !== undefined) assert.deepEqual(told.at(-1).user, user, what);
      if (meta) assert.deepEqual(told.at(-1).meta, meta, what);
      if (logged) await server.until(logged);
      client.terminate();
    }
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  });

  test('answers_to_open_let_in_if_they_are_as_described_and_are_502_otherwise', async () => {
    const backend = await Backend.start(({ event, request }, _, response) => {
      if (event !== 'open') return {};
      return void reply(response, HANDSHAKES[request.query.row].body);
    });
    const server = await Server.start([{ path: '/chat', backend: backend.url }]);
    for (const [index, row] of HANDSHAKES.entries()) {
      const { body, isDone, logged, protocol = '', headers = {}, messages = [] } = row;
      const what = body.slice(0, 200);
      assertJudged(row);
      const [path, options] = [`/chat?row=${index}`, { protocols: ['chat.v1', 'chat.v2'] }];
      if (!isDone) {
        assert.equal((await server.refused(path, options)).status, 502, what);
        continue;
      }
      // `ws` takes no answer without a protocol if it has offered some.
      const client = await server.connect(path, protocol ? options : {});
      assert.equal(client.protocol, protocol);
      for (const [name, value] of Object.entries(headers)) assert.deepEqual(client.headers[name], value, what);
      for (const message of messages) assert.equal(await client.next(), message);
      if (logged) await server.until(logged);
      client.terminate();
    }
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  });

  test('statuses_mean_what_is_described', async () => {
    const headers = { location: '/login', 'www-authenticate': 'Bearer', 'retry-after': '77', 'x-trace': 'secret' };
    const backend = await Backend.start(({ event, data, request }, _, response) => {
      const status = event === 'open' ? request.query.status : data;
      if (!status) return {};
      return void response.writeHead(Number(status), headers).end();
    });
    const server = await Server.start([{ path: '/chat', backend: backend.url }]);
    // Of each status without a body: where it is described, what the client gets for `open`, and how a later event ends the connection.
    for (const [status, name, atOpen, later] of [
      [200, '200', 502], [204, '204'], [201, '2XX', 502], [302, '3XX', 302, 1011], [308, '3XX', 308, 1011], [300, '3XX', 502, 1011],
      [304, '3XX', 502, 1011], [401, '4XX', 401, 1008], [422, '4XX', 422, 1008], [429, '429', 429, 1013],
      [503, '503', 503, 1013], [500, '5XX', 502, 1011], [504, '5XX', 502, 1011],
    ]) {
      assert.ok(EVENT.responses[name], name);
      const client = await server.connect('/chat');
      client.send(String(status));
      if (later) assert.equal((await client.end()).code, later, `${status} later`);
      client.terminate();
      if (!atOpen) {
        (await server.connect(`/chat?status=${status}`)).terminate();
        continue;
      }
      const refused = await server.refused(`/chat?status=${status}`);
      assert.equal(refused.status, atOpen, `${status} at open`);
      const isPassedOn = status === atOpen && status !== 503;
      assert.equal(refused.headers['www-authenticate'], isPassedOn ? 'Bearer' : undefined, status);
      assert.equal(refused.headers['retry-after'] === '77', status === atOpen, status);
      assert.equal(refused.headers['x-trace'], undefined);
    }
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  });
});

/** How a request of `paths` shows who sends it, by the first name in `securitySchemes`: its query and its headers. */
const PROOFS = {
  bearer: (secret) => ({ query: '', authorization: `Bearer ${secret}` }),
  basic: (secret) => ({ query: '', authorization: `Basic ${btoa(`any:${secret}`)}` }),
  pusherKey(secret, method, path, body) {
    const digest = body === undefined ? '' : `&body_md5=${createHash('md5').update(body).digest('hex')}`;
    const time = Math.floor(Date.now() / 1000);
    const query = `auth_key=${APP.key}&auth_timestamp=${time}&auth_version=1.0${digest}`;
    const signature = createHmac('sha256', secret).update(`${method}\n${path}\n${query}`).digest('hex');
    return { query: `?${query}&auth_signature=${signature}` };
  },
};

/** The operations of `paths`, each with its path, its method, the content that can be sent, and ways to show a secret. */
const OPERATIONS = Object.entries(DOCUMENT.paths).flatMap(([path, { parameters: shared = [], ...item }]) => {
  const operations = Object.entries(item).filter(([, { operationId }]) => operationId);
  return operations.map(([method, operation]) => {
    const { required, content = {} } = resolved(operation.requestBody ?? {});
    const text = (example) => (typeof example === 'string' ? example : JSON.stringify(example));
    const bodies = Object.entries(content).map(([type, { example }]) => [type, text(example)]);
    return {
      ...operation,
      path,
      method: method.toUpperCase(),
      parameters: [...shared, ...(operation.parameters ?? [])].map(resolved),
      bodies: required ? bodies : [...bodies, []],
      security: operation.security ?? DOCUMENT.security,
    };
  });
});

describe('what an application sends to Taut', () => {
  /** Asks as described. The response has to be as described, and this gives its status and its type. */
  async function ask(server, { operationId, method, responses }, path, secret, requirement, accept, [type, body]) {
    const { query, ...authorization } = PROOFS[Object.keys(requirement)[0]](secret, method, path, body);
    const headers = { accept, ...authorization, ...(type && { 'content-type': type }) };
    const response = await fetch(`${server.url.replace('ws', 'http')}${path}${query}`, { method, headers, body });
    const [came] = response.headers.get('content-type').split(';');
    const what = `${operationId}: ${response.status} ${came}`;
    assert.ok(responses[response.status], `${what} is not described`);
    const described = resolved(responses[response.status]).content[came];
    assert.ok(described, `${what} is not described`);
    const text = await response.text();
    assertDescribed(described.schema, came === 'application/json' ? JSON.parse(text) : text, what);
    return [response.status, came];
  }

  test('each_example_is_accepted_with_each_key_and_is_401_with_a_wrong_one', async () => {
    const backend = await Backend.start(({ event, request }) => (event === 'open' ? { user: request.query.user } : {}));
    const server = await Server.start([{ path: '/chat', backend: backend.url }]);
    let opened = 0;
    for (const operation of OPERATIONS) {
      const { operationId, parameters, security, bodies, responses } = operation;
      const names = parameters.filter((it) => it.in === 'path').map(({ name }) => `{${name}}`);
      assert.deepEqual(names.sort(), operation.path.match(/\{\w+\}/g)?.sort() ?? [], operation.path);
      const isEnd = /^(close|delete|terminate)/.test(operationId);
      const types = Object.keys(resolved(responses['200']).content);
      for (const requirement of security) for (const body of bodies) for (const type of types) {
        for (const name of Object.keys(requirement)) assert.ok(DOCUMENT.components.securitySchemes[name], name);
        opened += 1;
        const user = encodeURIComponent(`änn ${opened}`);
        const client = await server.connect(`/chat?user=${user}`);
        const { connection } = (await backend.until('open', opened)).at(-1);
        const values = { '{app}': APP.id, '{connection}': connection, '{user}': user };
        const path = operation.path.replaceAll(/\{\w+\}/g, (name) => values[name]);
        const what = `${operationId} with ${Object.keys(requirement)}, ${body}`;
        assert.equal((await ask(server, operation, path, 'wrong', requirement, type, body))[0], 401, what);
        assert.deepEqual([client.messages, client.closed], [[], undefined], what);
        assert.deepEqual(await ask(server, operation, path, APP.secret, requirement, type, body), [200, type], what);
        if (isEnd) await client.end();
        else if (/^(send|post)/.test(operationId)) assert.match(String(await client.next()), /hello/);
        client.terminate();
      }
    }
    assert.equal(await server.stop(), 0, server.output);
    await backend.stop();
  });
});
