// A guest's several keyboards as one: whatever comes and goes meanwhile, an event reaches one device, the one that it
// should, and nothing stays down on any.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { KbdConnection } from '../../src/input/kbd-connection.ts';
import { decodeKbdEvent, IN_RING, type KbdEvent } from '../../src/input/kbd-events.ts';
import { type InputOffer, KeyboardInput } from '../../src/input/keyboard-input.ts';
import { RoutedInput } from '../../src/input/routed-input.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { EventConsumer } from '../../src/xen/event-page.ts';
import { check } from '../../src/xen/untrusted.ts';

const AREA = { width: 1000, height: 500 };
const TOUCH = { area: { width: 200, height: 100 }, contacts: 10 };
const BOTH: InputOffer = { keyboard: true, pointer: true, area: AREA, touch: undefined };
const KEYS_ONLY: InputOffer = { ...BOTH, pointer: false };
const POINTER_ONLY: InputOffer = { ...BOTH, keyboard: false };
const TOUCH_ONLY: InputOffer = {
  keyboard: false,
  pointer: false,
  area: { width: 100, height: 100 },
  touch: TOUCH,
};
const KEY = 30;
const BTN_LEFT = 0x110;

/** A device and the guest's driver behind it, which takes everything at once. */
class Device {
  readonly input: KeyboardInput;
  readonly #runtime: VirtualRuntime;
  #frontend: { readonly events: EventConsumer; readonly connection: KbdConnection } | undefined;
  readonly #page = new Uint8Array(PAGE_SIZE);

  constructor(runtime: VirtualRuntime, offer: InputOffer) {
    this.#runtime = runtime;
    this.input = new KeyboardInput(offer, () => {});
  }

  connect(): void {
    const { offer } = this.input;
    const connection = new KbdConnection({
      runtime: this.#runtime,
      page: this.#page,
      signal: new AbortController().signal,
      guest: { spend: () => {}, rest: () => undefined },
      notify: () => {},
      fail: (error) => assert.fail(error),
      onUnknownEvent: () => assert.fail('nothing was sent'),
      offer,
      contacts: offer.touch?.contacts ?? 0,
    });
    const events = new EventConsumer(this.#page, IN_RING);
    this.#frontend = { events, connection };
    this.input.connect(connection, { absolute: true, raw: false, multiTouch: true });
    connection.flush();
  }

  disconnect(): void {
    if (this.#frontend === undefined) return;
    this.input.disconnect();
  }

  /** What has come since the last time. */
  take(): KbdEvent[] {
    const taken: KbdEvent[] = [];
    const { events, connection } = this.#frontend ?? {};
    for (;;) {
      connection?.flush();
      const slot = events?.next();
      if (!slot) return taken;
      const event = check(slot, decodeKbdEvent);
      assert(event);
      taken.push(event);
      events?.confirm();
    }
  }
}

function devices(...offers: readonly InputOffer[]) {
  const runtime = new VirtualRuntime(1);
  const routed = new RoutedInput();
  const all = offers.map((offer) => new Device(runtime, offer));
  // The one with the largest number first: the order in which they come means nothing.
  for (const devid of [...all.keys()].reverse()) routed.add(devid, all[devid]!.input);
  return { routed, all };
}

test('keys, pointer and touches of a guest go to the devices that have them', () => {
  const { routed, all } = devices(KEYS_ONLY, POINTER_ONLY, TOUCH_ONLY, BOTH);
  for (const device of all) device.connect();
  assert.deepEqual(routed.area, AREA);
  routed.key(KEY, true);
  routed.key(BTN_LEFT, true);
  routed.position(10, 20);
  routed.wheel(1);
  routed.touch({ contact: 0, phase: 'down', x: 500, y: 250 });
  const came = all.map((device) => device.take());
  assert.deepEqual(came, [
    [{ kind: 'key', code: KEY, pressed: true }],
    [
      { kind: 'key', code: BTN_LEFT, pressed: true },
      { kind: 'position', x: 10, y: 20, wheel: 0 },
      { kind: 'motion', dx: 0, dy: 0, wheel: 1 },
    ],
    [
      { kind: 'down', contact: 0, x: 100, y: 50 },
      { kind: 'sync', contact: 0 },
    ],
    [],
  ]);
  routed.releaseAll();
  const kinds = all.map((device) => device.take().map(({ kind }) => kind));
  assert.deepEqual(kinds, [['key'], ['key'], ['up', 'sync'], []]);
});

test('a device without a keyboard is never told of a key, not even of releases after a daemon died', () => {
  const { routed, all } = devices(TOUCH_ONLY, POINTER_ONLY);
  const [screen, pointer] = all as [Device, Device];
  for (const device of all) device.connect();
  routed.key(KEY, true);
  assert.equal(screen.input.dropped, 1, 'dropped, and counted');
  routed.touch({ contact: 3, phase: 'down', x: 0, y: 0 });
  routed.key(BTN_LEFT, true);
  for (const device of all) device.take();
  // What a killed daemon leaves: pages that were used.
  for (const device of all) device.connect();
  const kinds = new Set(screen.take().map(({ kind }) => kind));
  assert.deepEqual(kinds, new Set(['up', 'sync']));
  const codes = pointer.take().map((event) => (event.kind === 'key' ? event.code : 0));
  assert.deepEqual(
    codes.filter((code) => code !== 0).sort(),
    [0, 1, 2, 3, 4, 5, 6, 7].map((button) => BTN_LEFT + button),
  );
});

test('property: each key reaches one device at most, the first that is connected, and none stays down', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('key' as const), code: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ do: fc.constantFrom('connect', 'disconnect' as const), devid: fc.nat(2) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { routed, all } = devices(BOTH, POINTER_ONLY, BOTH);
      const held = new Set<number>();
      const down = all.map(() => new Set<number>());
      const connected = new Set<number>();
      /** Takes what came, and says which devices were told of a press. */
      const presses = (): number[] =>
        all.flatMap((device, devid) =>
          device.take().flatMap((event) => {
            if (event.kind !== 'key') return [];
            if (event.pressed) down[devid]!.add(event.code);
            else down[devid]!.delete(event.code);
            return event.pressed ? [devid] : [];
          }),
        );
      for (const one of steps) {
        if (one.do === 'key') {
          const pressed = !held.delete(one.code);
          if (pressed) held.add(one.code);
          routed.key(one.code, pressed);
          const first = [0, 2].filter((devid) => connected.has(devid)).slice(0, 1);
          assert.deepEqual(presses(), pressed ? first : []);
        } else if (one.do === 'connect' && !connected.has(one.devid)) {
          connected.add(one.devid);
          all[one.devid]!.connect();
        } else if (one.do === 'disconnect' && connected.delete(one.devid)) {
          all[one.devid]!.disconnect();
        }
        assert.deepEqual(presses(), []);
      }
      for (const code of held) routed.key(code, false);
      presses();
      assert.deepEqual(down, [new Set(), new Set(), new Set()]);
    }),
    { numRuns: 300 },
  );
});
