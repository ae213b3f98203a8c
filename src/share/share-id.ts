// The name of a share: 128 random bits, so that who was not told cannot name it. Written as 32 hexadecimal
// digits, in xenstore and on command lines.

import type { Random } from '../runtime/random.ts';

declare const brand: unique symbol;
export type ShareId = string & { readonly [brand]: 'ShareId' };

export const ID_BYTES = 16;
const PATTERN = /^[0-9a-f]{32}$/;

export function newShareId(random: Random): ShareId {
  return Buffer.from(random.bytes(ID_BYTES)).toString('hex') as ShareId;
}

/** The id that the text spells, or undefined when it spells none. */
export function parseShareId(text: string): ShareId | undefined {
  return PATTERN.test(text) ? (text as ShareId) : undefined;
}

export function idBytes(id: ShareId): Uint8Array {
  return Buffer.from(id, 'hex');
}

export function idOfBytes(bytes: Uint8Array): ShareId {
  return Buffer.from(bytes).toString('hex') as ShareId;
}
