// Who has the memory that is needed: the first that proves it, or every reason why nobody does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import type { AllocateRequest, ContiguityKind, Memory } from '../../src/xen/memory.ts';
import { allocateFor, type MemorySource, satisfies } from '../../src/zcopy/allocator.ts';
import { sharing, sysError } from './world.ts';

const PAGES = 4;
const NEED: AllocateRequest = { pages: PAGES, contiguity: 'host' };

/** A source that gives scattered memory, whatever was asked for. */
function scattered(memory: Memory): MemorySource {
  return {
    name: 'scattered',
    allocate: async ({ pages }) => {
      // Two runs of frames: the page between them is given back.
      const parts = [];
      for (let part = 0; part < 3; part++) {
        parts.push(await memory.allocate({ pages: part === 1 ? 1 : pages, contiguity: 'none' }));
      }
      const [first, between, last] = parts;
      await between!.free();
      await last!.free();
      await first!.free();
      const hole = await memory.allocate({ pages: 1, contiguity: 'none' });
      const buffer = await memory.allocate({ pages, contiguity: 'none' });
      await hole.free();
      return Object.defineProperty(buffer, 'contiguity', {
        value: { kind: 'none', proof: '2 runs of machine frames' },
      });
    },
  };
}

const without: MemorySource = { name: 'card0', allocate: async () => undefined };

function failing(name: string, error: Error): MemorySource {
  return {
    name,
    allocate: async () => {
      throw error;
    },
  };
}

const full = new SysError({ call: 'ioctl', errnoName: 'ENOMEM', context: 'no room on the card' });
const unable = new SysError({ call: 'ioctl', errnoName: 'EOPNOTSUPP', context: 'no such heap' });

test('host-contiguous serves where it is asked for and everywhere else, scattered only where nothing is', () => {
  const kinds: ContiguityKind[] = ['none', 'device', 'host'];
  const table = kinds.map((kind) => kinds.map((needed) => satisfies({ kind, proof: '' }, needed)));
  assert.deepEqual(table, [
    [true, false, false],
    [true, true, false],
    [true, true, true],
  ]);
});

test('the first source that proves what is needed; what is unfit is given back', () =>
  sharing(async ({ dom0, frames }) => {
    const host: MemorySource = {
      name: 'the host',
      allocate: (request) => dom0.memory.allocate(request),
    };
    const never = failing('never asked', new Error('was asked'));
    const sources = [without, scattered(dom0.memory), failing('card1', full), host, never];
    const buffer = await allocateFor(NEED, sources);
    assert.deepEqual([buffer.pages, buffer.contiguity.kind], [PAGES, 'host']);
    assert.equal(frames(), PAGES, 'the unfit memory is back');
    await buffer.free();
    const any = await allocateFor({ ...NEED, contiguity: 'none' }, [scattered(dom0.memory)]);
    await any.free();
  }));

test('when nobody has it, every reason is said: EOPNOTSUPP, or ENOMEM where it lacked only room', () =>
  sharing(async ({ dom0, frames }) => {
    const sources = [without, scattered(dom0.memory), failing('heap', unable)];
    const reasons =
      /4 pages \(contiguity: host\): card0 has none such; scattered gave memory with contiguity none \(2 runs of machine frames\); heap: no such heap/;
    await assert.rejects(allocateFor(NEED, sources), sysError('EOPNOTSUPP', reasons));
    await assert.rejects(
      allocateFor(NEED, [...sources, failing('card1', full)]),
      sysError('ENOMEM', /card1: no room on the card/),
    );
    await assert.rejects(allocateFor(NEED, []), sysError('EOPNOTSUPP'));
    assert.equal(frames(), 0);
  }));

test("a guest's fault and a bug of ours are no reasons to try the next source", async () => {
  const over = new ProtocolViolation('over-budget-poolPages', 'XEN_ENOMEM', 'too much');
  for (const error of [over, new Error('a bug')]) {
    const asked = allocateFor(NEED, [failing('pool', error), failing('next', full)]);
    await assert.rejects(asked, (thrown) => thrown === error);
  }
});
