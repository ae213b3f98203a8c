// The framebuffers of one connection: parts of buffers that have a geometry and a pixel format.
//
// Invariants: a framebuffer's bytes lie inside its buffer, whatever the guest said (peer-defects, 8);
// a buffer knows its framebuffers, so none outlives the mapping that it looks into.

import { ProtocolViolation } from '../runtime/errors.ts';
import type { DmaBuf } from '../xen/memory.ts';
import type { GuestContext } from '../xen/xenbus/driver.ts';
import { type Cookie, CookieTable, cookieText } from './cookie.ts';
import type { DisplayBuffer } from './display-buffer.ts';
import { checkFramebuffer, inferStride } from './geometry.ts';
import type { Picture } from './output.ts';
import { type PixelFormat, pixelFormat } from './pixel-format.ts';
import type { AttachRequest, Viewport } from './requests.ts';

export class Framebuffer {
  readonly cookie: Cookie;
  readonly buffer: DisplayBuffer;
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormat;
  readonly #stride: number;

  /** @throws ProtocolViolation (XEN_EINVAL) when it does not fit its buffer or has no known format */
  constructor(buffer: DisplayBuffer, request: AttachRequest) {
    const { framebuffer, width, height, pixelFormat: code } = request;
    const format = pixelFormat(code);
    if (format === undefined) {
      const detail = `pixel format 0x${code.toString(16)} of ${cookieText(framebuffer)}`;
      throw new ProtocolViolation('unknown-pixel-format', 'XEN_EINVAL', detail);
    }
    this.cookie = framebuffer;
    this.buffer = buffer;
    this.width = width;
    this.height = height;
    this.format = format;
    const { byteLength: bufferBytes } = buffer;
    const { bitsPerPixel } = format;
    this.#stride = buffer.stride ?? inferStride({ width, height, bitsPerPixel, bufferBytes });
    checkFramebuffer({ width, height, format, stride: this.#stride }, bufferBytes);
  }

  /** What `viewport`, which lies inside, shows. */
  picture({ x, y, width, height }: Viewport): Picture {
    const { format } = this;
    const stride = this.#stride;
    const offset = (columns: number) => Math.floor((columns * format.bitsPerPixel) / 8);
    const first = y * stride + offset(x);
    const end = first + (height - 1) * stride + offset(width);
    return new FramebufferPicture(this.buffer, { width, height, stride, format, first, end });
  }
}

interface PictureShape extends Omit<Picture, 'bytes' | 'memory' | 'offset'> {
  /** Offsets in the buffer of the first byte, and of the first one after the last. */
  readonly first: number;
  readonly end: number;
}

/** A part of a buffer. Its view is made when an output first reads it: KMS or a null output never do. */
class FramebufferPicture implements Picture {
  readonly width: number;
  readonly height: number;
  readonly stride: number;
  readonly format: PixelFormat;
  readonly #buffer: DisplayBuffer;
  readonly #first: number;
  readonly #end: number;
  #bytes: Uint8Array | undefined;

  constructor(buffer: DisplayBuffer, { width, height, stride, format, first, end }: PictureShape) {
    this.width = width;
    this.height = height;
    this.stride = stride;
    this.format = format;
    this.#buffer = buffer;
    this.#first = first;
    this.#end = end;
  }

  get bytes(): Uint8Array {
    this.#bytes ??= this.#buffer.bytes.subarray(this.#first, this.#end);
    return this.#bytes;
  }

  get memory(): DmaBuf | undefined {
    return this.#buffer.memory;
  }

  get offset(): number {
    return this.#buffer.dataOffset + this.#first;
  }
}

export class Framebuffers {
  readonly #guest: GuestContext;
  readonly #onDetach: (framebuffer: Framebuffer) => void;
  readonly #table = new CookieTable<Framebuffer>();
  readonly #charges = new Map<Framebuffer, Disposable>();

  /** `onDetach` takes a framebuffer off the connectors, telling its buffer who may still read it. */
  constructor(guest: GuestContext, onDetach: (framebuffer: Framebuffer) => void) {
    this.#guest = guest;
    this.#onDetach = onDetach;
  }

  /** @throws ProtocolViolation `unknown-framebuffer` (XEN_ENOENT) */
  get(cookie: Cookie): Framebuffer {
    const framebuffer = this.#table.find(cookie);
    if (framebuffer !== undefined) return framebuffer;
    throw new ProtocolViolation('unknown-framebuffer', 'XEN_ENOENT', cookieText(cookie));
  }

  /**
   * Makes a framebuffer of `buffer`.
   * @throws ProtocolViolation for a cookie in use (XEN_EEXIST), a bad geometry or format (XEN_EINVAL), or
   *   beyond the guest's budget (XEN_ENOMEM)
   */
  attach(buffer: DisplayBuffer, request: AttachRequest): void {
    if (this.#table.find(request.framebuffer)) {
      const detail = `framebuffer ${cookieText(request.framebuffer)}`;
      throw new ProtocolViolation('framebuffer-cookie-in-use', 'XEN_EEXIST', detail);
    }
    const framebuffer = new Framebuffer(buffer, request);
    this.#charges.set(framebuffer, this.#guest.charge({ framebuffers: 1 }));
    this.#table.add(framebuffer);
    buffer.framebuffers.add(framebuffer);
  }

  detach(framebuffer: Framebuffer): void {
    this.#table.delete(framebuffer);
    framebuffer.buffer.framebuffers.delete(framebuffer);
    this.#onDetach(framebuffer);
    this.#charges.get(framebuffer)?.[Symbol.dispose]();
    this.#charges.delete(framebuffer);
  }

  /** Detaches everything. */
  close(): void {
    for (const framebuffer of this.#table.values()) this.detach(framebuffer);
  }
}
