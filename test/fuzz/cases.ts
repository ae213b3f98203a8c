// The cases that were found, kept as test/fuzz/cases/FUZZER/NAME.json: the input, and what it brought about then.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** In the sources, also when this runs from dist/. */
const FOLDER = fileURLToPath(new URL('../../../test/fuzz/cases/', import.meta.url));

export interface KeptCase {
  /** For people: what happened, and since which fix it does not. */
  readonly found: string;
  readonly input: unknown;
}

/** The cases of one fuzzer, by their names. */
export function keptCases(fuzzer: string): ReadonlyMap<string, KeptCase> {
  const files = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' });
  const ours = files.filter((file) => file.startsWith(`${fuzzer}/`) && file.endsWith('.json'));
  return new Map(
    ours
      .sort()
      .map((file) => [
        file.slice(fuzzer.length + 1, -'.json'.length),
        JSON.parse(readFileSync(`${FOLDER}${file}`, 'utf8')) as KeptCase,
      ]),
  );
}

/** Keeps a case. @returns the path of its file */
export function keepCase(fuzzer: string, name: string, kept: KeptCase): string {
  mkdirSync(`${FOLDER}${fuzzer}`, { recursive: true });
  const path = `${FOLDER}${fuzzer}/${name}.json`;
  writeFileSync(path, `${JSON.stringify(kept, undefined, 2)}\n`);
  return path;
}
