// The displays of this host, as one of the ways that `doctor` tells of: whether a card of it can show guests.

import { CARD_FOLDER } from './drm/card-file.ts';
import { type CardReport, describeCards } from './drm/report.ts';
import type { HostPath, HostProbe } from './host-path.ts';

const REMEDY =
  'load the driver of a graphics device; a display is not needed for viewers in a browser';

/** Opens every card for a moment, and leaves whoever shows on one undisturbed. */
export const KMS_PROBE = {
  name: 'kms',
  look: async () => kmsPath(await describeCards()),
} as const satisfies HostProbe;

/** What the cards give together. */
export function kmsPath(cards: readonly CardReport[]): HostPath {
  if (cards.length === 0) {
    return { available: false, reason: `no card in ${CARD_FOLDER}`, remedy: REMEDY };
  }
  const reason = cards.map(describe).join('; ');
  if (cards.some(showsGuests)) return { available: true, reason };
  return { available: false, reason: `no card drives displays: ${reason}`, remedy: REMEDY };
}

/** Whether `--output kms` can use it: without problems, with connectors, and setting modes atomically. */
function showsGuests({ problem, atomic, connectors }: CardReport): boolean {
  return problem === undefined && atomic === true && connectors.length > 0;
}

function describe({ path, driver, atomic, problem, connectors }: CardReport): string {
  const title = driver === undefined ? path : `${path} (${driver})`;
  if (problem !== undefined) return `${title}: ${problem}`;
  const list = connectors.map(({ name, status }) => `${name} ${status}`).join(', ');
  const lack = atomic === true ? '' : ', but its driver sets no modes atomically';
  return `${title}: ${list === '' ? 'no connectors' : list}${lack}`;
}
