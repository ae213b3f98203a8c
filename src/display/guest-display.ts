// One connection of a display, as the guest uses it: buffers, framebuffers, modes and flips.
//
// As in xen-drm-front: requests about buffers and framebuffers go over connector 0's ring, modes and flips
// over the connector's own; a buffer's pages and its directory stay granted until the backend has answered
// DBUF_DESTROY, whatever it answered; pages of the backend's (be-alloc) are unmapped before it is asked.

import assert from 'node:assert/strict';
import {
  XENDISPL_DBUF_FLG_REQ_ALLOC,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_SET_CONFIG,
} from '../abi/displif.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import { SysError } from '../runtime/errors.ts';
import type { Scope } from '../runtime/scope.ts';
import type { Domain, SharedPages } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import { offeredRefs, offerPageDirectory, writePageDirectory } from '../xen/page-directory.ts';
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
  /** Buffers are the backend's memory, mapped here, and not ours. */
  readonly backendAllocates: boolean;
}

/** What a buffer holds on our side. */
interface BufferScopes {
  /** Until the backend has answered that the buffer is destroyed. */
  readonly granted: Scope;
  /** Until the backend is asked to destroy it. */
  readonly mapped: Scope;
}

interface NewBuffer extends BufferShape {
  readonly cookie: Cookie;
  readonly stride: number;
  readonly scopes: BufferScopes;
}

/** The connection ended before a buffer was made. */
function disconnected(): SysError {
  const context = 'making a buffer of a display that is not connected any more';
  return new SysError({ call: 'displif DBUF_CREATE', errnoName: 'ENOTCONN', context });
}

function pagesOf({ stride, height }: NewBuffer): number {
  return Math.ceil((stride * height) / PAGE_SIZE);
}

export class GuestDisplay {
  readonly #parts: GuestDisplayParts;
  readonly #bufferScopes = new Map<GuestBuffer, BufferScopes>();
  #lastCookie = 0;

  constructor(parts: GuestDisplayParts) {
    this.#parts = parts;
  }

  get connectors(): readonly FrontendConnector[] {
    return this.#parts.connectors;
  }

  /** Makes a buffer of new, black pages: ours, or the backend's. @throws SysError, ProtocolViolation */
  async createBuffer(shape: BufferShape): Promise<GuestBuffer> {
    if (this.#parts.scope.closing) throw disconnected();
    const granted = this.#parts.scope.child('buffer');
    const mapped = granted.child('mapped');
    const cookie = this.#newCookie();
    const { width, height, format } = shape;
    const stride = strideOf(width, format.bitsPerPixel);
    const made = { ...shape, cookie, stride, scopes: { granted, mapped } };
    try {
      const pages = await (this.#parts.backendAllocates ? this.#borrow(made) : this.#share(made));
      const bytes = pages.subarray(0, stride * height);
      const buffer = { cookie, width, height, stride, format, bytes };
      this.#bufferScopes.set(buffer, made.scopes);
      return buffer;
    } catch (error) {
      await granted.close();
      throw this.#parts.scope.closing ? disconnected() : error;
    }
  }

  /** Shares pages of ours and tells the backend. @returns the pages */
  async #share(buffer: NewBuffer): Promise<Uint8Array> {
    const { domain, backendDomid: domid } = this.#parts;
    const { granted } = buffer.scopes;
    const pages = pagesOf(buffer);
    const shared = granted.own(await domain.grants.share({ domid, pages, writable: false }));
    const { refs } = shared;
    const directory = granted.own(await writePageDirectory(domain.grants, { domid, refs }));
    await this.#create(buffer, { directory, flags: 0 });
    return shared.bytes;
  }

  /** Has the backend allocate pages and maps what it granted. @returns the pages */
  async #borrow(buffer: NewBuffer): Promise<Uint8Array> {
    const { domain, backendDomid: domid } = this.#parts;
    const { granted, mapped } = buffer.scopes;
    const pages = pagesOf(buffer);
    const directory = granted.own(await offerPageDirectory(domain.grants, { domid, pages }));
    await this.#create(buffer, { directory, flags: XENDISPL_DBUF_FLG_REQ_ALLOC });
    try {
      const refs = offeredRefs(directory, pages);
      return mapped.own(await domain.foreign.map({ domid, refs, writable: true })).bytes;
    } catch (error) {
      await this.#destroy(buffer.cookie);
      throw error;
    }
  }

  #create(
    { cookie, width, height, stride, format }: NewBuffer,
    { directory, flags }: { directory: SharedPages; flags: number },
  ): Promise<void> {
    const dbuf_create = {
      dbuf_cookie: cookieValue(cookie),
      width,
      height,
      bpp: format.bitsPerPixel,
      buffer_sz: stride * height,
      flags,
      gref_directory: directory.refs[0]!,
      data_ofs: 0,
    };
    return this.#request({ operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } });
  }

  /** Takes a buffer's pages back, after the backend has answered or the time for that is over. */
  async destroyBuffer(buffer: GuestBuffer): Promise<void> {
    const scopes = this.#bufferScopes.get(buffer);
    assert(scopes, 'not a buffer of this display');
    this.#bufferScopes.delete(buffer);
    try {
      await scopes.mapped.close();
      await this.#destroy(buffer.cookie);
    } finally {
      await scopes.granted.close();
    }
  }

  #destroy(cookie: Cookie): Promise<void> {
    const dbuf_destroy = { dbuf_cookie: cookieValue(cookie) };
    return this.#request({ operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy } });
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
