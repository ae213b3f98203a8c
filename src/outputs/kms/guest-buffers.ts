// Memory of the card for a guest to draw into (be-alloc).
//
// Invariant: the card reads rows with exactly the stride that the guest writes them with, or the memory is not
// handed out: displif has no word for a stride, so a guest cannot be told of another one (trap 18).

import { PAGE_SIZE } from '../../abi/page.ts';
import type { OutputBufferRequest } from '../../display/output.ts';
import { RGB565, RGB888, XRGB8888 } from '../../display/pixel-format.ts';
import type { DumbBuffer } from '../../linux/drm/buffers.ts';
import type { Card } from '../../linux/drm/card.ts';
import { addFramebuffer, removeFramebuffer } from '../../linux/drm/framebuffers.ts';
import { SysError } from '../../runtime/errors.ts';
import type { LocalBuffer } from '../../xen/memory.ts';

/** A format of each pixel size, to try whether the card reads a stride. */
const FORMATS: ReadonlyMap<number, number> = new Map(
  [XRGB8888, RGB888, RGB565].map(({ bitsPerPixel, fourcc }) => [bitsPerPixel, fourcc]),
);
/** Rows of raw memory are made of pixels of this size. */
const RAW_BITS = 32;
const RAW_BYTES = RAW_BITS / 8;

/**
 * A dumb buffer that the card scans out with the stride asked for.
 * @throws SysError with the reason when the card has none
 */
export async function allocateFor(card: Card, request: OutputBufferRequest): Promise<LocalBuffer> {
  const { width, height, bitsPerPixel, stride, pages } = request;
  const fourcc = FORMATS.get(bitsPerPixel);
  if (fourcc === undefined || width === 0 || height === 0) {
    const context = `a buffer of ${width}x${height} with ${bitsPerPixel} bits per pixel`;
    throw new SysError({ call: 'allocating from the card', errnoName: 'EINVAL', context });
  }
  const fitting = card.buffers.createDumb({ width, height, bitsPerPixel });
  if (fitting.pitch === stride && fitting.memory.pages >= pages) return fitting.memory;
  await fitting.memory.free();
  const rows = Math.ceil(Math.max(stride * height, pages * PAGE_SIZE) / stride);
  const raw = card.buffers.createDumb({
    width: Math.ceil(stride / RAW_BYTES),
    height: rows,
    bitsPerPixel: RAW_BITS,
  });
  try {
    tryStride(card, raw, { width, height, stride, fourcc });
    return raw.memory;
  } catch (error) {
    await raw.memory.free();
    throw error;
  }
}

function tryStride(
  card: Card,
  { handle, pitch }: DumbBuffer,
  geometry: { width: number; height: number; stride: number; fourcc: number },
): void {
  const { width, height, stride } = geometry;
  try {
    removeFramebuffer(card.file, addFramebuffer(card.file, { ...geometry, handle, offset: 0 }));
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const { call, errnoName } = error;
    const context = `${card.title} reads rows of ${pitch} bytes, not the guest's ${stride} (${width}x${height})`;
    const remedy = "give the guest's connector a width that the card has rows of that length for";
    throw new SysError({ call, errnoName, context, remedy });
  }
}
