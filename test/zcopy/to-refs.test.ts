// Buffer to refs: memory of ours in another domain, and every way in which it may fail or be held.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import type { HeldBuffer } from '../../src/xen/xenbus/driver.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { Zcopy } from '../../src/zcopy/zcopy.ts';
import type { MachineOptions } from '../hypervisor/world.ts';
import {
  failing,
  intercepting,
  type SharingWorld,
  sharing,
  sysError,
  TestDevice,
} from './world.ts';

const PAGES = 3;

const on = (body: (world: SharingWorld) => Promise<void>, options?: MachineOptions) => () =>
  sharing(body, options);

const mapIn = (guest: GuestDomain, { refs }: SharedBuffer) =>
  guest.foreign.map({ domid: DOM0, refs, writable: true });

for (const from of ['a pool', 'host-contiguous memory'] as const) {
  test(
    `a guest draws into ${from} of ours, keeps it, and is waited for`,
    on(async ({ dom0, guest, zcopy, run, frames }) => {
      const alice = guest('alice');
      const { domid } = alice;
      const pool = await dom0.memory.createPool({ domid, pages: 4 });
      const memory =
        from === 'a pool'
          ? await pool.allocate(PAGES)
          : await dom0.memory.allocate({ pages: PAGES, contiguity: 'host' });
      const buffer = await run(zcopy.toRefs({ domid, memory, dataOffset: 40, byteLength: 100 }));
      assert.equal(buffer.bytes.length, 100);
      assert.deepEqual([buffer.memory, buffer.contiguity], [memory, memory.contiguity]);
      const mapping = await mapIn(alice, buffer);
      mapping.bytes.fill(9);
      assert(buffer.bytes.every((byte) => byte === 9));
      const late = await run(buffer.release({ timeoutMs: 1000 }));
      assert(late.state === 'quarantined');
      assert.deepEqual(late.holders, [
        { who: `domain ${domid}`, pages: PAGES, evidence: 'grant table' },
      ]);
      assert(
        mapping.bytes.every((byte) => byte === 9),
        'its picture is its own',
      );
      assert(buffer.bytes.every((byte) => byte === 9));
      await mapping[Symbol.asyncDispose]();
      assert.deepEqual(await run(buffer.release({ timeoutMs: 1000 })), { state: 'released' });
      assert.equal(pool.freePages, 4);
      await pool[Symbol.asyncDispose]();
      assert.equal(frames(), 0);
    }),
  );
}

test(
  'a part of the pages that the guest keeps is counted as it is',
  on(async ({ dom0, guest, zcopy, run, pause }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: 5, contiguity: 'none' });
    const buffer = await run(zcopy.toRefs({ domid: alice.domid, memory }));
    const refs = [buffer.refs[1]!, buffer.refs[4]!];
    const mapping = await alice.foreign.map({ domid: DOM0, refs, writable: true });
    await run(buffer.release({ timeoutMs: 100 }));
    assert.equal(buffer.holders[0]!.pages, 2);
    await mapping[Symbol.asyncDispose]();
    await pause(1000);
    assert.equal(buffer.state, 'released', 'by itself');
  }),
);

test(
  'G5: lent for reading, the guest cannot write; once released, it cannot map',
  on(async ({ dom0, guest, zcopy, run }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const buffer = await run(zcopy.toRefs({ domid, memory, writable: false }));
    const { refs } = buffer;
    const map = (writable: boolean) => alice.foreign.map({ domid: DOM0, refs, writable });
    await assert.rejects(map(true), GrantMapError);
    buffer.bytes[0] = 5;
    const mapping = await map(false);
    assert.equal(mapping.bytes[0], 5);
    await mapping[Symbol.asyncDispose]();
    await run(buffer.release());
    await assert.rejects(map(false), GrantMapError);
    const bobs = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    assert(bobs.bytes.every((byte) => byte === 0));
    await bobs.free();
  }),
);

test(
  'G2: without grant entries, or for a part that is not there, the memory is freed again',
  on(
    async ({ dom0, guest, zcopy, run, frames }) => {
      const { domid } = guest('alice');
      const allocate = (pages: number) => dom0.memory.allocate({ pages, contiguity: 'none' });
      const memory = await allocate(600);
      await assert.rejects(run(zcopy.toRefs({ domid, memory })), sysError('ENOSPC'));
      assert.equal(frames(), 0);
      for (const bad of [{ dataOffset: -1 }, { byteLength: 0 }, { byteLength: PAGE_SIZE + 1 }]) {
        const request = { domid, memory: await allocate(1), ...bad };
        await assert.rejects(run(zcopy.toRefs(request)), sysError('EINVAL'));
        assert.equal(frames(), 0);
      }
      const buffer = await run(zcopy.toRefs({ domid, memory: await allocate(500) }));
      await run(buffer.release());
      assert.equal(frames(), 0);
    },
    { dom0Limits: { maxGrantFrames: 1 } },
  ),
);

test(
  'G2: a failure whose undoing is held up does not hold up the call, and is undone later',
  on(async ({ dom0, guest, runtime, run, frames, pause }) => {
    const { domid } = guest('alice');
    const remains: HeldBuffer[] = [];
    const onRemains = (left: HeldBuffer) => void remains.push(left);
    const zcopy = new Zcopy({ runtime, domain: failing(dom0, 'lend'), onRemains });
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const gpu = new TestDevice().attach(memory);
    await assert.rejects(run(zcopy.toRefs({ domid, memory })), sysError('ENOMEM'));
    assert.equal(frames(), PAGES);
    assert.deepEqual(
      remains.map(({ state, pages, direction }) => [state, pages, direction]),
      [['quarantined', PAGES, 'to-guest']],
    );
    assert.match(remains[0]!.holders[0]!.who, /a driver that imported the memory/);
    gpu[Symbol.dispose]();
    await pause(1000);
    assert.equal(frames(), 0);
    await run(remains[0]!.gone);
    assert.deepEqual([remains[0]!.state, remains[0]!.holders], ['released', []]);
    const free = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    await assert.rejects(run(zcopy.toRefs({ domid, memory: free })), sysError('ENOMEM'));
    assert.equal(remains.length, 1, 'what is given back at once leaves no remains');
  }),
);

test(
  'G1: the guest dies with the pages mapped: the release ends by itself, at once when hurried',
  on(async ({ dom0, guest, zcopy, run, runtime, hypervisor, frames }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const buffer = await run(zcopy.toRefs({ domid: alice.domid, memory }));
    await mapIn(alice, buffer);
    assert.equal((await run(buffer.release({ timeoutMs: 10_000 }))).state, 'quarantined');
    hypervisor.destroy(alice.domid);
    const beforeMs = runtime.nowMs();
    buffer.hurry();
    await buffer.released;
    assert.deepEqual([runtime.nowMs(), frames()], [beforeMs, 0]);
  }),
);

test(
  'readers first, then the access, then drivers that imported it: each is waited for by name',
  on(async ({ dom0, guest, zcopy, run, frames }) => {
    const alice = guest('alice');
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const buffer = await run(zcopy.toRefs({ domid: alice.domid, memory }));
    let stopReading = () => {};
    buffer.readBy(
      new Promise((resolve) => {
        stopReading = resolve;
      }),
    );
    const gpu = new TestDevice().attach(memory);
    const mapping = await mapIn(alice, buffer);
    const holder = async () => {
      await run(buffer.release({ timeoutMs: 1000 }));
      return buffer.holders[0]!.who;
    };
    assert.match(await holder(), /output or program/);
    stopReading();
    assert.equal(await holder(), `domain ${alice.domid}`);
    await mapping[Symbol.asyncDispose]();
    assert.match(await holder(), /a driver that imported/);
    assert.equal(frames(), PAGES);
    gpu[Symbol.dispose]();
    await run(buffer.release());
    assert.equal(frames(), 0);
  }),
);

test(
  'G1: the guest is dead before its pages are lent: they are nobody else’s, and come back',
  on(async ({ dom0, guest, runtime, run, hypervisor, frames }) => {
    const { domid } = guest('alice');
    const domain = intercepting(dom0, 'lend', () => hypervisor.destroy(domid));
    const memory = await dom0.memory.allocate({ pages: PAGES, contiguity: 'none' });
    const buffer = await run(new Zcopy({ runtime, domain }).toRefs({ domid, memory }));
    const bob = guest('bob');
    await assert.rejects(mapIn(bob, buffer), GrantMapError);
    assert.deepEqual(await run(buffer.release()), { state: 'released' });
    assert.equal(frames(), 0);
  }),
);
