// What vkms really scans out, told by its checksum: the CRC of the frame that a CRTC composes, which
// dom0's debugfs gives to anybody, while another program is the DRM master; and the same number computed from the
// picture that should be there.
//
// vkms (vkms_composer.c) turns every pixel into four 16-bit words, alpha, red, green, blue, on a black and opaque
// background, and feeds the rows to the kernel's crc32_le, which starts at 0 and does not invert at the
// end. Colours count as premultiplied, so alpha changes nothing over black.
import { crc32 } from 'node:zlib';
import type { Dom0 } from './dom0.ts';
import type { PaintFormat } from './pattern.ts';

/** A picture as the CRTC reads it: one pixel after the other, without what a row has beyond them. */
export interface ScannedPicture {
  readonly format: PaintFormat;
  /** Little-endian pixels of the format, 4 or 2 bytes each. */
  readonly pixels: Uint8Array;
}

const CHANNELS = 4;
const OPAQUE = 0xffff;
const CRC_TIMEOUT_MS = 60_000;
/** A frame whose composing began before we asked may be another picture's; the second one is ours. */
const FRAMES = 2;

/** A channel of `bits` bits as vkms widens it to 16. */
function widen(value: number, bits: number): number {
  return Math.round((value * OPAQUE) / ((1 << bits) - 1));
}

/** The frame that vkms composes of the picture: alpha, red, green, blue, 16 bits each. */
function composed({ format, pixels }: ScannedPicture): Uint16Array {
  const bytesPerPixel = format === 'RG16' ? 2 : 4;
  const source = new DataView(pixels.buffer, pixels.byteOffset, pixels.byteLength);
  const frame = new Uint16Array((pixels.byteLength / bytesPerPixel) * CHANNELS).fill(OPAQUE);
  for (let from = 0, at = 0; from < pixels.byteLength; from += bytesPerPixel, at += CHANNELS) {
    if (format === 'RG16') {
      const value = source.getUint16(from, true);
      frame[at + 1] = widen(value >>> 11, 5);
      frame[at + 2] = widen((value >>> 5) & 0x3f, 6);
      frame[at + 3] = widen(value & 0x1f, 5);
    } else {
      const value = source.getUint32(from, true);
      frame[at + 1] = widen((value >>> 16) & 0xff, 8);
      frame[at + 2] = widen((value >>> 8) & 0xff, 8);
      frame[at + 3] = widen(value & 0xff, 8);
    }
  }
  return frame;
}

/** The checksum of a frame that is this picture and nothing else: it must be as large as the mode. */
export function expectedCrc(picture: ScannedPicture): number {
  // zlib inverts before and after: undo both.
  return ~crc32(new Uint8Array(composed(picture).buffer), 0xffffffff) >>> 0;
}

/** What the program vkms-readback writes of a frame that is this picture: XRGB8888, X being all ones. */
export function expectedReadback(picture: ScannedPicture): Uint8Array {
  const frame = composed(picture);
  const bytes = new Uint8Array(frame.length);
  for (let at = 0; at < frame.length; at += CHANNELS) {
    for (let channel = 0; channel < CHANNELS; channel++) {
      // Memory has blue first; a channel of 8 bits is the nearest to one of 16.
      bytes[at + CHANNELS - 1 - channel] = Math.round(frame[at + channel]! / 257);
    }
  }
  return bytes;
}

/**
 * The checksum of what a CRTC of vkms shows now; CRTC N belongs to the connector `Virtual-(N+1)`.
 * @throws {CommandFailed} when vkms is not loaded or the CRTC is off
 */
export async function readCrc(dom0: Dom0, crtcIndex: number): Promise<number> {
  const folder = `/sys/kernel/debug/dri/vkms/crtc-${crtcIndex}/crc`;
  const line = `echo auto >${folder}/control && head -n ${FRAMES} ${folder}/data`;
  const frames = (await dom0.shell(line, CRC_TIMEOUT_MS)).trimEnd().split('\n');
  const crc = /^\S+ (0x[0-9a-f]{8})$/.exec(frames.at(-1)!)?.[1];
  if (frames.length !== FRAMES || crc === undefined) {
    throw new Error(`CRTC ${crtcIndex} of vkms gives no checksums: ${frames.join('; ')}`);
  }
  return Number(crc);
}
