// Slots of a keyboard's page, and a keyboard's connection whose guest writes whatever it likes.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { KbdConnection } from '../../src/input/kbd-connection.ts';
import { decodeKbdEvent, encodeKbdEvent, KEY_MAX } from '../../src/input/kbd-events.ts';
import { KeyboardInput } from '../../src/input/keyboard-input.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { edit, edits, fuzzer, u8, u32 } from './fuzzer.ts';

const SLOT_BYTES = 40;
const AREA = { width: 640, height: 480 };
const CONTACTS = 10;
/** More wake-ups than a guest gets at once. */
const STORM = 300;

/** What a slot says is written again as it was read. */
export const keyboardEvents = fuzzer({
  name: 'keyboard-events',
  parsers: ['input/kbd-events.ts'],
  runs: 2000,
  input: fc.record({
    type: fc.oneof(fc.integer({ min: 0, max: 6 }), u8),
    second: fc.oneof(fc.nat(6), u8),
    bytes: fc.uint8Array({ minLength: 38, maxLength: 38 }).map((bytes) => [...bytes]),
    edits: edits(SLOT_BYTES),
  }),
  check: ({ type, second, bytes, edits: changes }) => {
    const slot = edit(Uint8Array.of(type, second, ...bytes), changes);
    const view = new DataView(slot.buffer);
    const event = decodeKbdEvent(view);
    if (!event) return;
    if (event.kind === 'key') assert(event.code <= KEY_MAX);
    // -2^31 has no opposite among the numbers of the wire.
    if ('wheel' in event && event.wheel > 2 ** 31 - 1) return;
    const again = new DataView(new ArrayBuffer(SLOT_BYTES));
    encodeKbdEvent(again, event);
    assert.deepEqual(decodeKbdEvent(again), event);
  },
});

type Action =
  | { readonly do: 'key' | 'touch'; readonly code: number; readonly down: boolean }
  | { readonly do: 'move' | 'wheel'; readonly x: number; readonly y: number }
  | { readonly do: 'notify' | 'storm' | 'release' | 'flush' | 'reset' }
  | { readonly do: 'take'; readonly count: number }
  | { readonly do: 'step'; readonly count: number }
  | { readonly do: 'word'; readonly word: number; readonly value: number }
  | { readonly do: 'scribble'; readonly at: number; readonly value: number };

const number = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-1, 0, 0.5, Number.MAX_VALUE),
);
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({
    do: fc.constantFrom('key', 'touch' as const),
    code: fc.oneof(fc.nat(12), fc.nat(0x310), number),
    down: fc.boolean(),
  }),
  fc.record({ do: fc.constantFrom('move', 'wheel' as const), x: number, y: number }),
  fc.record({ do: fc.constantFrom('notify', 'storm', 'release', 'flush', 'reset' as const) }),
  fc.record({ do: fc.constantFrom('take', 'step' as const), count: fc.nat(60) }),
  fc.record({ do: fc.constant('word' as const), word: fc.nat(3), value: u32 }),
  fc.record({ do: fc.constant('scribble' as const), at: fc.nat(PAGE_SIZE - 1), value: u8 }),
);

const OFFER = {
  keyboard: true,
  pointer: true,
  area: AREA,
  touch: { area: AREA, contacts: CONTACTS },
};

/** A person at a keyboard and a guest at its page. */
class KeyboardRig {
  readonly runtime = new VirtualRuntime(1);
  readonly page = new Uint8Array(PAGE_SIZE);
  readonly failures: Error[] = [];
  readonly connection: KbdConnection;
  readonly input: KeyboardInput;
  readonly #abort = new AbortController();
  #masked = false;

  /** `used`: an earlier backend has sent something over the page. */
  constructor(wishes: { absolute: boolean; raw: boolean; multiTouch: boolean }, used: boolean) {
    if (used) new Uint32Array(this.page.buffer, 0, 2).fill(7);
    this.connection = new KbdConnection({
      runtime: this.runtime,
      page: this.page,
      signal: this.#abort.signal,
      guest: { spend: () => {}, rest: () => undefined },
      notify: () => {},
      fail: (error) => this.failures.push(error),
      onUnknownEvent: () => {},
      offer: OFFER,
      contacts: CONTACTS,
    });
    this.input = new KeyboardInput(OFFER, () => {});
    this.input.connect(this.connection, wishes);
  }

  async act(action: Action): Promise<void> {
    const view = new DataView(this.page.buffer);
    switch (action.do) {
      case 'key':
        this.input.key(action.code, action.down);
        break;
      case 'touch': {
        const phase = action.down ? (action.code % 3 === 0 ? 'move' : 'down') : 'up';
        this.input.touch({ contact: action.code, phase, x: action.code, y: 3 });
        break;
      }
      case 'move':
        if (action.x % 2 === 0) this.input.position(action.x, action.y);
        else this.input.motion(action.x, action.y);
        break;
      case 'wheel':
        this.input.wheel(action.x);
        break;
      case 'release':
        this.input.releaseAll();
        break;
      case 'notify':
        this.#notified();
        break;
      case 'storm':
        for (let times = 0; times < STORM; times++) this.#notified();
        break;
      case 'flush':
        this.connection.flush();
        break;
      case 'reset':
        this.page.fill(0);
        break;
      case 'take':
        view.setUint32(
          0,
          Math.min(view.getUint32(0, true) + action.count, view.getUint32(4, true)),
          true,
        );
        break;
      case 'step':
        for (let step = 0; step < action.count; step++) await this.runtime.step();
        break;
      case 'word':
        view.setUint32(4 * action.word, action.value, true);
        break;
      case 'scribble':
        this.page[action.at] = action.value;
    }
  }

  /** As an event channel does: its port is masked until the handler's promise has resolved. */
  #notified(): void {
    if (this.#masked) return;
    const handled = this.connection.onNotification();
    this.#masked = handled !== undefined;
    void handled?.then(() => {
      this.#masked = false;
    });
  }

  end(): void {
    this.input.disconnect();
    this.#abort.abort();
  }
}

/** Whatever a guest does to its page, a failure is a violation, told once, and nothing is sent after it. */
export const keyboardPages = fuzzer({
  name: 'keyboard-pages',
  parsers: ['input/kbd-connection.ts'],
  runs: 200,
  input: fc.record({
    used: fc.boolean(),
    wishes: fc.record({ absolute: fc.boolean(), raw: fc.boolean(), multiTouch: fc.boolean() }),
    actions: fc.array(action, { maxLength: 60 }),
  }),
  check: async ({ used, wishes, actions }) => {
    const rig = new KeyboardRig(wishes, used);
    for (const each of actions) await rig.act(each);
    rig.end();
    while (await rig.runtime.step());
    assert(rig.failures.length <= 1 && rig.failures.every((e) => e instanceof ProtocolViolation));
    const before = Uint8Array.from(rig.page);
    rig.connection.flush();
    assert.deepEqual(rig.page, before, 'the page is touched after the end');
  },
});
