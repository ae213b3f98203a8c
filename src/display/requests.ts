// The parser of displif requests, version 1: 64 private bytes become one of seven requests or a
// ProtocolViolation with the errno that the response carries. Only form is checked here; what depends on
// the guest's other objects (sizes, cookies in use) is checked by whoever owns those.
//
// What is tolerated, and why: xen-drm-front prepares a request inside the ring slot without clearing it, so
// whatever the last message left there and the operation does not define comes back to us. Our responses
// overwrite whole slots, but their own status stays in bytes 4 to 7, the request's reserved bytes. So
// reserved bytes, flag bits without a meaning, and everything behind an operation's fields are not looked
// at. `data_ofs` is: Linux sends it since 5.9 (imported buffers), whichever version was agreed.
// Refused are the values that nobody sends in good faith: cookie 0, empty sizes, sizes half given.

import {
  displReq,
  XENDISPL_DBUF_FLG_REQ_ALLOC,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../abi/displif.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Gref } from '../xen/ids.ts';
import { type Cookie, cookieAt, isZero } from './cookie.ts';

export interface CreateRequest {
  readonly operation: typeof XENDISPL_OP_DBUF_CREATE;
  readonly buffer: Cookie;
  /** Pixels; width, height and bitsPerPixel are all 0 for buffers imported into the guest (PRIME). */
  readonly width: number;
  readonly height: number;
  readonly bitsPerPixel: number;
  readonly bufferBytes: number;
  /** Where the first pixel is, in bytes. */
  readonly dataOffset: number;
  readonly backendAllocates: boolean;
  readonly directory: Gref;
}

export interface DestroyRequest {
  readonly operation: typeof XENDISPL_OP_DBUF_DESTROY;
  readonly buffer: Cookie;
}

export interface AttachRequest {
  readonly operation: typeof XENDISPL_OP_FB_ATTACH;
  readonly buffer: Cookie;
  readonly framebuffer: Cookie;
  readonly width: number;
  readonly height: number;
  /** FourCC. */
  readonly pixelFormat: number;
}

export interface DetachRequest {
  readonly operation: typeof XENDISPL_OP_FB_DETACH;
  readonly framebuffer: Cookie;
}

/** The part of a framebuffer that a connector shows, in pixels. */
export interface Viewport {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface ConfigRequest {
  readonly operation: typeof XENDISPL_OP_SET_CONFIG;
  /** Undefined switches the connector off. */
  readonly mode: { readonly framebuffer: Cookie; readonly viewport: Viewport } | undefined;
}

export interface FlipRequest {
  readonly operation: typeof XENDISPL_OP_PG_FLIP;
  readonly framebuffer: Cookie;
}

export interface EdidRequest {
  readonly operation: typeof XENDISPL_OP_GET_EDID;
}

export type DisplayRequest =
  | CreateRequest
  | DestroyRequest
  | AttachRequest
  | DetachRequest
  | ConfigRequest
  | FlipRequest
  | EdidRequest;

const {
  dbuf_create: create,
  dbuf_destroy: destroy,
  fb_attach: attach,
  fb_detach: detach,
  set_config: config,
  pg_flip: flip,
} = displReq.fields.op.fields;
const FLIP_COOKIE = flip.fields.fb_cookie.offset;

/** The number that the response must echo. */
export function requestId(view: DataView): number {
  return displReq.fields.id.get(view, 0);
}

/** The operation's number, whether there is such an operation or not. */
export function requestOperation(view: DataView): number {
  return displReq.fields.operation.get(view, 0);
}

/** Parses the requests of one ring. */
export class RequestParser {
  // Flips come for ever, so the one and only flip request is reused.
  readonly #flipCookie = { low: 0, high: 0 };
  readonly #flip: FlipRequest = {
    operation: XENDISPL_OP_PG_FLIP,
    framebuffer: this.#flipCookie,
  };

  /**
   * The request in `view`. The result of a flip is valid until the next call.
   * @throws ProtocolViolation `unknown-operation` (XEN_EOPNOTSUPP) or `malformed-request` (XEN_EINVAL)
   */
  parse(view: DataView): DisplayRequest {
    const operation = requestOperation(view);
    switch (operation) {
      case XENDISPL_OP_PG_FLIP:
        return this.#parseFlip(view);
      case XENDISPL_OP_DBUF_CREATE:
        return parseCreate(view);
      case XENDISPL_OP_DBUF_DESTROY:
        return { operation, buffer: validCookie(view, destroy.fields.dbuf_cookie) };
      case XENDISPL_OP_FB_ATTACH:
        return parseAttach(view);
      case XENDISPL_OP_FB_DETACH:
        return { operation, framebuffer: validCookie(view, detach.fields.fb_cookie) };
      case XENDISPL_OP_SET_CONFIG:
        return parseConfig(view);
      case XENDISPL_OP_GET_EDID:
        return { operation };
      default:
        throw new ProtocolViolation(
          'unknown-operation',
          'XEN_EOPNOTSUPP',
          `operation 0x${operation.toString(16)}`,
        );
    }
  }

  #parseFlip(view: DataView): FlipRequest {
    this.#flipCookie.low = view.getInt32(FLIP_COOKIE, true);
    this.#flipCookie.high = view.getInt32(FLIP_COOKIE + 4, true);
    if (isZero(this.#flipCookie)) throw malformed('a flip to framebuffer 0');
    return this.#flip;
  }
}

function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-request', 'XEN_EINVAL', detail);
}

function validCookie(view: DataView, { name, offset }: { name: string; offset: number }): Cookie {
  const cookie = cookieAt(view, offset);
  if (isZero(cookie)) throw malformed(`${name} is 0`);
  return cookie;
}

function parseCreate(view: DataView): CreateRequest {
  const { fields } = create;
  const request: CreateRequest = {
    operation: XENDISPL_OP_DBUF_CREATE,
    buffer: validCookie(view, fields.dbuf_cookie),
    width: fields.width.get(view, 0),
    height: fields.height.get(view, 0),
    bitsPerPixel: fields.bpp.get(view, 0),
    bufferBytes: fields.buffer_sz.get(view, 0),
    dataOffset: fields.data_ofs.get(view, 0),
    backendAllocates: (fields.flags.get(view, 0) & XENDISPL_DBUF_FLG_REQ_ALLOC) !== 0,
    directory: fields.gref_directory.get(view, 0) as Gref,
  };
  if (request.bufferBytes === 0) throw malformed('buffer_sz is 0');
  if (request.directory === 0) throw malformed('gref_directory is 0');
  const { width, height, bitsPerPixel } = request;
  const given = [width, height, bitsPerPixel].filter((value) => value !== 0).length;
  if (given !== 0 && given !== 3) {
    throw malformed(`a buffer of ${width}x${height} with ${bitsPerPixel} bits per pixel`);
  }
  return request;
}

function parseAttach(view: DataView): AttachRequest {
  const { fields } = attach;
  return {
    operation: XENDISPL_OP_FB_ATTACH,
    buffer: validCookie(view, fields.dbuf_cookie),
    framebuffer: validCookie(view, fields.fb_cookie),
    width: fields.width.get(view, 0),
    height: fields.height.get(view, 0),
    pixelFormat: fields.pixel_format.get(view, 0),
  };
}

function parseConfig(view: DataView): ConfigRequest {
  const { fields } = config;
  const framebuffer = cookieAt(view, fields.fb_cookie.offset);
  const viewport: Viewport = {
    x: fields.x.get(view, 0),
    y: fields.y.get(view, 0),
    width: fields.width.get(view, 0),
    height: fields.height.get(view, 0),
  };
  const { x, y, width, height } = viewport;
  const operation = XENDISPL_OP_SET_CONFIG;
  if (isZero(framebuffer)) {
    if ((x | y | width | height) === 0) return { operation, mode: undefined };
    throw malformed('a mode with framebuffer 0');
  }
  if (width === 0 || height === 0) throw malformed(`a mode of ${width}x${height}`);
  return { operation, mode: { framebuffer, viewport } };
}
