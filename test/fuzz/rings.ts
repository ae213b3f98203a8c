// Both ends of rings of requests and of event pages, with a peer that writes what it likes between any two looks.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { displSring } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import { IN_RING, OUT_RING } from '../../src/input/kbd-events.ts';
import { EventConsumer, EventProducer, type EventRingGeometry } from '../../src/xen/event-page.ts';
import { BackRing, FrontRing, initRing } from '../../src/xen/ring.ts';
import { fuzzer, refuses, u8, u32 } from './fuzzer.ts';

const SLOT_BYTES = 64;

type PeerAction =
  | { readonly do: 'take' | 'put' | 'fill' | 'push' | 'check' | 'confirm' }
  | { readonly do: 'move'; readonly word: number; readonly by: number }
  | { readonly do: 'word'; readonly word: number; readonly value: number }
  | { readonly do: 'scribble'; readonly at: number; readonly value: number };

const peerAction: fc.Arbitrary<PeerAction> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('take', 'put', 'fill', 'push', 'check', 'confirm'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('move' as const),
      word: fc.nat(3),
      by: fc.oneof(fc.integer({ min: -2, max: 4 }), u32),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('word' as const), word: fc.nat(3), value: u32 }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('scribble' as const),
      at: fc.nat(PAGE_SIZE - 1),
      value: u8,
    }),
  },
) as fc.Arbitrary<PeerAction>;

const input = fc.record({ start: u32, actions: fc.array(peerAction, { maxLength: 60 }) });

/** What the peer does to the page. */
function disturb(page: Uint8Array, action: PeerAction): void {
  const view = new DataView(page.buffer);
  if (action.do === 'move') {
    const at = 4 * action.word;
    view.setUint32(at, (view.getUint32(at, true) + action.by) >>> 0, true);
  } else if (action.do === 'word') view.setUint32(4 * action.word, action.value, true);
  else if (action.do === 'scribble') page[action.at] = action.value;
}

/** A page with a guard behind it: an end that writes beyond its page is found out. */
function guardedPage(): { page: Uint8Array; intact: () => boolean } {
  const bytes = new Uint8Array(PAGE_SIZE + 64).fill(0xa5, PAGE_SIZE);
  const page = bytes.subarray(0, PAGE_SIZE);
  return { page, intact: () => bytes.subarray(PAGE_SIZE).every((byte) => byte === 0xa5) };
}

/** One end of a ring: once it has refused something it has given the peer up, and does nothing more. */
class FuzzedEnd {
  broken = false;

  /** Does what the peer may have made impossible. */
  mayRefuse(work: () => void): void {
    this.broken = refuses(work);
  }
}

/** A ring that begins anywhere in the 32-bit numbers, on a guarded page. */
function ringPage(start: number): ReturnType<typeof guardedPage> {
  const guarded = guardedPage();
  initRing(guarded.page, displSring);
  new Uint32Array(guarded.page.buffer, 0, 4).set([start, start + 1, start, start + 1]);
  return guarded;
}

export const backRing = fuzzer({
  name: 'ring-backend',
  parsers: ['xen/ring.ts'],
  runs: 500,
  input,
  check: ({ start, actions }) => {
    const { page, intact } = ringPage(start);
    const ring = new BackRing(page, displSring);
    const end = new FuzzedEnd();
    for (const action of actions) {
      disturb(page, action);
      if (end.broken) continue;
      if (action.do === 'take') end.mayRefuse(() => ring.take());
      if (action.do === 'put' && ring.unanswered > 0) ring.put(new Uint8Array(SLOT_BYTES));
      if (action.do === 'push') ring.push();
      if (action.do === 'check') end.mayRefuse(() => ring.finalCheck());
      assert(ring.unanswered <= ring.size, 'more is worked on than the ring holds');
    }
    assert(intact());
  },
});

export const frontRing = fuzzer({
  name: 'ring-frontend',
  parsers: ['xen/ring.ts'],
  runs: 500,
  input,
  check: ({ start, actions }) => {
    const { page, intact } = ringPage(start);
    const ring = new FrontRing(page, displSring);
    let taken = 0;
    let put = 0;
    const end = new FuzzedEnd();
    for (const action of actions) {
      disturb(page, action);
      if (end.broken) continue;
      if (action.do === 'take') end.mayRefuse(() => void (ring.take() && taken++));
      if (action.do === 'put' && ring.put(new Uint8Array(SLOT_BYTES))) put += 1;
      if (action.do === 'fill') while (ring.put(new Uint8Array(SLOT_BYTES))) put += 1;
      if (action.do === 'push') ring.push();
      if (action.do === 'check') end.mayRefuse(() => ring.finalCheck());
      assert(taken <= put, 'more was answered than was asked');
    }
    assert(intact());
  },
});

/** Puts events until there is no room, or as many as fit a ring that is never full. */
function fill(producer: EventProducer, { slots, slotBytes }: EventRingGeometry): void {
  for (let left = slots; left >= 0; left--) {
    if (!producer.put(new Uint8Array(slotBytes))) return;
  }
}

const GEOMETRIES = { display: DISPLAY_EVENTS, in: IN_RING, out: OUT_RING };

export const eventPages = fuzzer({
  name: 'event-pages',
  parsers: ['xen/event-page.ts'],
  runs: 600,
  input: fc.record({
    geometry: fc.constantFrom('display', 'in', 'out' as const),
    confirmation: fc.constantFrom('required', 'optional' as const),
    start: u32,
    actions: fc.array(peerAction, { maxLength: 80 }),
  }),
  check: ({ geometry: name, confirmation, start, actions }) => {
    const geometry = GEOMETRIES[name];
    const { page, intact } = guardedPage();
    const view = new DataView(page.buffer);
    view.setUint32(geometry.consOffset, start, true);
    view.setUint32(geometry.prodOffset, start, true);
    const producer = new EventProducer(page, geometry, { confirmation });
    const consumer = new EventConsumer(page, geometry);
    const end = new FuzzedEnd();
    let inTurn = 0;
    for (const action of actions) {
      disturb(page, action);
      if (end.broken) continue;
      if (action.do === 'put') {
        end.mayRefuse(() => producer.put(new Uint8Array(geometry.slotBytes)));
      }
      if (action.do === 'fill') end.mayRefuse(() => fill(producer, geometry));
      if (action.do === 'push') producer.publish();
      if (action.do === 'confirm') consumer.confirm();
      if (action.do === 'take') end.mayRefuse(() => void (consumer.next() && inTurn++));
    }
    assert(inTurn <= actions.length);
    assert(intact());
  },
});
