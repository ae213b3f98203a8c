import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EventQueue, QUEUE_CAPACITY } from '../../src/input/event-queue.ts';
import type { KbdEvent } from '../../src/input/kbd-events.ts';

function drain(queue: EventQueue): KbdEvent[] {
  const events: KbdEvent[] = [];
  for (let event = queue.head; event; event = queue.head) {
    events.push(event);
    queue.shift();
  }
  return events;
}

const down = (code: number): KbdEvent => ({ kind: 'key', code, pressed: true });
const up = (code: number): KbdEvent => ({ kind: 'key', code, pressed: false });

test('movements are told one by one while they fit the ring, so a drawn line keeps its shape', () => {
  const queue = new EventQueue();
  for (let x = 0; x < 200; x++) queue.tryMove({ kind: 'position', x, y: 0, wheel: 0 });
  const told = drain(queue).map((event) => event.kind === 'position' && event.x);
  assert.deepEqual(told, [...Array.from({ length: 50 }, (_, x) => x), 199]);
});

test('movements that follow each other are one when the guest is behind, and nothing else is merged', () => {
  const queue = new EventQueue({ mergeFrom: 1 });
  queue.tryMove({ kind: 'motion', dx: 1, dy: 2, wheel: 0 });
  queue.tryMove({ kind: 'motion', dx: 3, dy: -5, wheel: 1 });
  queue.tryMove({ kind: 'position', x: 1, y: 1, wheel: 0 });
  queue.tryMove({ kind: 'position', x: 7, y: 8, wheel: 0 });
  queue.tryBegin([down(30)]);
  queue.tryMove({ kind: 'position', x: 9, y: 9, wheel: 0 });
  for (const [contact, x] of [
    [0, 1],
    [0, 2],
    [1, 3],
    [1, 4],
  ] as const) {
    queue.tryMoveContact({ kind: 'move', contact, x, y: 0 }, { kind: 'sync', contact });
  }
  assert.deepEqual(drain(queue), [
    { kind: 'motion', dx: 4, dy: -3, wheel: 1 },
    { kind: 'position', x: 7, y: 8, wheel: 0 },
    down(30),
    { kind: 'position', x: 9, y: 9, wheel: 0 },
    { kind: 'move', contact: 0, x: 2, y: 0 },
    { kind: 'sync', contact: 0 },
    { kind: 'move', contact: 1, x: 4, y: 0 },
    { kind: 'sync', contact: 1 },
  ]);
});

test('sums of movements stay inside the fields of the wire', () => {
  const queue = new EventQueue({ mergeFrom: 1 });
  const far: KbdEvent = { kind: 'motion', dx: 0x7fff_ffff, dy: -0x7fff_ffff, wheel: 0 };
  queue.tryMove(far);
  queue.tryMove(far);
  assert.deepEqual(drain(queue), [far]);
});

test('property: a full queue refuses presses, never a release, and never holds more than its capacity', () => {
  const step = fc.record({
    code: fc.integer({ min: 1, max: 400 }),
    action: fc.constantFrom('press', 'press', 'release', 'move', 'take'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 1500, size: 'max' }), (steps) => {
      const queue = new EventQueue();
      const pressed = new Set<number>();
      const taken: KbdEvent[] = [];
      for (const { code, action } of steps) {
        if (action === 'press' && !pressed.has(code) && queue.tryBegin([down(code)])) {
          pressed.add(code);
        }
        if (action === 'release' && pressed.delete(code)) queue.end([up(code)]);
        if (action === 'move') queue.tryMove({ kind: 'position', x: code, y: 0, wheel: 0 });
        if (action === 'take' && queue.head) {
          taken.push(queue.head);
          queue.shift();
        }
        assert(queue.size <= QUEUE_CAPACITY);
      }
      for (const code of pressed) queue.end([up(code)]);
      taken.push(...drain(queue));
      const state = new Map<number, boolean>();
      for (const event of taken) {
        if (event.kind !== 'key') continue;
        assert.equal(
          state.get(event.code) ?? false,
          !event.pressed,
          'presses and releases alternate',
        );
        state.set(event.code, event.pressed);
      }
      assert(![...state.values()].includes(true), 'nothing is down at the end');
    }),
    { numRuns: 50 },
  );
});
