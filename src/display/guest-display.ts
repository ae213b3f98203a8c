// One connection of a display, as the guest uses it: buffers, framebuffers, modes and flips.
//
// As in xen-drm-front: requests about buffers and framebuffers go over connector 0's ring, modes and flips
// over the connector's own; a buffer's pages and its directory stay granted until the backend has answered
// DBUF_DESTROY, whatever it answered.

import assert from 'node:assert/strict';
import {
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_SET_CONFIG,
} from '../abi/displif.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import type { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import { writePageDirectory } from '../xen/page-directory.ts';
import { type Cookie, cookieValue } from './cookie.ts';
import type { FlipListener, FrontendConnector, RequestBody } from './frontend-connector.ts';
import { type PixelFormat, strideOf } from './pixel-format.ts';

/** Where cookies begin, in the likeness of kernel pointers, so that all of their 64 bits are in use. */
const COOKIE_HIGH = 0xffff_8880 | 0;

/** Pages of ours that hold pixels, known to the backend. */
export interface GuestBuffer {
  readonly cookie: Cookie;
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  readonly format: PixelFormat;
  /** The pixels, to be drawn into. */
  readonly bytes: Uint8Array;
}

/** A buffer made showable. */
export interface GuestFramebuffer {
  readonly cookie: Cookie;
  readonly buffer: GuestBuffer;
}

export interface BufferShape {
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormat;
}

export interface GuestDisplayParts {
  readonly domain: Domain;
  readonly backendDomid: DomId;
  readonly connectors: readonly FrontendConnector[];
  /** The connection's. */
  readonly scope: Scope;
}

export class GuestDisplay {
  readonly #parts: GuestDisplayParts;
  readonly #bufferScopes = new Map<GuestBuffer, Scope>();
  #lastCookie = 0;

  constructor(parts: GuestDisplayParts) {
    this.#parts = parts;
  }

  get connectors(): readonly FrontendConnector[] {
    return this.#parts.connectors;
  }

  /** Shares new, black pages and makes a buffer of them. @throws SysError */
  async createBuffer({ width, height, format }: BufferShape): Promise<GuestBuffer> {
    const { domain, backendDomid: domid } = this.#parts;
    const scope = this.#parts.scope.child('buffer');
    const stride = strideOf(width, format.bitsPerPixel);
    const bufferBytes = stride * height;
    try {
      const pages = Math.ceil(bufferBytes / PAGE_SIZE);
      const shared = scope.own(await domain.grants.share({ domid, pages, writable: false }));
      const { refs } = shared;
      const directory = scope.own(await writePageDirectory(domain.grants, { domid, refs }));
      const cookie = this.#newCookie();
      const dbuf_create = {
        dbuf_cookie: cookieValue(cookie),
        width,
        height,
        bpp: format.bitsPerPixel,
        buffer_sz: bufferBytes,
        flags: 0,
        gref_directory: directory.refs[0]!,
        data_ofs: 0,
      };
      await this.#request({ operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } });
      const bytes = shared.bytes.subarray(0, bufferBytes);
      const buffer = { cookie, width, height, stride, format, bytes };
      this.#bufferScopes.set(buffer, scope);
      return buffer;
    } catch (error) {
      await scope.close();
      throw error;
    }
  }

  /** Takes a buffer's pages back, after the backend has answered or the time for that is over. */
  async destroyBuffer(buffer: GuestBuffer): Promise<void> {
    const scope = this.#bufferScopes.get(buffer);
    assert(scope, 'not a buffer of this display');
    this.#bufferScopes.delete(buffer);
    const dbuf_destroy = { dbuf_cookie: cookieValue(buffer.cookie) };
    try {
      await this.#request({ operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy } });
    } finally {
      await scope.close();
    }
  }

  /** Makes the whole of a buffer showable. @throws SysError */
  async attach(buffer: GuestBuffer): Promise<GuestFramebuffer> {
    const cookie = this.#newCookie();
    const fb_attach = {
      dbuf_cookie: cookieValue(buffer.cookie),
      fb_cookie: cookieValue(cookie),
      width: buffer.width,
      height: buffer.height,
      pixel_format: buffer.format.fourcc,
    };
    await this.#request({ operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach } });
    return { cookie, buffer };
  }

  async detach({ cookie }: GuestFramebuffer): Promise<void> {
    const fb_detach = { fb_cookie: cookieValue(cookie) };
    await this.#request({ operation: XENDISPL_OP_FB_DETACH, op: { fb_detach } });
  }

  /** Shows a framebuffer from its upper left corner, or switches the connector off. @throws SysError */
  async setMode(index: number, framebuffer: GuestFramebuffer | undefined): Promise<void> {
    const { width = 0, height = 0, format } = framebuffer?.buffer ?? {};
    const fb_cookie = framebuffer ? cookieValue(framebuffer.cookie) : 0n;
    const bpp = format?.bitsPerPixel ?? 0;
    const set_config = { fb_cookie, x: 0, y: 0, width, height, bpp };
    await this.#connector(index).request({ operation: XENDISPL_OP_SET_CONFIG, op: { set_config } });
  }

  /** Shows another framebuffer; see `FrontendConnector.flip`. */
  flip(index: number, { cookie }: GuestFramebuffer, onFlipped: FlipListener): void {
    this.#connector(index).flip(cookie, onFlipped);
  }

  /** The same, for who flips seldom: resolves when the flip is complete. @throws SysError */
  flipped(index: number, framebuffer: GuestFramebuffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.flip(index, framebuffer, (error) => (error ? reject(error) : resolve()));
    });
  }

  #request(body: RequestBody): Promise<void> {
    return this.#connector(0).request(body);
  }

  #connector(index: number): FrontendConnector {
    const connector = this.#parts.connectors[index];
    assert(connector, `there is no connector ${index}`);
    return connector;
  }

  #newCookie(): Cookie {
    this.#lastCookie += 1;
    return { low: (this.#lastCookie * 0x100) | 0, high: COOKIE_HIGH };
  }
}
