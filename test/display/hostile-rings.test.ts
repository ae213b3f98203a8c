// Guests that break the rings themselves, flood them, stop reading them, and go away at any moment.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type RawConnector, RawFrontend } from '../../sim/guests/raw-frontend.ts';
import {
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_PG_FLIP,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { DisplayHost } from './host.ts';
import { RecordingOutput } from './recording-output.ts';
import { attachFields, configFields, createFields, HEIGHT, rig, WIDTH } from './rig.ts';

test('thirty-two requests at once are answered in their order (R8)', async () => {
  const t = await rig();
  await t.show();
  const before = t.connector.responses.length;
  const ids: number[] = [];
  for (let i = 0; i < 32; i++) {
    const slow = i % 8 === 3;
    const op = slow
      ? { dbuf_create: { ...createFields(), gref_directory: 500 } }
      : { pg_flip: { fb_cookie: 2n } };
    const operation = slow ? XENDISPL_OP_DBUF_CREATE : XENDISPL_OP_PG_FLIP;
    ids.push(t.connector.put({ operation, op } as Parameters<RawConnector['put']>[0]));
  }
  t.connector.push();
  await t.host.until(() => t.connector.responses.length === before + 32, 'all answers');
  const answers = t.connector.responses.slice(before);
  assert.deepEqual(
    answers.map(({ id }) => id),
    ids,
  );
  const accepted = answers.filter(
    ({ operation, status }) => operation === XENDISPL_OP_PG_FLIP && status === 0,
  );
  await t.host.until(() => t.connector.eventIds.length === accepted.length, 'an event each');
  assert.deepEqual(
    t.connector.eventIds,
    accepted.map((_, i) => i),
  );
  await t.finish();
});

test('a ring that breaks its rules ends the connection, with the reason, and it may start anew (R1)', async () => {
  for (const [reqProd, spoil] of [
    [33, 'beyond the ring'],
    [-1, 'backwards'],
    [2 ** 31, 'far away'],
  ] as const) {
    const t = await rig();
    await t.show();
    t.connector.words[0] = t.connector.words[0]! + reqProd;
    t.connector.notify();
    await t.raw.connectedAgain(2);
    assert.match((await t.error())!, /request-prod-overflow/, spoil);
    assert.equal(t.account.refused['request-prod-overflow'], 1);
    await t.show();
    assert.equal(await t.flip(2n), 0);
    await t.host.until(() => t.connector.eventIds.length === 1, 'an event');
    assert.deepEqual(t.connector.eventIds, [0], 'ids restart with the connection (trap 6)');
    await t.finish();
  }
});

test('thresholds that storm or suppress, and a producer that moves while we work (R1)', async () => {
  const t = await rig();
  await t.show();
  for (const event of [0, 2 ** 31, 2 ** 32 - 1]) {
    t.connector.words[1] = event;
    t.connector.words[3] = event;
    for (let i = 0; i < 40; i++) {
      t.connector.put({ operation: XENDISPL_OP_GET_EDID });
      t.connector.push();
      await t.host.runtime.step();
      t.connector.collect();
    }
    await t.host.until(() => {
      t.connector.collect();
      return t.connector.ring.unanswered === 0;
    }, 'all are answered');
  }
  await t.finish();
});

test('a flood without end does not keep another guest from flipping (R8)', async () => {
  const t = await rig();
  const other = await t.host.display(`${WIDTH}x${HEIGHT}`);
  const { display } = other;
  const shape = { width: WIDTH, height: HEIGHT, format: XRGB8888 };
  const buffer = await t.host.run(display.createBuffer(shape));
  const framebuffer = await t.host.run(display.attach(buffer));
  await t.host.run(display.setMode(0, framebuffer));
  let flooding = true;
  let flood = 0;
  const pour = () => {
    if (!flooding) return;
    t.connector.collect();
    while (t.connector.ring.unanswered < t.connector.ring.size) {
      t.connector.put({ operation: XENDISPL_OP_GET_EDID });
      flood += 1;
    }
    t.connector.push();
    t.host.runtime.defer(pour);
  };
  pour();
  for (let i = 0; i < 50; i++) await t.host.run(display.flipped(0, framebuffer));
  flooding = false;
  assert(flood > 50, 'there was a flood');
  await other.close();
  await t.finish();
});

test('wild in_cons and junk in the event page disturb nobody (R8)', async () => {
  const t = await rig();
  await t.show();
  for (let flip = 0; flip < 200; flip++) {
    new DataView(t.connector.events.buffer, t.connector.events.byteOffset, 4).setUint32(
      0,
      flip * 0x1234_5678,
      true,
    );
    t.connector.events.fill(0xff, 8, 64);
    assert.equal(await t.flip(2n), 0);
    await t.host.until(() => t.connector.eventIds.length === flip + 1, 'the event');
  }
  await t.finish();
});

test('a request that was there before the backend is answered', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const host = await DisplayHost.open({ seed, delayMs: 20 });
    const { domain } = await host.guest('64x48');
    const raw = new RawFrontend(host, domain, { connectors: 1 });
    raw.beforePublishing = () => {
      raw.connectors[0]!.put({ operation: XENDISPL_OP_GET_EDID });
      raw.connectors[0]!.push();
    };
    await raw.open();
    await host.until(() => raw.connectors[0]!.responses.length === 1, 'the answer');
    await raw.close();
    await host.close();
  }
});

test('a guest that leaves with requests in the ring calls nobody after that', async () => {
  const output = new RecordingOutput({ holdRetired: true });
  const t = await rig(1, { output: () => output });
  await t.show();
  assert.equal(await t.create({ dbuf_cookie: 11n, gref_directory: await t.pages(3) }), 0);
  assert.equal(await t.attach({ dbuf_cookie: 11n, fb_cookie: 12n }), 0);
  t.connector.put({
    operation: XENDISPL_OP_DBUF_DESTROY,
    op: { dbuf_destroy: { dbuf_cookie: 1n } },
  });
  const set_config = { ...configFields(), fb_cookie: 12n };
  t.connector.put({ operation: XENDISPL_OP_SET_CONFIG, op: { set_config } });
  t.connector.push();
  await t.host.until(() => output.connectors[0]!.retiring > 0, 'the destroy waits');
  await t.raw.close();
  assert(output.connectors[0]!.closed);
  await t.finish();
  assert.equal(output.connectors[0]!.lateCalls, 0);
});

test('a guest that crashes anywhere in its work leaves nothing behind', async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const output = new RecordingOutput({ holdRetired: seed % 3 === 0 });
    const t = await rig(1, { seed, output: () => output, delayMs: (seed % 5) * 10 });
    const gref_directory = await t.pages(3);
    const { random } = t.host.runtime;
    const requests = [
      {
        operation: XENDISPL_OP_DBUF_CREATE,
        op: { dbuf_create: { ...createFields(), gref_directory } },
      },
      { operation: XENDISPL_OP_FB_ATTACH, op: { fb_attach: attachFields() } },
      { operation: XENDISPL_OP_SET_CONFIG, op: { set_config: configFields() } },
      { operation: XENDISPL_OP_PG_FLIP, op: { pg_flip: { fb_cookie: 2n } } },
      { operation: XENDISPL_OP_DBUF_DESTROY, op: { dbuf_destroy: { dbuf_cookie: 1n } } },
    ];
    for (let i = 0; i < 30; i++) t.connector.put(requests[i % requests.length]!);
    t.connector.push();
    for (let steps = random.below(150); steps > 0; steps--) {
      await t.host.runtime.step();
      if (random.below(8) === 0) output.connectors[0]!.complete();
    }
    t.host.host.guests[0]!.crash();
    await t.host.close();
    assert.equal(output.connectors[0]!.lateCalls, 0);
  }
});
