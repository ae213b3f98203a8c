import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  GNTST_bad_domain,
  GNTST_bad_gntref,
  GNTST_bad_handle,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_no_space,
  GNTST_okay,
  GTF_accept_transfer,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_sub_page,
  GTF_writing,
} from '../../src/abi/grant-table.ts';
import { mapGrant, unmapGrant } from '../../src/hypervisor/grant-operations.ts';
import { GRANTS_PER_FRAME, wordsOf } from '../../src/hypervisor/grant-table.ts';
import type { DomainLimits, HostedDomain } from '../../src/hypervisor/hosted-domain.ts';
import { Hypervisor } from '../../src/hypervisor/hypervisor.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DOM0, type DomId, type Gref } from '../../src/xen/ids.ts';

const MACHINE_FRAMES = 4096;
const REF = 8 as Gref;

/** One granting domain whose table is written by hand, and dom0 that maps. */
class Bench implements Disposable {
  readonly hypervisor: Hypervisor;
  readonly granter: HostedDomain;
  readonly words: Uint32Array;
  readonly frame: number;

  constructor(dom0Limits: Partial<DomainLimits> = {}) {
    const runtime = new VirtualRuntime(1);
    this.hypervisor = new Hypervisor({ runtime, machineFrames: MACHINE_FRAMES, dom0Limits });
    this.granter = this.hypervisor.createDomain({ name: 'granter' });
    this.words = wordsOf(this.granter.grants.mapping.bytes);
    this.frame = this.hypervisor.memory.allocate(this.granter.domid, 1)![0]!;
  }

  get dom0(): HostedDomain {
    return this.hypervisor.domain(DOM0)!;
  }

  entry(ref: number, { flags, domid = DOM0, frame = this.frame }: Entry): void {
    this.words[ref * 2 + 1] = frame;
    this.words[ref * 2] = flags | (domid << 16);
  }

  flags(ref: number): number {
    return this.words[ref * 2]! & 0xffff;
  }

  map(ref: number, { writable = true, mapper = this.dom0, domid = this.granter.domid } = {}) {
    return mapGrant(this.hypervisor, mapper, { domid, ref: ref as Gref, writable });
  }

  unmap(handle: number, mapper = this.dom0): number {
    const { status, frame } = unmapGrant(this.hypervisor, mapper, handle);
    this.hypervisor.memory.release(Uint32Array.of(frame));
    return status;
  }

  /** Every refused operation leaves no handle, no pin, no bit. */
  assertNothingMapped(): void {
    assert.equal(this.dom0.maptrack.used, 0);
    assert.equal(this.granter.grants.pinnedEntries, 0);
    assert.equal(this.flags(REF) & (GTF_reading | GTF_writing), 0);
  }

  [Symbol.dispose](): void {
    this.hypervisor[Symbol.dispose]();
    assert.equal(this.hypervisor.memory.freeFrames, MACHINE_FRAMES - 1);
  }
}

interface Entry {
  readonly flags: number;
  readonly domid?: number;
  readonly frame?: number;
}

test('GNTST_okay: reading and writing are set while mapped, by kind, and cleared with the last', () => {
  using bench = new Bench();
  bench.entry(REF, { flags: GTF_permit_access });
  const reader = bench.map(REF, { writable: false });
  assert.deepEqual([reader.status, reader.frame], [GNTST_okay, bench.frame]);
  assert.equal(bench.flags(REF), GTF_permit_access | GTF_reading);
  const writer = bench.map(REF);
  assert.equal(bench.flags(REF), GTF_permit_access | GTF_reading | GTF_writing);
  assert.equal(bench.unmap(writer.handle), GNTST_okay);
  assert.equal(bench.flags(REF), GTF_permit_access | GTF_reading);
  assert.equal(bench.unmap(reader.handle), GNTST_okay);
  assert.equal(bench.flags(REF), GTF_permit_access);
  bench.assertNothingMapped();
});

test('GNTST_bad_domain: no such domain', () => {
  using bench = new Bench();
  assert.equal(bench.map(REF, { domid: 77 as DomId }).status, GNTST_bad_domain);
  bench.assertNothingMapped();
});

test('GNTST_bad_gntref: beyond the table, until the table has grown', () => {
  using bench = new Bench();
  const ref = GRANTS_PER_FRAME;
  assert.equal(bench.map(ref).status, GNTST_bad_gntref);
  assert.equal(bench.map(0xffff_ffff).status, GNTST_bad_gntref);
  assert.equal(bench.granter.grants.grow(2), true);
  bench.entry(ref, { flags: GTF_permit_access });
  const { status, handle } = bench.map(ref);
  assert.equal(status, GNTST_okay);
  bench.unmap(handle);
  assert.equal(bench.granter.grants.grow(64), true);
  assert.equal(bench.granter.grants.grow(65), false);
  bench.assertNothingMapped();
});

test('GNTST_general_error: unused entry, other type, other domain, part of a page', () => {
  using bench = new Bench();
  const refused: Entry[] = [
    { flags: 0 },
    { flags: GTF_accept_transfer },
    { flags: GTF_permit_access, domid: 5 },
    { flags: GTF_permit_access | GTF_sub_page },
  ];
  for (const entry of refused) {
    bench.entry(REF, entry);
    assert.equal(bench.map(REF).status, GNTST_general_error);
    bench.assertNothingMapped();
  }
});

test('GNTST_general_error: a read-only grant mapped writable, also while mapped for reading', () => {
  using bench = new Bench();
  bench.entry(REF, { flags: GTF_permit_access | GTF_readonly });
  assert.equal(bench.map(REF).status, GNTST_general_error);
  const reader = bench.map(REF, { writable: false });
  assert.equal(reader.status, GNTST_okay);
  assert.equal(bench.map(REF).status, GNTST_general_error);
  assert.equal(bench.flags(REF), GTF_permit_access | GTF_readonly | GTF_reading);
  bench.unmap(reader.handle);
  bench.assertNothingMapped();
});

test('GNTST_bad_page: a frame that is not the granting domain’s: free, Xen’s, another’s, none at all', () => {
  using bench = new Bench();
  const [xenFrame] = bench.granter.sharedInfoFrame;
  const [foreign] = bench.hypervisor.memory.allocate(DOM0, 1)!;
  for (const frame of [0, MACHINE_FRAMES - 1, MACHINE_FRAMES, 0xffff_ffff, xenFrame!, foreign!]) {
    bench.entry(REF, { flags: GTF_permit_access, frame });
    assert.equal(bench.map(REF).status, GNTST_bad_page, `frame ${frame}`);
    bench.assertNothingMapped();
  }
});

test('GNTST_no_space: the mapping domain’s maptrack is full', () => {
  using bench = new Bench({ maxMaptrackFrames: 1 });
  bench.granter.grants.grow(2);
  const handles: number[] = [];
  for (let ref = 8; ref < 8 + 256; ref++) {
    bench.entry(ref, { flags: GTF_permit_access });
    handles.push(bench.map(ref).handle);
  }
  bench.entry(300, { flags: GTF_permit_access });
  assert.equal(bench.map(300).status, GNTST_no_space);
  assert.equal(bench.flags(300), GTF_permit_access);
  assert.equal(bench.unmap(handles.pop()!), GNTST_okay);
  const again = bench.map(300);
  assert.equal(again.status, GNTST_okay);
  for (const handle of [...handles, again.handle]) assert.equal(bench.unmap(handle), GNTST_okay);
  bench.assertNothingMapped();
});

test('GNTST_bad_handle: never given out, given back already', () => {
  using bench = new Bench();
  bench.entry(REF, { flags: GTF_permit_access });
  const { handle } = bench.map(REF);
  assert.equal(bench.unmap(handle), GNTST_okay);
  for (const bad of [handle, 4711, 0xffff_ffff]) assert.equal(bench.unmap(bad), GNTST_bad_handle);
  bench.assertNothingMapped();
});

test('a pin count stops at 128 of one kind, and the 129th is refused', () => {
  using bench = new Bench();
  bench.entry(REF, { flags: GTF_permit_access });
  const handles = Array.from({ length: 128 }, () => bench.map(REF, { writable: false }));
  assert(handles.every(({ status }) => status === GNTST_okay));
  assert.equal(bench.map(REF, { writable: false }).status, GNTST_general_error);
  const writer = bench.map(REF);
  assert.equal(writer.status, GNTST_okay, 'the other kind has a count of its own');
  for (const { handle } of [...handles, writer]) bench.unmap(handle);
  bench.assertNothingMapped();
});

test('XSA-500: what a domain writes into a mapped entry changes nothing that is mapped', () => {
  using bench = new Bench();
  const [other] = bench.hypervisor.memory.allocate(bench.granter.domid, 1)!;
  const stranger = bench.hypervisor.createDomain({ name: 'stranger' });
  bench.entry(REF, { flags: GTF_permit_access });
  const first = bench.map(REF, { writable: false });
  bench.entry(REF, { flags: GTF_permit_access, domid: stranger.domid, frame: other! });
  const second = bench.map(REF, { writable: false });
  assert.equal(second.frame, bench.frame, 'the frame of the active entry');
  assert.equal(bench.map(REF, { mapper: stranger }).status, GNTST_general_error);
  bench.unmap(first.handle);
  bench.unmap(second.handle);
  const afterwards = bench.map(REF, { mapper: stranger });
  assert.equal(afterwards.frame, other);
  bench.unmap(afterwards.handle, stranger);
});

test('an entry that changes at every look is given up after a bounded number of tries', (context) => {
  using bench = new Bench();
  bench.entry(REF, { flags: GTF_permit_access });
  const unstable = context.mock.method(Atomics, 'compareExchange', () => 0xdead_0001);
  assert.equal(bench.map(REF).status, GNTST_general_error);
  assert(unstable.mock.callCount() <= 5);
  unstable.mock.restore();
  bench.assertNothingMapped();
});

/** What the table must do, said without any of its mechanics. */
class Model {
  readonly entries = new Map<number, Entry>();
  readonly active = new Map<
    number,
    { frame: number; pins: { handle: number; writable: boolean }[] }
  >();

  map(ref: number, writable: boolean): number {
    const { flags, domid, frame } = this.entries.get(ref) ?? { flags: 0 };
    const active = this.active.get(ref);
    const pinsOfKind = active?.pins.filter((pin) => pin.writable === writable).length ?? 0;
    const hasWriter = active?.pins.some((pin) => pin.writable) ?? false;
    if (pinsOfKind >= 128) return GNTST_general_error;
    if (writable && !hasWriter && (flags & GTF_readonly) !== 0) return GNTST_general_error;
    if (active) return active.frame;
    if ((flags & 3) !== GTF_permit_access || domid !== DOM0) return GNTST_general_error;
    return frame === undefined ? GNTST_bad_page : frame;
  }
}

test('any sequence of writing entries, mapping and unmapping does what a simple model says', () => {
  const refs = [8, 9, 10];
  const ref = fc.constantFrom(...refs);
  const action = fc.oneof(
    fc.record({
      write: ref,
      flags: fc.constantFrom(0, GTF_permit_access, GTF_permit_access | GTF_readonly),
      domid: fc.constantFrom(0, 0, 0, 3),
      frame: fc.nat(2),
    }),
    fc.record({ map: ref, writable: fc.boolean() }),
    fc.record({ unmap: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
      using bench = new Bench();
      const frames = [
        bench.frame,
        bench.hypervisor.memory.allocate(bench.granter.domid, 1)![0]!,
        0,
      ];
      const model = new Model();
      const handles: { handle: number; ref: number }[] = [];
      for (const act of actions) {
        if ('write' in act) {
          const claimed = bench.flags(act.write) & (GTF_reading | GTF_writing);
          const frame = frames[act.frame]!;
          bench.entry(act.write, { flags: act.flags | claimed, domid: act.domid, frame });
          model.entries.set(act.write, {
            flags: act.flags,
            domid: act.domid,
            ...(frame === 0 ? {} : { frame }),
          });
        } else if ('map' in act) {
          const expected = model.map(act.map, act.writable);
          const { status, handle, frame } = bench.map(act.map, { writable: act.writable });
          assert.equal(status === GNTST_okay ? frame : status, expected);
          if (status !== GNTST_okay) continue;
          const active = model.active.get(act.map) ?? { frame, pins: [] };
          active.pins.push({ handle, writable: act.writable });
          model.active.set(act.map, active);
          handles.push({ handle, ref: act.map });
        } else if (handles.length > 0) {
          const [gone] = handles.splice(act.unmap % handles.length, 1);
          assert.equal(bench.unmap(gone!.handle), GNTST_okay);
          const { pins } = model.active.get(gone!.ref)!;
          pins.splice(
            pins.findIndex(({ handle }) => handle === gone!.handle),
            1,
          );
          if (pins.length === 0) model.active.delete(gone!.ref);
        }
        for (const each of refs) {
          const pins = model.active.get(each)?.pins ?? [];
          const expected =
            (pins.length > 0 ? GTF_reading : 0) |
            (pins.some(({ writable }) => writable) ? GTF_writing : 0);
          assert.equal(bench.flags(each) & (GTF_reading | GTF_writing), expected);
        }
        assert.equal(bench.dom0.maptrack.used, handles.length);
      }
      for (const { handle } of handles) bench.unmap(handle);
    }),
    { numRuns: 200 },
  );
});
