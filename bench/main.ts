// `npm run bench`: runs the benchmarks of this process, or those that are named, and prints a table on stderr and
// JSON on stdout. Figures are of this machine at this moment; compare within one run only. `sim` takes a minute,
// `fair` and `lab`, which boots a real Xen, some minutes: these run only when they are named.

import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { benchFair } from './fair.ts';
import { benchFlip } from './flip.ts';
import { benchLab } from './lab.ts';
import { benchShare } from './share.ts';
import { benchSim } from './sim.ts';

/** Name of a figure, unit included at its end, to its value. */
type Figures = Record<string, number>;

const BENCHMARKS: Readonly<Record<string, () => Promise<Figures>>> = {
  flip: benchFlip,
  share: benchShare,
  sim: benchSim,
  fair: benchFair,
  lab: benchLab,
};
const BY_DEFAULT = ['flip', 'share'];

const { positionals } = parseArgs({ allowPositionals: true });
const unknown = positionals.filter((name) => !(name in BENCHMARKS));
if (unknown.length > 0) {
  process.stderr.write(
    `no such benchmark: ${unknown.join(' ')}; there are: ${Object.keys(BENCHMARKS)}\n`,
  );
  process.exit(2);
}

const chosen = positionals.length > 0 ? positionals : BY_DEFAULT;
const results: Record<string, Figures> = {};
for (const [name, run] of Object.entries(BENCHMARKS)) {
  if (!chosen.includes(name)) continue;
  process.stderr.write(`${name} ...\n`);
  results[name] = await run();
  for (const [figure, value] of Object.entries(results[name])) {
    process.stderr.write(`  ${figure.padEnd(52)} ${value.toPrecision(4).padStart(12)}\n`);
  }
}
const machine = { node: process.version, cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length };
process.stdout.write(`${JSON.stringify({ machine, results })}\n`);
