// R1 and R8: guests that break the rings themselves, flood them, stop reading them, or stand where the indices
// wrap.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_OP_GET_EDID, XENDISPL_OP_PG_FLIP } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import { request } from '../display/bodies.ts';
import { RecordingOutput } from '../display/recording-output.ts';
import { type Attack, attackOn, survives, World } from './world.ts';

const RING = 32;
const EVENT_SLOTS = DISPLAY_EVENTS.slots;
const WORD = 2 ** 32;
const EDID = { operation: XENDISPL_OP_GET_EDID };
const FLIP = request.flip();
const DESTROY = request.destroy();

/** Pushes what was put, and waits for so many more answers. */
async function answersTo(t: Attack, count: number): Promise<Attack['connector']['responses']> {
  const { connector } = t;
  const before = connector.responses.length;
  connector.push();
  await t.world.until(() => connector.responses.length >= before + count, `${count} answers`);
  return connector.responses.slice(before);
}

for (const [what, ahead] of [
  ['one beyond the ring', RING + 1],
  ['one backwards', -1],
  ['half the numbers away', 2 ** 31],
] as const) {
  test(`R1: req_prod ${what} ends the connection with the reason, and it may start anew`, () =>
    survives(async (t) => {
      await t.show();
      t.connector.words[0] = t.connector.words[0]! + ahead;
      t.connector.notify();
      await t.raw.connectedAgain(2);
      assert.match((await t.error())!, /request-prod-overflow/);
      assert.equal(t.refused['request-prod-overflow'], 1);
      await t.show();
      assert.equal(await t.flip(2n), 0);
      await t.world.until(() => t.connector.eventIds.length === 1, 'an event');
      assert.deepEqual(t.connector.eventIds, [0], 'ids restart with the connection (trap 6)');
    }));
}

test('R1: req_prod that jumps while a request is being worked on ends the connection after it', () => {
  const output = new RecordingOutput({ holdRetired: true });
  return survives(
    async (t) => {
      await t.show();
      t.connector.put(DESTROY);
      t.connector.push();
      await t.world.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
      for (const jump of [RING + 1, -5, 7]) {
        t.connector.words[0] = t.connector.words[0]! + jump;
        t.connector.notify();
        await t.world.pause(5);
      }
      output.connectors[0]!.letGo();
      await t.raw.connectedAgain(2);
      assert.equal(t.refused['request-prod-overflow'], 1);
    },
    { output },
  );
});

test('R1: req_prod that runs backwards in the middle of a batch ends the connection', () => {
  const output = new RecordingOutput({ holdRetired: true });
  return survives(
    async (t) => {
      await t.show();
      for (const body of [DESTROY, ...Array.from({ length: 10 }, () => EDID)])
        t.connector.put(body);
      t.connector.push();
      await t.world.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
      t.connector.words[0] = t.connector.words[0]! - 12;
      output.connectors[0]!.letGo();
      await t.raw.connectedAgain(2);
      assert.equal(t.refused['request-prod-overflow'], 1);
    },
    { output },
  );
});

test('R1: indices that wrap at 2^32 in the middle of a batch', () =>
  survives(
    async (t) => {
      t.raw.startAt = { requests: WORD - 5, events: 0 };
      await t.raw.open();
      await t.show();
      for (let batch = 0; batch < 3; batch++) {
        const ids = Array.from({ length: RING }, () => t.connector.put(EDID));
        const answers = await answersTo(t, RING);
        assert.deepEqual(
          answers.map(({ id }) => id),
          ids,
        );
        assert(answers.every(({ status }) => status === -XEN_ERRNO.XEN_EOPNOTSUPP));
      }
      assert.equal(t.connector.words[0], 3 + 3 * RING - 5);
    },
    { connect: false },
  ));

for (const [what, threshold] of [
  ['storm', 0],
  ['suppress', 2 ** 31],
  ['never pass', WORD - 1],
] as const) {
  test(`R1: req_event and rsp_event that ${what} change nothing but notifications`, () =>
    survives(async (t) => {
      await t.show();
      const { connector } = t;
      connector.words[1] = threshold;
      connector.words[3] = threshold;
      for (let i = 0; i < 40; i++) {
        connector.put(EDID);
        connector.push();
        await t.world.runtime.step();
        connector.collect();
      }
      await t.world.until(() => {
        connector.collect();
        return connector.ring.unanswered === 0;
      }, 'all are answered');
    }));
}

test('R8: thirty-two requests at once are answered in their order', () =>
  survives(async (t) => {
    await t.show();
    const ids: number[] = [];
    for (let i = 0; i < RING; i++) {
      const slow = request.create({ dbuf_cookie: 9n, gref_directory: 500 });
      ids.push(t.connector.put(i % 8 === 3 ? slow : FLIP));
    }
    const answers = await answersTo(t, RING);
    assert.deepEqual(
      answers.map(({ id }) => id),
      ids,
    );
    const flips = answers.filter(
      ({ operation, status }) => operation === XENDISPL_OP_PG_FLIP && status === 0,
    );
    assert(flips.length > 0);
    await t.world.until(() => t.connector.eventIds.length === flips.length, 'an event each');
    assert.deepEqual(
      t.connector.eventIds,
      flips.map((_, i) => i),
    );
  }));

test('R8: a flood of requests without end', () =>
  survives(async (t) => {
    await t.show();
    const { runtime } = t.world;
    const { connector } = t;
    let flood = 0;
    let flooding = true;
    const pour = () => {
      if (!flooding) return;
      connector.collect();
      while (connector.ring.unanswered < connector.ring.size) {
        connector.put(flood % 3 === 0 ? FLIP : EDID);
        flood += 1;
      }
      connector.push();
      // Time stands still while anything can run: the flood leaves it a tenth of a millisecond.
      runtime.after(0.1, pour);
    };
    pour();
    await t.world.flipsGoOn(20);
    flooding = false;
    assert(flood > 1000, `${flood} requests`);
  }));

test('R8: a guest that takes no answer for a long time', () =>
  survives(async (t) => {
    await t.show();
    const { connector } = t;
    const before = connector.responses.length;
    connector.words[3] = connector.words[2]! + 2 ** 31;
    for (let i = 0; i < RING; i++) connector.put(EDID);
    connector.push();
    await t.world.pause(20_000);
    assert.equal(connector.responses.length, before);
    connector.collect();
    assert.equal(connector.responses.length, before + RING);
  }));

for (const [what, inCons] of [
  ['frozen at the beginning', () => 0],
  ['ahead of in_prod', (flip: number) => flip + 1000],
  ['wild', (flip: number) => Math.imul(flip, 0x1234_5678)],
] as const) {
  test(`R8: in_cons ${what}: every flip has its event all the same`, () =>
    survives(async (t) => {
      await t.show();
      for (let flip = 0; flip < 2 * EVENT_SLOTS; flip++) {
        const view = new DataView(t.connector.events.buffer, t.connector.events.byteOffset, 64);
        view.setUint32(0, inCons(flip) >>> 0, true);
        t.connector.events.fill(0xff, 8, 64);
        assert.equal(await t.flip(2n), 0);
        await t.world.until(() => t.connector.eventIds.length === flip + 1, 'the event');
      }
      assert.deepEqual(
        t.connector.eventIds,
        t.connector.eventIds.map((_, i) => i),
      );
    }));
}

test('R8: event indices that wrap at 2^32, where slots jump', () =>
  survives(
    async (t) => {
      t.raw.startAt = { requests: 0, events: WORD - 3 };
      await t.raw.open();
      await t.show();
      for (let flip = 0; flip < 10; flip++) {
        assert.equal(await t.flip(2n), 0);
        await t.world.until(() => t.connector.eventIds.length === flip + 1, 'the event');
      }
      assert.deepEqual(t.connector.eventIds, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    },
    { connect: false },
  ));

test('R8: requests that were there before the backend are answered', async () => {
  for (let seed = 1; seed <= 8; seed++) {
    await survives(
      async (t) => {
        t.raw.beforePublishing = () => {
          t.connector.put(EDID);
          t.connector.push();
        };
        await t.raw.open();
        await t.world.until(() => t.connector.responses.length === 1, 'the answer');
      },
      { seed, connect: false },
    );
  }
});

test('R8: a guest that leaves with requests in its ring, one of them at work: nobody is called after that', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  await survives(
    async (t) => {
      await t.show();
      assert.equal(await t.create({ dbuf_cookie: 11n, gref_directory: await t.pages(3) }), 0);
      assert.equal(await t.attach({ dbuf_cookie: 11n, fb_cookie: 12n }), 0);
      t.connector.put(DESTROY);
      t.connector.put(request.config({ fb_cookie: 12n }));
      t.connector.push();
      await t.world.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
      await t.raw.close();
      assert(output.connectors[0]!.closed);
    },
    { output },
  );
  assert.equal(output.connectors[0]!.lateCalls, 0);
});

test('G1: a guest that crashes anywhere in its work leaves nothing behind', async () => {
  const world = await World.open();
  for (let round = 1; round <= 30; round++) {
    const t = await attackOn(world, {});
    const gref_directory = await t.pages(3);
    const { random } = world.runtime;
    const requests = [
      request.create({ gref_directory }),
      request.attach(),
      request.config(),
      FLIP,
      DESTROY,
    ];
    for (let i = 0; i < 30; i++) t.connector.put(requests[i % requests.length]!);
    t.connector.push();
    for (let steps = random.below(150); steps > 0; steps--) await world.runtime.step();
    t.guest.crash();
    await world.ends([t.guest]);
  }
  await world.verdict([]);
  await world.close();
});
