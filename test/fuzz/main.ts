// `npm run fuzz`: the fuzzers for as long as told, with fresh seeds, each printed; a case that is found is shrunk
// and kept, and the run ends with status 1.
//
//   npm run fuzz                            all of them, a minute in all
//   npm run fuzz -- http display            those whose name has one of these words
//   npm run fuzz -- --seconds 3600 guest    for an hour
//   npm run fuzz -- --seed 7 node-values    one round with that seed

import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { keepCase } from './cases.ts';
import type { Fuzzer } from './fuzzer.ts';
import { FUZZERS } from './fuzzers.ts';

const DEFAULT_SECONDS = 60;
const SEED_MAX = 2 ** 31 - 1;
const ERROR_CHARS_MAX = 600;

interface Tally {
  rounds: number;
  inputs: number;
}

function chosen(words: readonly string[]): readonly Fuzzer[] {
  const some = FUZZERS.filter(({ name }) => words.some((word) => name.includes(word)));
  return words.length === 0 ? FUZZERS : some;
}

/** One round, of as many inputs as `npm test` tries. @returns whether nothing was found */
async function round(each: Fuzzer, seed: number, tally: Tally): Promise<boolean> {
  const property = fc.asyncProperty(each.input, async (input) => void (await each.check(input)));
  const details = await fc.check(property, { numRuns: each.runs, seed });
  tally.rounds += 1;
  tally.inputs += details.numRuns;
  if (!details.failed) return true;
  const [input] = details.counterexample ?? [];
  const found = String(details.errorInstance).slice(0, ERROR_CHARS_MAX);
  const path = keepCase(each.name, `seed-${seed}`, { found, input });
  process.stdout.write(
    `${each.name}: seed ${seed}, path ${details.counterexamplePath}: ${found}\n`,
  );
  process.stdout.write(`kept as ${path}\n`);
  return false;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { seconds: { type: 'string' }, seed: { type: 'string' } },
  });
  const fuzzers = chosen(positionals);
  if (fuzzers.length === 0) {
    const names = FUZZERS.map(({ name }) => name).join(', ');
    process.stderr.write(`no fuzzer is called ${positionals.join(' ')}; there are ${names}\n`);
    return 2;
  }
  const seconds = Number(values.seconds ?? DEFAULT_SECONDS);
  const endAtMs = Date.now() + 1000 * seconds;
  const tallies = new Map(fuzzers.map((each) => [each, { rounds: 0, inputs: 0 }]));
  let sound = true;
  do {
    for (const [each, tally] of tallies) {
      const seed = Number(values.seed ?? Math.floor(Math.random() * SEED_MAX));
      process.stdout.write(`${each.name}: seed ${seed}\n`);
      sound &&= await round(each, seed, tally);
      if (!sound || Date.now() > endAtMs) break;
    }
  } while (sound && values.seed === undefined && Date.now() < endAtMs);
  for (const each of fuzzers) await each.close?.();
  for (const [{ name }, { rounds, inputs }] of tallies) {
    process.stdout.write(`${name}: ${inputs} inputs in ${rounds} rounds\n`);
  }
  return sound ? 0 : 1;
}

process.exitCode = await main();
