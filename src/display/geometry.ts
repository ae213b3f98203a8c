// Where pixels are: the row length of a buffer, whether a framebuffer fits into one, and which part of it
// a connector shows. Everything here works on checked or unchecked 32-bit numbers in double arithmetic,
// where no product of a width, a height and a pixel size can wrap.
//
// displif never says how long a row is. What frontends do, all of it seen in the size they ask for:
// - Linux 6.1 and 6.12: width * bpp / 8, rounded up to a byte, times height, exactly;
// - Linux once it calls drm_mode_size_dumb: rows rounded up to 8 bytes, the buffer up to whole pages;
// - other frontends and backends assume rows of whole 32-bit words.
// All agree where a row is a multiple of 8 bytes, which is nearly always; otherwise the size decides.

import { PAGE_SIZE } from '../abi/page.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { PixelFormat } from './pixel-format.ts';
import type { Viewport } from './requests.ts';

/** Largest width or height of a framebuffer, in pixels: beyond all hardware, and safe to multiply. */
export const DIMENSION_MAX = 32767;
/** Widest pixel that a buffer may be declared with, in bits. */
const BITS_PER_PIXEL_MAX = 64;
/** Row alignments in bytes, by what an exact size means and by what a size in whole pages means. */
const EXACT_ALIGNMENTS = [1, 4, 8] as const;
const PAGED_ALIGNMENTS = [8, 4, 1] as const;

function rowBytes(width: number, bitsPerPixel: number, alignment: number): number {
  return Math.ceil((width * bitsPerPixel) / (8 * alignment)) * alignment;
}

export interface BufferGeometry {
  readonly width: number;
  readonly height: number;
  readonly bitsPerPixel: number;
  readonly bufferBytes: number;
}

/** Bytes from one row to the next, as the buffer's size tells it; see above. */
export function inferStride({ width, height, bitsPerPixel, bufferBytes }: BufferGeometry): number {
  const stride = (alignment: number) => rowBytes(width, bitsPerPixel, alignment);
  const exact = EXACT_ALIGNMENTS.find((a) => stride(a) * height === bufferBytes);
  if (exact !== undefined) return stride(exact);
  const wholePages = (bytes: number) => Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
  const paged = PAGED_ALIGNMENTS.find((a) => wholePages(stride(a) * height) === bufferBytes);
  if (paged !== undefined) return stride(paged);
  return stride(4) * height <= bufferBytes ? stride(4) : stride(1);
}

function refuse(reason: string, detail: string): ProtocolViolation {
  return new ProtocolViolation(reason, 'XEN_EINVAL', detail);
}

/**
 * Checks what a buffer is declared to be against the size it has.
 * @throws ProtocolViolation `bad-buffer-geometry` or `buffer-too-small` (XEN_EINVAL)
 */
export function checkBuffer(geometry: BufferGeometry, dataOffset: number): void {
  const { width, height, bitsPerPixel, bufferBytes } = geometry;
  const what = `${width}x${height} with ${bitsPerPixel} bits per pixel`;
  if (Math.max(width, height) > DIMENSION_MAX || bitsPerPixel > BITS_PER_PIXEL_MAX) {
    throw refuse('bad-buffer-geometry', what);
  }
  if (dataOffset % 4 !== 0) {
    throw refuse('bad-buffer-geometry', `pixels that begin at byte ${dataOffset}`);
  }
  const needed = dataOffset + rowBytes(width, bitsPerPixel, 1) * height;
  if (dataOffset >= bufferBytes || needed > bufferBytes) {
    throw refuse('buffer-too-small', `${what} in ${bufferBytes} bytes from ${dataOffset} on`);
  }
}

export interface FramebufferGeometry {
  readonly width: number;
  readonly height: number;
  readonly stride: number;
  readonly format: PixelFormat;
}

/**
 * Checks a framebuffer against the bytes that its buffer has for it.
 * @returns the bytes from its first pixel to its last
 * @throws ProtocolViolation `bad-framebuffer-geometry` or `framebuffer-too-big` (XEN_EINVAL)
 */
export function checkFramebuffer(geometry: FramebufferGeometry, availableBytes: number): number {
  const { width, height, stride, format } = geometry;
  const what = `a framebuffer of ${width}x${height} ${format.name}`;
  if (Math.min(width, height) < 1 || Math.max(width, height) > DIMENSION_MAX) {
    throw refuse('bad-framebuffer-geometry', what);
  }
  if (width % format.pixelsPerUnit !== 0) {
    throw refuse('bad-framebuffer-geometry', `${what}: pixels come in ${format.pixelsPerUnit}s`);
  }
  const row = rowBytes(width, format.bitsPerPixel, 1);
  const bytes = stride * (height - 1) + row;
  if (row > stride || bytes > availableBytes) {
    throw refuse('framebuffer-too-big', `${what} in ${availableBytes} bytes, ${stride} a row`);
  }
  return bytes;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

/**
 * What of `viewport` a connector of the size `connector` can show of a framebuffer: the rest is cut off,
 * as KMS does, because Linux asks for the whole framebuffer whatever the connector's size (trap 10).
 * @throws ProtocolViolation `viewport-outside` (XEN_EINVAL) when nothing is left to show
 */
export function clipViewport(
  viewport: Viewport,
  { framebuffer, connector }: { framebuffer: Size & { format: PixelFormat }; connector: Size },
): Viewport {
  const { pixelsPerUnit } = framebuffer.format;
  const x = viewport.x - (viewport.x % pixelsPerUnit);
  const { y } = viewport;
  const fits = Math.min(viewport.width, framebuffer.width - x, connector.width);
  const width = fits - (fits % pixelsPerUnit);
  const height = Math.min(viewport.height, framebuffer.height - y, connector.height);
  if (width > 0 && height > 0) return { x, y, width, height };
  throw refuse(
    'viewport-outside',
    `${viewport.width}x${viewport.height} at ${viewport.x},${viewport.y} of a framebuffer of ` +
      `${framebuffer.width}x${framebuffer.height}`,
  );
}
