// What several scenarios do with a guest's screen: draw on it, and see that the API shows just that.
import assert from 'node:assert/strict';
import type { Daemon } from './daemon.ts';
import type { Guest } from './guest.ts';
import { type PaintFormat, paintedRgba } from './pattern.ts';
import { decodePng, difference } from './picture.ts';
import type { Program } from './program.ts';

const SHOWN_TIMEOUT_MS = 60_000;

export interface Painting {
  readonly connector: number;
  readonly format: PaintFormat;
  readonly seed: number;
  readonly width: number;
  readonly height: number;
}

/** Paints in the guest, and resolves with the program, which goes on showing, once all is shown. */
export async function paint(guest: Guest, ...paintings: Painting[]): Promise<Program> {
  const words = paintings.flatMap(({ connector, format, seed }) => [connector, format, seed]);
  const program = await guest.start('paint', ...words);
  await program.waitForLines(paintings.length, SHOWN_TIMEOUT_MS);
  return program;
}

/** Checks that the API returns exactly what was painted. @throws AssertionError that names a pixel */
export async function assertShown(daemon: Daemon, guest: Guest, painting: Painting): Promise<void> {
  const { width, height, connector } = painting;
  const seen = decodePng(await daemon.png(guest.domid, connector));
  const wanted = { width, height, rgba: paintedRgba(painting) };
  assert.equal(difference(seen, wanted), undefined);
}
