// Lending buffers over a kernel with the traps of the real one (facts of gntdev-dmabuf.c), with and without
// a look at the grant table.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GrantObserver } from '../../src/linux/grant-observer.ts';
import { Lender } from '../../src/linux/lends.ts';
import { LinuxBuffer } from '../../src/linux/linux-buffer.ts';
import { LinuxMemory } from '../../src/linux/memory.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { domId } from '../../src/xen/ids.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const IMPORT = 'IOCTL_GNTDEV_DMABUF_IMP_TO_REFS';
const RELEASE = 'IOCTL_GNTDEV_DMABUF_IMP_RELEASE';
const domid = domId(9);

function rig({ observed = true }: { observed?: boolean } = {}) {
  const kernel = new FakeKernel();
  const { open } = kernel;
  const observer = observed ? GrantObserver.open(open, 'PV') : undefined;
  const lender = new Lender({ open, observer: () => observer });
  const memory = new LinuxMemory({
    open,
    heaps: [],
    udmabufLimit: kernel.udmabufLimit,
    availablePages: () => 1e6,
  });
  const allocate = (pages: number) => memory.allocate({ pages, contiguity: 'none' });
  const lend = (buffer: LocalBuffer) => lender.lend({ domid, buffer, writable: true });
  return { kernel, lender, allocate, lend };
}

function refused(errnoName: string, pattern: RegExp) {
  return (error: unknown) => {
    assert(error instanceof SysError, String(error));
    assert.equal(error.errnoName, errnoName);
    assert.match(error.message, pattern);
    return true;
  };
}

test('a kernel that would grant wrong frames is not asked to', async () => {
  const kernel = new FakeKernel();
  const { open } = kernel;
  const lender = new Lender({ open, observer: () => undefined, knowsMachineFrames: () => false });
  const { allocate } = rig();
  const lending = lender.lend({ domid, buffer: await allocate(1), writable: true });
  await assert.rejects(lending, refused('EOPNOTSUPP', /iommu=soft/));
  assert.equal(kernel.count(IMPORT), 0);
});

test('a loan has one ref a page, and is over when access has ended and nobody maps', async () => {
  const { kernel, allocate, lend } = rig();
  const buffer = await allocate(5);
  const loan = await lend(buffer);
  assert.deepEqual(loan.refs, [8, 9, 10, 11, 12]);
  assert(loan.refs.every((ref) => kernel.table.read(ref).domid === domid));
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'grant table' });
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'grant table' });
  assert.equal(kernel.count(RELEASE), 1);
  assert.equal(kernel.openGntdevs, 0);
  assert(loan.refs.every((ref) => kernel.table.read(ref).flags === 0));
});

test('the kernel would say success while the peer maps, so it is not asked until nobody does', async () => {
  const { kernel, allocate, lend } = rig();
  const loan = await lend(await allocate(5));
  kernel.table.map(loan.refs[1]!);
  kernel.table.map(loan.refs[4]!);
  assert.deepEqual(await loan.end(), { heldPages: 2, evidence: 'grant table' });
  kernel.table.unmap(loan.refs[1]!);
  assert.deepEqual(await loan.end(), { heldPages: 1, evidence: 'grant table' });
  assert.equal(kernel.count(RELEASE), 0);
  kernel.table.unmap(loan.refs[4]!);
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'grant table' });
  assert.equal(kernel.count(RELEASE), 1);
});

test('a page mapped between the look and the end is held until its entry is free', async () => {
  const { kernel, allocate, lend } = rig();
  const buffer = await allocate(3);
  const loan = await lend(buffer);
  const [device] = kernel.gntdevs;
  const plain = device!.ioctl.bind(device);
  device!.ioctl = (request, context) => {
    if (request.name === RELEASE) kernel.table.map(loan.refs[2]!);
    return plain(request, context);
  };
  assert.deepEqual(await loan.end(), { heldPages: 1, evidence: 'grant table' });
  assert.deepEqual(await buffer.free(), { heldPages: 3, evidence: 'lent' }, 'still lent');
  // The peer lets go; the kernel's list of deferred ends comes to it later.
  kernel.table.unmap(loan.refs[2]!);
  assert.equal((await loan.end()).heldPages, 1, 'the entry still lets it in');
  kernel.table.end(loan.refs[2]!);
  assert.equal((await loan.end()).heldPages, 0);
  assert.equal((await buffer.free()).heldPages, 0);
});

test('an entry that serves somebody else by now is not ours any more', async () => {
  const { kernel, allocate, lend } = rig();
  const loan = await lend(await allocate(1));
  const [device] = kernel.gntdevs;
  const plain = device!.ioctl.bind(device);
  device!.ioctl = (request, context) => {
    const result = plain(request, context);
    if (request.name === RELEASE) {
      kernel.table.write(loan.refs[0]!, { flags: 1, domid: 3, frame: 77 });
    }
    return result;
  };
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'grant table' });
});

test('the table is mapped anew when it has grown', async () => {
  const { kernel, allocate, lend } = rig();
  await lend(await allocate(60));
  for (let i = 0; i < 20; i++) await lend(await allocate(60));
  assert(kernel.table.frames > 1);
  const loan = await lend(await allocate(10));
  kernel.table.map(loan.refs[9]!);
  assert.equal((await loan.end()).heldPages, 1);
});

test('without a look the driver is believed, and says so', async () => {
  const { kernel, allocate, lend } = rig({ observed: false });
  const loan = await lend(await allocate(2));
  kernel.table.map(loan.refs[0]!);
  assert.deepEqual(await loan.end(), { heldPages: 0, evidence: 'driver' });
  assert.equal(kernel.count(RELEASE), 1);
});

test('a table that does not show the loan is no evidence', async () => {
  const { kernel, lend, allocate } = rig();
  const grant = kernel.table.grant.bind(kernel.table);
  kernel.table.grant = (domid) => {
    const ref = grant(domid);
    if (ref !== undefined) kernel.table.write(ref, { flags: 0, domid: 0, frame: 0 });
    return ref;
  };
  assert.equal((await (await lend(await allocate(1))).end()).evidence, 'driver');
});

test('hosts that do not let us look say why', () => {
  const kernel = new FakeKernel();
  assert.throws(() => GrantObserver.open(kernel.open, 'PVH'), refused('EOPNOTSUPP', /PV domain/));
  kernel.table.version = 2;
  assert.throws(() => GrantObserver.open(kernel.open, 'PV'), refused('EOPNOTSUPP', /version 2/));
  kernel.absent.add('/dev/xen/privcmd');
  assert.throws(() => GrantObserver.open(kernel.open, 'PV'), refused('ENOENT', /privcmd/));
});

test('a buffer of several dma-bufs is lent part by part, each with a gntdev of its own', async () => {
  const { kernel, allocate, lend } = rig();
  const buffer = await allocate(150);
  assert.equal(buffer.fd, undefined);
  const loan = await lend(buffer);
  assert.equal(new Set(loan.refs).size, 150);
  assert.deepEqual(
    kernel.gntdevs.map(({ imported }) => imported.map(({ refs }) => refs.length)),
    [[64], [64], [22]],
  );
  kernel.table.map(loan.refs[149]!);
  assert.equal((await loan.end()).heldPages, 1);
  assert.equal(kernel.openGntdevs, 3, 'all of it stays lent');
  kernel.table.unmap(loan.refs[149]!);
  assert.equal((await loan.end()).heldPages, 0);
  assert.equal(kernel.openGntdevs, 0);
});

test('when a part finds no entries, the parts before it are taken back', async () => {
  const { kernel, allocate, lend } = rig();
  kernel.table.limit = 100;
  const buffer = await allocate(150);
  await assert.rejects(lend(buffer), refused('ENOSPC', /gnttab_max_frames/));
  assert.equal(kernel.openGntdevs, 0);
  for (let ref = 8; ref < 100; ref++) assert.equal(kernel.table.read(ref).flags, 0);
  assert.equal((await buffer.free()).heldPages, 0, 'nothing holds the buffer');
});

test('65,536 pages of one dma-buf, which the kernel would count as none, are never asked for', async () => {
  const { kernel, lend } = rig();
  const fd = 1;
  const buffer = new LinuxBuffer({
    dmaBufs: [{ fd, pages: 65_536 }],
    contiguity: { kind: 'none', proof: 'test' },
    view: () => assert.fail(),
    giveBack: async () => ({ heldPages: 0, evidence: 'driver' }),
  });
  await assert.rejects(lend(buffer), refused('EOPNOTSUPP', /65535/));
  assert.equal(kernel.count(IMPORT), 0);
  assert.equal(kernel.openGntdevs, 0);
});

test('what cannot be lent is refused in words', async () => {
  const { kernel, lender, allocate, lend } = rig();
  const buffer = await allocate(1);
  const readOnly = lender.lend({ domid, buffer, writable: false });
  await assert.rejects(readOnly, refused('EOPNOTSUPP', /writing only/));
  const foreign = { ...buffer, pages: 1 } as LocalBuffer;
  await assert.rejects(lend(foreign), refused('EOPNOTSUPP', /buffers of this host/));
  kernel.refuses.set(IMPORT, 'ENOTTY');
  await assert.rejects(lend(buffer), refused('EOPNOTSUPP', /CONFIG_XEN_GNTDEV_DMABUF/));
  const { length } = kernel.gntdevs;
  await assert.rejects(lend(buffer), refused('EOPNOTSUPP', /CONFIG_XEN_GNTDEV_DMABUF/));
  assert.equal(kernel.gntdevs.length, length, 'not asked again');
});

test('one buffer lent twice is two loans, and each end is its own', async () => {
  const { kernel, allocate, lend } = rig();
  const buffer = await allocate(2);
  const [first, second] = [await lend(buffer), await lend(buffer)];
  await first.end();
  assert(first.refs.every((ref) => kernel.table.read(ref).flags === 0));
  assert(second.refs.every((ref) => kernel.table.read(ref).flags === 1));
  assert.equal((await buffer.free()).evidence, 'lent');
  await second.end();
  assert.equal((await buffer.free()).heldPages, 0);
});

test('the end of the domain ends every loan, whoever still maps', async () => {
  const { kernel, lender, allocate, lend } = rig();
  const loan = await lend(await allocate(2));
  kernel.table.map(loan.refs[0]!);
  lender[Symbol.dispose]();
  assert.equal(kernel.count(RELEASE), 1);
  assert.equal(kernel.openGntdevs, 0);
});
