import assert from 'node:assert/strict';
import { test } from 'node:test';
import { displEvt } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS, FlipEvents } from '../../src/display/flip-events.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import { check } from '../../src/xen/untrusted.ts';

const readEvent = (view: DataView) => ({
  id: displEvt.fields.id.get(view, 0),
  type: displEvt.fields.type.get(view, 0),
  cookie: displEvt.fields.op.fields.pg_flip.fields.fb_cookie.get(view, 0),
});

test('ids are consecutive from 0 and wrap at 65536; one notification an event (trap 6, R8)', () => {
  const page = new Uint8Array(PAGE_SIZE);
  let notified = 0;
  const events = new FlipEvents(page, () => {
    notified += 1;
  });
  const consumer = new EventConsumer(page, DISPLAY_EVENTS);
  for (let flip = 0; flip < 140_000; flip++) {
    events.send({ low: flip, high: -1 });
    assert.deepEqual(check(consumer.next()!, readEvent), {
      id: flip % 65536,
      type: 0,
      cookie: 0xffff_ffff_0000_0000n + BigInt(flip),
    });
  }
  assert.equal(consumer.next(), undefined);
  assert.equal(notified, 140_000);
});

test('a frontend that neither reads nor confirms stops nothing (R8)', () => {
  const page = new Uint8Array(PAGE_SIZE);
  const events = new FlipEvents(page, () => {});
  for (let flip = 0; flip < 1000; flip++) events.send({ low: 1, high: 0 });
  assert.equal(new DataView(page.buffer).getUint32(DISPLAY_EVENTS.prodOffset, true), 1000);
});
