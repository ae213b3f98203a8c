// Pictures as framebuffers of a card: made when a picture is first shown, removed when it is retired.
//
// Invariants: memory is the card's own, or imported and then held by a counted handle for as long as its
// framebuffer; what the card refused once is not asked again for the same picture.

import { readFileSync } from 'node:fs';
import type { Picture } from '../../display/output.ts';
import {
  ARGB1555,
  ARGB4444,
  ARGB8888,
  XRGB1555,
  XRGB4444,
  XRGB8888,
} from '../../display/pixel-format.ts';
import type { UsedHandle } from '../../linux/drm/buffers.ts';
import type { Card } from '../../linux/drm/card.ts';
import { addFramebuffer, removeFramebuffer } from '../../linux/drm/framebuffers.ts';
import { messageOf, SysError } from '../../runtime/errors.ts';

/** On a screen nothing lies behind a picture, so its alpha means nothing. */
const OPAQUE: ReadonlyMap<number, number> = new Map([
  [ARGB8888.fourcc, XRGB8888.fourcc],
  [ARGB1555.fourcc, XRGB1555.fourcc],
  [ARGB4444.fourcc, XRGB4444.fourcc],
]);

/** A picture that the card has a framebuffer of. */
export interface Frame {
  readonly picture: Picture;
  readonly framebuffer: number;
  readonly width: number;
  readonly height: number;
  /** Whether the memory is the card's own. */
  readonly own: boolean;
  /** What the memory is, in words. */
  readonly kind: string;
}

/** Why the card cannot show a picture. */
export interface Refusal {
  /** What the memory is, in words: `an imported udmabuf buffer`. */
  readonly kind: string;
  readonly reason: string;
}

interface Entry extends Frame {
  readonly handle: UsedHandle;
}

export class PictureFrames {
  readonly #card: Card;
  readonly #formats: ReadonlySet<number>;
  readonly #entries = new Map<Picture, Entry>();
  readonly #refused = new Map<Picture, Refusal>();

  /** `formats` are the FourCCs of the plane that is to show them. */
  constructor(card: Card, formats: ReadonlySet<number>) {
    this.#card = card;
    this.#formats = formats;
  }

  /** How many framebuffers there are now. */
  get size(): number {
    return this.#entries.size;
  }

  /** The framebuffer of a picture, made if need be, or undefined: then `refusal` says why not. */
  of(picture: Picture): Frame | undefined {
    const known = this.#entries.get(picture);
    if (known !== undefined) return known;
    if (this.#refused.has(picture)) return undefined;
    return this.#make(picture);
  }

  refusal(picture: Picture): Refusal | undefined {
    return this.#refused.get(picture);
  }

  /** The card would not show it after all. */
  refuse({ picture, kind }: Frame, reason: string): void {
    this.#refused.set(picture, { kind, reason });
  }

  /** The framebuffer of a picture if there is one; makes none. */
  find(picture: Picture): Frame | undefined {
    return this.#entries.get(picture);
  }

  /** Forgets what was refused: the circumstances have changed. */
  reconsider(): void {
    this.#refused.clear();
  }

  /** Removes the framebuffer of a picture, which no plane may show any more. @throws SysError */
  remove(picture: Picture): void {
    this.#refused.delete(picture);
    const entry = this.#entries.get(picture);
    if (entry === undefined) return;
    this.#entries.delete(picture);
    try {
      removeFramebuffer(this.#card.file, entry.framebuffer);
    } finally {
      entry.handle[Symbol.dispose]();
    }
  }

  /** Removes everything. @throws SysError */
  clear(): void {
    this.#refused.clear();
    for (const picture of [...this.#entries.keys()]) this.remove(picture);
  }

  #make(picture: Picture): Frame | undefined {
    const fd = picture.memory?.fd;
    if (fd === undefined) {
      const reason = 'it has no dma-buf that a card could read';
      return this.#refuse(picture, { kind: 'memory that is only mapped', reason });
    }
    const { facts } = this.#card;
    let kind = `an imported ${exporterOf(fd)} buffer`;
    if (!facts.prime.imports) {
      return this.#refuse(picture, { kind, reason: `${facts.driver} imports no dma-bufs` });
    }
    let handle: UsedHandle | undefined;
    try {
      handle = this.#card.buffers.use(fd);
      if (handle.own) kind = 'a dumb buffer';
      const framebuffer = this.#add(picture, handle.handle);
      const { width, height } = picture;
      const entry = { picture, framebuffer, width, height, own: handle.own, kind, handle };
      this.#entries.set(picture, entry);
      return entry;
    } catch (error) {
      handle?.[Symbol.dispose]();
      if (!(error instanceof SysError)) throw error;
      return this.#refuse(picture, { kind, reason: messageOf(error) });
    }
  }

  #add({ width, height, stride, offset, format }: Picture, handle: number): number {
    const opaque = OPAQUE.get(format.fourcc) ?? format.fourcc;
    const fourcc = this.#formats.has(opaque) ? opaque : format.fourcc;
    return addFramebuffer(this.#card.file, { handle, width, height, fourcc, stride, offset });
  }

  #refuse(picture: Picture, refusal: Refusal): undefined {
    this.#refused.set(picture, refusal);
    return undefined;
  }
}

/** Which driver a dma-buf is of, as the kernel tells it: `udmabuf`, `xen_gntdev`. */
function exporterOf(fd: number): string {
  try {
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
    return /^exp_name:\s*(\S+)/m.exec(info)?.[1] ?? 'foreign';
  } catch {
    return 'foreign';
  }
}
