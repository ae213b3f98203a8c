// Display requests that a guest should not send, and some that it may: drawn from small sets of cookies, sizes and
// references, so that they meet each other, and from the edges of every field.

import { XENDISPL_DBUF_FLG_REQ_ALLOC, XENDISPL_OP_GET_EDID } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import { RGB565, XRGB8888, YUYV } from '../../src/display/pixel-format.ts';
import type { Random } from '../../src/runtime/random.ts';
import { between, happens, oneOf, weighted } from '../chance.ts';
import { attachBody, configBody, createBody, destroyBody, detachBody, flipBody } from './bodies.ts';

/** Cookies of buffers and framebuffers: few, so that they collide; and those that numbers get wrong. */
const COOKIES = [1n, 2n, 3n, 4n, 1n, 2n, 3n, 0n, 2n ** 53n + 1n, 2n ** 64n - 1n] as const;
const EDGES = [0, 1, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;
/** An otherwise reasonable number is replaced by an edge once in so many times. */
const EDGE_ONE_IN = 24;
const FORMATS = [XRGB8888, RGB565, YUYV] as const;
const SIDES = [8, 16, 32] as const;
/** Operations that displif does not have. */
const UNKNOWN_OPERATIONS = [7, 15, 0x7f, 0xff] as const;

/** A directory of grant references that the guest has laid out, and how many it names. */
export interface Directory {
  readonly first: number;
  readonly pages: number;
  /** Whether it is for the backend to fill. */
  readonly empty: boolean;
}

const OPERATIONS = {
  create: 6,
  destroy: 3,
  attach: 5,
  detach: 2,
  config: 3,
  flip: 8,
  edid: 1,
  unknown: 1,
} as const;

export class RequestGenerator {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Any request; creations name one of `directories`, mostly. */
  next(directories: readonly Directory[]): RequestBody {
    switch (weighted(this.#random, OPERATIONS)) {
      case 'create':
        return this.create(oneOf(this.#random, directories));
      case 'destroy':
        return destroyBody(this.#cookie());
      case 'attach':
        return this.#attach();
      case 'detach':
        return detachBody(this.#cookie());
      case 'config':
        return this.#config();
      case 'flip':
        return flipBody(this.#cookie());
      case 'edid': {
        const get_edid = { buffer_sz: this.#edge(32768), gref_directory: this.#edge(9) };
        return { operation: XENDISPL_OP_GET_EDID, op: { get_edid } };
      }
      case 'unknown':
        return { operation: oneOf(this.#random, UNKNOWN_OPERATIONS), op: {} } as RequestBody;
    }
  }

  /** A creation out of `directory`. */
  create({ first, pages, empty }: Directory): RequestBody {
    const format = oneOf(this.#random, FORMATS);
    const width = oneOf(this.#random, SIDES);
    const bytes = pages * PAGE_SIZE;
    const height = Math.floor((bytes * 8) / format.bitsPerPixel / width);
    const geometry = happens(this.#random, 5)
      ? { width: 0, height: 0, bpp: 0 }
      : {
          width: this.#edge(width),
          height: this.#edge(height),
          bpp: this.#edge(format.bitsPerPixel),
        };
    return createBody({
      ...geometry,
      dbuf_cookie: this.#cookie(),
      buffer_sz: this.#edge(bytes),
      flags: this.#edge(empty ? XENDISPL_DBUF_FLG_REQ_ALLOC : 0),
      gref_directory: this.#edge(first),
      data_ofs: happens(this.#random, 10) ? between(this.#random, 0, bytes) : 0,
    });
  }

  #attach(): RequestBody {
    return attachBody({
      dbuf_cookie: this.#cookie(),
      fb_cookie: this.#cookie(),
      width: this.#edge(oneOf(this.#random, SIDES)),
      height: this.#edge(oneOf(this.#random, SIDES)),
      pixel_format: this.#edge(oneOf(this.#random, FORMATS).fourcc),
    });
  }

  #config(): RequestBody {
    const off = happens(this.#random, 6);
    return configBody({
      fb_cookie: off ? 0n : this.#cookie(),
      x: this.#edge(0),
      y: this.#edge(0),
      width: off ? 0 : this.#edge(oneOf(this.#random, SIDES)),
      height: off ? 0 : this.#edge(oneOf(this.#random, SIDES)),
      bpp: off ? 0 : 32,
    });
  }

  #cookie(): bigint {
    return oneOf(this.#random, COOKIES);
  }

  #edge(reasonable: number): number {
    return happens(this.#random, EDGE_ONE_IN) ? oneOf(this.#random, EDGES) : reasonable;
  }
}
