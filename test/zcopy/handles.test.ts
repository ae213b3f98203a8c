import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Handles } from '../../src/zcopy/handles.ts';

const give = (handles: Handles<object>, count: number) =>
  Array.from({ length: count }, () => handles.reserve());

test('the lowest free number comes first, and a full table has none', () => {
  const handles = new Handles<object>({ capacity: 3, last: 100, order: 'lowest' });
  assert.deepEqual(give(handles, 4), [1, 2, 3, undefined]);
  handles.delete(2);
  assert.deepEqual(give(handles, 2), [2, undefined]);
});

test('cyclic numbers come in a row, and go round past those in use', () => {
  const handles = new Handles<object>({ capacity: 3, last: 5, order: 'cyclic' });
  assert.deepEqual(give(handles, 3), [1, 2, 3]);
  handles.delete(1);
  handles.delete(3);
  assert.deepEqual(give(handles, 3), [4, 5, undefined]);
  handles.delete(4);
  assert.deepEqual(give(handles, 1), [1]);
  handles.delete(5);
  assert.deepEqual(give(handles, 1), [3], '2 is in use');
});

test('a reserved number names nothing, and is named once', () => {
  const handles = new Handles<object>({ capacity: 3, last: 3, order: 'lowest' });
  const handle = handles.reserve()!;
  assert.deepEqual([handles.get(handle), handles.entries], [undefined, []]);
  const object = {};
  handles.set(handle, object);
  assert.equal(handles.get(handle), object);
  assert.deepEqual(handles.entries, [[handle, object]]);
  assert.throws(() => handles.set(handle, object), /not reserved/);
  assert.throws(() => handles.set(3, object), /not reserved/);
});
