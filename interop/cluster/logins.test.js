/** TLS and every kind of login, at servers of Redis and NATS that demand them: a node joins, or its log says why it does not, without the password. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Program, Workshop, freePort } from '../peers/programs.js';
import { onRedis } from './cluster.js';

const TAUT = process.env.TAUT_BIN;
const UNSET = Object.keys(process.env).filter((name) => name.startsWith('TAUT_') || name.startsWith('SSL_')).flatMap((name) => ['-u', name]);

/** Has all that must be escaped in a URL. */
const PASSWORD = 'p@ss/w:rd';
const ESCAPED = 'p%40ss%2Fw%3Ard';

let workshop;
const programs = [];

before(async () => { workshop = await Workshop.open(); });
after(async () => {
  for (const program of programs.reverse()) if (program.ended === undefined) await program.stop('SIGKILL');
  await workshop?.close();
});

/** A Redis that speaks TLS alone, with one user. */
async function redis(...more) {
  return started((port) => [
    'redis-server', ...encrypted(port), '--bind', '127.0.0.1', '--save', '', '--dir', workshop.path,
    '--user', 'taut', 'on', `>${PASSWORD}`, '~*', '&*', '+@all', '--user', 'default', 'off', ...more,
  ]);
}

const encrypted = (port) => [
  '--port', '0', '--tls-port', String(port), '--tls-auth-clients', 'no',
  '--tls-cert-file', workshop.certificate, '--tls-key-file', workshop.key, '--tls-ca-cert-file', workshop.certificate,
];

/** A Redis Cluster of one server, which names itself by its host's name, as those of providers do. */
async function redisCluster() {
  const port = await redis(
    '--cluster-enabled', 'yes', '--cluster-config-file', 'nodes.conf', '--tls-cluster', 'yes', '--cluster-port', String(await freePort()),
    '--cluster-announce-hostname', 'localhost', '--cluster-preferred-endpoint-type', 'hostname');
  const command = ['--tls', '--cacert', workshop.certificate, '-p', String(port), '--user', 'taut', '--no-auth-warning', '-e'];
  const cli = (...words) => promisify(execFile)('redis-cli', [...command, ...words], { env: { ...process.env, REDISCLI_AUTH: PASSWORD } });
  await cli('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
  while (!(await cli('CLUSTER', 'INFO')).stdout.includes('cluster_state:ok')) await setTimeout(50);
  return port;
}

/** A sentinel that knows a master by its host's name. */
async function sentinel(master) {
  const file = await workshop.write('sentinel.conf', [
    'sentinel resolve-hostnames yes', 'sentinel announce-hostnames yes', 'tls-replication yes', `sentinel monitor main localhost ${master} 1`,
    'sentinel auth-user main taut', `sentinel auth-pass main ${PASSWORD}`, `dir ${workshop.path}`, '',
  ].join('\n'));
  return started((port) => ['redis-server', file, '--sentinel', ...encrypted(port)]);
}

let servers = 0;

async function nats(config) {
  servers += 1;
  const store = `jetstream { store_dir: "${workshop.path}/nats-${servers}" }`;
  const file = await workshop.write(`nats-${servers}.conf`, `${store}\n${config}\n`);
  return started((port) => ['nats-server', '-a', '127.0.0.1', '-p', String(port), '-c', file]);
}

async function started(command) {
  const program = await Program.onFreePort(command);
  programs.push(program);
  return program.port;
}

/** A node on this engine; with `trusts`, it knows the test's certificate. */
async function node(url, { trusts = true } = {}) {
  const program = await Program.listening(
    'env', ...UNSET, ...trusts ? [`SSL_CERT_FILE=${workshop.certificate}`] : [], TAUT, 'serve', '--listen', '127.0.0.1:0', '--app', 'app:app-key:app-secret',
    '--cluster', url);
  programs.push(program);
  return program;
}

async function joins(url) {
  const program = await node(url);
  await program.until(/has joined the cluster/);
  assert.equal(await program.stop(), 0);
  hasNoSecret(program);
}

async function staysAway(url, reason, options) {
  const program = await node(url, options);
  const [line] = await program.until(/.*the engine of the cluster is away.*/);
  assert.match(line, reason);
  assert.equal(await program.stop(), 0);
  hasNoSecret(program);
}

function hasNoSecret({ output }) {
  for (const secret of [PASSWORD, ESCAPED, 'not-this-one']) assert.ok(!output.includes(secret), output);
}

describe('logins', onRedis, () => {
  test('redis_over_tls_with_a_user_and_a_password', async () => {
    const port = await redis();
    await joins(`rediss://taut:${ESCAPED}@localhost:${port}`);
    await staysAway(`rediss://taut:not-this-one@localhost:${port}`, /WRONGPASS|[Aa]uthentication/);
    await staysAway(`rediss://taut:${ESCAPED}@localhost:${port}`, /certificate|UnknownIssuer/, { trusts: false });
  });

  test('a_redis_cluster_over_tls_with_a_user_and_a_password', async () => {
    const port = await redisCluster();
    await joins(`rediss://taut:${ESCAPED}@localhost:${port}`);
    await joins(`rediss://taut:${ESCAPED}@localhost:${port},localhost:${port}`);
    await staysAway(`rediss://taut:not-this-one@localhost:${port}`, /WRONGPASS|[Aa]uthentication/);
    await staysAway(`rediss://taut:${ESCAPED}@localhost:${port}`, /certificate|UnknownIssuer/, { trusts: false });
  });

  test('a_master_that_sentinels_know_over_tls_with_a_user_and_a_password', async () => {
    const port = await sentinel(await redis());
    await joins(`rediss+sentinel://taut:${ESCAPED}@localhost:${port}/main`);
    await staysAway(`rediss+sentinel://taut:not-this-one@localhost:${port}/main`, /WRONGPASS|[Aa]uthentication/);
    await staysAway(`rediss+sentinel://taut:${ESCAPED}@localhost:${port}/main`, /certificate|UnknownIssuer/, { trusts: false });
  });

  test('nats_over_tls_with_a_user_and_a_password', async () => {
    const port = await nats(`tls { cert_file: "${workshop.certificate}", key_file: "${workshop.key}" }\nauthorization { user: taut, password: "${PASSWORD}" }`);
    await joins(`tls://taut:${ESCAPED}@localhost:${port}`);
    // The server demands TLS, so it gets it.
    await joins(`nats://taut:${ESCAPED}@localhost:${port}`);
    await staysAway(`tls://taut:not-this-one@localhost:${port}`, /Authorization Violation/);
    await staysAway(`tls://taut:${ESCAPED}@localhost:${port}`, /certificate|UnknownIssuer/, { trusts: false });
  });

  test('nats_with_a_token', async () => {
    const port = await nats(`authorization { token: "${PASSWORD}" }`);
    await joins(`nats://${ESCAPED}@localhost:${port}`);
    await staysAway(`nats://localhost:${port}`, /Authorization Violation/);
  });

  test('nats_with_a_credentials_file', async () => {
    const [operator, system, account, user, other] = ['operator', 'account', 'account', 'user', 'user'].map(nkey);
    const any = { subs: -1, data: -1, payload: -1 };
    const limits = { ...any, conn: -1, leaf: -1, imports: -1, exports: -1, wildcards: true };
    const stored = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 };
    const accounts = [
      `${system.id}: ${jwt(system, operator, { limits })}`,
      `${account.id}: ${jwt(account, operator, { limits: { ...limits, ...stored } })}`,
    ];
    const port = await nats(`operator: ${jwt(operator, operator)}\nsystem_account: ${system.id}\nresolver: MEMORY\nresolver_preload: { ${accounts.join('\n')} }`);
    const file = (name, key) => workshop.write(name, credentials(jwt(user, account, any), key));
    await joins(`nats://localhost:${port}?credentials=${await file('taut.creds', user)}`);
    await staysAway(`nats://localhost:${port}?credentials=${await file('other.creds', other)}`, /Authorization Violation/);
    await staysAway(`nats://localhost:${port}?credentials=${workshop.path}/none.creds`, /credentials/);
  });
});

// ---- keys and tokens as NATS has them: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt

const ROLES = { operator: 14, account: 0, user: 20 };
const SEED = 18;

function nkey(role) {
  const { privateKey } = generateKeyPairSync('ed25519');
  const { d, x } = privateKey.export({ format: 'jwk' });
  const kind = ROLES[role] << 3;
  return {
    role,
    privateKey,
    id: base32(Buffer.from([kind]), Buffer.from(x, 'base64url')),
    seed: base32(Buffer.from([SEED << 3 | kind >> 5, (kind & 31) << 3]), Buffer.from(d, 'base64url')),
  };
}

/** What an issuer says of a key. */
function jwt({ id, role }, issuer, content = {}) {
  const claims = { jti: id, iat: Math.floor(Date.now() / 1000), iss: issuer.id, name: role, sub: id, nats: { ...content, type: role, version: 2 } };
  const text = [{ typ: 'JWT', alg: 'ed25519-nkey' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  return `${text}.${sign(null, Buffer.from(text), issuer.privateKey).toString('base64url')}`;
}

function credentials(token, { seed }) {
  return `-----BEGIN NATS USER JWT-----\n${token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n${seed}\n------END USER NKEY SEED------\n`;
}

function base32(...parts) {
  const content = Buffer.concat(parts);
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc(content));
  let bits = '';
  for (const byte of Buffer.concat([content, sum])) bits += byte.toString(2).padStart(8, '0');
  return bits.match(/.{1,5}/g).map((group) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[parseInt(group.padEnd(5, '0'), 2)]).join('');
}

/** CRC-16/XMODEM. */
function crc(bytes) {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum & 0x8000 ? sum << 1 ^ 0x1021 : sum << 1) & 0xffff;
  }
  return sum;
}
