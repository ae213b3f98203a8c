// `npm run sim:long`: worlds of fresh seeds until the time is over (`--minutes N`, 10 unless told otherwise), one line
// each; or, with `--explore`, every state of two guests' buffers. Ends with 1 at the first violation, after shrinking it.
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { explore, shrinkRun, simulate } from '../dist/sim/index.js';

const STEPS = 200_000;
const PAIRS = [
  ['own', 'own'],
  ['own', 'lent'],
  ['lent', 'lent'],
];

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '10' },
    explore: { type: 'boolean', default: false },
  },
});
const status = values.explore ? await exploreAll() : await runFor(Number(values.minutes) * 60_000);
process.exit(status);

async function exploreAll() {
  for (const guests of PAIRS) {
    const report = await explore({ guests, maxStates: Number.POSITIVE_INFINITY });
    process.stdout.write(`${JSON.stringify({ guests, ...report })}\n`);
    if (report.broken) return 1;
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
