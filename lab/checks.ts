// A probe that makes many checks in dom0 by itself, as the subtests of one test.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Dom0 } from './dom0.ts';

const RUN_TIMEOUT_MS = 300_000;

/** What such a probe prints. */
export interface ProbeReport {
  /** By the name of the check: null, or what went wrong. */
  readonly results: Readonly<Record<string, string | null>>;
  readonly figures: Readonly<Record<string, number>>;
}

export interface ProbeRun {
  /** Where deployProbe() has put it in dom0. */
  readonly program: string;
  readonly args?: readonly string[];
  /** Fewer checks would mean that the program did not come to its end. */
  readonly minChecks: number;
}

/** Runs the probe to its end; every check becomes a subtest, every figure a line. */
export async function runChecks(t: TestContext, dom0: Dom0, run: ProbeRun): Promise<void> {
  const { program, args = [], minChecks } = run;
  const output = await dom0.output(['node', program, ...args], RUN_TIMEOUT_MS);
  const { results, figures } = JSON.parse(output) as ProbeReport;
  const found = Object.entries(results);
  assert(found.length >= minChecks, `only ${found.length} checks ran`);
  for (const [name, failure] of found) {
    await t.test(name, () => assert.equal(failure, null, failure ?? ''));
  }
  for (const [name, figure] of Object.entries(figures)) t.diagnostic(`${name}: ${figure}`);
}
