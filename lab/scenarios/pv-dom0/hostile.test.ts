// The failure catalogue on a real Xen, as far as a guest's user space can be hostile: a frontend of ours writes
// what it likes into real rings, grants and nodes, and the daemon in dom0 answers as it must, while the unmodified
// xen-drm-front of another guest flips on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { XEN_ERRNO } from '../../../src/abi/errno.ts';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Daemon } from '../../daemon.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { HOSTILE_END, HostileEnd } from '../../hostile-end.ts';
import { decodePng, frameNumber } from '../../picture.ts';
import type { Program } from '../../program.ts';

const { XEN_EBUSY, XEN_EEXIST, XEN_EINVAL, XEN_ENOENT, XEN_ENOMEM, XEN_EOPNOTSUPP } = XEN_ERRNO;
const SCREEN = { id: 'honest', width: 640, height: 480 };
const HOSTILE = { id: 'hostile', width: 64, height: 48 };
const BYTES = HOSTILE.width * HOSTILE.height * 4;
const PAGES = 3;
const PIXEL = 0xdead_beef;
const XR24 = 0x3432_5258;
const RING = 32;
const U32_MAX = 2 ** 32 - 1;
const FLIPS_MAX = 1_000_000;
const FLIPS_A_SECOND = 10;
/** Flips that the honest guest makes after each case. */
const MORE_FLIPS = 10;
const TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 250;

const CREATE = 0x10;
const DESTROY = 0x11;
const ATTACH = 0x12;
const CONFIG = 0x14;
const FLIP = 0x15;
const EDID = 0x16;

const machine = await attach(import.meta);
const { dom0, runtime } = machine;
const host = new HostWatch(dom0);
let idle: HostCounts;
/** With the honest guest flipping, and nothing of the hostile one. */
let served: HostCounts;
let daemon: Daemon;
let honest: Guest;
let flipping: Program;
let hostile: Guest;
let end: HostileEnd;
let lastFrame = 0;

const timing = { timeoutMs: TIMEOUT_MS, intervalMs: POLL_INTERVAL_MS };

/** The honest guest's flips go on, and what is on its screen is a frame of its own. */
async function honestGoesOn(): Promise<void> {
  const flips = async () => (await daemon.guest(honest.domid))?.displays[0]?.flips ?? 0;
  const wanted = (await flips()) + MORE_FLIPS;
  await until(runtime, async () => (await flips()) >= wanted, { what: 'more flips', ...timing });
  const frame = frameNumber(decodePng(await daemon.png(honest.domid, 0)));
  assert(frame > lastFrame && frame < FLIPS_MAX, `frame ${frame} after frame ${lastFrame}`);
  lastFrame = frame;
  assert(await flipping.running(), 'the honest guest has given up');
}

interface BufferFields {
  readonly cookie?: number;
  readonly width?: number;
  readonly height?: number;
  readonly bpp?: number;
  readonly bytes?: number;
  readonly flags?: number;
  readonly offset?: number;
}

function create(directory: number, fields: BufferFields = {}) {
  const { cookie = 1, width = HOSTILE.width, height = HOSTILE.height, bpp = 32 } = fields;
  const { bytes = BYTES, flags = 0, offset = 0 } = fields;
  const words = [cookie, 0, width, height, bpp, bytes, flags, directory, offset];
  return { operation: CREATE, words };
}

function attachTo({ width = HOSTILE.width, height = HOSTILE.height, format = XR24 } = {}) {
  return { operation: ATTACH, words: [1, 0, 2, 0, width, height, format] };
}

function config({ cookie = 2, x = 0, width = HOSTILE.width, height = HOSTILE.height } = {}) {
  return { operation: CONFIG, words: [cookie, 0, x, 0, width, height, 32] };
}

const flip = (cookie = 2) => ({ operation: FLIP, words: [cookie, 0] });
const destroy = (cookie = 1) => ({ operation: DESTROY, words: [cookie, 0] });

/** A case, after which the honest guest goes on. */
function survived(name: string, attack: () => Promise<void>): void {
  test(name, async () => {
    await attack();
    await honestGoesOn();
  });
}

/** One request, and the status that answers it. */
async function ask(request: { operation: number; words?: readonly number[] }): Promise<number> {
  const [status] = await end.do('ask', { requests: [request] });
  return status!;
}

/** Buffer 1 with framebuffer 2, shown. */
async function show(): Promise<void> {
  const directory = await end.do('pages', { count: PAGES, pixel: PIXEL });
  for (const request of [create(directory), attachTo(), config()]) {
    assert.equal(await ask(request), 0);
  }
}

async function refused(reason: string): Promise<number> {
  return (await daemon.guest(hostile.domid))?.refused[reason] ?? 0;
}

before(async () => {
  await machine.reset();
  await host.complaints();
  idle = await host.counts();
  daemon = await Daemon.start(machine);
  honest = await Guest.create(dom0, { name: 'honest', connectors: [SCREEN] });
  await honest.booted();
  flipping = await honest.start('flip', 0, 'XR24', FLIPS_MAX, FLIPS_A_SECOND);
  await flipping.waitForLines(1, TIMEOUT_MS);
  await honestGoesOn();
  served = await host.counts();
  hostile = await Guest.create(dom0, {
    name: 'hostile',
    connectors: [HOSTILE],
    programs: [HOSTILE_END],
  });
  await hostile.booted();
  end = await HostileEnd.inGuest(hostile);
  await end.do('connect');
});
after(() => dom0.close());

survived(
  'R3: operations that are not there, and GET_EDID, which is not of this version',
  async () => {
    for (const operation of [0, 0x0f, 0x17, 0xff, EDID]) {
      assert.equal(await ask({ operation }), -XEN_EOPNOTSUPP, `operation ${operation}`);
    }
  },
);

survived(
  'R5: buffers that are not what they say, and names that are taken or nobody’s (R4)',
  async () => {
    const directory = await end.do('pages', { count: PAGES, pixel: PIXEL });
    const bad: [BufferFields, number][] = [
      [{ cookie: 0 }, XEN_EINVAL],
      [{ bytes: 0 }, XEN_EINVAL],
      [{ bytes: BYTES - 1 }, XEN_EINVAL],
      [{ bytes: U32_MAX }, XEN_ENOMEM],
      [{ width: 2 ** 31 }, XEN_EINVAL],
      [{ height: U32_MAX }, XEN_EINVAL],
      [{ width: 2 ** 16, height: 2 ** 16 }, XEN_EINVAL],
      [{ offset: 4 }, XEN_EINVAL],
      [{ flags: 1 }, XEN_EOPNOTSUPP],
    ];
    for (const [fields, errno] of bad) {
      assert.equal(await ask(create(directory, fields)), -errno, JSON.stringify(fields));
    }
    assert.equal(await ask(create(directory)), 0);
    assert.equal(await ask(create(directory)), -XEN_EEXIST);
    assert.equal(await ask(attachTo({ width: HOSTILE.width + 1 })), -XEN_EINVAL);
    assert.equal(await ask(attachTo({ format: 0 })), -XEN_EINVAL);
    assert.equal(await ask(destroy(7)), -XEN_ENOENT);
    assert.equal(await ask(destroy()), 0);
  },
);

survived(
  'R6: directories of bad references, and chains that are short, long, or lead into themselves',
  async () => {
    const full = Array.from({ length: 1023 }, () => 0x00ff_ffff);
    const directories: [string, readonly (number | 'self')[]][] = [
      ['references that were never granted', [0, 0x00ff_fff0, 0x00ff_fff1, 0x00ff_fff2]],
      ['reference 0 in the middle', [0, 0x00ff_fff0, 0, 0x00ff_fff2]],
      ['goes on into itself', ['self', 0x00ff_fff0, 0x00ff_fff1, 0x00ff_fff2]],
    ];
    for (const [what, words] of directories) {
      const directory = await end.do('directory', { words });
      assert.equal(await ask(create(directory)), -XEN_EINVAL, what);
    }
    const big = { width: 0, height: 0, bpp: 0, bytes: 1024 * 4096 };
    const short = await end.do('directory', { words: [0, ...full] });
    assert.equal(await ask(create(short, big)), -XEN_EINVAL, 'ends early');
    const round = await end.do('directory', { words: ['self', ...full] });
    assert.equal(await ask(create(round, big)), -XEN_EINVAL, 'a self-link');
    assert.equal(await ask(create(0x00ff_ffff)), -XEN_EINVAL, 'a directory that was never granted');
    assert.equal((await daemon.guest(hostile.domid))?.held.buffers, 0);
  },
);

survived('R7: modes out of bounds, flips before a mode, and two at once', async () => {
  const directory = await end.do('pages', { count: PAGES, pixel: PIXEL });
  assert.equal(await ask(flip()), -XEN_ENOENT);
  assert.equal(await ask(create(directory)), 0);
  assert.equal(await ask(attachTo()), 0);
  assert.equal(await ask(flip()), -XEN_EINVAL, 'before a mode');
  assert.equal(await ask(config({ x: HOSTILE.width })), -XEN_EINVAL);
  assert.equal(await ask(config({ width: 0 })), -XEN_EINVAL);
  assert.equal(await ask(config({ cookie: 9 })), -XEN_ENOENT);
  assert.equal(await ask(config()), 0);
  const two = await end.do('ask', { requests: [flip(), flip()] });
  assert.deepEqual(two, [0, -XEN_EBUSY]);
  assert.equal(await ask(destroy()), 0, 'while it is shown');
});

survived('X4: notifications without requests', async () => {
  for (let round = 0; round < 10; round++) await end.do('notify', { times: 1000 });
  assert.equal(await ask({ operation: EDID }), -XEN_EOPNOTSUPP);
});

survived(
  'R1: a producer index beyond the ring, backwards and far away ends the connection, which is made anew',
  async () => {
    for (const [round, by] of [RING + 1, -1, 2 ** 31].entries()) {
      await show();
      const before = await refused('request-prod-overflow');
      await end.do('moveIndex', { word: 0, by });
      await end.do('connectedAgain', { times: round + 2 });
      assert.equal(await refused('request-prod-overflow'), before + 1);
      assert.match((await end.do('complaint')) ?? '', /request-prod-overflow/);
    }
    await show();
    assert.equal(await ask(flip()), 0);
    const flipped = async () => (await end.do('eventIds')).length === 1;
    await until(runtime, flipped, { what: 'the flip has its event', ...timing });
    assert.deepEqual(await end.do('eventIds'), [0], 'ids begin anew');
  },
);

survived('X1: nodes that are no numbers, and states that jump', async () => {
  for (const [value, reason] of [
    ['0x10', 'malformed-node'],
    ['0', 'out-of-range-node'],
    ['9'.repeat(500), 'oversized-node'],
  ] as const) {
    const before = await refused(reason);
    await end.do('node', { key: '0/req-ring-ref', value });
    await end.do('node', { key: 'state', value: '3' });
    const seen = async () => (await refused(reason)) > before;
    const connected = async () => (await daemon.guest(hostile.domid))?.displays.length === 1;
    // The frontend may have published what is right before the backend has read what is wrong.
    const either = async () => (await seen()) || (await connected());
    await until(runtime, either, { what: reason, ...timing });
  }
  for (const state of ['0', '6', '2', '8', '99', '', '5', '7', '1']) {
    await end.do('node', { key: 'state', value: state });
  }
});

survived(
  'G1: a guest that is destroyed with its buffers mapped and shown leaves nothing',
  async () => {
    await hostile.destroy();
    await host.settled(served);
    assert.equal(await daemon.guest(hostile.domid), undefined);
  },
);

test('the honest guest shuts down, the daemon ends in order, and nobody complained of anything', async () => {
  await honestGoesOn();
  await flipping.stop();
  await honest.shutdown();
  await daemon.stop();
  await host.settled(idle);
  assert.deepEqual(await host.complaints(), []);
});
