// `npm run sim:long`: worlds of fresh seeds until the time is over (`--minutes N`, 10 unless told otherwise), one line
// each; with `--coverage`, and then the branches that no world reached of what the simulation is about; or, with
// `--explore`, every course of small worlds that `npm test` has no time for (minutes). Ends with 1 at the first violation, after shrinking it.
import { randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { explore, shrinkRun, simulate } from '../dist/sim/index.js';
import { runCovered } from './coverage.mjs';

const STEPS = 200_000;
const OWN = ['create', 'attach', 'show', 'flip', 'destroy'];
const LENT = ['borrow', 'attach', 'show', 'flip', 'destroy'];
const SHORT = ['create', 'destroy'];
const EITHER = { guests: true, backend: true };
/** By what they are about; none has as many states as would be given up at. */
const EXPLORED = {
  'two guests with a buffer each': { lives: [OWN, SHORT], deaths: EITHER },
  'a guest with a lent buffer': { lives: [LENT], deaths: { ...EITHER, displays: true } },
  'a guest with a lent buffer beside one with its own': {
    lives: [['borrow'], SHORT],
    deaths: EITHER,
  },
};
const STATES_MAX = 100_000;
/** The folders of src/ whose branches are counted. */
const COVERED = ['display', 'xen/xenbus', 'input', 'zcopy', 'share'];

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    coverage: { type: 'boolean', default: false },
    explore: { type: 'boolean', default: false },
  },
});
process.exit(await main());

function main() {
  if (values.explore) return exploreAll();
  if (!values.coverage) return runFor(Number(values.minutes) * 60_000);
  const self = fileURLToPath(import.meta.url);
  return runCovered([self, '--minutes', values.minutes], () => COVERED.map(filesOf));
}

function filesOf(folder) {
  const path = fileURLToPath(new URL(`../src/${folder}`, import.meta.url));
  return readdirSync(path).map((name) => `${folder}/${name}`);
}

async function exploreAll() {
  const onProgress = (states) => process.stderr.write(`${states} states\n`);
  for (const [world, options] of Object.entries(EXPLORED)) {
    const { failure, ...found } = await explore({ ...options, statesMax: STATES_MAX, onProgress });
    process.stdout.write(`${JSON.stringify({ world, ...found })}\n`);
    if (failure === undefined) continue;
    process.stdout.write(`${failure.broken.join('\n')}\nafter\n${failure.course.join('\n')}\n`);
    return 1;
  }
  return 0;
}

async function runFor(durationMs) {
  const untilMs = Date.now() + durationMs;
  while (Date.now() < untilMs) {
    const report = await simulate({ seed: randomInt(2 ** 32), steps: STEPS });
    process.stdout.write(`${JSON.stringify(report)}\n`);
    if (report.violations.length === 0) continue;
    const { violation, omitted, steps, trace } = await shrinkRun(report);
    process.stdout.write(`${JSON.stringify({ violation, omitted, steps })}\n`);
    process.stdout.write(`${trace.join('\n')}\n`);
    return 1;
  }
  return 0;
}
