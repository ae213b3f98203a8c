// Guests whose requests break every rule they can, and frontends with the habits of the real ones: each
// answer has the errno that the rule names, nothing else happens, and nothing is left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { RGB565, YUYV } from '../../src/display/pixel-format.ts';
import { RecordingOutput } from './recording-output.ts';
import { BYTES, configFields, createFields, HEIGHT, rig, WIDTH } from './rig.ts';

const { XEN_EBUSY, XEN_EEXIST, XEN_EINVAL, XEN_ENOENT, XEN_ENOMEM, XEN_EOPNOTSUPP, XEN_ETIMEDOUT } =
  XEN_ERRNO;

test('what cannot be mapped, or is no directory, is refused and leaves nothing (R6)', async () => {
  const t = await rig();
  const ownRing = 8;
  const cases: [string, number][] = [
    ['a directory that was never granted', 500],
    ['a reference beyond the table', 0xffff_ffff],
    ['a page that was never granted', await t.directory(() => [0, 500, 501, 502])],
    ['reference 0 in the middle', await t.directory(() => [0, ownRing, 0, ownRing])],
    ['a chain that goes on', await t.directory((own) => [own, ownRing, ownRing, ownRing])],
  ];
  for (const [what, gref_directory] of cases) {
    assert.equal(await t.create({ gref_directory }), -XEN_EINVAL, what);
  }
  const short = await t.directory(() => [0, ...Array.from({ length: 1023 }, () => ownRing)]);
  const big = { width: 0, height: 0, bpp: 0, buffer_sz: 1024 * 4096 };
  assert.equal(await t.create({ ...big, gref_directory: short }), -XEN_EINVAL, 'ends early');
  const cycle = await t.directory((own) => [own, ...Array.from({ length: 1023 }, () => ownRing)]);
  assert.equal(await t.create({ ...big, gref_directory: cycle }), -XEN_EINVAL, 'a self-link');
  assert.equal(t.account.held.mappings, 2);
  assert.equal(t.account.held.buffers, 0);
  assert.deepEqual(t.account.refused, {
    'bad-grant': 3,
    'directory-gref-zero': 1,
    'directory-long': 2,
    'directory-short': 1,
  });
  await t.finish();
});

test('the same page many times is the guest its own affair, up to the limit of pins (R6)', async () => {
  const t = await rig();
  const page = await t.directory(() => []);
  const many = (count: number) => Array.from({ length: count }, () => page);
  const pixels = (count: number) => ({ width: 0, height: 0, bpp: 0, buffer_sz: count * 4096 });
  const few = await t.directory(() => [0, ...many(100)]);
  assert.equal(await t.create({ ...pixels(100), gref_directory: few }), 0);
  const tooMany = await t.directory(() => [0, ...many(600)]);
  const status = await t.create({ ...pixels(600), dbuf_cookie: 9n, gref_directory: tooMany });
  assert(status === 0 || status === -XEN_EINVAL);
  assert.equal(await t.destroy(1n), 0);
  await t.finish();
});

test('buffers that lie about their size, and names that are taken (R4, R5)', async () => {
  const t = await rig();
  const gref_directory = await t.pages(3);
  assert.equal(await t.create({ gref_directory, buffer_sz: BYTES - 1 }), -XEN_EINVAL);
  assert.equal(await t.create({ gref_directory, height: 2 ** 31 }), -XEN_EINVAL);
  assert.equal(await t.create({ gref_directory, bpp: 33 }), -XEN_EINVAL);
  assert.equal(await t.create({ gref_directory, data_ofs: 4 }), -XEN_EINVAL);
  assert.equal(await t.create({ gref_directory, flags: 1 }), -XEN_EOPNOTSUPP, 'REQ_ALLOC');
  assert.equal(await t.create({ gref_directory, buffer_sz: 0xffff_ffff }), -XEN_ENOMEM);
  assert.equal(await t.create({ gref_directory }), 0);
  assert.equal(await t.create({ gref_directory }), -XEN_EEXIST);
  assert.equal(await t.destroy(3n), -XEN_ENOENT);
  assert.equal(await t.attach({ dbuf_cookie: 3n }), -XEN_ENOENT);
  assert.equal(await t.attach({ pixel_format: 0x20202020 }), -XEN_EINVAL);
  assert.equal(await t.attach({ width: WIDTH + 1 }), -XEN_EINVAL);
  assert.equal(await t.attach({ height: HEIGHT + 1 }), -XEN_EINVAL);
  assert.equal(await t.attach({ width: 0 }), -XEN_EINVAL);
  assert.equal(await t.attach({ pixel_format: YUYV.fourcc, width: 63 }), -XEN_EINVAL);
  assert.equal(await t.attach({ pixel_format: RGB565.fourcc }), 0, 'fewer bits than declared fit');
  assert.equal(await t.attach({}), -XEN_EEXIST);
  assert.equal(await t.detach(7n), -XEN_ENOENT);
  assert.equal(await t.destroy(1n), 0);
  assert.equal(await t.detach(2n), -XEN_ENOENT, 'it went with its buffer');
  assert.equal(await t.create({ gref_directory }), 0, 'a name may be used again');
  await t.finish();
});

test('an imported buffer gets its size from its framebuffer, checked (trap 2)', async () => {
  const t = await rig();
  const imported = { width: 0, height: 0, bpp: 0, buffer_sz: 3 * 4096 };
  assert.equal(await t.create({ ...imported, gref_directory: await t.pages(3) }), 0);
  assert.equal(await t.attach({ height: HEIGHT + 1 }), -XEN_EINVAL);
  assert.equal(await t.attach({ width: 2 ** 32 - 1, height: 2 ** 32 - 1 }), -XEN_EINVAL);
  assert.equal(await t.attach({}), 0);
  assert.equal(await t.config({}), 0);
  await t.finish();
});

test('modes and flips out of order (R7)', async () => {
  const output = new RecordingOutput();
  const t = await rig(1, { output: () => output });
  assert.equal(await t.config({ fb_cookie: 0n, width: 0, height: 0 }), 0, 'off while off');
  assert.equal(await t.config({}), -XEN_ENOENT);
  assert.equal(await t.flip(2n), -XEN_ENOENT);
  assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
  assert.equal(await t.attach({}), 0);
  assert.equal(await t.flip(2n), -XEN_EINVAL, 'a flip before there is a mode');
  assert.equal(await t.config({ x: WIDTH }), -XEN_EINVAL);
  assert.equal(await t.config({ y: 2 ** 32 - 1 }), -XEN_EINVAL);
  assert.equal(await t.config({ width: 2 ** 32 - 1, x: 8, y: 4 }), 0, 'cut to size');
  const [connector] = output.connectors;
  assert.deepEqual([connector!.shown?.width, connector!.shown?.height], [WIDTH - 8, HEIGHT - 4]);
  assert.equal(await t.flip(2n), 0, 'to the buffer that is shown');
  assert.equal(await t.flip(2n), -XEN_EBUSY, 'two outstanding');
  assert.deepEqual(t.connector.eventIds, []);
  connector!.complete();
  await t.host.until(() => t.connector.eventIds.length === 1, 'the event');
  assert.equal(await t.flip(2n), 0);
  assert.equal(await t.config({ fb_cookie: 0n, width: 0, height: 0 }), 0);
  assert.deepEqual(t.connector.eventIds, [0, 1], 'the cut-short flip has its event (trap 11)');
  assert.equal(await t.flip(2n), -XEN_EINVAL, 'off is off');
  assert.equal(await t.config({}), 0);
  assert.equal(await t.flip(2n), 0);
  assert.equal(await t.detach(2n), 0, 'detached while shown and flipping');
  assert.equal(connector!.shown, undefined);
  await t.host.until(() => t.connector.eventIds.length === 3, 'its event too');
  assert.equal(await t.flip(2n), -XEN_ENOENT);
  await t.finish();
});

test('the event of a flip that a reset cuts short is there before the answer (trap 11)', async () => {
  const output = new RecordingOutput();
  const t = await rig(1, { output: () => output });
  await t.show();
  assert.equal(await t.flip(2n), 0);
  const produced = () => new DataView(t.connector.events.buffer, t.connector.events.byteOffset, 8);
  const before = t.connector.responses.length;
  t.connector.put({ operation: XENDISPL_OP_SET_CONFIG });
  t.connector.push();
  await t.host.until(() => {
    const answered = t.connector.words[2]! > before;
    if (answered) assert.equal(produced().getUint32(4, true), 1);
    return answered;
  }, 'the reset is answered');
  await t.finish();
});

test('operations that are not there, not of this version, or on the wrong ring (R3)', async () => {
  const t = await rig(2);
  for (const operation of [0, 1, 0x0f, 0x17, 0xff]) {
    assert.equal(await t.connector.ask({ operation }), -XEN_EOPNOTSUPP);
  }
  const [first, second] = t.raw.connectors;
  for (const connector of [first!, second!]) {
    assert.equal(await connector.ask({ operation: XENDISPL_OP_GET_EDID }), -XEN_EOPNOTSUPP);
  }
  const dbuf_create = { ...createFields(), gref_directory: await t.pages(3) };
  const create = { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
  assert.equal(await second!.ask(create), -XEN_EINVAL);
  const destroy = {
    operation: XENDISPL_OP_DBUF_DESTROY,
    op: { dbuf_destroy: { dbuf_cookie: 1n } },
  };
  assert.equal(await second!.ask(destroy), -XEN_EINVAL);
  assert.equal(await first!.ask(create), 0);
  assert.equal(await t.attach({}), 0);
  const config = { operation: XENDISPL_OP_SET_CONFIG, op: { set_config: configFields() } };
  assert.equal(await second!.ask(config), 0, 'framebuffers are for all connectors');
  assert.deepEqual(t.account.refused, {
    'unknown-operation': 5,
    'edid-in-version-1': 2,
    'wrong-connector': 2,
  });
  await t.finish();
});

test('stale bytes in a slot are tolerated, and answers are written whole (trap 1)', async () => {
  const t = await rig();
  const gref_directory = await t.pages(3);
  const dbuf_create = { ...createFields(), gref_directory, flags: 0x3432_5240 };
  const create = { operation: XENDISPL_OP_DBUF_CREATE, op: { dbuf_create } };
  const stale = (bytes: Uint8Array) => {
    bytes.fill(0xee, 3, 8);
    bytes.fill(0xee, 44);
  };
  assert.equal(await t.connector.ask(create, stale), 0);
  const { rest } = t.connector.responses.at(-1)!;
  assert(rest.every((byte) => byte === 0));
  await t.finish();
});

test('a slow request holds up its own ring alone', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  const t = await rig(2, { output: () => output });
  await t.show();
  const second = t.raw.connectors[1]!;
  assert.equal(await t.create({ dbuf_cookie: 11n, gref_directory: await t.pages(3) }), 0);
  assert.equal(await t.attach({ dbuf_cookie: 11n, fb_cookie: 12n }), 0);
  const other = { ...configFields(), fb_cookie: 12n };
  const config = { operation: XENDISPL_OP_SET_CONFIG, op: { set_config: other } };
  assert.equal(await second.ask(config), 0);
  const before = t.connector.responses.length;
  t.connector.put({
    operation: XENDISPL_OP_DBUF_DESTROY,
    op: { dbuf_destroy: { dbuf_cookie: 1n } },
  });
  t.connector.put({ operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: 12n } } });
  t.connector.push();
  await t.host.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
  const flip = { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: 12n } } };
  assert.equal(await second.ask(flip), 0);
  assert.equal(t.connector.responses.length, before, 'still waiting, and in order');
  output.connectors[0]!.letGo();
  await t.host.until(() => t.connector.responses.length === before + 2, 'both answers');
  const statuses = t.connector.responses.slice(before).map(({ status }) => status);
  assert.deepEqual(statuses, [0, -XEN_EINVAL], 'destroyed; and a flip without a mode');
  await t.finish();
});

test('names of a buffer in quarantine are not free (R4)', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  const t = await rig(1, { output: () => output });
  await t.show();
  assert.equal(await t.destroy(1n), -XEN_ETIMEDOUT);
  assert.equal(await t.destroy(1n), -XEN_EBUSY);
  assert.equal(await t.create({ gref_directory: await t.pages(3) }), -XEN_EEXIST);
  output.connectors[0]!.letGo();
  await t.host.until(() => t.account.held.quarantinedPages === 0, 'the quarantine ends');
  assert.equal(await t.create({ gref_directory: await t.pages(3) }), 0);
  await t.finish();
});

test('a budget that is spent is an ordinary answer', async () => {
  const t = await rig();
  const page = await t.directory(() => []);
  const gref_directory = await t.directory(() => [0, page]);
  const one = { width: 0, height: 0, bpp: 0, buffer_sz: 4096, gref_directory };
  let made = 0;
  for (let status = 0; status === 0; made++) {
    status = await t.create({ ...one, dbuf_cookie: BigInt(made + 1) });
    if (status !== 0) assert.equal(status, -XEN_ENOMEM);
  }
  assert.equal(t.account.held.buffers, t.account.budget.buffers);
  assert.equal(t.account.refused['over-budget-buffers'], 1);
  const tiny = { width: 1, height: 1 };
  for (let i = 0; i < t.account.budget.framebuffers; i++) {
    assert.equal(await t.attach({ ...tiny, fb_cookie: BigInt(i + 1) }), 0);
  }
  assert.equal(await t.attach({ ...tiny, fb_cookie: 1000n }), -XEN_ENOMEM);
  assert.equal(await t.destroy(1n), 0);
  assert.equal(await t.create({ ...one, dbuf_cookie: 1000n }), 0);
  await t.finish();
});
