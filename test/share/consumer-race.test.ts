// What a producer in another process can do between two looks of the consumer, which no test in one thread shows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SHARE_SLOT_READY } from '../../src/abi/share.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { Condition } from '../../src/share/condition.ts';
import { FrameConsumer } from '../../src/share/consumer.ts';
import { ControlPage, type SlotState } from '../../src/share/control-page.ts';
import { type Offer, OfferReader, OfferWriter } from '../../src/share/offer-page.ts';
import type { ShareId } from '../../src/share/share-id.ts';
import { gref } from '../../src/xen/ids.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';

const SLOTS = 3;
const OFFER: Offer = {
  id: '0'.repeat(32) as ShareId,
  writable: false,
  stream: true,
  slots: SLOTS,
  slotPages: 1,
  slotBytes: PAGE_SIZE,
  dataOffset: 0,
  directoryRef: gref(1),
  controlRef: gref(2),
};

/** Does something after the state of a slot was read. */
class Watched extends ControlPage {
  afterLook: (slot: number) => void = () => {};

  override stateOf(slot: number): SlotState {
    const state = super.stateOf(slot);
    this.afterLook(slot);
    return state;
  }
}

/** Does something after the sequence of a slot was read. */
class WatchedOffer extends OfferReader {
  afterSequence: (slot: number) => void = () => {};

  override sequenceOf(slot: number): bigint {
    const sequence = super.sequenceOf(slot);
    this.afterSequence(slot);
    return sequence;
  }
}

function stream() {
  const pages = new Uint8Array(2 * PAGE_SIZE);
  const writer = new OfferWriter(pages, OFFER);
  const control = new Watched(new Uint8Array(PAGE_SIZE));
  const offer = new WatchedOffer(pages);
  const runtime = new VirtualRuntime(1);
  const consumer = new FrameConsumer({
    runtime,
    offer,
    control,
    slotBytes: PAGE_SIZE,
    slots: Array.from(
      { length: SLOTS },
      () => ({ bytes: new Uint8Array(PAGE_SIZE) }) as SharedBuffer,
    ),
    condition: new Condition(runtime),
    notify: () => {},
    checkOpen: () => {},
    checkProducer: () => {},
    onViolation: () => {},
  });
  const publish = (slot: number, sequence: number) => {
    writer.describeFrame(slot, { sequence, timestampNs: 0n, byteLength: 1 });
    control.setState(slot, SHARE_SLOT_READY);
  };
  return { consumer, control, offer, publish };
}

test('frames that become ready behind the look are still taken in their order', () => {
  const { consumer, control, publish } = stream();
  let told = false;
  control.afterLook = (slot) => {
    if (slot !== 0 || told) return;
    told = true;
    // Slot 0 was seen free: now it is ready, and so is the next one, before that is looked at.
    publish(0, 1);
    publish(1, 2);
  };
  const sequences = [];
  for (let frame = consumer.tryAcquire(); frame; frame = consumer.tryAcquire()) {
    sequences.push(frame.sequence);
    frame.release();
  }
  assert.deepEqual(sequences, [1, 2]);
});

test('also when frames were dropped before', () => {
  const { consumer, control, publish } = stream();
  publish(2, 1);
  consumer.tryAcquire()!.release();
  let told = false;
  control.afterLook = (slot) => {
    if (slot !== 0 || told) return;
    told = true;
    publish(0, 7);
    publish(1, 8);
  };
  assert.equal(consumer.tryAcquire()!.sequence, 7);
  assert.equal(consumer.tryAcquire()!.sequence, 8);
  assert.equal(consumer.skipped, 5);
});

test('a frame that is taken back and replaced between choice and claim is left for its turn', () => {
  const { consumer, control, publish } = stream();
  publish(0, 1);
  publish(1, 2);
  const { change } = control;
  let replaced = false;
  control.change = (slot, from, to) => {
    if (!replaced && slot === 0) {
      replaced = true;
      publish(0, 3);
    }
    return change.call(control, slot, from, to);
  };
  assert.equal(consumer.tryAcquire()!.sequence, 2);
  assert.equal(consumer.tryAcquire()!.sequence, 3);
});

test('a frame that is replaced after any look at its number does not jump the queue', () => {
  for (let look = 1; look <= 4; look++) {
    const { consumer, offer, publish } = stream();
    publish(0, 1);
    publish(1, 2);
    let looks = 0;
    offer.afterSequence = (slot) => {
      if (slot === 0 && ++looks === look) publish(0, 3);
    };
    const sequences: number[] = [];
    for (let frame = consumer.tryAcquire(); frame; frame = consumer.tryAcquire()) {
      sequences.push(frame.sequence);
      frame.release();
    }
    const rising = sequences.every((each, i) => i === 0 || each > sequences[i - 1]!);
    assert(rising && sequences.includes(2), `replaced after look ${look}: ${sequences}`);
  }
});
