import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { EventConsumer, EventProducer, type EventRingGeometry } from '../../src/xen/event-page.ts';
import { check, type Untrusted } from '../../src/xen/untrusted.ts';

const DISPLAY: EventRingGeometry = {
  consOffset: 0,
  prodOffset: 4,
  slotsOffset: 64,
  slotBytes: 64,
  slots: 63,
};
const KEYBOARD_IN = { ...DISPLAY, slotsOffset: 1024, slotBytes: 40, slots: 51 };
const KEYBOARD_OUT = {
  consOffset: 8,
  prodOffset: 12,
  slotsOffset: 3072,
  slotBytes: 40,
  slots: 25,
};
const ALL = [DISPLAY, KEYBOARD_IN, KEYBOARD_OUT];

/** A page whose both indexes start at `start`. */
function pageAt(start: number, geometry: EventRingGeometry): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  const view = new DataView(page.buffer);
  view.setUint32(geometry.consOffset, start, true);
  view.setUint32(geometry.prodOffset, start, true);
  return page;
}

function setIndex(page: Uint8Array, offset: number, value: number): void {
  new DataView(page.buffer).setUint32(offset, value >>> 0, true);
}

function event(number: number, geometry: EventRingGeometry): Uint8Array {
  const bytes = new Uint8Array(geometry.slotBytes);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

function numberOf(taken: Untrusted<DataView>): number {
  return check(taken, (view) => view.getUint32(0, true));
}

/** What the Linux consumers do: from their index to `in_prod`, slot = index % slots on u32. */
class LinuxConsumer {
  readonly #view: DataView;
  readonly #geometry: EventRingGeometry;

  constructor(page: Uint8Array, geometry: EventRingGeometry) {
    this.#view = new DataView(page.buffer);
    this.#geometry = geometry;
  }

  takeAll(): number[] {
    const { consOffset, prodOffset, slotsOffset, slotBytes, slots } = this.#geometry;
    const prod = this.#view.getUint32(prodOffset, true);
    const taken: number[] = [];
    let cons = this.#view.getUint32(consOffset, true);
    for (; cons !== prod; cons = (cons + 1) >>> 0) {
      taken.push(this.#view.getUint32(slotsOffset + (cons % slots) * slotBytes, true));
    }
    this.#view.setUint32(consOffset, cons, true);
    return taken;
  }
}

test('property: nothing is lost, repeated or reordered, also where the index wraps and slots jump', () => {
  const starts = fc.oneof(
    fc.constantFrom(0, 2 ** 32 - 3, 2 ** 32 - 1),
    fc.integer({ min: 2 ** 32 - 200, max: 2 ** 32 - 1 }),
  );
  const steps = fc.array(fc.integer({ min: -60, max: 60 }), { maxLength: 60 });
  fc.assert(
    fc.property(fc.constantFrom(...ALL), starts, steps, (geometry, start, moves) => {
      const page = pageAt(start, geometry);
      const producer = new EventProducer(page, geometry, { confirmation: 'required' });
      const consumer = new EventConsumer(page, geometry);
      let sent = 0;
      let received = 0;
      for (const move of moves) {
        for (let i = 0; i < move; i++) if (producer.put(event(sent, geometry))) sent++;
        if (move > 0) producer.publish();
        for (let i = 0; i > move; i--) {
          const taken = consumer.next();
          if (taken !== undefined) assert.equal(numberOf(taken), received++);
        }
        if (move < 0) consumer.confirm();
        assert(sent - received <= geometry.slots);
      }
      for (let taken = consumer.next(); taken !== undefined; taken = consumer.next()) {
        assert.equal(numberOf(taken), received++);
      }
      assert.equal(received, sent);
    }),
  );
});

test('property: the Linux consumers understand the producer across the wrap', () => {
  const starts = fc.integer({ min: 2 ** 32 - 130, max: 2 ** 32 - 1 });
  const bursts = fc.array(fc.integer({ min: 0, max: 70 }), { maxLength: 20 });
  fc.assert(
    fc.property(fc.constantFrom(...ALL), starts, bursts, (geometry, start, counts) => {
      const page = pageAt(start, geometry);
      const producer = new EventProducer(page, geometry, { confirmation: 'required' });
      const peer = new LinuxConsumer(page, geometry);
      const sent: number[] = [];
      const received: number[] = [];
      for (const count of counts) {
        for (let i = 0; i < count; i++) {
          if (producer.put(event(sent.length, geometry))) sent.push(sent.length);
        }
        producer.publish();
        received.push(...peer.takeAll());
      }
      assert.deepEqual(received, sent);
    }),
  );
});

test('every slot is used before the producer waits, except where live slots overlap at the wrap', () => {
  for (const geometry of ALL) {
    const room = (start: number) => {
      const page = pageAt(start, geometry);
      const producer = new EventProducer(page, geometry, { confirmation: 'required' });
      let count = 0;
      while (producer.put(event(count, geometry))) count++;
      return count;
    };
    assert.equal(room(0), geometry.slots);
    assert.equal(room(2 ** 32 - geometry.slots), geometry.slots);
  }
  const page = pageAt(2 ** 32 - 4, DISPLAY);
  const producer = new EventProducer(page, DISPLAY, { confirmation: 'required' });
  for (let i = 0; i < 4; i++) assert(producer.put(event(i, DISPLAY)));
  assert.equal(producer.put(event(4, DISPLAY)), false, 'index 0 lies in the slot of 2^32 - 4');
  setIndex(page, DISPLAY.consOffset, 2 ** 32 - 3);
  assert.equal(producer.put(event(4, DISPLAY)), true);
});

test('a frontend that never confirms gets events for ever (displif)', () => {
  const page = pageAt(0, DISPLAY);
  const producer = new EventProducer(page, DISPLAY, { confirmation: 'optional' });
  const consumer = new EventConsumer(page, DISPLAY);
  for (let i = 0; i < 1000; i++) {
    assert(producer.put(event(i, DISPLAY)));
    producer.publish();
    assert.equal(numberOf(consumer.next()!), i);
  }
  assert.equal(new DataView(page.buffer).getUint32(DISPLAY.consOffset, true), 0);
});

test('where confirming is optional, a wild in_cons stops nothing (R8)', () => {
  const page = pageAt(0, DISPLAY);
  const producer = new EventProducer(page, DISPLAY, { confirmation: 'optional' });
  for (const cons of [1, 1000, 2 ** 31, 2 ** 32 - 1]) {
    setIndex(page, DISPLAY.consOffset, cons);
    assert(producer.put(event(cons, DISPLAY)));
  }
});

test('where confirming is required, confirming what was never sent breaks the ring (R8)', () => {
  for (const geometry of [KEYBOARD_IN, KEYBOARD_OUT]) {
    const page = pageAt(5, geometry);
    const producer = new EventProducer(page, geometry, { confirmation: 'required' });
    setIndex(page, geometry.consOffset, 6);
    assert.throws(
      () => producer.put(event(0, geometry)),
      (error) => error instanceof ProtocolViolation && error.reason === 'event-cons-overflow',
    );
  }
});

test('a producer index beyond the ring breaks it, also across the wrap (trap 15)', () => {
  for (const geometry of ALL) {
    const page = pageAt(2 ** 32 - 2, geometry);
    const consumer = new EventConsumer(page, geometry);
    setIndex(page, geometry.prodOffset, 2 ** 32 - 2 + geometry.slots + 1);
    assert.throws(
      () => consumer.next(),
      (error) => error instanceof ProtocolViolation && error.reason === 'event-prod-overflow',
    );
    setIndex(page, geometry.prodOffset, 2 ** 32 - 3);
    assert.throws(() => consumer.next(), ProtocolViolation, 'a producer that goes backwards');
  }
});

test('an event that changes after it was taken does not change what was taken (R2)', () => {
  const page = pageAt(0, KEYBOARD_OUT);
  const producer = new EventProducer(page, KEYBOARD_OUT, { confirmation: 'required' });
  const consumer = new EventConsumer(page, KEYBOARD_OUT);
  producer.put(event(7, KEYBOARD_OUT));
  assert.equal(consumer.next(), undefined, 'not visible before it is published');
  producer.publish();
  const taken = consumer.next()!;
  page.fill(0xff, KEYBOARD_OUT.slotsOffset);
  assert.equal(numberOf(taken), 7);
});
