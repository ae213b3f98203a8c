import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { displSring } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { BackRing, FrontRing, initRing } from '../../src/xen/ring.ts';
import { check, type Untrusted } from '../../src/xen/untrusted.ts';

const SIZE = 32;
const JUST_BEFORE_WRAP = 2 ** 32 - 3;

const [REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT] = [0, 1, 2, 3] as const;

/** A ring that has been used until its indices reached `start`. */
function ringAt(start: number) {
  const page = new Uint8Array(PAGE_SIZE);
  initRing(page, displSring);
  const words = new Uint32Array(page.buffer);
  words[REQ_PROD] = start;
  words[RSP_PROD] = start;
  words[REQ_EVENT] = start + 1;
  words[RSP_EVENT] = start + 1;
  return {
    page,
    words,
    back: new BackRing(page, displSring),
    front: new FrontRing(page, displSring),
  };
}

function message(number: number): Uint8Array {
  const bytes = new Uint8Array(64).fill(number & 0xff);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

function numberOf(taken: Untrusted<DataView> | undefined): number | undefined {
  return taken === undefined ? undefined : check(taken, (view) => view.getUint32(0, true));
}

function violation(reason: string) {
  return (error: unknown) => error instanceof ProtocolViolation && error.reason === reason;
}

test('a fresh ring is as SHARED_RING_INIT leaves it', () => {
  const page = new Uint8Array(PAGE_SIZE).fill(0xff);
  initRing(page, displSring);
  const words = new Uint32Array(page.buffer);
  assert.deepEqual([...words.subarray(0, 4)], [0, 1, 0, 1]);
  assert(words.subarray(4).every((word) => word === 0));
  assert.equal(new BackRing(page, displSring).size, SIZE);
});

test('property: ring and model agree for any interleaving, from any index', () => {
  const operations = fc.array(
    fc.constantFrom('put', 'push', 'take', 'answer', 'flush', 'collect', 'rest', 'idle'),
    { maxLength: 400 },
  );
  const starts = fc.oneof(fc.constantFrom(0, JUST_BEFORE_WRAP, 2 ** 31 - 3), fc.nat(2 ** 32 - 1));
  fc.assert(
    fc.property(starts, operations, (start, ops) => {
      const { front, back } = ringAt(start);
      const model = { put: 0, pushed: 0, taken: 0, answered: 0, flushed: 0, collected: 0 };
      for (const op of ops) {
        if (op === 'put') {
          const fits = model.put - model.collected < SIZE;
          assert.equal(front.put(message(model.put)), fits);
          if (fits) model.put++;
        } else if (op === 'push') {
          front.push();
          model.pushed = model.put;
        } else if (op === 'take') {
          const expected = model.taken < model.pushed ? model.taken++ : undefined;
          assert.equal(numberOf(back.take()), expected);
        } else if (op === 'answer') {
          if (model.answered < model.taken) back.put(message(1000 + model.answered++));
        } else if (op === 'flush') {
          back.push();
          model.flushed = model.answered;
        } else if (op === 'collect') {
          const expected = model.collected < model.flushed ? 1000 + model.collected++ : undefined;
          assert.equal(numberOf(front.take()), expected);
        } else if (op === 'rest') {
          assert.equal(back.finalCheck(), model.taken < model.pushed);
        } else {
          assert.equal(front.finalCheck(), model.collected < model.flushed);
        }
        assert.equal(back.unanswered, model.taken - model.answered);
        assert.equal(front.unanswered, model.put - model.collected);
      }
    }),
  );
});

test('property: an end that rests after its final check is always notified of what comes next', () => {
  const bursts = fc.array(fc.integer({ min: 1, max: SIZE }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(fc.constantFrom(0, JUST_BEFORE_WRAP, 2 ** 32 - 40), bursts, (start, counts) => {
      const { front, back } = ringAt(start);
      for (const count of counts) {
        for (let i = 0; i < count; i++) assert(front.put(message(i)));
        assert.equal(front.push(), true, 'the resting backend is notified');
        assert.equal(front.push(), false, 'nothing new, no notification');
        while (back.take() !== undefined) back.put(message(0));
        assert.equal(back.finalCheck(), false);
        assert.equal(back.push(), true, 'the resting frontend is notified');
        while (front.take() !== undefined);
        assert.equal(front.finalCheck(), false);
      }
    }),
  );
});

test('no notification while the peer is still at work', () => {
  const { front, back } = ringAt(JUST_BEFORE_WRAP);
  front.put(message(0));
  assert.equal(front.push(), true);
  assert.equal(numberOf(back.take()), 0);
  front.put(message(1));
  assert.equal(front.push(), false, 'the backend has not rested since');
  assert.equal(back.finalCheck(), true, 'and finds it by itself');
});

test('a request that arrives between the last take and the final check is not lost (X4)', () => {
  const { front, back } = ringAt(0);
  assert.equal(back.take(), undefined);
  front.put(message(5));
  front.push();
  assert.equal(back.finalCheck(), true);
  assert.equal(numberOf(back.take()), 5);
});

test('a producer beyond the ring, or going backwards, breaks it (R1)', () => {
  for (const start of [0, JUST_BEFORE_WRAP]) {
    for (const jump of [SIZE + 1, 2 ** 31, -1]) {
      const { words, back } = ringAt(start);
      words[REQ_PROD] = start + jump;
      assert.throws(() => back.take(), violation('request-prod-overflow'));
      assert.throws(() => back.finalCheck(), violation('request-prod-overflow'));
    }
    const { words, back } = ringAt(start);
    words[REQ_PROD] = start + SIZE;
    for (let i = 0; i < SIZE; i++) assert(back.take() !== undefined);
    assert.equal(back.take(), undefined, 'a full ring is not an overflow');
    words[REQ_PROD] = start + SIZE + 1;
    assert.throws(() => back.take(), violation('request-prod-overflow'), 'unanswered ones count');
  }
});

test('a producer that moves backwards in the middle of a batch breaks the ring (R1)', () => {
  const { words, back } = ringAt(JUST_BEFORE_WRAP);
  words[REQ_PROD] = JUST_BEFORE_WRAP + 10;
  for (let i = 0; i < 6; i++) assert(back.take() !== undefined);
  words[REQ_PROD] = JUST_BEFORE_WRAP + 4;
  assert.throws(() => back.take(), violation('request-prod-overflow'));
});

test('a frontend does not believe in answers to what it never asked (trap 15)', () => {
  const { words, front } = ringAt(JUST_BEFORE_WRAP);
  front.put(message(0));
  words[RSP_PROD] = JUST_BEFORE_WRAP + 1;
  assert.throws(() => front.take(), violation('response-prod-overflow'), 'put, but not pushed');
  front.push();
  assert(front.take() !== undefined);
  words[RSP_PROD] = JUST_BEFORE_WRAP + 2;
  assert.throws(() => front.take(), violation('response-prod-overflow'));
});

test('thresholds set to suppress or to storm change notifications and nothing else (R1)', () => {
  const { words, front, back } = ringAt(0);
  for (const [rspEvent, expected] of [
    [1, true],
    [2 ** 31, false],
    [2 ** 32 - 1, false],
    [4, true],
  ] as const) {
    front.put(message(1));
    front.push();
    back.take();
    back.put(message(2));
    words[RSP_EVENT] = rspEvent;
    assert.equal(back.push(), expected, `rsp_event ${rspEvent}`);
    assert.equal(numberOf(front.take()), 2);
  }
});

test('a request that changes after it was taken does not change what was taken (R2)', () => {
  const { page, front, back } = ringAt(0);
  front.put(message(7));
  front.push();
  const taken = back.take()!;
  page.fill(0xff, 64);
  assert.equal(numberOf(taken), 7);
});

test('a response without a request, or of the wrong size, is our own bug', () => {
  const { front, back } = ringAt(0);
  assert.throws(() => back.put(message(0)), { name: 'AssertionError' });
  front.put(message(0));
  front.push();
  back.take();
  assert.throws(() => back.put(new Uint8Array(8)), { name: 'AssertionError' });
  assert.throws(() => front.put(new Uint8Array(8)), { name: 'AssertionError' });
});
