import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AddressSpace } from '../../src/hypervisor/address-space.ts';
import { MachineMemory } from '../../src/hypervisor/machine-memory.ts';
import { Mapping } from '../../src/posix/mapping.ts';

function open(space: AddressSpace) {
  return space.add({ mapping: new Mapping(1), frames: new Uint32Array(1) });
}

test('a window closed in this thread leaves its addresses to the garbage collector', () => {
  const space = new AddressSpace('this-thread');
  const window = open(space);
  space.close(window);
  assert(window.mapping?.closed);
  assert.deepEqual([space.size, space.parked], [0, 0]);
});

test('a window of another thread is parked until its view is dropped, before or after closing', () => {
  const space = new AddressSpace('other-thread');
  const [first, second, third] = [open(space), open(space), open(space)];
  space.close(first);
  assert(first.mapping?.closed, 'revoked at once');
  assert.equal(space.parked, 1);
  space.viewDropped(first.id);
  assert.equal(space.parked, 0);
  space.viewDropped(second.id);
  space.close(second);
  assert.equal(space.parked, 0, 'nobody looks at it any more');
  space.close(third);
  space.viewDropped(4711);
  assert.equal(space.parked, 1);
  space.allViewsDropped();
  assert.equal(space.parked, 0);
});

test('a window of another process is not shown in this one, and has nothing to park', () => {
  const space = new AddressSpace('other-process');
  using memory = new MachineMemory({ frames: 8, onFreed: () => {} });
  const frames = memory.allocate(1, 2)!;
  const window = space.add({ mapping: space.show(memory, frames, true), frames });
  assert.equal(window.mapping, undefined);
  assert.equal(space.size, 1);
  space.close(window);
  assert.deepEqual([space.size, space.parked], [0, 0]);
});
