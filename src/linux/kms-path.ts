// The displays of this host by sysfs (/sys/class/drm): each card's driver, and each connector's state.

import { readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { unsupported } from '../xen/unsupported.ts';
import type { HostProbe } from './host-path.ts';
import { textOf } from './kernel-facts.ts';

const FOLDER = '/sys/class/drm';
const CARD = /^card\d+$/;
const REMEDY =
  'load the driver of a graphics device; a display is not needed for viewers in a browser';

export interface KmsConnector {
  /** As the kernel calls it, such as `HDMI-A-1`. */
  readonly name: string;
  /** `connected`, `disconnected` or `unknown`. */
  readonly status: string;
}

export interface KmsCard {
  /** The device file. */
  readonly path: string;
  readonly driver: string;
  readonly connectors: readonly KmsConnector[];
}

/** The cards that drive displays. */
export function kmsCards(folder = FOLDER): KmsCard[] {
  const names = namesIn(folder);
  return names
    .filter((name) => CARD.test(name))
    .map((card) => ({
      path: `/dev/dri/${card}`,
      driver: driverOf(`${folder}/${card}`),
      connectors: names
        .filter((name) => name.startsWith(`${card}-`) && !name.includes('Writeback'))
        .map((name) => ({
          name: name.slice(card.length + 1),
          status: textOf(`${folder}/${name}/status`) ?? 'unknown',
        })),
    }))
    .filter(({ connectors }) => connectors.length > 0);
}

/** Looks, and opens nothing: who opens a card first becomes its master. */
export const KMS_PROBE = {
  name: 'kms',
  look: () => {
    const cards = kmsCards();
    if (cards.length === 0)
      throw unsupported(`reading ${FOLDER}`, 'no card drives displays', REMEDY);
    return cards.map(describe).join('; ');
  },
} as const satisfies HostProbe;

function describe({ path, driver, connectors }: KmsCard): string {
  const list = connectors.map(({ name, status }) => `${name} ${status}`).join(', ');
  return `${path} (${driver}): ${list}`;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

function driverOf(card: string): string {
  try {
    return basename(readlinkSync(`${card}/device/driver`));
  } catch {
    return 'unknown driver';
  }
}
