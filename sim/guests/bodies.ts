// Display requests by name, as bodies that a frontend gives an id: what is in their fields is the caller's.

import {
  type dbufCreateReq,
  type fbAttachReq,
  type setConfigReq,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';

type Fields<S extends { write(view: DataView, at: number, fields: never): void }> = Parameters<
  S['write']
>[2];

export function createBody(dbuf_create: Fields<typeof dbufCreateReq>): RequestBody {
  return { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
}

export function destroyBody(dbuf_cookie: bigint): RequestBody {
  return { operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy: { dbuf_cookie } } };
}

export function attachBody(fb_attach: Fields<typeof fbAttachReq>): RequestBody {
  return { operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach } };
}

export function detachBody(fb_cookie: bigint): RequestBody {
  return { operation: XENDISPL_OP_FB_DETACH, op: { fb_detach: { fb_cookie } } };
}

export function configBody(set_config: Fields<typeof setConfigReq>): RequestBody {
  return { operation: XENDISPL_OP_SET_CONFIG, op: { set_config } };
}

export function flipBody(fb_cookie: bigint): RequestBody {
  return { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie } } };
}
