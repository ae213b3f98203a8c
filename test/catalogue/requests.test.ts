// R2 to R5 and R7: requests that break every rule they can, and frontends with the habits of the real ones. Each
// answer has the errno that the rule names, and nothing else happens.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_OP_GET_EDID, XENDISPL_OP_SET_CONFIG } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { cookieValue } from '../../src/display/cookie.ts';
import { RGB565, XRGB8888, YUYV } from '../../src/display/pixel-format.ts';
import {
  type AttachChanges,
  BYTES,
  type CreateChanges,
  HEIGHT,
  request,
  WIDTH,
} from '../display/bodies.ts';
import { RecordingOutput } from '../display/recording-output.ts';
import { Attack, survives } from './world.ts';

const { XEN_EBUSY, XEN_EEXIST, XEN_EINVAL, XEN_ENOENT, XEN_ENOMEM, XEN_EOPNOTSUPP, XEN_ETIMEDOUT } =
  XEN_ERRNO;
const U32_MAX = 2 ** 32 - 1;
const COOKIE_MAX = 2n ** 64n - 1n;
/** Of a buffer that was imported into the guest. */
const NO_GEOMETRY = { width: 0, height: 0, bpp: 0 };
const RESET = { fb_cookie: 0n, width: 0, height: 0 };

/** The first pixel that is on the hostile guest's screen. */
function firstPixel({ world, domid }: Attack): number {
  const bytes = world.daemon.screen(domid, 0)!.shown!.bytes;
  return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
}

test('R2: a request that changes while it is worked on is the request that was taken', async () => {
  let spoil = () => {};
  await survives(
    async (t) => {
      const gref_directory = await t.pages(3);
      spoil = () => t.connector.control.fill(0xff, 64);
      const { connector } = t;
      const id = connector.put(request.create({ gref_directory }));
      connector.push();
      await t.world.until(() => connector.words[2] === 1, 'the answer');
      spoil = () => {};
      await t.world.until(() => connector.responses.length === 1, 'it is taken');
      const [answer] = connector.responses;
      assert.deepEqual([answer?.id, answer?.operation, answer?.status], [id, 0x10, 0]);
      assert.equal(await t.attach({}), 0, 'under the cookie and with the size that were taken');
    },
    { before: (call) => (call === 'map' ? spoil() : undefined) },
  );
});

test('R3: operations that are not there, and GET_EDID, which is not of this version', () =>
  survives(async (t) => {
    const missing = [...Array.from({ length: 16 }, (_, operation) => operation), 0x17, 0x80, 0xff];
    for (const operation of [...missing, XENDISPL_OP_GET_EDID]) {
      assert.equal(await t.connector.ask({ operation }), -XEN_EOPNOTSUPP, `operation ${operation}`);
    }
    assert.deepEqual(t.refused, {
      'unknown-operation': missing.length,
      'edid-in-version-1': 1,
    });
  }));

test('R3: requests about buffers on the ring of another connector', () =>
  survives(
    async (t) => {
      const [first, second] = t.raw.connectors;
      const create = request.create({ gref_directory: await t.pages(3) });
      const attach = request.attach();
      for (const body of [create, attach, request.detach(), request.destroy()]) {
        assert.equal(await second!.ask(body), -XEN_EINVAL);
      }
      assert.deepEqual(t.refused, { 'wrong-connector': 4 });
      for (const body of [create, attach]) assert.equal(await first!.ask(body), 0);
      assert.equal(await second!.ask(request.config()), 0, 'framebuffers are for all connectors');
    },
    { connectors: 2 },
  ));

test('R3: stale bytes in a slot are tolerated, and answers are written whole (trap 1)', () =>
  survives(async (t) => {
    const gref_directory = await t.pages(3);
    const create = request.create({ gref_directory, flags: 0x3432_5240 });
    const stale = (bytes: Uint8Array) => {
      bytes.fill(0xee, 3, 8);
      bytes.fill(0xee, 44);
    };
    assert.equal(await t.connector.ask(create, stale), 0);
    assert(t.connector.responses.at(-1)!.rest.every((byte) => byte === 0));
  }));

test('R3: the data_ofs of version 2 in version 1 is where the pixels begin, as Linux sends it', () =>
  survives(async (t) => {
    const [offset, size] = [4096 + 64, BYTES + 4096 + 64];
    const gref_directory = await t.pages(5, (words) => words.fill(0x1111_1111, 0, offset / 4));
    assert.equal(await t.create({ gref_directory, buffer_sz: size, data_ofs: offset }), 0);
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.config({}), 0);
    assert.equal(firstPixel(t), Attack.PIXEL);
  }));

test('R4: cookie 0 names nothing in any request', () =>
  survives(async (t) => {
    const gref_directory = await t.pages(3);
    assert.equal(await t.create({ gref_directory, dbuf_cookie: 0n }), -XEN_EINVAL);
    assert.equal(await t.create({ gref_directory }), 0);
    assert.equal(await t.attach({ fb_cookie: 0n }), -XEN_EINVAL);
    assert.equal(await t.attach({ dbuf_cookie: 0n }), -XEN_EINVAL);
    assert.equal(await t.detach(0n), -XEN_EINVAL);
    assert.equal(await t.flip(0n), -XEN_EINVAL);
    assert.equal(await t.destroy(0n), -XEN_EINVAL);
    assert.equal(await t.config({ fb_cookie: 0n }), -XEN_EINVAL, 'a mode without a framebuffer');
    assert.deepEqual(t.refused, { 'malformed-request': 7 });
  }));

test('R4: names above 2^53, and the largest, are told apart by their last bit', () =>
  survives(async (t) => {
    for (const cookie of [2n ** 53n, 2n ** 53n + 1n, COOKIE_MAX - 1n, COOKIE_MAX]) {
      const gref_directory = await t.pages(3);
      assert.equal(await t.create({ gref_directory, dbuf_cookie: cookie }), 0);
      assert.equal(await t.create({ gref_directory, dbuf_cookie: cookie }), -XEN_EEXIST);
      assert.equal(await t.attach({ dbuf_cookie: cookie, fb_cookie: cookie }), 0);
    }
    assert.equal(await t.destroy(2n ** 53n), 0);
    assert.equal(await t.flip(2n ** 53n), -XEN_ENOENT);
    assert.equal(await t.config({ fb_cookie: 2n ** 53n + 1n }), 0);
    assert.equal(await t.config({ fb_cookie: COOKIE_MAX }), 0);
  }));

test('R4: a name that is taken, unknown, or free again', () =>
  survives(async (t) => {
    const gref_directory = await t.pages(3);
    assert.equal(await t.create({ gref_directory }), 0);
    assert.equal(await t.create({ gref_directory }), -XEN_EEXIST);
    assert.equal(await t.attach({ dbuf_cookie: 3n }), -XEN_ENOENT);
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.create({ gref_directory }), -XEN_EEXIST, 'with a framebuffer');
    assert.equal(await t.attach({}), -XEN_EEXIST);
    assert.equal(await t.detach(7n), -XEN_ENOENT);
    assert.equal(await t.destroy(3n), -XEN_ENOENT);
    assert.equal(await t.destroy(1n), 0);
    assert.equal(await t.detach(2n), -XEN_ENOENT, 'it went with its buffer');
    assert.equal(await t.create({ gref_directory }), 0, 'a name may be used again');
    assert.equal(t.account.held.buffers, 1);
  }));

test('R4: a buffer that is destroyed while it is shown is off the screen before the answer', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      await t.show();
      assert.equal(await t.flip(2n), 0);
      assert.equal(await t.destroy(1n), 0);
      assert.equal(output.connectors[0]!.shown, undefined);
      await t.world.until(() => t.connector.eventIds.length === 1, 'the flip has its event');
      assert.equal(t.account.held.buffers, 0);
    },
    { output },
  );
});

test('R4: names of a buffer in quarantine are not free', () => {
  const output = new RecordingOutput({ holdRetired: true });
  return survives(
    async (t) => {
      await t.show();
      assert.equal(await t.destroy(1n), -XEN_ETIMEDOUT);
      assert.equal(await t.destroy(1n), -XEN_EBUSY);
      assert.equal(await t.create({ gref_directory: await t.pages(3) }), -XEN_EEXIST);
      output.connectors[0]!.letGo();
      await t.world.until(() => t.account.held.quarantinedPages === 0, 'the quarantine ends');
      assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
    },
    { output },
  );
});

test("R4: another guest's names mean nothing, or something of one's own", () =>
  survives(async (t) => {
    const theirs = t.world.honest.cookies.map(({ cookie, buffer }) => ({
      fb: cookieValue(cookie),
      dbuf: cookieValue(buffer.cookie),
    }));
    for (const { fb, dbuf } of theirs) {
      assert.equal(await t.flip(fb), -XEN_ENOENT);
      assert.equal(await t.config({ fb_cookie: fb }), -XEN_ENOENT);
      assert.equal(await t.detach(fb), -XEN_ENOENT);
      assert.equal(await t.destroy(dbuf), -XEN_ENOENT);
      assert.equal(await t.attach({ dbuf_cookie: dbuf }), -XEN_ENOENT);
    }
    const [{ fb, dbuf }] = theirs as [(typeof theirs)[0]];
    assert.equal(await t.create({ gref_directory: await t.pages(3), dbuf_cookie: dbuf }), 0);
    assert.equal(await t.attach({ dbuf_cookie: dbuf, fb_cookie: fb }), 0);
    assert.equal(await t.config({ fb_cookie: fb }), 0);
    assert.equal(firstPixel(t), Attack.PIXEL);
    assert.equal(await t.destroy(dbuf), 0);
  }));

const BAD_BUFFERS: readonly [what: string, fields: CreateChanges, errno: number][] = [
  ['no bytes', { buffer_sz: 0 }, XEN_EINVAL],
  ['one byte', { buffer_sz: 1 }, XEN_EINVAL],
  ['a byte less than a page', { buffer_sz: 4095 }, XEN_EINVAL],
  ['a byte less than its pixels', { buffer_sz: BYTES - 1 }, XEN_EINVAL],
  ['4 GiB', { buffer_sz: U32_MAX }, XEN_ENOMEM],
  ['4 GiB, imported', { ...NO_GEOMETRY, buffer_sz: U32_MAX }, XEN_ENOMEM],
  ['no width', { width: 0 }, XEN_EINVAL],
  ['no height', { height: 0 }, XEN_EINVAL],
  ['no bits', { bpp: 0 }, XEN_EINVAL],
  ['a width of 2^31', { width: 2 ** 31 }, XEN_EINVAL],
  ['a height of 2^31', { height: 2 ** 31 }, XEN_EINVAL],
  ['a width of 2^32 - 1', { width: U32_MAX }, XEN_EINVAL],
  ['a product that wraps to a small one', { width: 2 ** 16, height: 2 ** 16 }, XEN_EINVAL],
  ['a product of four that wraps', { width: 32768, height: 32768, bpp: 32 }, XEN_EINVAL],
  ['33 bits', { bpp: 33 }, XEN_EINVAL],
  ['65 bits', { bpp: 65, width: 1, height: 1 }, XEN_EINVAL],
  ['2^32 - 1 bits', { bpp: U32_MAX }, XEN_EINVAL],
  ['pixels that begin at its end', { data_ofs: BYTES }, XEN_EINVAL],
  ['pixels that begin beyond it', { data_ofs: U32_MAX - 3 }, XEN_EINVAL],
  ['pixels that begin at an odd byte', { data_ofs: 1, buffer_sz: BYTES + 4 }, XEN_EINVAL],
  ['pixels that begin too late', { data_ofs: 4 }, XEN_EINVAL],
  ['no directory', { gref_directory: 0 }, XEN_EINVAL],
  ['pages of ours, which were not configured', { flags: 1 }, XEN_EOPNOTSUPP],
];

test('R5: a buffer that is not what it says is refused, by every field', () =>
  survives(async (t) => {
    const gref_directory = await t.pages(3);
    for (const [what, fields, errno] of BAD_BUFFERS) {
      assert.equal(await t.create({ gref_directory, ...fields }), -errno, what);
      assert.equal(t.account.held.buffers, 0, what);
    }
    for (const bpp of [1, 15, 24]) {
      assert.equal(await t.create({ gref_directory, bpp }), 0, 'fewer bits than there is room for');
      assert.equal(await t.destroy(1n), 0);
    }
  }));

test('R5: a framebuffer that does not fit its buffer is refused, by every field', () =>
  survives(async (t) => {
    assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
    const bad: AttachChanges[] = [
      { pixel_format: 0 },
      { pixel_format: 0x2020_2020 },
      { pixel_format: U32_MAX },
      { width: WIDTH + 1 },
      { height: HEIGHT + 1 },
      { width: 0 },
      { height: 0 },
      { width: U32_MAX },
      { width: 2 ** 31, height: 2 },
      { width: 1, height: U32_MAX },
      { pixel_format: YUYV.fourcc, width: 63 },
    ];
    for (const fields of bad) {
      assert.equal(await t.attach(fields), -XEN_EINVAL, JSON.stringify(fields));
    }
    assert.equal(t.account.held.framebuffers, 0);
    assert.equal(await t.attach({ pixel_format: RGB565.fourcc }), 0, 'fewer bits than declared');
  }));

test('R5: an imported buffer gets its size from its framebuffer, checked (trap 2)', () =>
  survives(async (t) => {
    const imported = { ...NO_GEOMETRY, buffer_sz: 3 * 4096 };
    assert.equal(await t.create({ ...imported, gref_directory: await t.pages(3) }), 0);
    assert.equal(await t.attach({ height: HEIGHT + 1 }), -XEN_EINVAL);
    assert.equal(await t.attach({ width: U32_MAX, height: U32_MAX }), -XEN_EINVAL);
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.config({}), 0);
    assert.equal(firstPixel(t), Attack.PIXEL);
  }));

test('R5: a budget that is spent is an ordinary answer', () =>
  survives(async (t) => {
    const page = await t.directory(() => []);
    const gref_directory = await t.directory(() => [0, page]);
    const one = { ...NO_GEOMETRY, buffer_sz: 4096, gref_directory };
    const { buffers, framebuffers } = t.account.budget;
    for (let made = 0; made < buffers; made++) {
      assert.equal(await t.create({ ...one, dbuf_cookie: BigInt(made + 1) }), 0);
    }
    assert.equal(await t.create({ ...one, dbuf_cookie: 1000n }), -XEN_ENOMEM);
    assert.equal(t.refused['over-budget-buffers'], 1);
    const tiny = { width: 1, height: 1 };
    for (let made = 0; made < framebuffers; made++) {
      assert.equal(await t.attach({ ...tiny, fb_cookie: BigInt(made + 1) }), 0);
    }
    assert.equal(await t.attach({ ...tiny, fb_cookie: 1000n }), -XEN_ENOMEM);
    assert.equal(await t.destroy(1n), 0);
    assert.equal(await t.create({ ...one, dbuf_cookie: 1000n }), 0);
  }));

test('R7: modes out of bounds, with unknown framebuffers, and off while off', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      assert.equal(await t.config(RESET), 0, 'off while off');
      assert.equal(await t.config({}), -XEN_ENOENT);
      assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
      assert.equal(await t.attach({}), 0);
      for (const fields of [
        { x: WIDTH },
        { y: HEIGHT },
        { x: U32_MAX },
        { y: U32_MAX },
        { x: U32_MAX, width: U32_MAX },
        { width: 0 },
        { height: 0 },
        { fb_cookie: 0n, x: 1, width: 0, height: 0 },
      ]) {
        assert.equal(await t.config(fields), -XEN_EINVAL, String(Object.entries(fields)));
      }
      assert.equal(output.connectors[0]!.shown, undefined);
      assert.equal(await t.config({ width: U32_MAX, x: 8, y: 4 }), 0, 'cut to size');
      const { shown } = output.connectors[0]!;
      assert.deepEqual([shown?.width, shown?.height], [WIDTH - 8, HEIGHT - 4]);
    },
    { output },
  );
});

test('R7: flips before a mode, two at once, to what is shown, and after a reset', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      assert.equal(await t.flip(2n), -XEN_ENOENT);
      assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
      assert.equal(await t.attach({}), 0);
      assert.equal(await t.flip(2n), -XEN_EINVAL, 'a flip before there is a mode');
      assert.equal(await t.config({}), 0);
      const [connector] = output.connectors;
      assert.equal(await t.flip(2n), 0, 'to the buffer that is shown');
      assert.equal(await t.flip(2n), -XEN_EBUSY, 'two outstanding');
      assert.deepEqual(t.connector.eventIds, []);
      connector!.complete();
      await t.world.until(() => t.connector.eventIds.length === 1, 'the event');
      assert.equal(await t.flip(2n), 0);
      assert.equal(await t.config(RESET), 0);
      assert.deepEqual(t.connector.eventIds, [0, 1], 'the cut-short flip has its event (trap 11)');
      assert.equal(await t.flip(2n), -XEN_EINVAL, 'off is off');
      assert.equal(await t.config({}), 0);
      assert.equal(await t.flip(2n), 0);
      assert.equal(await t.detach(2n), 0, 'detached while shown and flipping');
      assert.equal(connector!.shown, undefined);
      await t.world.until(() => t.connector.eventIds.length === 3, 'its event too');
      assert.equal(await t.flip(2n), -XEN_ENOENT);
    },
    { output },
  );
});

test('R7: a flip to a framebuffer of another size or format', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      await t.show();
      const [connector] = output.connectors;
      const small = { dbuf_cookie: 1n, width: 8, height: 4, pixel_format: XRGB8888.fourcc };
      assert.equal(await t.attach({ ...small, fb_cookie: 5n }), 0);
      assert.equal(await t.attach({ fb_cookie: 6n, pixel_format: RGB565.fourcc }), 0);
      assert.equal(await t.flip(5n), 0);
      assert.deepEqual([connector!.shown?.width, connector!.shown?.height], [8, 4]);
      connector!.complete();
      assert.equal(await t.flip(6n), 0);
      assert.equal(connector!.shown?.format, RGB565);
      connector!.complete();
      assert.equal(await t.config({ x: 16, width: 8 }), 0);
      assert.equal(await t.flip(5n), -XEN_EINVAL, 'it has nothing where the mode looks');
    },
    { output },
  );
});

test('R7: the event of a flip that a reset cuts short is there before the answer (trap 11)', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      await t.show();
      assert.equal(await t.flip(2n), 0);
      const { events, words, responses } = t.connector;
      const produced = new DataView(events.buffer, events.byteOffset, 8);
      const before = responses.length;
      t.connector.put({ operation: XENDISPL_OP_SET_CONFIG });
      t.connector.push();
      await t.world.until(() => {
        const answered = words[2]! > before;
        if (answered) assert.equal(produced.getUint32(4, true), 1);
        return answered;
      }, 'the reset is answered');
    },
    { output },
  );
});

test('P5: a request that has to wait is answered in time, and holds up its own ring alone', () => {
  const output = new RecordingOutput({ holdRetired: true });
  return survives(
    async (t) => {
      await t.show();
      const second = t.raw.connectors[1]!;
      assert.equal(await t.create({ dbuf_cookie: 11n, gref_directory: await t.pages(3) }), 0);
      assert.equal(await t.attach({ dbuf_cookie: 11n, fb_cookie: 12n }), 0);
      assert.equal(await second.ask(request.config({ fb_cookie: 12n })), 0);
      const before = t.connector.responses.length;
      const flip = request.flip(12n);
      t.connector.put(request.destroy());
      t.connector.put(flip);
      t.connector.push();
      await t.world.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
      const askedAtMs = t.world.runtime.nowMs();
      assert.equal(await second.ask(flip), 0);
      assert.equal(t.connector.responses.length, before, 'still waiting, and in order');
      await t.world.until(() => t.connector.responses.length === before + 2, 'both answers');
      const statuses = t.connector.responses.slice(before).map(({ status }) => status);
      assert.deepEqual(statuses, [-XEN_ETIMEDOUT, -XEN_EINVAL], 'and a flip without a mode');
      assert(t.world.runtime.nowMs() - askedAtMs < 3000, 'as long as a frontend waits');
      output.connectors[0]!.letGo();
    },
    { output, connectors: 2 },
  );
});
