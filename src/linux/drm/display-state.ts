// What a card shows, as a whole: remembered when we come, put back when we go, so that the text console
// is as it was. Framebuffers and modes belong to whoever made them; a mode's bytes are kept as a copy, while
// a framebuffer may be gone by then: what showed it is switched off instead.

import { DRM_MODE_ATOMIC_ALLOW_MODESET } from '../../abi/drm-mode.ts';
import { SysError } from '../../runtime/errors.ts';
import { type Assignment, commit } from './atomic.ts';
import { createBlob, readBlob } from './blobs.ts';
import type { Card } from './card.ts';
import type { Properties } from './properties.ts';

const PLACE = ['CRTC_X', 'CRTC_Y', 'CRTC_W', 'CRTC_H', 'SRC_X', 'SRC_Y', 'SRC_W', 'SRC_H'] as const;

interface CrtcState {
  readonly properties: Properties;
  /** The bytes of its mode, or undefined when it has none. */
  readonly mode: Uint8Array | undefined;
}

export class DisplayState {
  readonly connectors: readonly Properties[];
  readonly planes: readonly Properties[];
  readonly #crtcs: readonly CrtcState[];

  private constructor(
    connectors: readonly Properties[],
    crtcs: readonly CrtcState[],
    planes: readonly Properties[],
  ) {
    this.connectors = connectors;
    this.#crtcs = crtcs;
    this.planes = planes;
  }

  /** @throws SysError */
  static read(card: Card): DisplayState {
    const { connectors, crtcs } = card.objects;
    return new DisplayState(
      connectors.map((id) => card.connectorProperties(id)),
      crtcs.map((id) => readCrtc(card, id)),
      card.planes.map(({ id }) => card.planeProperties(id)),
    );
  }

  /** Shows this again; where that fails, nothing. @throws SysError when not even that works */
  restore(card: Card): void {
    const blobs: Disposable[] = [];
    const modeOf = (mode: Uint8Array) => {
      const blob = createBlob(card.file, mode);
      blobs.push(blob);
      return blob.id;
    };
    const flags = DRM_MODE_ATOMIC_ALLOW_MODESET;
    const context = `putting back what ${card.title} showed before`;
    try {
      commit(card.file, this.#assignments(modeOf), { flags, context });
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      commit(card.file, this.#nothing(), { flags, context });
    } finally {
      for (const blob of blobs) blob[Symbol.dispose]();
    }
  }

  #assignments(modeOf: (mode: Uint8Array) => number): Assignment[] {
    return [
      ...this.connectors.map((properties) => same(properties, 'CRTC_ID')),
      ...this.#crtcs.flatMap(({ properties, mode }) => [
        set(properties, 'MODE_ID', mode === undefined ? 0 : modeOf(mode)),
        same(properties, 'ACTIVE'),
      ]),
      ...this.planes.flatMap((properties) => [
        same(properties, 'FB_ID'),
        same(properties, 'CRTC_ID'),
        ...PLACE.map((name) => same(properties, name)),
      ]),
    ];
  }

  #nothing(): Assignment[] {
    return [
      ...this.connectors.map((properties) => set(properties, 'CRTC_ID', 0)),
      ...this.#crtcs.flatMap(({ properties }) => [
        set(properties, 'MODE_ID', 0),
        set(properties, 'ACTIVE', 0),
      ]),
      ...this.planes.flatMap((properties) => [
        set(properties, 'FB_ID', 0),
        set(properties, 'CRTC_ID', 0),
      ]),
    ];
  }
}

function readCrtc(card: Card, id: number): CrtcState {
  const properties = card.crtcProperties(id);
  const blob = Number(properties.value('MODE_ID'));
  return { properties, mode: blob === 0 ? undefined : readBlob(card.file, blob) };
}

/** Sets a property. */
export function set(properties: Properties, name: string, value: number): Assignment {
  return { object: properties.object.id, property: properties.id(name), value: BigInt(value) };
}

/** Sets a property to what it was. */
function same(properties: Properties, name: string): Assignment {
  const object = properties.object.id;
  return { object, property: properties.id(name), value: properties.value(name) };
}
