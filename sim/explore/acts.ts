// What an explored guest can ask for, and what may be the answer to it at that point of its life.
//
// The guest has two names for buffers. What it knows of each decides what is right: there is none, it is live, or the
// guest gave it up and was told that the backend could not have it back in time, so that it may be there or not.

import { displReq, XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import type { Gref } from '../../src/xen/ids.ts';
import { attachBody, configBody, createBody, destroyBody, flipBody } from '../guests/bodies.ts';

/** One page of pixels. */
export const WIDTH = 32;
export const HEIGHT = 32;
const BYTES = WIDTH * HEIGHT * 4;

/** What a guest asks for in its life, one after the other; `create` names its own pages, `borrow` asks for some of ours. */
export type Act =
  | 'create'
  | 'borrow'
  | 'attach'
  | 'show'
  | 'flip'
  | 'destroy'
  | 'create another'
  | 'borrow another'
  | 'destroy another';

/** The buffer that the guest shows, and the other one. */
export type BufferName = 'it' | 'another';

const COOKIES: Readonly<Record<BufferName, bigint>> = { it: 1n, another: 3n };
const FRAMEBUFFER = 2n;

export function bufferOf(act: Act): BufferName {
  return act.endsWith('another') ? 'another' : 'it';
}

export function isCreate(act: Act): boolean {
  return act === 'create' || act === 'create another';
}

export function isBorrow(act: Act): boolean {
  return act === 'borrow' || act === 'borrow another';
}

export function isDestroy(act: Act): boolean {
  return act === 'destroy' || act === 'destroy another';
}

/** The request as it goes into the ring; `directory` is where the pages of a new buffer are named, or to be named. */
export function encode(act: Act, { id, directory }: { id: number; directory: Gref }): Uint8Array {
  const bytes = new Uint8Array(displReq.size);
  displReq.write(new DataView(bytes.buffer), 0, { id, ...bodyOf(act, directory) });
  return bytes;
}

export function operationOf(act: Act): number {
  return bodyOf(act, 0 as Gref).operation;
}

function bodyOf(act: Act, directory: Gref): RequestBody {
  const geometry = { width: WIDTH, height: HEIGHT };
  const dbuf_cookie = COOKIES[bufferOf(act)];
  switch (act) {
    case 'attach':
      return attachBody({
        ...geometry,
        dbuf_cookie,
        fb_cookie: FRAMEBUFFER,
        pixel_format: XRGB8888.fourcc,
      });
    case 'show':
      return configBody({ ...geometry, fb_cookie: FRAMEBUFFER, x: 0, y: 0, bpp: 32 });
    case 'flip':
      return flipBody(FRAMEBUFFER);
    case 'destroy':
    case 'destroy another':
      return destroyBody(dbuf_cookie);
    default: {
      const flags = isBorrow(act) ? XENDISPL_DBUF_FLG_REQ_ALLOC : 0;
      const size = { bpp: 32, buffer_sz: BYTES, flags, data_ofs: 0 };
      return createBody({ ...geometry, ...size, dbuf_cookie, gref_directory: directory });
    }
  }
}

const { XEN_EBUSY, XEN_EEXIST, XEN_ENOENT, XEN_ENOMEM, XEN_ETIMEDOUT } = XEN_ERRNO;

/** What may be answered about a buffer that is live, that there may still be, and that there is not. */
const ANSWERS = {
  attach: { live: [0], late: [-XEN_ENOENT, -XEN_EBUSY], none: [-XEN_ENOENT] },
  show: { live: [0], late: [-XEN_ENOENT], none: [-XEN_ENOENT] },
  flip: { live: [0, -XEN_EBUSY], late: [-XEN_ENOENT, -XEN_EBUSY], none: [-XEN_ENOENT, -XEN_EBUSY] },
  destroy: { live: [0, -XEN_ETIMEDOUT], late: [-XEN_ENOENT, -XEN_EBUSY], none: [-XEN_ENOENT] },
} as const;

/** What a guest knows of its buffers, by the answers that it got. */
export class KnownBuffers {
  readonly #buffersMax: number;
  readonly #states = new Map<BufferName, 'live' | 'late'>();

  /** `buffersMax`: how many the guest may have, by its budget. */
  constructor(buffersMax: number) {
    this.#buffersMax = buffersMax;
  }

  isLive(name: BufferName): boolean {
    return this.#states.get(name) === 'live';
  }

  /** Learns of an answer. @returns whether it is right */
  answered(act: Act, status: number): boolean {
    const name = bufferOf(act);
    const right = this.#expected(act).includes(status);
    const done = status === 0;
    if ((isCreate(act) || isBorrow(act)) && done) this.#states.set(name, 'live');
    if (isDestroy(act) && done) this.#states.delete(name);
    if (isDestroy(act) && status === -XEN_ETIMEDOUT) this.#states.set(name, 'late');
    return right;
  }

  describe(): string {
    return JSON.stringify([...this.#states]);
  }

  #expected(act: Act): readonly number[] {
    const state = this.#states.get(bufferOf(act)) ?? 'none';
    switch (act) {
      case 'attach':
      case 'show':
      case 'flip':
        return ANSWERS[act][state];
      case 'destroy':
      case 'destroy another':
        return ANSWERS.destroy[state];
      default:
        return this.#expectedOfNew(state);
    }
  }

  /** A buffer that is not given back counts against the budget, however it was given up. */
  #expectedOfNew(state: 'live' | 'late' | 'none'): readonly number[] {
    if (state === 'live') return [-XEN_EEXIST];
    const states = [...this.#states.values()];
    const surely = states.filter((other) => other === 'live').length;
    if (surely >= this.#buffersMax)
      return [-XEN_ENOMEM, ...(state === 'late' ? [-XEN_EEXIST] : [])];
    const mayBeFull = states.length >= this.#buffersMax;
    return [0, ...(state === 'late' ? [-XEN_EEXIST] : []), ...(mayBeFull ? [-XEN_ENOMEM] : [])];
  }
}
