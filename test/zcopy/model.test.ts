// Whatever guests, readers, drivers and those who release do, in whatever order: a buffer is released when
// nobody has it, and not before, and nothing is left in the end.

import { test } from 'node:test';
import fc from 'fast-check';
import { Model, type ModelBuffer, type ModelGuest } from './model.ts';
import { sharing } from './world.ts';

const RUNS = 60;
const STEPS_MAX = 40;
const GUESTS = 2;
/** Deaths make domains; a machine has room for so many here. */
const GUESTS_MAX = 6;

/** One step: what is done, to which of the things there are, and a number for it. */
interface Step {
  readonly what: keyof typeof ACTIONS;
  readonly which: number;
  readonly size: number;
}

interface Target {
  readonly model: Model;
  readonly guest: ModelGuest;
  readonly buffer: ModelBuffer | undefined;
  /** 0 to 7. */
  readonly size: number;
}

const ACTIONS = {
  fromRefs: ({ model, guest, size }: Target) => model.fromRefs(guest, size + 1),
  toRefs: ({ model, guest, size }: Target) => model.toRefs(guest, size + 1),
  read: ({ model, buffer }: Target) => buffer && model.read(buffer),
  stopReading: ({ buffer }: Target) => buffer?.readers.pop()?.(),
  attach: ({ model, buffer }: Target) => buffer && model.attach(buffer),
  detach: ({ buffer }: Target) => buffer?.devices.pop()?.[Symbol.dispose](),
  map: ({ model, buffer, size }: Target) => buffer && model.map(buffer, size % 2 === 0),
  unmap: ({ model, buffer }: Target) => buffer && model.unmap(buffer),
  revoke: ({ model, buffer }: Target) => buffer && model.revoke(buffer),
  hurry: ({ buffer }: Target) => buffer?.buffer.hurry(),
  release: ({ model, buffer, size }: Target) => buffer && model.release(buffer, size * 100),
  pause: ({ model, size }: Target) => model.world.pause(size * 20),
  settle: ({ model }: Target) => model.settle(),
  die: async ({ model, guest, size }: Target) => {
    if (size !== 0 || model.guests.length >= GUESTS_MAX) return;
    model.kill(guest);
    await model.addGuest();
  },
} as const;

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom(...(Object.keys(ACTIONS) as (keyof typeof ACTIONS)[])),
  which: fc.nat(1000),
  size: fc.nat(7),
});

test('a buffer is released when nobody has it and not before, whatever everybody does', async () => {
  const steps = fc.array(step, { minLength: 5, maxLength: STEPS_MAX, size: 'max' });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1 }), steps, (seed, done) =>
      sharing(
        async (world) => {
          const model = new Model(world);
          for (let count = 0; count < GUESTS; count++) await model.addGuest();
          for (const { what, which, size } of done) {
            const guest = model.guests[which % model.guests.length]!;
            const buffer = model.buffers[which % Math.max(1, model.buffers.length)];
            await ACTIONS[what]({ model, guest, buffer, size });
          }
          await model.settle();
          await model.finish();
        },
        { seed },
      ),
    ),
    { numRuns: RUNS },
  );
});
