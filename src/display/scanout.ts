// What one connector shows: its mode, the pictures that its output may be reading, and the flip that is
// outstanding.
//
// Invariants: at most one flip is outstanding, and it is completed exactly once; a picture that is no
// longer wanted is retired, and its buffer knows until when the output may read it; a switch of mode or
// framebuffer completes the outstanding flip before it returns (trap 11: a completion that arrived
// later would be taken for that of the next flip).

import assert from 'node:assert/strict';
import type { Work } from '../runtime/confinement.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Framebuffer } from './framebuffers.ts';
import { clipViewport, type Size } from './geometry.ts';
import type { OutputConnector, Picture } from './output.ts';
import type { Viewport } from './requests.ts';

export interface ScanoutParts {
  readonly output: OutputConnector;
  /** The connector's size. */
  readonly info: Size;
  /** Makes what the output calls ours to answer for: see `BackendDevice.confined`. */
  readonly confined: (work: Work<void>) => Work<void>;
}

export class Scanout {
  readonly #output: OutputConnector;
  readonly #size: Size;
  readonly #onFlipped: (framebuffer: Framebuffer) => void;
  readonly #flipped: () => void;
  /** Of the framebuffers that were shown with the present viewport. */
  readonly #pictures = new Map<Framebuffer, Picture>();
  #viewport: Viewport | undefined;
  #shown: Framebuffer | undefined;
  #flippingTo: Framebuffer | undefined;

  /** `onFlipped` is called once per flip, possibly before `flip` returns. */
  constructor(parts: ScanoutParts, onFlipped: (framebuffer: Framebuffer) => void) {
    this.#output = parts.output;
    this.#size = parts.info;
    this.#onFlipped = onFlipped;
    this.#flipped = parts.confined(() => this.#complete());
  }

  /** The picture on the screen, or undefined. */
  get picture(): Picture | undefined {
    return this.#shown && this.#pictures.get(this.#shown);
  }

  get flipping(): boolean {
    return this.#flippingTo !== undefined;
  }

  /** Shows a part of a framebuffer. @throws ProtocolViolation `viewport-outside` (XEN_EINVAL) */
  show(framebuffer: Framebuffer, viewport: Viewport): void {
    const picture = this.#clip(framebuffer, viewport);
    const replaced = [...this.#pictures];
    this.#pictures.clear();
    this.#pictures.set(framebuffer, picture);
    this.#viewport = viewport;
    this.#shown = framebuffer;
    this.#output.show(picture);
    this.#retire(replaced);
  }

  /** Shows nothing until the next `show`. */
  blank(): void {
    if (this.#shown === undefined) return;
    const replaced = [...this.#pictures];
    this.#pictures.clear();
    this.#viewport = undefined;
    this.#shown = undefined;
    this.#output.show(undefined);
    this.#retire(replaced);
  }

  /**
   * Shows another framebuffer with the same viewport; no flip may be outstanding.
   * @throws ProtocolViolation `flip-without-mode` or `viewport-outside` (XEN_EINVAL)
   */
  flip(framebuffer: Framebuffer): void {
    assert(!this.flipping, 'a flip while another one is outstanding');
    if (this.#viewport === undefined) {
      throw new ProtocolViolation('flip-without-mode', 'XEN_EINVAL', 'the connector is off');
    }
    let picture = this.#pictures.get(framebuffer);
    if (picture === undefined) {
      picture = this.#clip(framebuffer, this.#viewport);
      this.#pictures.set(framebuffer, picture);
    }
    this.#flippingTo = framebuffer;
    this.#shown = framebuffer;
    this.#output.flip(picture, this.#flipped);
  }

  /** The framebuffer is going away: shows nothing when it is the one on the screen. */
  drop(framebuffer: Framebuffer): void {
    if (framebuffer === this.#shown) {
      this.blank();
      return;
    }
    const picture = this.#pictures.get(framebuffer);
    if (picture === undefined) return;
    this.#pictures.delete(framebuffer);
    this.#retire([[framebuffer, picture]]);
  }

  #complete(): void {
    const framebuffer = this.#flippingTo;
    assert(framebuffer !== undefined, 'an output completed a flip twice');
    this.#flippingTo = undefined;
    this.#onFlipped(framebuffer);
  }

  #clip(framebuffer: Framebuffer, viewport: Viewport): Picture {
    return framebuffer.picture(clipViewport(viewport, { framebuffer, connector: this.#size }));
  }

  #retire(replaced: readonly (readonly [Framebuffer, Picture])[]): void {
    for (const [framebuffer, picture] of replaced) {
      framebuffer.buffer.readBy(this.#output.retire(picture));
    }
  }
}
