/** Whatever fails, whoever comes and goes: rounds of random faults. A failure prints its seed; TAUT_CLUSTER_SEED repeats it, TAUT_CLUSTER_ROUNDS plays more. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Network } from './namespaces.js';
import { round, schedule } from './rounds.js';

const SEED = Number(process.env.TAUT_CLUSTER_SEED ?? Math.floor(Math.random() * 1e9));
const ROUNDS = Number(process.env.TAUT_CLUSTER_ROUNDS ?? 4);
const PLAY = process.env.TAUT_CLUSTER_NETWORK === 'namespaces' ? roundInNamespaces : round;
const AT_ONCE = Number(process.env.TAUT_CLUSTER_AT_ONCE ?? 4);

describe('random rounds', () => {
  test('the_same_seed_draws_the_same_schedule_and_another_draws_another', () => {
    assert.deepEqual(schedule(7), schedule(7));
    assert.notDeepEqual(schedule(7), schedule(8));
  });

  test('after_any_faults_nothing_is_lost_doubled_or_left_over', async () => {
    const seeds = Array.from({ length: ROUNDS }, (_, index) => SEED + index);
    const played = [];
    const failed = [];
    const work = async () => {
      while (seeds.length) {
        const seed = seeds.shift();
        try {
          const result = await PLAY(seed);
          played.push(result.report);
          if (result.violations.length) failed.push(result);
        } catch (error) {
          failed.push({ seed, text: error.stack, violations: [{ rule: 'the round itself' }], faults: '' });
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    console.log(table(played, failed));
    for (const { seed, faults, text } of failed.slice(1)) console.log(`seed ${seed}: ${faults}\n${text.split('\n').slice(0, 8).join('\n')}\n`);
    if (failed.length) assert.fail(`${failed.length} of ${ROUNDS} rounds: seed ${failed[0].seed}: ${failed[0].faults}\n${PLAY === round ? '' : 'TAUT_CLUSTER_NETWORK=namespaces '}TAUT_CLUSTER_ROUNDS=1 TAUT_CLUSTER_SEED=${failed[0].seed} interop/cluster/test rounds.test.js\n${failed[0].text}`);
  });
});

/** A round in namespaces of its own: what is cut or stalled loses packets, and closes nothing. What would be slowed down there is not. */
async function roundInNamespaces(seed) {
  const network = Network.make();
  try {
    return JSON.parse(await network.play('./round.js', seed));
  } finally {
    network.end();
  }
}

/** What all rounds were like: sums, and of times the longest and the median. */
function table(reports, failed) {
  const rows = [['rounds', reports.length], ['first seed', SEED], ['rounds with violations', failed.length]];
  for (const name of Object.keys(reports[0] ?? {})) {
    const values = reports.map((report) => report[name]).sort((a, b) => a - b);
    if (!name.endsWith(', ms')) rows.push([name, values.reduce((sum, value) => sum + value, 0)]);
    else {
      const some = values.filter((value) => value > 0);
      rows.push([name, `${some.at(-1) ?? '–'} at most, ${some[Math.floor(some.length / 2)] ?? '–'} in the middle`]);
    }
  }
  const rules = new Map();
  for (const { violations } of failed) for (const { rule } of violations) rules.set(rule, (rules.get(rule) ?? 0) + 1);
  for (const [rule, count] of rules) rows.push([`violations: ${rule}`, count]);
  return rows.map(([name, value]) => `${String(name).padEnd(28)}${value}`).join('\n');
}
