// Which mode of a monitor shows a picture: the one of its size, else a larger one with black around it.

import type { Size } from '../../display/geometry.ts';
import type { Mode } from '../../linux/drm/resources.ts';

/** How many modes are tried at most: each is one question to the driver. */
const MAX_CANDIDATES = 6;

function area({ width, height }: Size): number {
  return width * height;
}

/**
 * The modes that could show a picture of this size, best first: exact ones (preferred, then fastest), the
 * monitor's preferred one, then the smallest that are larger. Empty when every mode is too small.
 */
export function candidateModes(modes: readonly Mode[], size: Size): Mode[] {
  const fitting = modes.filter(
    ({ width, height, progressive }) => progressive && width >= size.width && height >= size.height,
  );
  const exact = ({ width, height }: Mode) => width === size.width && height === size.height;
  const rank = (mode: Mode) => (exact(mode) ? 0 : mode.preferred ? 1 : 2);
  const sorted = fitting.sort(
    (a, b) =>
      rank(a) - rank(b) ||
      area(a) - area(b) ||
      Number(b.preferred) - Number(a.preferred) ||
      b.refreshHz - a.refreshHz,
  );
  return sorted.slice(0, MAX_CANDIDATES);
}
