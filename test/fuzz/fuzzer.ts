// What a fuzzer is: a generator of what a guest (a peer, a viewer) may do, made of structured actions and not of
// random bytes alone, and a check that throws when something other than a value or a typed refusal comes of it.
// Inputs are plain JSON, so that a case that was found can be kept in cases/ and replayed for ever.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ProtocolViolation } from '../../src/runtime/errors.ts';

export interface Fuzzer<Input = unknown> {
  /** Names it on the command line, and its folder of kept cases. */
  readonly name: string;
  readonly input: fc.Arbitrary<Input>;
  /** @throws when `input` brings about what it must not */
  readonly check: (input: Input) => void | Promise<void>;
  /** The files in src/ whose branches it is there to reach. */
  readonly parsers: readonly string[];
  /** Inputs that `npm test` tries. */
  readonly runs: number;
  /** Gives back what the checks share. */
  readonly close?: () => Promise<void>;
}

/** A fuzzer whose input has been given its type; the list of all of them forgets it. */
export function fuzzer<Input>(parts: Fuzzer<Input>): Fuzzer {
  return parts as unknown as Fuzzer;
}

/** Numbers at which 32-bit arithmetic and rings turn, and any others. */
export const u32 = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(0, 1, 2, 3, 4, 8, 16, 31, 32, 33, 50, 51, 52, 62, 63, 64),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(4095, 4096, 4097, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1),
  },
  { weight: 2, arbitrary: fc.nat(1000) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 2 ** 32 - 1 }) },
);

export const u8 = fc.nat(255);

/** Changes of single bytes, by place and value. */
export const edits = (bytes: number, maxLength = 8) =>
  fc.array(fc.tuple(fc.nat(bytes - 1), u8), { maxLength });

export type Edits = readonly (readonly [at: number, value: number])[];

/** Makes the changes, as far as there are bytes. */
export function edit(bytes: Uint8Array, changes: Edits): Uint8Array {
  for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
  return bytes;
}

/** What `parse` makes of its input, or undefined when it refuses; anything else that is thrown is a finding. */
export function orRefused<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (error instanceof ProtocolViolation) return undefined;
    throw error;
  }
}

/** Whether `work` refuses its input. */
export function refuses(work: () => void): boolean {
  return (
    orRefused(() => {
      work();
      return true;
    }) === undefined
  );
}

/** As `orRefused`, for what takes its time and may also fail in one of the `expected` ways. */
export async function orRefusedLater<T>(
  parse: () => Promise<T>,
  ...expected: readonly (abstract new (
    ...args: never[]
  ) => Error)[]
): Promise<T | undefined> {
  try {
    return await parse();
  } catch (error) {
    const kinds = [ProtocolViolation, ...expected];
    assert(
      kinds.some((kind) => error instanceof kind),
      error as Error,
    );
    return undefined;
  }
}
