// What a frame of a share says of itself, in every word: whose it is, and which. So whoever reads it sees
// whether it is whole, its exporter's, and the one that was announced.

import type { Random } from '../../src/runtime/random.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { oneOf } from '../chance.ts';

const MARK = 0x8000_0000;
const DOMID_MASK = 0x7fff;
const NUMBER_MASK = 0xffff;
const WORD_BYTES = 4;
/** Bytes of a slot: whole words, within a page and beyond one. */
const SLOT_BYTES = [64, 4096, 5000, 8192] as const;

export function slotBytes(random: Random): number {
  return oneOf(random, SLOT_BYTES);
}

/** The word that a frame consists of. */
export function shareMark(exporter: DomId, number: number): number {
  return (MARK | ((exporter & DOMID_MASK) << 16) | (number & NUMBER_MASK)) >>> 0;
}

export function fillWith(bytes: Uint8Array, mark: number): void {
  wordsOf(bytes).fill(mark);
}

/** What is wrong with a frame that should consist of `mark`; undefined when nothing is. */
export function flawIn(bytes: Uint8Array, mark: number): string | undefined {
  const words = wordsOf(bytes);
  const at = words.findIndex((word) => word !== mark);
  if (at < 0) return undefined;
  return `word ${at} of ${words.length} is ${words[at]!.toString(16)} in place of ${mark.toString(16)}`;
}

function wordsOf({ buffer, byteOffset, byteLength }: Uint8Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, byteLength / WORD_BYTES);
}
