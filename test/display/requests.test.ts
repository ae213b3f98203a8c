import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  displReq,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { cookieText } from '../../src/display/cookie.ts';
import { type DisplayRequest, RequestParser } from '../../src/display/requests.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';

const KNOWN = [
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_SET_CONFIG,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_GET_EDID,
];

type Written = Parameters<typeof displReq.write>[2];

function parse(request: Omit<Written, 'id'>, spoil?: (bytes: Uint8Array) => void): DisplayRequest {
  const bytes = new Uint8Array(64);
  displReq.write(new DataView(bytes.buffer), 0, { id: 7, ...request });
  spoil?.(bytes);
  return new RequestParser().parse(new DataView(bytes.buffer));
}

function refused(request: Omit<Written, 'id'>, reason: string, errnoName = 'XEN_EINVAL'): void {
  assert.throws(
    () => parse(request),
    (error) =>
      error instanceof ProtocolViolation &&
      error.reason === reason &&
      error.errnoName === errnoName,
  );
}

const CREATE = {
  dbuf_cookie: 0xffff_8880_1234_5678n,
  width: 1920,
  height: 1080,
  bpp: 32,
  buffer_sz: 1920 * 1080 * 4,
  flags: 0,
  gref_directory: 8,
  data_ofs: 0,
};
const create = (changes: Partial<typeof CREATE>) => ({
  operation: XENDISPL_OP_DBUF_CREATE,
  op: { dbuf_create: { ...CREATE, ...changes } },
});

test('each request is what the frontend wrote', () => {
  const parsed = parse(create({ flags: 1, data_ofs: 64 }));
  assert(parsed.operation === XENDISPL_OP_DBUF_CREATE);
  assert.equal(cookieText(parsed.buffer), '0xffff888012345678');
  assert.deepEqual(
    { ...parsed, buffer: undefined },
    {
      operation: XENDISPL_OP_DBUF_CREATE,
      buffer: undefined,
      width: 1920,
      height: 1080,
      bitsPerPixel: 32,
      bufferBytes: 8294400,
      dataOffset: 64,
      backendAllocates: true,
      directory: 8,
    },
  );
  const attach = parse({
    operation: XENDISPL_OP_FB_ATTACH,
    op: {
      fb_attach: {
        dbuf_cookie: 1n,
        fb_cookie: 2n ** 64n - 1n,
        width: 3,
        height: 4,
        pixel_format: 5,
      },
    },
  });
  assert.deepEqual(attach, {
    operation: XENDISPL_OP_FB_ATTACH,
    buffer: { low: 1, high: 0 },
    framebuffer: { low: -1, high: -1 },
    width: 3,
    height: 4,
    pixelFormat: 5,
  });
  const config = { fb_cookie: 9n, x: 1, y: 2, width: 3, height: 4, bpp: 32 };
  assert.deepEqual(parse({ operation: XENDISPL_OP_SET_CONFIG, op: { set_config: config } }), {
    operation: XENDISPL_OP_SET_CONFIG,
    mode: { framebuffer: { low: 9, high: 0 }, viewport: { x: 1, y: 2, width: 3, height: 4 } },
  });
});

test('operations that do not exist, the reserved ones too, are not supported (R3)', () => {
  for (let operation = 0; operation < 256; operation++) {
    if (KNOWN.includes(operation)) continue;
    refused({ operation }, 'unknown-operation', 'XEN_EOPNOTSUPP');
  }
});

test('cookie 0 names nothing (R4)', () => {
  refused(create({ dbuf_cookie: 0n }), 'malformed-request');
  refused({ operation: XENDISPL_OP_DBUF_DESTROY }, 'malformed-request');
  refused({ operation: XENDISPL_OP_FB_DETACH }, 'malformed-request');
  refused({ operation: XENDISPL_OP_PG_FLIP }, 'malformed-request');
  const attach = { dbuf_cookie: 1n, fb_cookie: 1n, width: 1, height: 1, pixel_format: 1 };
  for (const changes of [{ dbuf_cookie: 0n }, { fb_cookie: 0n }]) {
    const op = { fb_attach: { ...attach, ...changes } };
    refused({ operation: XENDISPL_OP_FB_ATTACH, op }, 'malformed-request');
  }
});

test('cookies above 2^53 that differ in one bit are different names (R4)', () => {
  for (const bit of [0n, 31n, 32n, 53n, 63n]) {
    const cookie = (2n ** 60n) ^ (1n << bit);
    const op = { pg_flip: { fb_cookie: cookie } };
    const parsed = parse({ operation: XENDISPL_OP_PG_FLIP, op });
    assert(parsed.operation === XENDISPL_OP_PG_FLIP);
    assert.equal(cookieText(parsed.framebuffer), `0x${cookie.toString(16).padStart(16, '0')}`);
  }
});

test('a buffer has all of its size or, when it was imported, none (trap 2, R5)', () => {
  const imported = parse(create({ width: 0, height: 0, bpp: 0 }));
  assert(imported.operation === XENDISPL_OP_DBUF_CREATE && imported.width === 0);
  refused(create({ width: 0 }), 'malformed-request');
  refused(create({ height: 0 }), 'malformed-request');
  refused(create({ bpp: 0 }), 'malformed-request');
  refused(create({ buffer_sz: 0 }), 'malformed-request');
  refused(create({ gref_directory: 0 }), 'malformed-request');
});

test('an all-zero SET_CONFIG switches off; a half one is refused (R7)', () => {
  const operation = XENDISPL_OP_SET_CONFIG;
  assert.deepEqual(parse({ operation }), { operation, mode: undefined });
  const off = { fb_cookie: 0n, x: 0, y: 0, width: 0, height: 0, bpp: 0 };
  for (const changes of [
    { x: 1 },
    { y: 2 ** 31 },
    { width: 1 },
    { height: 1 },
    { fb_cookie: 1n },
  ]) {
    refused({ operation, op: { set_config: { ...off, ...changes } } }, 'malformed-request');
  }
});

test('what xen-drm-front leaves in a slot is not looked at (trap 1, R3)', () => {
  const stale = parse(create({ flags: 0x3432_5240 }), (bytes) => {
    bytes.fill(0xee, 3, 8);
    bytes.fill(0xee, 44);
  });
  assert(stale.operation === XENDISPL_OP_DBUF_CREATE);
  assert.equal(stale.backendAllocates, false);
  const flip = parse(
    { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: 5n } } },
    (bytes) => bytes.fill(0xee, 16),
  );
  assert.deepEqual(flip, {
    operation: XENDISPL_OP_PG_FLIP,
    framebuffer: { low: 5, high: 0 },
  });
});

test('property: any 64 bytes are a request or a violation, nothing else', () => {
  const parser = new RequestParser();
  const messages = fc.uint8Array({ minLength: 64, maxLength: 64 });
  fc.assert(
    fc.property(messages, fc.constantFrom(...KNOWN, 0, 255), (bytes, operation) => {
      bytes[2] = operation;
      try {
        assert.equal(parser.parse(new DataView(bytes.slice().buffer)).operation, operation);
      } catch (error) {
        assert(error instanceof ProtocolViolation, String(error));
      }
    }),
  );
});
