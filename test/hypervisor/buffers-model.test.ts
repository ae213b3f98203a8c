// Pools, buffers, loans, mappings and dma-bufs in any order, against a reference that counts: who holds
// which page, what is free, and that no page shows anything that it should not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Attachment } from '../../src/hypervisor/dma-buf.ts';
import { DmaDevice } from '../../src/hypervisor/dma-device.ts';
import type { GuestBuffer } from '../../src/hypervisor/guest-buffer.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { GuestExport } from '../../src/hypervisor/guest-export.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { type ForeignMapping, GrantMapError, type LentPages } from '../../src/xen/domain.ts';
import { DOM0, type Gref } from '../../src/xen/ids.ts';
import type { MemoryPool } from '../../src/xen/memory.ts';
import { onMachine, type World } from './world.ts';

const POOL_PAGES = 12;
const DEVICE = new DmaDevice({ name: 'gpu', addressBits: 48, maxSegments: POOL_PAGES });

interface Buffer {
  readonly buffer: GuestBuffer;
  /** What the lender painted into it. */
  readonly paint: number;
  freed: boolean;
}

interface Loan {
  readonly of: Buffer;
  readonly lent: LentPages;
  /** References that have not ended. */
  readonly live: Set<Gref>;
}

/** What the borrower has: a mapping, or a dma-buf with its device. */
interface Use {
  readonly of: Loan;
  readonly refs: readonly Gref[];
  readonly held: ForeignMapping | { readonly exported: GuestExport; readonly device: Attachment };
}

const action = fc.oneof(
  { weight: 3, arbitrary: fc.record({ allocate: fc.integer({ min: 1, max: POOL_PAGES }) }) },
  { weight: 3, arbitrary: fc.record({ lend: fc.nat(), writable: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ map: fc.nat(), from: fc.nat(), count: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ exported: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ unuse: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ end: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ free: fc.nat() }) },
);
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

class Model {
  readonly #world: World;
  readonly #alice: GuestDomain;
  readonly #pool: MemoryPool;
  #buffers: Buffer[] = [];
  #loans: Loan[] = [];
  #uses: Use[] = [];
  #paint = 0;

  constructor(world: World, alice: GuestDomain, pool: MemoryPool) {
    this.#world = world;
    this.#alice = alice;
    this.#pool = pool;
  }

  async act(act: Action): Promise<void> {
    if ('allocate' in act) await this.#allocate(act.allocate);
    else if ('lend' in act) await this.#lend(pick(this.#buffers, act.lend), act.writable);
    else if ('map' in act) await this.#map(pick(this.#loans, act.map), act);
    else if ('exported' in act) await this.#export(pick(this.#loans, act.exported));
    else if ('unuse' in act) await this.#unuse(pick(this.#uses, act.unuse));
    else if ('end' in act) await this.#end(pick(this.#loans, act.end));
    else await this.#free(pick(this.#buffers, act.free));
    await this.#check();
  }

  /** The guest dies, with all that it uses; then everything can be had back. */
  async finish(): Promise<void> {
    this.#world.hypervisor.destroy(this.#alice.domid);
    this.#uses = [];
    for (const each of [...this.#buffers]) await this.#free(each);
    assert.equal(this.#pool.freePages, POOL_PAGES);
    await this.#pool[Symbol.asyncDispose]();
    assert.deepEqual(leakReport(this.#world.hypervisor.books()), []);
  }

  async #allocate(pages: number): Promise<void> {
    const { freePages } = this.#pool;
    try {
      const buffer = (await this.#pool.allocate(pages)) as GuestBuffer;
      assert(pages <= freePages);
      assert(
        buffer.bytes.every((byte) => byte === 0),
        'zeroed when it is lent',
      );
      const paint = 1 + (this.#paint++ % 255);
      buffer.bytes.fill(paint);
      this.#buffers.push({ buffer, paint, freed: false });
    } catch (error) {
      assert(error instanceof SysError && pages > freePages);
    }
  }

  async #lend(of: Buffer | undefined, writable: boolean): Promise<void> {
    if (!of || of.freed) return;
    const { domid } = this.#alice;
    const lent = await this.#world.dom0.grants.lend({ domid, buffer: of.buffer, writable });
    const inUse = this.#loans.flatMap(({ live }) => [...live]);
    assert(!lent.refs.some((ref) => inUse.includes(ref)), 'references that live are not given out');
    this.#loans.push({ of, lent, live: new Set(lent.refs) });
  }

  async #map(of: Loan | undefined, at: { from: number; count: number }): Promise<void> {
    if (!of) return;
    const { refs: all, writable } = of.lent;
    const from = at.from % all.length;
    const refs = all.slice(from, from + 1 + (at.count % (all.length - from)));
    const mapping = this.#alice.foreign.map({ domid: DOM0, refs, writable });
    const held = await this.#unlessEnded(of, refs, mapping);
    if (!held) return;
    assert(
      held.bytes.every((byte) => byte === of.of.paint),
      'the borrower sees this loan and no other',
    );
    this.#uses.push({ of, refs, held });
  }

  async #export(of: Loan | undefined): Promise<void> {
    if (!of?.lent.writable) return;
    const { refs } = of.lent;
    const request = { domid: DOM0, refs, caching: 'cached' } as const;
    const exported = await this.#unlessEnded(of, refs, this.#alice.foreign.export(request));
    if (!exported) return;
    const device = exported.attach(DEVICE);
    device.map('to-device');
    exported.close();
    assert.equal(await exported.released(), false);
    this.#uses.push({ of, refs, held: { exported, device } });
  }

  /** A reference that has ended may name nothing, or a page of a later loan; it must not name an old one. */
  async #unlessEnded<T>(of: Loan, refs: readonly Gref[], made: Promise<T>): Promise<T | undefined> {
    if (refs.every((ref) => of.live.has(ref))) return made;
    const stale = await made.catch((error: unknown) => {
      assert(error instanceof GrantMapError);
      return undefined;
    });
    if (stale !== undefined) await dispose(stale as ForeignMapping | GuestExport);
    return undefined;
  }

  async #unuse(use: Use | undefined): Promise<void> {
    if (!use) return;
    this.#uses = this.#uses.filter((each) => each !== use);
    if (!('device' in use.held)) return use.held[Symbol.asyncDispose]();
    use.held.device[Symbol.dispose]();
    assert.equal(await use.held.exported.released(), true);
  }

  async #end(loan: Loan | undefined): Promise<void> {
    if (!loan) return;
    const { heldPages } = await loan.lent.end();
    this.#endLive(loan);
    assert.equal(heldPages, loan.live.size);
  }

  async #free(of: Buffer | undefined): Promise<void> {
    if (!of) return;
    const { heldPages } = await of.buffer.free();
    of.freed = true;
    const held = new Set<number>();
    for (const loan of this.#loans.filter((each) => each.of === of)) {
      this.#endLive(loan);
      for (const ref of loan.live) held.add(loan.lent.refs.indexOf(ref));
    }
    assert.equal(heldPages, held.size);
    if (heldPages === 0) this.#buffers = this.#buffers.filter((each) => each !== of);
  }

  /** In the reference: what nobody uses has ended. */
  #endLive(loan: Loan): void {
    const used = new Set(
      this.#uses.filter(({ of }) => of === loan).flatMap(({ refs }) => [...refs]),
    );
    for (const ref of loan.live) if (!used.has(ref)) loan.live.delete(ref);
    if (loan.live.size === 0) this.#loans = this.#loans.filter((each) => each !== loan);
  }

  async #check(): Promise<void> {
    const { hypervisor } = this.#world;
    assert.equal(hypervisor.memory.ownedBy(DOM0), POOL_PAGES, 'the pool is what was set aside');
    const refs = new Set(this.#uses.flatMap(({ refs }) => [...refs]));
    const [zero, one] = hypervisor.books().domains;
    assert.equal(zero!.grantsMapped, refs.size);
    assert.equal(
      one!.maptrackUsed,
      this.#uses.reduce((total, use) => total + use.refs.length, 0),
    );
    assert.equal(
      zero!.grantsGiven,
      this.#loans.reduce((total, { live }) => total + live.size, 0),
    );
    for (const { of, held } of this.#uses) {
      if ('device' in held) continue;
      for (let at = 0; at < held.bytes.length; at += PAGE_SIZE) {
        assert.equal(held.bytes[at], of.of.paint, 'what is mapped never becomes another’s');
      }
    }
  }
}

function pick<T>(from: readonly T[], index: number): T | undefined {
  return from[index % from.length];
}

async function dispose(held: ForeignMapping | GuestExport): Promise<void> {
  if (!('released' in held)) return held[Symbol.asyncDispose]();
  held.close();
  assert.equal(await held.released(), true);
}

test('pools, loans, mappings and dma-bufs in any order: every page is where the reference says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 40 }), async (actions) => {
      await onMachine(
        async (world) => {
          const alice = world.guest('alice');
          const { domid } = alice;
          const pool = await world.dom0.memory.createPool({ domid, pages: POOL_PAGES });
          const model = new Model(world, alice, pool);
          for (const act of actions) await model.act(act);
          await model.finish();
        },
        { machineFrames: 256 },
      );
    }),
    { numRuns: 80 },
  );
});
