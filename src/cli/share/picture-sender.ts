// Sends pictures at their rate: raw frames out of a file, or the demo's test card, drawn or read straight into
// the shared slots.

import { XRGB8888 } from '../../display/pixel-format.ts';
import { type Runtime, sleep } from '../../runtime/runtime.ts';
import { type PictureContent, UNSPECIFIED_COLOUR } from '../../share/metadata.ts';
import { Surface } from '../demo/surface.ts';
import { TestCard } from '../demo/test-card.ts';
import { type PictureShape, type PictureSpec, packedStride } from './arguments.ts';
import type { InputFile } from './input-file.ts';
import type { Recipient } from './recipient.ts';

/** Where pictures come from. */
export interface FrameSource {
  readonly spec: PictureSpec;
  /** There is always another one. */
  readonly endless: boolean;
  /** Makes the next picture in `into`, which is exactly one. @returns false when there is none */
  draw(into: Uint8Array, signal: AbortSignal): Promise<boolean>;
}

export function contentOf(spec: PictureSpec): PictureContent {
  const { format, width, height, rateHz } = spec;
  return {
    type: 'picture',
    format: format.fourcc,
    width,
    height,
    stride: packedStride(spec),
    modifier: 0n,
    refreshHz: rateHz,
    colour: UNSPECIFIED_COLOUR,
  };
}

/** Sends until there is no next one. @throws SysError, ShareError `importer-gone` */
export async function sendPictures(
  runtime: Runtime,
  source: FrameSource,
  recipient: Recipient,
): Promise<void> {
  const periodMs = 1000 / source.spec.rateHz;
  let dueMs = runtime.nowMs();
  for (;;) {
    const frame = await recipient.acquire();
    if (!(await source.draw(frame.bytes, recipient.signal))) return frame.discard();
    const earlyMs = dueMs - runtime.nowMs();
    if (earlyMs > 0) await sleep(runtime, earlyMs, recipient.signal);
    recipient.publish(frame, frame.bytes.length);
    // Late by more than a picture: what was missed is not caught up with.
    dueMs = Math.max(dueMs, runtime.nowMs() - periodMs) + periodMs;
  }
}

/** Raw frames of a file, or of standard input. */
export class FileFrames implements FrameSource {
  readonly spec: PictureSpec;
  readonly endless: boolean;
  readonly #input: InputFile;
  #frames = 0;

  constructor(input: InputFile, { spec, loop }: { spec: PictureSpec; loop: boolean }) {
    this.#input = input;
    this.spec = spec;
    this.endless = loop;
  }

  async draw(into: Uint8Array, signal: AbortSignal): Promise<boolean> {
    const number = this.#frames++;
    const { bytes } = this.#input;
    if (bytes === undefined) {
      const count = await this.#input.fill(into, signal);
      if (count !== 0 && count < into.length) throw this.#cutOff(number, count);
      return count > 0;
    }
    const whole = Math.floor(bytes / into.length);
    const rest = bytes - whole * into.length;
    if (whole === 0 || (number >= whole && rest > 0 && !this.endless))
      throw this.#cutOff(number, rest);
    if (number >= whole && !this.endless) return false;
    await this.#input.readAt(into, (number % whole) * into.length);
    return true;
  }

  #cutOff(number: number, count: number): Error {
    const { format, width, height } = this.spec;
    const whole = packedStride(this.spec) * height;
    const picture = `a picture of ${width}x${height} ${format.name}`;
    const detail = `picture ${number} has ${count} bytes, and ${picture} has ${whole}`;
    return new Error(`${this.#input.name} ends in the middle of a picture: ${detail}`);
  }
}

/** The moving test card of the demo. */
export class TestCardFrames implements FrameSource {
  readonly spec: PictureSpec;
  readonly endless = true;
  readonly #runtime: Runtime;
  readonly #card: TestCard;
  /** By the slot's place in memory: what stands still is painted once into each. */
  readonly #surfaces = new Map<number, Surface>();
  #number = 0;

  constructor(runtime: Runtime, { name, ...shape }: PictureShape & { name: string }) {
    this.#runtime = runtime;
    this.#card = new TestCard(name);
    this.spec = { ...shape, format: XRGB8888 };
  }

  async draw(into: Uint8Array): Promise<boolean> {
    const surface = this.#surfaces.get(into.byteOffset) ?? this.#paint(into);
    const wallMs = this.#runtime.wallMs();
    return this.#card.draw({ surface, index: 0, number: this.#number++, wallMs });
  }

  #paint(bytes: Uint8Array): Surface {
    const { width, height, format } = this.spec;
    const surface = new Surface({ bytes, width, height, stride: packedStride(this.spec), format });
    this.#card.paint(surface);
    this.#surfaces.set(bytes.byteOffset, surface);
    return surface;
  }
}
