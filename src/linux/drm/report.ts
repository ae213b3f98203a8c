// The cards of this host, for people: what `doctor` prints, and what `--output kms:...` can be.

import { readdirSync } from 'node:fs';
import { DRM_IOCTL_DROP_MASTER } from '../../abi/drm.ts';
import { messageOf, SysError } from '../../runtime/errors.ts';
import { readFacts } from './card.ts';
import { CARD_FOLDER, type CardFile, openCardFile } from './card-file.ts';
import { repeatIoctl } from './requests.ts';
import { type ConnectorStatus, readConnector, readObjects } from './resources.ts';

export interface ConnectorReport {
  /** As in `unique-id`, such as `HDMI-A-1`. */
  readonly name: string;
  readonly status: ConnectorStatus;
  readonly modes: number;
}

export interface CardReport {
  readonly path: string;
  /** Why it cannot be used; absent when it can. */
  readonly problem?: string;
  readonly driver?: string;
  /** Whether it sets modes atomically, which `--output kms` needs. */
  readonly atomic?: boolean;
  /** Whether it has memory to lend to guests (be-alloc). */
  readonly dumbBuffers?: boolean;
  /** Sharing dma-bufs with other drivers. */
  readonly prime?: { readonly imports: boolean; readonly exports: boolean };
  /** Without writeback connectors, which lead to no screen. */
  readonly connectors: readonly ConnectorReport[];
}

/** Every card in /dev/dri. Opens each for a moment, and takes nothing from whoever shows on it. */
export async function describeCards(): Promise<CardReport[]> {
  return cardPaths().map((path) => {
    try {
      using file = openCardFile(path);
      return describeCard(file);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return { path, problem: messageOf(error), connectors: [] };
    }
  });
}

/** What one open card is. @throws SysError */
export function describeCard(file: CardFile): CardReport {
  const { path } = file;
  const facts = readFacts(file);
  try {
    const found = readObjects(file).connectors.map((id) =>
      readConnector(file, id, { probe: true }),
    );
    const connectors = found
      .filter((connector) => connector !== undefined)
      .map(({ name, status, modes }) => ({ name, status, modes: modes.length }));
    return { path, ...facts, connectors };
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    // A GPU that only renders.
    return { path, ...facts, problem: 'it has no screens', connectors: [] };
  } finally {
    dropMaster(file);
  }
}

/** The first who opens a card is its master; a compositor that starts now must find that free. */
function dropMaster(file: CardFile): void {
  const argument = new Uint8Array(0);
  const request = { name: 'DRM_IOCTL_DROP_MASTER', number: DRM_IOCTL_DROP_MASTER, argument };
  try {
    repeatIoctl(file, request, { context: `leaving ${file.path} to others` });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
  }
}

function cardPaths(): string[] {
  try {
    const names = readdirSync(CARD_FOLDER).filter((name) => /^card\d+$/.test(name));
    return names.sort().map((name) => `${CARD_FOLDER}/${name}`);
  } catch {
    return [];
  }
}
