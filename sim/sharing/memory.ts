// What programs share when it is not new pages and has a meaning: buffers that they have, and what they say of them.

import type { Random } from '../../src/runtime/random.ts';
import type { ExportedShare } from '../../src/share/exported-share.ts';
import { type ShareMetadata, UNSPECIFIED_COLOUR } from '../../src/share/metadata.ts';
import type { ExistingBuffers } from '../../src/share/slots.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';
import { pagesOf } from '../../src/zcopy/zcopy.ts';
import { happens, oneOf } from '../chance.ts';
import type { Sharing } from './sharer.ts';

const XRGB8888 = 0x3432_5258;
const PICTURE = {
  type: 'picture',
  format: XRGB8888,
  width: 4,
  height: 4,
  stride: 16,
  modifier: 0n,
  colour: UNSPECIFIED_COLOUR,
} as const;
const METADATA: readonly Partial<ShareMetadata>[] = [
  {},
  { name: 'a name of 80 bytes '.padEnd(80, '.') },
  { content: { type: 'bytes', totalBytes: 12_345 } },
  { content: PICTURE, userBytes: new Uint8Array(100) },
  { content: { ...PICTURE, refreshHz: 60, colour: { ...UNSPECIFIED_COLOUR, fullRange: true } } },
];

export function metadataOf(random: Random): Partial<ShareMetadata> {
  return oneOf(random, METADATA);
}

/** Buffers of the program's own, in which the data may begin in the middle. @throws SysError without memory */
export async function existingMemory(
  { domain, random }: Sharing,
  { byteLength, count }: { readonly byteLength: number; readonly count: number },
): Promise<ExistingBuffers> {
  const dataOffset = happens(random, 2) ? 64 : 0;
  const pages = pagesOf(dataOffset + byteLength);
  const buffers: LocalBuffer[] = [];
  try {
    for (let left = count; left > 0; left--) {
      buffers.push(await domain.memory.allocate({ pages, contiguity: 'none' }));
    }
  } catch (error) {
    for (const buffer of buffers) await buffer.free();
    throw error;
  }
  // Up to their end, or not.
  return happens(random, 4) ? { buffers, dataOffset } : { buffers, dataOffset, byteLength };
}

/** The memory is given up when nobody has it any more, which the share says; or when there is no share of it. */
export async function freeAfter(
  { world, domain, judge }: Sharing,
  { buffers }: ExistingBuffers,
  opening: Promise<ExportedShare>,
): Promise<ExportedShare> {
  const free = async () => {
    for (const buffer of buffers) {
      const { heldPages, evidence } = await buffer.free();
      world.findings.hold(heldPages === 0, 'release-is-a-fact', () => {
        return `domain ${domain.domid}: ${heldPages} pages of a released share are held (${evidence})`;
      });
    }
  };
  try {
    const share = await opening;
    share.released.then(free).catch(judge);
    return share;
  } catch (error) {
    await free();
    throw error;
  }
}
