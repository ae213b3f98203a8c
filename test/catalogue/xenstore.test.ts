// X1 to X4 and P1: what guests write into xenstore, and what they do with the states of the handshake and with
// event channels.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_OP_GET_EDID } from '../../src/abi/displif.ts';
import { CONNECTORS_MAX } from '../../src/display/connector-number.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { DOM0, type DomId } from '../../src/xen/ids.ts';
import { eraseDevice, removeDevice } from '../../src/xen/xenbus/toolstack.ts';
import { RecordingOutput } from '../display/recording-output.ts';
import { type Attack, attackOn, survives, World } from './world.ts';

const EDID = { operation: XENDISPL_OP_GET_EDID };
const LONG = '9'.repeat(1000);
/** Longer than a backend waits after a first failure, in milliseconds. */
const RETRY_MS = 150;

const device = (domid: DomId) =>
  ({
    backendDomid: DOM0,
    backendType: 'vdispl',
    frontendType: 'vdispl',
    domid,
    devid: 0,
  }) as const;

/** Waits until the device's error node says so. */
async function complaint(t: Attack, pattern: RegExp): Promise<void> {
  let error: string | undefined;
  for (let looks = 0; looks < 100; looks++) {
    error = await t.error();
    if (error !== undefined && pattern.test(error)) return;
    await t.world.pause(20);
  }
  assert.fail(`the error node says ${JSON.stringify(error)}, not ${pattern}`);
}

/** Values that are no number of a grant or a port, and what each is called. */
const NO_NUMBERS: readonly [value: string | null, reason: string][] = [
  [null, 'missing-node'],
  ['', 'malformed-node'],
  ['0', 'out-of-range-node'],
  ['-1', 'malformed-node'],
  ['4294967296', 'malformed-node'],
  ['99999999999999999999', 'malformed-node'],
  ['0x10', 'malformed-node'],
  ['1e3', 'malformed-node'],
  ['08', 'malformed-node'],
  ['12 ', 'malformed-node'],
  ['12\n', 'malformed-node'],
  ['NaN', 'malformed-node'],
  ['\u00ff', 'malformed-node'],
  [LONG, 'oversized-node'],
];

const NUMBER_FIELDS = [
  'req-ring-ref',
  'req-event-channel',
  'evt-ring-ref',
  'evt-event-channel',
] as const;
/** Every failure makes the next pause longer: each field meets the first values, and its share of the others. */
const MET_BY_ALL = 3;

for (const [number, field] of NUMBER_FIELDS.entries()) {
  const values = NO_NUMBERS.filter(
    (_, index) => index < MET_BY_ALL || index % NUMBER_FIELDS.length === number,
  );
  test(`X1: ${field} missing, empty, no number, out of range, too long; and right at last`, () =>
    survives(
      async (t) => {
        const node = `0/${field}`;
        t.raw.spoil = { [node]: '' };
        await t.raw.start();
        const published = async () => (await t.domain.store.read(`${t.path}/state`)) === '3';
        while (!(await t.world.run(published()))) await t.world.pause(1);
        for (const [value, reason] of values) {
          const before = t.refusedFor(reason);
          await t.node(node, value);
          await t.world.until(() => t.refusedFor(reason) > before, `${value} is ${reason}`);
        }
        assert.equal(t.raw.connections, 0);
        await t.node(node, t.raw.published[node]!);
        await t.raw.connectedAgain(1);
        await t.show();
      },
      { connect: false },
    ));
}

test('X1: nodes that change after the connection: it ends, and is made anew', () =>
  survives(async (t) => {
    await t.show();
    const node = '0/req-ring-ref';
    await t.node(node, 'garbage');
    assert.equal(await t.flip(2n), 0, 'nobody has looked yet');
    await t.node('state', '4');
    await t.raw.connectedAgain(2);
    await t.show();
    await t.node(node, 'garbage');
    await t.node('state', '3');
    await t.raw.connectedAgain(3);
    assert.equal(t.account.held.buffers, 0);
    await t.show();
    await t.node('0/of-nobody', 'x');
    await t.node('state', '4');
    assert.equal(await t.flip(2n), 0, 'what is not read does not matter');
  }));

for (const [value, reason] of [
  ['0x0', 'out-of-range-node'],
  ['x', 'malformed-node'],
  ['', 'malformed-node'],
  ['64', 'malformed-node'],
  ['64x', 'malformed-node'],
  ['64x48x1', 'malformed-node'],
  ['-64x48', 'malformed-node'],
  ['4294967296x1', 'malformed-node'],
  ['4294967295x1', 'out-of-range-node'],
  ['32768x1', 'out-of-range-node'],
  ['64 x 48', 'malformed-node'],
  ['0x40x48', 'malformed-node'],
] as const) {
  test(`X1: a resolution of ${JSON.stringify(value)}`, () =>
    survives(
      async (t) => {
        await t.world.run(t.world.host.dom0.store.write(`${t.path}/0/resolution`, value));
        await t.raw.start();
        await t.world.until(() => t.refusedFor(reason) > 0, reason);
        assert.equal(t.raw.connections, 0);
      },
      { connect: false },
    ));
}

test('X1: connectors with a gap between them, and more than there can be', () =>
  survives(
    async (t) => {
      const gap = Object.fromEntries(
        ['req-ring-ref', 'req-event-channel', 'evt-ring-ref', 'evt-event-channel'].map((key) => [
          `1/${key}`,
          null,
        ]),
      );
      t.raw.spoil = gap;
      await t.raw.open();
      assert.equal(t.world.statusOf(t.domid)!.displays.length, 1, 'up to the gap');
      await t.raw.close();
      t.raw.spoil = {};
      await t.raw.start();
      await t.raw.connectedAgain(2);
      assert.equal(t.world.statusOf(t.domid)!.displays.length, CONNECTORS_MAX);
      await t.show();
    },
    { connectors: 20, connect: false },
  ));

const STATES = ['0', '1', '2', '3', '4', '5', '6', '7', '8'];

test('X1: every state after every other, and states that are none', () =>
  survives(async (t) => {
    await t.show();
    for (const from of STATES) {
      for (const to of STATES) {
        await t.node('state', from);
        await t.world.pause(1);
        await t.node('state', to);
        await t.world.pause(to === '3' ? 150 : 1);
      }
    }
    for (const none of ['9', '99', '', 'abc', '-1', '3 ', LONG, null]) {
      await t.node('state', none);
      await t.world.pause(10);
    }
    await t.raw.close();
    const before = t.raw.connections;
    await t.raw.start();
    await t.raw.connectedAgain(before + 1);
    await t.show();
    assert.equal(await t.flip(2n), 0);
  }));

test('X1: a state that is toggled without a pause', () =>
  survives(async (t) => {
    await t.show();
    for (let toggles = 0; toggles < 300; toggles++) {
      await t.node('state', STATES[(toggles * 7) % STATES.length]!);
    }
    await t.raw.close();
    const before = t.raw.connections;
    await t.raw.start();
    await t.raw.connectedAgain(before + 1);
    await t.show();
  }));

test('X1: a directory that is removed anywhere in the handshake', async () => {
  const world = await World.open();
  for (let steps = 0; steps < 200; steps += 7) {
    const t = await attackOn(world, { connect: false });
    await t.raw.start();
    for (let step = 0; step < steps; step++) await world.runtime.step();
    await world.run(t.domain.store.remove(t.path).catch(() => {}));
    await world.pause(50);
    await world.run(eraseDevice(world.host.dom0.store, device(t.domid)));
    await world.ends([t.guest]);
  }
  await world.verdict([]);
  await world.close();
});

for (const [value, reason] of [
  ['2', 'unsupported-version'],
  ['0', 'unsupported-version'],
  ['4294967295', 'unsupported-version'],
  ['01', 'malformed-node'],
  ['1,2', 'malformed-node'],
  ['2,1,7', 'malformed-node'],
  ['', 'malformed-node'],
  ['one', 'malformed-node'],
] as const) {
  test(`P1: a frontend that picks version ${JSON.stringify(value)} out of "1"`, () =>
    survives(
      async (t) => {
        t.raw.spoil = { version: value };
        await t.raw.start();
        await t.world.until(() => t.refusedFor(reason) > 0, reason);
        assert.equal(t.raw.connections, 0);
        await t.node('version', '1');
        await t.raw.connectedAgain(1);
        await t.show();
      },
      { connect: false },
    ));
}

test('X2: a hundred connections leave what one leaves', () =>
  survives(async (t) => {
    const { held } = t.account;
    for (let times = 1; times <= 100; times++) {
      await t.raw.close();
      await t.raw.start();
      await t.raw.connectedAgain(times + 1);
    }
    // So many connections are faster than a guest may change its nodes: its watch is out for a while, not for ever.
    await t.world.pause(5_000);
    assert.deepEqual(t.account.held, held);
    await t.show();
  }));

test("X2: a guest whose display has another guest's name", async () => {
  const world = await World.open();
  const displays = [{ uniqueId: 'honest', width: 64, height: 48 }];
  const t = await attackOn(world, { devices: { displays } });
  await t.show();
  assert.equal(await t.flip(2n), 0);
  await world.verdict([t.guest]);
  await world.close();
});

test('X2: a display that is taken away while a flip is outstanding', () => {
  const output = new RecordingOutput();
  return survives(
    async (t) => {
      await t.show();
      assert.equal(await t.flip(2n), 0);
      const { runtime, host } = t.world;
      await t.world.run(removeDevice(runtime, host.dom0.store, device(t.domid)));
      assert(output.connectors[0]!.closed);
      output.connectors[0]!.complete();
    },
    { output },
  );
});

test('X3: a guest that writes and writes, below its own nodes', () =>
  survives(async (t) => {
    await t.show();
    const { store } = t.domain;
    for (let writes = 0; writes < 200; writes++) {
      await t.world.run(
        Promise.all([
          store.write(`${t.path}/state`, '4'),
          store.write(`${t.path}/0/req-ring-ref`, t.raw.published['0/req-ring-ref']!),
          store.write(`/local/domain/${t.domid}/data/flood-${writes % 50}`, `${writes}`),
          store.remove(`/local/domain/${t.domid}/data/flood-${(writes + 25) % 50}`),
        ]),
      );
    }
    assert.equal(await t.flip(2n), 0);
  }));

test('X3: xenstore refuses each request about a guest in turn, with every errno', async () => {
  const errnoNames = ['ENOSPC', 'EACCES', 'EIO'];
  let victim = '';
  let left = 0;
  const world = await World.open({
    before: (call, subject) => {
      if (victim === '' || !`${subject}/`.includes(victim) || left-- !== 0) return;
      const errnoName = errnoNames[calls % errnoNames.length]!;
      throw new SysError({ call: `xenstore ${call}`, errnoName, context: `${subject}` });
    },
  });
  let calls = 0;
  for (let failed = true; failed; calls++) {
    const t = await attackOn(world, { connect: false });
    victim = `/${t.domid}/`;
    left = calls;
    await t.raw.open();
    // A request that fails after the connection was made costs that connection, and another one follows.
    await world.pause(RETRY_MS);
    await world.until(() => world.statusOf(t.domid)?.displays.length === 1, 'it is connected');
    await t.show();
    await t.raw.close();
    failed = left < 0;
    victim = '';
    await world.ends([t.guest]);
    assert(calls < 200, 'it makes ever more requests');
  }
  assert(calls > 20, `${calls} requests`);
  await world.verdict([]);
  await world.close();
});

test('X4: ports that are somebody else’s, taken, or nobody’s', () =>
  survives(
    async (t) => {
      const { events } = t.domain;
      const remote = t.world.honest.guest.domid;
      const other = await t.world.run(events.allocUnbound({ remote, handler: () => {} }));
      const storePort = await t.world.run(
        t.domain.store.read(`/local/domain/${t.domid}/store/port`),
      );
      const node = '0/req-event-channel';
      t.raw.spoil = { [node]: `${other.port}` };
      await t.raw.start();
      await complaint(t, /EINVAL/);
      const closed = await t.world.run(events.allocUnbound({ remote: DOM0, handler: () => {} }));
      await t.world.run(Promise.resolve(closed[Symbol.asyncDispose]()));
      for (const port of [closed.port, Number(storePort), 3000, 4_000_000_000]) {
        await t.node(node, `${port}`);
        await t.world.pause(6000);
        assert.equal(t.raw.connections, 0, `port ${port}`);
      }
      await t.node(node, t.raw.published['0/evt-event-channel']!);
      await t.world.pause(6000);
      assert.equal(t.raw.connections, 0, 'one port for both');
      await t.node(node, t.raw.published[node]!);
      await t.raw.connectedAgain(1);
      await t.show();
    },
    { connect: false },
  ));

test('X4: an event channel that is closed under us', () =>
  survives(async (t) => {
    await t.show();
    for (const channel of t.raw.channels) {
      await t.world.run(Promise.resolve(channel[Symbol.asyncDispose]()));
    }
    t.connector.put(EDID);
    t.connector.push();
    await t.world.pause(100);
    assert.equal(t.world.statusOf(t.domid)?.state, 'connected');
  }));

test('X4: notifications without requests, without end', () =>
  survives(async (t) => {
    await t.show();
    const { runtime } = t.world;
    let notified = 0;
    let storming = true;
    const storm = () => {
      if (!storming) return;
      for (let i = 0; i < 50; i++) for (const channel of t.raw.channels) channel.notify();
      notified += 50;
      runtime.after(0.1, storm);
    };
    storm();
    await t.world.flipsGoOn(20);
    assert(notified > 5000, `${notified} notifications`);
    assert.equal(await t.flip(2n), 0);
    storming = false;
  }));

test('X4: a request whose notification was lost is served with the next one', () =>
  survives(async (t) => {
    t.connector.put(EDID);
    t.connector.ring.push();
    await t.world.pause(100);
    assert.equal(t.connector.responses.length, 0);
    t.connector.put(EDID);
    t.connector.push();
    await t.world.until(() => t.connector.responses.length === 2, 'both answers');
  }));
