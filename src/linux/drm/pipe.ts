// The way from a framebuffer to a screen: one plane on one CRTC on one connector.
//
// Invariants: every commit is non-blocking and tagged, so an event follows each one that is accepted, and the
// event loop never waits for a monitor; a commit while an earlier one is under way is refused (EBUSY).
// Other planes that lay over the CRTC, and other connectors that showed the same, are taken off it.

import {
  DRM_MODE_ATOMIC_ALLOW_MODESET,
  DRM_MODE_ATOMIC_NONBLOCK,
  DRM_MODE_ATOMIC_TEST_ONLY,
} from '../../abi/drm-mode.ts';
import { type Assignment, commit, FlipRequest } from './atomic.ts';
import { createBlob } from './blobs.ts';
import type { Card } from './card.ts';
import { type DisplayState, set } from './display-state.ts';
import type { CardEvents, FlipReceiver } from './events.ts';
import type { Properties } from './properties.ts';
import { type CardConnector, type CardPlane, type Mode, readEncoder } from './resources.ts';

/** DRM_PLANE_TYPE_PRIMARY, the value of a plane's property `type`. */
const PRIMARY = 1n;
/** Source coordinates are fixed-point numbers with 16 bits after the point. */
const FIXED_POINT_ONE = 65536;

/** What a pipe is to show: a whole framebuffer, unscaled, in the middle of a mode. */
export interface Scene {
  readonly mode: Mode;
  readonly framebuffer: number;
  readonly width: number;
  readonly height: number;
}

export interface PipeParts {
  readonly card: Card;
  readonly events: CardEvents;
  /** What the card showed when it was opened. */
  readonly before: DisplayState;
  readonly connector: CardConnector;
  /** CRTCs and planes that are in use. */
  readonly taken: ReadonlySet<number>;
}

export class Pipe implements FlipReceiver, Disposable {
  /** Who is told that a commit is done; nobody at first. */
  receiver: FlipReceiver | undefined;
  readonly crtc: number;
  readonly plane: CardPlane;
  readonly #card: Card;
  readonly #events: CardEvents;
  readonly #number: number;
  readonly #connector: Properties;
  readonly #crtc: Properties;
  readonly #plane: Properties;
  readonly #evictions: readonly Assignment[];
  readonly #flip: FlipRequest;

  private constructor(parts: PipeParts, crtc: number, plane: CardPlane) {
    const { card, events, before, connector } = parts;
    this.crtc = crtc;
    this.plane = plane;
    this.#card = card;
    this.#events = events;
    this.#connector = card.connectorProperties(connector.id);
    this.#crtc = card.crtcProperties(crtc);
    this.#plane = card.planeProperties(plane.id);
    this.#evictions = evictions(before, { crtc, plane: plane.id, connector: connector.id });
    this.#number = events.add(this);
    const property = this.#plane.id('FB_ID');
    this.#flip = new FlipRequest(card.file, {
      plane: plane.id,
      property,
      receiver: this.#number,
    });
  }

  /** A way to the connector, or undefined when every CRTC that leads there is taken. @throws SysError */
  static find(parts: PipeParts): Pipe | undefined {
    const { card, connector, taken } = parts;
    for (const crtc of crtcsOf(card, connector)) {
      if (taken.has(crtc)) continue;
      const bit = 1 << card.objects.crtcs.indexOf(crtc);
      const plane = card.planes.find(
        ({ id, possibleCrtcs }) =>
          (possibleCrtcs & bit) !== 0 &&
          !taken.has(id) &&
          card.planeProperties(id).value('type') === PRIMARY,
      );
      if (plane !== undefined) return new Pipe(parts, crtc, plane);
    }
    return undefined;
  }

  flipped(sequence: number): void {
    this.receiver?.flipped(sequence);
  }

  /** Asks whether `scene` could be shown. @throws SysError with the driver's reason */
  test(scene: Scene): void {
    this.#set(scene, { flags: DRM_MODE_ATOMIC_TEST_ONLY | DRM_MODE_ATOMIC_ALLOW_MODESET });
  }

  /** Shows `scene`, whatever was there before; an event follows. @throws SysError */
  start(scene: Scene, sequence: number): void {
    const flags = DRM_MODE_ATOMIC_NONBLOCK | DRM_MODE_ATOMIC_ALLOW_MODESET;
    this.#set(scene, { flags, tag: { receiver: this.#number, sequence } });
  }

  /** Shows another framebuffer of the same size; an event follows. @throws SysError */
  flip(framebuffer: number, sequence: number): void {
    this.#flip.flip(framebuffer, sequence);
  }

  /**
   * Shows nothing. With a number, an event follows, and the CRTC must be on (EINVAL otherwise).
   * @throws SysError
   */
  stop(sequence?: number): void {
    const assignments = [
      set(this.#connector, 'CRTC_ID', 0),
      set(this.#crtc, 'MODE_ID', 0),
      set(this.#crtc, 'ACTIVE', 0),
      set(this.#plane, 'FB_ID', 0),
      set(this.#plane, 'CRTC_ID', 0),
    ];
    commit(this.#card.file, assignments, {
      flags: DRM_MODE_ATOMIC_NONBLOCK | DRM_MODE_ATOMIC_ALLOW_MODESET,
      ...(sequence === undefined ? {} : { tag: { receiver: this.#number, sequence } }),
      context: `switching CRTC ${this.crtc} off`,
    });
  }

  /** The framebuffer that is on the plane now, whoever put it there, or 0. @throws SysError */
  framebuffer(): number {
    return Number(this.#card.planeProperties(this.plane.id).value('FB_ID'));
  }

  /** Is told of no event any more. Leaves the screen as it is. */
  [Symbol.dispose](): void {
    this.#events.remove(this.#number);
  }

  #set(scene: Scene, how: Omit<Parameters<typeof commit>[2], 'context'>): void {
    const { mode, width, height } = scene;
    using blob = createBlob(this.#card.file, mode.bytes);
    const context = `showing ${width}x${height} in mode ${mode.name} of CRTC ${this.crtc}`;
    commit(this.#card.file, this.#assignments(scene, blob.id), { ...how, context });
  }

  #assignments({ mode, framebuffer, width, height }: Scene, modeBlob: number): Assignment[] {
    const plane = this.#plane;
    return [
      ...this.#evictions,
      set(this.#connector, 'CRTC_ID', this.crtc),
      set(this.#crtc, 'MODE_ID', modeBlob),
      set(this.#crtc, 'ACTIVE', 1),
      set(plane, 'FB_ID', framebuffer),
      set(plane, 'CRTC_ID', this.crtc),
      set(plane, 'CRTC_X', Math.floor((mode.width - width) / 2)),
      set(plane, 'CRTC_Y', Math.floor((mode.height - height) / 2)),
      set(plane, 'CRTC_W', width),
      set(plane, 'CRTC_H', height),
      set(plane, 'SRC_X', 0),
      set(plane, 'SRC_Y', 0),
      set(plane, 'SRC_W', width * FIXED_POINT_ONE),
      set(plane, 'SRC_H', height * FIXED_POINT_ONE),
    ];
  }
}

/** The CRTCs that lead to a connector, the one that it is on now first. */
function crtcsOf({ file, objects }: Card, { encoder, encoders }: CardConnector): number[] {
  const current = encoder === 0 ? 0 : readEncoder(file, encoder).crtc;
  const masks = encoders.map((id) => readEncoder(file, id).possibleCrtcs);
  const possible = objects.crtcs.filter((_, i) => masks.some((mask) => (mask & (1 << i)) !== 0));
  return possible.sort((a, b) => Number(b === current) - Number(a === current));
}

/** Takes off a CRTC what was on it before, but for our own plane and connector. */
function evictions(
  { connectors, planes }: DisplayState,
  own: { crtc: number; plane: number; connector: number },
): Assignment[] {
  const foreign = (id: number) => (properties: Properties) =>
    properties.object.id !== id && Number(properties.value('CRTC_ID')) === own.crtc;
  return [
    ...connectors.filter(foreign(own.connector)).map((properties) => set(properties, 'CRTC_ID', 0)),
    ...planes
      .filter(foreign(own.plane))
      .flatMap((properties) => [set(properties, 'FB_ID', 0), set(properties, 'CRTC_ID', 0)]),
  ];
}
