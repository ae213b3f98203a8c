import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DmaDevice } from '../../src/hypervisor/dma-device.ts';
import type { GuestBuffer } from '../../src/hypervisor/guest-buffer.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { Iommu } from '../../src/hypervisor/iommu.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { DOM0, domId } from '../../src/xen/ids.ts';
import { onMachine } from './world.ts';

const CONTIGUOUS_ONLY = { name: 'display', addressBits: 32, maxSegments: 1 };

function failsWith(errnoName: string, words = /./) {
  return (error: unknown) =>
    error instanceof SysError && error.errnoName === errnoName && words.test(error.message);
}

/** A buffer whose frames are every second one of a stretch. */
async function scattered(domain: GuestDomain, pages: number): Promise<GuestBuffer> {
  const pool = await domain.memory.createPool({ domid: domId(1), pages: 2 * pages });
  const singles: GuestBuffer[] = [];
  for (let page = 0; page < 2 * pages; page++) singles.push(await pool.allocate(1));
  for (const [index, single] of singles.entries()) if (index % 2 === 0) await single.free();
  const buffer = await pool.allocate(pages);
  await pool[Symbol.asyncDispose]();
  return buffer;
}

test('a device without an IOMMU takes what is contiguous, below its mask, and says why not', () =>
  onMachine(async ({ dom0 }) => {
    const display = new DmaDevice(CONTIGUOUS_ONLY);
    const contiguous = await dom0.memory.allocate({ pages: 300, contiguity: 'device' });
    assert.equal(contiguous.contiguity.kind, 'host');
    const attachment = contiguous.attach(display);
    const address = BigInt(contiguous.frames[0]!) * BigInt(PAGE_SIZE);
    assert.deepEqual(attachment.map('to-device'), [{ address, pages: 300 }]);
    attachment[Symbol.dispose]();

    const pieces = await scattered(dom0, 8);
    assert.equal(pieces.contiguity.kind, 'none');
    using refused = pieces.attach(display);
    assert.throws(
      () => refused.map('to-device'),
      failsWith('EINVAL', /8 runs of machine frames.*IOMMU/),
    );
    using gathered = pieces.attach(new DmaDevice({ ...CONTIGUOUS_ONLY, maxSegments: 8 }));
    assert.equal(gathered.map('to-device').length, 8);

    const narrow = new DmaDevice({ ...CONTIGUOUS_ONLY, addressBits: 20 });
    using high = contiguous.attach(narrow);
    assert.throws(() => high.map('to-device'), failsWith('EINVAL', /machine frame \d+.*20 bits/));
    const low = await dom0.memory.allocate({ pages: 4, contiguity: 'host', addressBits: 20 });
    using reached = low.attach(narrow);
    assert.equal(reached.map('to-device').length, 1);
  }));

test('behind an IOMMU scattered frames are one run of addresses, and the proof names it', () => {
  const iommu = new Iommu({ name: 'smmu0' });
  return onMachine(
    async ({ dom0 }) => {
      const display = new DmaDevice({ ...CONTIGUOUS_ONLY, iommu });
      const buffer = await scattered(dom0, 8);
      assert.deepEqual(buffer.contiguity, {
        kind: 'device',
        proof: 'smmu0 joins 8 runs of machine frames',
      });
      assert.deepEqual(display.contiguityOf(buffer), buffer.contiguity);
      assert.equal(new DmaDevice(CONTIGUOUS_ONLY).contiguityOf(buffer).kind, 'none');
      const attachment = buffer.attach(display);
      const [run, ...others] = attachment.map('to-device');
      assert.deepEqual([others, run!.pages], [[], 8]);
      for (const [page, frame] of buffer.frames.entries()) {
        assert.equal(iommu.translate(run!.address + BigInt(page * PAGE_SIZE)), frame);
      }
      attachment[Symbol.dispose]();
      assert.equal(iommu.mappings, 0);
      assert.equal(iommu.translate(run!.address), undefined, 'a detached device faults');
    },
    { iommu },
  );
});

test('an IOMMU without addresses below the device’s mask, or that fails, is ENOMEM', () => {
  let failing = false;
  const iommu = new Iommu({ name: 'smmu0', fault: () => failing });
  return onMachine(
    async ({ dom0 }) => {
      const narrow = new DmaDevice({ ...CONTIGUOUS_ONLY, addressBits: 16, iommu });
      const [first, second] = [await scattered(dom0, 10), await scattered(dom0, 10)];
      const one = first.attach(narrow);
      one.map('to-device');
      using two = second.attach(narrow);
      assert.throws(() => two.map('to-device'), failsWith('ENOMEM', /10 consecutive pages/));
      one[Symbol.dispose]();
      failing = true;
      assert.throws(() => two.map('to-device'), failsWith('ENOMEM'));
      failing = false;
      assert.equal(two.map('to-device').length, 1);
    },
    { iommu },
  );
});

test('an attachment has one direction', () =>
  onMachine(async ({ dom0 }) => {
    const buffer = await dom0.memory.allocate({ pages: 2, contiguity: 'host' });
    using attachment = buffer.attach(new DmaDevice(CONTIGUOUS_ONLY));
    assert.throws(() => attachment.map('none'), failsWith('EINVAL'));
    const extents = attachment.map('to-device');
    assert.equal(attachment.map('to-device'), extents, 'mapped once');
    assert.throws(() => attachment.map('bidirectional'), failsWith('EBUSY'));
    using other = buffer.attach(new DmaDevice(CONTIGUOUS_ONLY));
    assert.equal(other.map('bidirectional').length, 1);
  }));

test('a buffer that is freed while a device uses it is held until the device lets go', () =>
  onMachine(async ({ dom0, hypervisor }) => {
    const device = new DmaDevice(CONTIGUOUS_ONLY);
    const buffer = await dom0.memory.allocate({ pages: 4, contiguity: 'host' });
    const attachment = buffer.attach(device);
    assert.deepEqual(await buffer.free(), { heldPages: 4, evidence: 'device attachments' });
    assert.throws(() => buffer.attach(device), failsWith('EBADF'));
    assert.equal(hypervisor.memory.ownedBy(DOM0), 4);
    attachment[Symbol.dispose]();
    assert.equal((await buffer.free()).heldPages, 0);
    assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
  }));

test('G3: a dma-buf of grants is released when it is closed, unused and unmapped, not before', () =>
  onMachine(async ({ dom0, guest, hypervisor, runtime }) => {
    const alice = guest('alice');
    const shared = await alice.grants.share({ domid: DOM0, pages: 3, writable: true });
    const request = { domid: alice.domid, refs: shared.refs, caching: 'cached' } as const;
    const exported = await dom0.foreign.export(request);
    assert.deepEqual([exported.pages, exported.fd, exported.domid], [3, undefined, alice.domid]);
    assert.equal(exported.contiguity.kind, 'host');
    const device = new DmaDevice(CONTIGUOUS_ONLY);
    const attachment = exported.attach(device);
    attachment.map('to-device');
    assert.equal(await exported.released(), false);
    exported.close();
    exported.close();
    assert.equal(await exported.released(), false, 'the device has it');
    assert.throws(() => exported.attach(device), failsWith('EBADF'));
    const [zero, one] = hypervisor.books().domains;
    assert.deepEqual([zero!.maptrackUsed, one!.grantsMapped], [3, 3]);
    assert.deepEqual([zero!.kernel!.dmaBufs, zero!.kernel!.attachments], [1, 1]);

    await shared[Symbol.asyncDispose]();
    assert.equal(alice.grants.deferredPages, 3, 'revoked while mapped');
    attachment[Symbol.dispose]();
    assert.equal(await exported.released(), true);
    await runtime.runUntil(() => alice.grants.deferredPages === 0, { what: 'the pages came back' });
    assert.equal(hypervisor.books().domains[0]!.maptrackUsed, 0);
  }));

test('two dma-bufs of the same grants are two: releasing one says nothing of the other', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    const { refs } = await alice.grants.share({ domid: DOM0, pages: 2, writable: true });
    const request = { domid: alice.domid, refs, caching: 'cached' } as const;
    const first = await dom0.foreign.export(request);
    const second = await dom0.foreign.export(request);
    first.close();
    assert.equal(await first.released(), true);
    assert.equal(await second.released(), false);
    second.close();
    assert.equal(await second.released(), true);
  }));

test('a granter that dies while a device uses its pages: they stay, scrubbed when it lets go', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const { refs } = await alice.grants.share({ domid: DOM0, pages: 3, writable: true });
    const exported = await dom0.foreign.export({ domid, refs, caching: 'cached' });
    const attachment = exported.attach(new DmaDevice(CONTIGUOUS_ONLY));
    hypervisor.destroy(domid);
    assert.equal(hypervisor.domain(domid)?.state, 'dying');
    exported.close();
    attachment[Symbol.dispose]();
    assert.equal(await exported.released(), true);
    assert.equal(hypervisor.domain(domid), undefined);
  }));

test('a domain that closes, or dies, takes its buffers from its devices', () => {
  const iommu = new Iommu({ name: 'smmu0' });
  return onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const device = new DmaDevice({ ...CONTIGUOUS_ONLY, iommu });
      for (const end of ['close', 'destroy'] as const) {
        const driver = guest('driver');
        const shared = await dom0.grants.share({ domid: driver.domid, pages: 2, writable: true });
        const request = { domid: DOM0, refs: shared.refs, caching: 'cached' } as const;
        const exported = await driver.foreign.export(request);
        const buffer = await driver.memory.allocate({ pages: 2, contiguity: 'none' });
        const attachments = [exported.attach(device), buffer.attach(device)];
        for (const attachment of attachments) attachment.map('to-device');
        assert.equal(iommu.mappings, 2);
        if (end === 'close') await driver[Symbol.asyncDispose]();
        else hypervisor.destroy(driver.domid);
        assert.deepEqual(
          [iommu.mappings, attachments.some(({ attached }) => attached)],
          [0, false],
        );
        exported.close();
        assert.equal(await exported.released(), true);
        assert.equal((await buffer.free()).heldPages, 0);
        await shared[Symbol.asyncDispose]();
        assert.equal(dom0.grants.deferredPages, 0);
        hypervisor.destroy(driver.domid);
      }
    },
    { iommu },
  );
});

test('a dma-buf of grants that cannot all be mapped is none', () =>
  onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const alice = guest('alice');
      const { refs } = await alice.grants.share({ domid: DOM0, pages: 300, writable: true });
      const request = { domid: alice.domid, refs, caching: 'coherent' } as const;
      await assert.rejects(
        dom0.foreign.export(request),
        (error) =>
          error instanceof SysError &&
          error.errnoName === 'ENOMEM' &&
          /300 grants.* entries for 256: .*GNTST_no_space/.test(error.message),
      );
      const [zero, one] = hypervisor.books().domains;
      assert.deepEqual([zero!.maptrackUsed, zero!.frames, one!.grantsMapped], [0, 0, 0]);
    },
    { dom0Limits: { maxMaptrackFrames: 1 } },
  ));
