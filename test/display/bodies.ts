// The display requests that tests send: buffer 1, framebuffer 2, a picture of WIDTH by HEIGHT; what is different in a test is said there.

import {
  attachBody,
  configBody,
  createBody,
  destroyBody,
  detachBody,
  flipBody,
} from '../../sim/guests/bodies.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';

export const WIDTH = 64;
export const HEIGHT = 48;
export const BYTES = WIDTH * HEIGHT * 4;

const CREATE = {
  dbuf_cookie: 1n,
  width: WIDTH,
  height: HEIGHT,
  bpp: 32,
  buffer_sz: BYTES,
  flags: 0,
  gref_directory: 0,
  data_ofs: 0,
};
const ATTACH = {
  dbuf_cookie: 1n,
  fb_cookie: 2n,
  width: WIDTH,
  height: HEIGHT,
  pixel_format: XRGB8888.fourcc,
};
const CONFIG = { fb_cookie: 2n, x: 0, y: 0, width: WIDTH, height: HEIGHT, bpp: 32 };

export type CreateChanges = Partial<typeof CREATE>;
export type AttachChanges = Partial<typeof ATTACH>;
export type ConfigChanges = Partial<typeof CONFIG>;

export const request = {
  create: (changes: CreateChanges = {}) => createBody({ ...CREATE, ...changes }),
  destroy: (dbufCookie = 1n) => destroyBody(dbufCookie),
  attach: (changes: AttachChanges = {}) => attachBody({ ...ATTACH, ...changes }),
  detach: (fbCookie = 2n) => detachBody(fbCookie),
  config: (changes: ConfigChanges = {}) => configBody({ ...CONFIG, ...changes }),
  flip: (fbCookie = 2n) => flipBody(fbCookie),
} as const;
