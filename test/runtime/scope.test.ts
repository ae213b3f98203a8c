import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Scope } from '../../src/runtime/scope.ts';

test('closing releases newest first, children included, and goes on when a release fails', async () => {
  const order: string[] = [];
  const scope = new Scope('test');
  scope.defer(() => void order.push('first'));
  const child = scope.child('child');
  child.defer(() => void order.push('in child'));
  scope.defer(() => {
    order.push('fails');
    throw new Error('no');
  });
  await assert.rejects(scope.close(), /no/);
  assert.deepEqual(order, ['fails', 'in child', 'first']);
  assert(scope.signal.aborted);
});

test('a child that is closed by itself leaves its parent', async () => {
  const scope = new Scope('test');
  const child = scope.child('child');
  assert.equal(scope.size, 1);
  await child.close();
  assert.equal(scope.size, 0);
  await scope.close();
});

test('what arrives in a closed scope is released at once', async () => {
  const scope = new Scope('test');
  await scope.close();
  let released = 0;
  assert.throws(() => scope.own({ [Symbol.dispose]: () => void released++ }), /closed/);
  assert.equal(released, 1);
});

test('closing twice releases once', async () => {
  let released = 0;
  const scope = new Scope('test');
  scope.defer(() => void released++);
  await Promise.all([scope.close(), scope.close()]);
  assert.equal(released, 1);
});
