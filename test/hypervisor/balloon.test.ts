import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { GivenBackPages } from '../../src/hypervisor/guest-balloon.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { SysError } from '../../src/runtime/errors.ts';
import type { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { onMachine } from './world.ts';

const noMemory = (error: unknown) => error instanceof SysError && error.errnoName === 'ENOMEM';
/** Longer than the longest pause between two tries. */
const LONG_MS = 64_000;

function passes(runtime: VirtualRuntime): Promise<void> {
  let over = false;
  runtime.after(LONG_MS, () => {
    over = true;
  });
  return runtime.runUntil(() => over, { what: 'the time is over' });
}

/** What must hold whenever nothing is under way. */
function assertBooks({ balloon, domid }: GuestDomain, ownedBy: (domid: number) => number): void {
  const { pages, givenBackPages, deficit, target } = balloon;
  assert.equal(pages + givenBackPages + deficit, target);
  assert.equal(ownedBy(domid), pages);
}

test('a domain grows and shrinks to its target, within its limit', () =>
  onMachine(
    async ({ dom0, hypervisor }) => {
      const { balloon } = dom0;
      await balloon.setTarget(80);
      assert.deepEqual([hypervisor.memory.ownedBy(DOM0), balloon.deficit], [80, 0]);
      await balloon.setTarget(120);
      assert.deepEqual([hypervisor.memory.ownedBy(DOM0), balloon.deficit], [100, 20]);
      assert.equal(hypervisor.books().domains[0]!.kernel!.balloonDeficit, 20);
      await balloon.setTarget(30);
      assert.deepEqual([hypervisor.memory.ownedBy(DOM0), balloon.deficit], [30, 0]);
      await dom0[Symbol.asyncDispose]();
      assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
    },
    { dom0Limits: { maxFrames: 100 } },
  ));

test('G6: grants are mapped in the place of pages, which come back; what Xen cannot give is owed', () => {
  let refusing = false;
  return onMachine(
    async ({ dom0, guest, hypervisor, runtime }) => {
      const { memory } = hypervisor;
      const alice = guest('alice');
      const { refs } = await alice.grants.share({ domid: DOM0, pages: 6, writable: true });
      await dom0.balloon.setTarget(10);
      const request = { domid: alice.domid, refs, caching: 'coherent' } as const;
      const first = await dom0.foreign.export(request);
      assert.deepEqual([memory.ownedBy(DOM0), dom0.balloon.givenBackPages], [4, 6]);
      first.close();
      assert.equal(await first.released(), true);
      assert.deepEqual([memory.ownedBy(DOM0), dom0.balloon.givenBackPages], [10, 0]);

      const second = await dom0.foreign.export(request);
      refusing = true;
      second.close();
      assert.equal(await second.released(), true, 'the grants are unmapped all the same');
      assert.deepEqual([memory.ownedBy(DOM0), dom0.balloon.deficit], [4, 6]);
      await passes(runtime);
      assert.deepEqual([memory.ownedBy(DOM0), dom0.balloon.deficit], [4, 6]);
      refusing = false;
      await passes(runtime);
      assert.deepEqual([memory.ownedBy(DOM0), dom0.balloon.deficit], [10, 0]);
    },
    { fault: ({ owner }) => refusing && owner === DOM0 },
  );
});

test('a domain without memory at hand asks for it, and does not keep it', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const { refs } = await alice.grants.share({ domid: DOM0, pages: 6, writable: true });
    const request = { domid: alice.domid, refs, caching: 'write-combined' } as const;
    const exported = await dom0.foreign.export(request);
    assert.equal(dom0.balloon.givenBackPages, 6);
    exported.close();
    assert.equal(await exported.released(), true);
    assert.deepEqual([hypervisor.memory.ownedBy(DOM0), dom0.balloon.target], [0, 0]);
  }));

test('G6: a decrease that Xen does in part is undone, and the books stay true', (context) =>
  onMachine(async ({ dom0, hypervisor }) => {
    const { memory } = hypervisor;
    await dom0.balloon.setTarget(10);
    const { relinquish } = memory;
    const mocked = context.mock.method(memory, 'relinquish', (owner: number, frames: Uint32Array) =>
      relinquish.call(memory, owner, frames.subarray(0, 3)),
    );
    await assert.rejects(dom0.balloon.giveBack(8), noMemory);
    mocked.mock.restore();
    assertBooks(dom0, (domid) => memory.ownedBy(domid));
    assert.deepEqual([dom0.balloon.pages, dom0.balloon.deficit], [10, 0]);
  }));

test('a domain at its limit exchanges scattered pages for an extent', () =>
  onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const alice = guest('alice');
      const blocks = [];
      for (let made = 0; made < 16; made++) {
        blocks.push(await alice.memory.allocate({ pages: 1, contiguity: 'none' }));
      }
      for (const [index, block] of blocks.entries()) if (index % 2 === 0) await block.free();
      await dom0.balloon.setTarget(8);
      const buffer = await dom0.memory.allocate({ pages: 7, contiguity: 'host' });
      assert.equal(buffer.contiguity.kind, 'host');
      assert.deepEqual([hypervisor.memory.ownedBy(DOM0), dom0.balloon.pages], [8, 1]);
      await assert.rejects(dom0.memory.allocate({ pages: 2, contiguity: 'host' }), noMemory);
      await buffer.free();
      assert.deepEqual([hypervisor.memory.ownedBy(DOM0), dom0.balloon.pages], [8, 8]);
      assert.equal(dom0.balloon.deficit, 0);
    },
    { dom0Limits: { maxFrames: 8 } },
  ));

test('whatever is given back, restored and refused, the books of a balloon are true', async () => {
  const action = fc.oneof(
    fc.record({ target: fc.integer({ min: 0, max: 60 }) }),
    fc.record({ giveBack: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ restore: fc.nat() }),
    fc.record({ refuse: fc.boolean() }),
    fc.constant({ wait: true }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 30 }), async (actions) => {
      let refusing = false;
      await onMachine(
        async ({ dom0, hypervisor, runtime }) => {
          const out: GivenBackPages[] = [];
          const ownedBy = (domid: number) => hypervisor.memory.ownedBy(domid);
          for (const act of actions) {
            if ('target' in act) {
              await dom0.balloon.setTarget(act.target + dom0.balloon.givenBackPages);
            } else if ('giveBack' in act) {
              const before = dom0.balloon.givenBackPages;
              const given = await dom0.balloon.giveBack(act.giveBack).catch((error) => {
                assert(noMemory(error));
                return undefined;
              });
              assert.equal(dom0.balloon.givenBackPages, before + (given?.pages ?? 0));
              if (given) out.push(given);
            } else if ('restore' in act && out.length > 0) {
              await out.splice(act.restore % out.length, 1)[0]!.restore();
            } else if ('refuse' in act) {
              refusing = act.refuse;
            } else {
              await passes(runtime);
            }
            assert(dom0.balloon.deficit >= 0);
            assertBooks(dom0, ownedBy);
          }
          refusing = false;
          for (const each of out) await each.restore();
          await passes(runtime);
          assertBooks(dom0, ownedBy);
          assert.equal(dom0.balloon.givenBackPages, 0);
          assert.equal(dom0.balloon.deficit, Math.max(0, dom0.balloon.target - 50));
        },
        {
          machineFrames: 256,
          dom0Limits: { maxFrames: 50 },
          fault: ({ owner }) => refusing && owner === DOM0,
        },
      );
    }),
    { numRuns: 60 },
  );
});
