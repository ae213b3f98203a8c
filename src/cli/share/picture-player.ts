// Shows an imported share on a screen, in place: the screen reads the shared slots themselves.
//
// Invariant: a frame is given back when the screen has stopped reading it, and not before.

import type { FlipMeter } from '../../display/flip-meter.ts';
import { checkFramebuffer } from '../../display/geometry.ts';
import type { Picture } from '../../display/output.ts';
import { pixelFormat } from '../../display/pixel-format.ts';
import type { Screen } from '../../outputs/screen.ts';
import type { ReadableFrame } from '../../share/consumer.ts';
import type { ImportedShare } from '../../share/imported-share.ts';
import type { OfferedShare } from '../../share/offered-share.ts';
import { ShareError } from '../../share/share-error.ts';

export interface Playing {
  readonly offered: OfferedShare;
  readonly share: ImportedShare;
  readonly screen: Screen;
  readonly meter: FlipMeter;
  readonly signal: AbortSignal;
}

/** Shows it until its end. @throws ShareError when it was withdrawn or its exporter is gone; the signal's reason */
export async function play(playing: Playing): Promise<void> {
  const { offered, screen } = playing;
  try {
    if (offered.kind === 'stream') await playStream(playing);
    else await showBuffer(playing);
  } finally {
    screen.show(undefined);
  }
}

async function playStream({ offered, share, screen, meter, signal }: Playing): Promise<void> {
  let shown: ReadableFrame | undefined;
  try {
    for (;;) {
      const frame = await share.frames.acquire({ latest: true, signal });
      if (frame === undefined) return;
      meter.arrived();
      await flipped(screen, pictureOf(offered, frame.bytes));
      meter.completed();
      shown?.release();
      shown = frame;
      // The next picture can come into no other one.
      if (offered.slots === 1) frame.release();
    }
  } finally {
    screen.show(undefined);
    shown?.release();
  }
}

/** Its exporter draws into it without a word, and the screen looks from time to time. */
async function showBuffer({ offered, share, screen, signal }: Playing): Promise<void> {
  screen.show(pictureOf(offered, share.bytes));
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  const end = await Promise.race([share.over, aborted]);
  const reason = end === 'withdrawn' ? 'withdrawn' : 'exporter-gone';
  throw new ShareError(reason, `the share ${offered.id} is over: ${end}`);
}

function flipped(screen: Screen, picture: Picture): Promise<void> {
  return new Promise((resolve) => screen.flip(picture, resolve));
}

/** @throws ShareError, ProtocolViolation when the bytes are not the picture that they are said to be */
function pictureOf({ metadata: { content }, id }: OfferedShare, bytes: Uint8Array): Picture {
  const format = content.type === 'picture' ? pixelFormat(content.format) : undefined;
  if (content.type !== 'picture' || format === undefined || content.modifier !== 0n) {
    throw new ShareError('malformed', `the share ${id} is no picture that can be shown here`);
  }
  const { width, height, stride } = content;
  const length = checkFramebuffer({ width, height, stride, format }, bytes.length);
  const visible = bytes.subarray(0, length);
  return { width, height, stride, format, bytes: visible, memory: undefined, offset: 0 };
}
