// Making dma-bufs of grants over a kernel with the traps of the real one (facts of gntdev-dmabuf.c).

import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import { test } from 'node:test';
import { ioctlGntdevDmabufExpFromRefs } from '../../src/abi/gntdev.ts';
import { GrantExporter } from '../../src/linux/exports.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import type { GuestType } from '../../src/linux/kernel-facts.ts';
import { close, memfdCreate } from '../../src/posix/libc.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { type Caching, GrantMapError } from '../../src/xen/domain.ts';
import { domId, gref } from '../../src/xen/ids.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

const EXPORT = 'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS';
const WAIT = 'IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED';
const domid = domId(5);
const context = { context: 'exports test' };

function rig(guestType: GuestType | undefined = undefined, limit = 1024) {
  const kernel = new FakeKernel();
  const gntdev = new Gntdev(kernel.gntdev());
  const { open } = kernel;
  const exporter = new GrantExporter({ open, map: (r) => gntdev.map(r), guestType, limit });
  const request = (count: number, caching: Caching = 'cached') => ({
    domid,
    refs: Array.from({ length: count }, (_, i) => gref(100 + i)),
    caching,
  });
  return { kernel, exporter, request };
}

function isOpen(fd: number): boolean {
  try {
    return fstatSync(fd).size >= 0;
  } catch {
    return false;
  }
}

test('an exported buffer has a descriptor until it is closed, and is released when nobody has it', async () => {
  const { kernel, exporter, request } = rig();
  const exported = await exporter.export(request(3));
  const fd = exported.fd!;
  const device = kernel.gntdevs.at(-1)!;
  assert.equal(exported.pages, 3);
  assert.equal(exported.contiguity.kind, 'none');
  assert.equal(await exported.released(), false, 'not while we have it');
  assert.equal(device.count(WAIT), 0, 'nobody was asked');
  exported.close();
  exported.close();
  assert.equal(exported.fd, undefined);
  assert.equal(isOpen(fd), false);
  assert.equal(await exported.released(), false, 'somebody has imported it');
  device.exported.delete(fd);
  assert.equal(await exported.released(), true, 'ENOENT means gone');
  assert.equal(await exported.released(), true);
  assert.equal(device.count(WAIT), 2);
  assert.equal(device.closed, true, 'its gntdev goes with it');
});

test('the number of a closed buffer, used again by another export, means nobody else', async () => {
  const { kernel, exporter, request } = rig();
  // The lowest free number goes to the device of the second export, the next to its buffer.
  const placeholder = memfdCreate('placeholder', context);
  const first = await exporter.export(request(1));
  const number = first.fd!;
  const firstDevice = kernel.gntdevs.at(-1)!;
  first.close();
  close(placeholder, context);
  const second = await exporter.export(request(2));
  assert.equal(second.fd, number);
  firstDevice.exported.delete(number);
  assert.equal(await first.released(), true, 'although a buffer of that number is exported now');
  second.close();
  assert.equal(await second.released(), false);
});

test('no memory for the question is no answer: it is asked again', async () => {
  const { kernel, exporter, request } = rig();
  const exported = await exporter.export(request(1));
  const number = exported.fd!;
  exported.close();
  kernel.refuses.set(WAIT, 'ENOMEM');
  assert.equal(await exported.released(), false);
  kernel.refuses.clear();
  assert.equal(await exported.released(), false);
  kernel.gntdevs.at(-1)!.exported.delete(number);
  assert.equal(await exported.released(), true);
});

test('the first bad grant of an export is named, and nothing stays open', async () => {
  const { kernel, exporter, request } = rig('PVH');
  kernel.bad.add(102);
  kernel.gntdevs[0]!.bad.add(102);
  await assert.rejects(
    exporter.export(request(5)),
    (error) => error instanceof GrantMapError && error.index === 2 && error.ref === 102,
  );
  assert.equal(kernel.openGntdevs, 1, 'only the one that maps');
  kernel.bad.clear();
  await exporter.export(request(2));
});

const NEVER: readonly [string, GuestType, string, RegExp][] = [
  ['a PV domain', 'PV', 'EINVAL', /PV domain/],
  ['a translated domain that gets no mappings for devices', 'PVH', 'EINVAL', /GNTMAP_device_map/],
  [
    'a kernel without dma-bufs of grants',
    'PVH',
    'ENOTTY',
    /makes no dma-bufs.*CONFIG_XEN_GNTDEV_DMABUF/,
  ],
];
for (const [host, type, errno, reason] of NEVER) {
  test(`${host} says so, once by the kernel and then by itself`, async () => {
    const { kernel, exporter, request } = rig(type);
    kernel.refuses.set(EXPORT, errno);
    const unsupported = (error: unknown) => {
      assert(error instanceof SysError && error.errnoName === 'EOPNOTSUPP', String(error));
      assert.match(error.message, reason);
      return true;
    };
    await assert.rejects(exporter.export(request(4)), unsupported);
    const { length } = kernel.gntdevs;
    await assert.rejects(exporter.export(request(4)), unsupported);
    assert.equal(kernel.gntdevs.length, length, 'no further device was opened');
    assert.equal(kernel.openGntdevs, 1);
  });
}

test('a shortage at the first attempt is not taken for a host without the path', async () => {
  const { kernel, exporter, request } = rig('PVH');
  kernel.refuses.set(EXPORT, 'ENOMEM');
  const short = (error: unknown) => error instanceof SysError && error.errnoName === 'ENOMEM';
  await assert.rejects(exporter.export(request(1)), short);
  kernel.refuses.clear();
  await exporter.export(request(1));
});

test('more grants than a request may have is refused with the limit, and not remembered', async () => {
  const { exporter, request } = rig('PVH', 3);
  await assert.rejects(
    exporter.export(request(4)),
    (error) => error instanceof SysError && /parameters\/limit/.test(error.message),
  );
  await exporter.export(request(3));
});

test('how processors see the buffer goes to the kernel as its flag', async () => {
  const { kernel, exporter, request } = rig();
  for (const caching of ['cached', 'write-combined', 'coherent'] as const) {
    await exporter.export(request(1, caching));
  }
  const { flags } = ioctlGntdevDmabufExpFromRefs.fields;
  const seen = kernel.gntdevs.slice(1).map(({ seen: [first] }) => first!.argument);
  assert.deepEqual(
    seen.map((argument) => flags.get(new DataView(argument.buffer), 0)),
    [0, 1, 2],
  );
});

test('the end of the domain closes all descriptors of exports', async () => {
  const { kernel, exporter, request } = rig();
  const open = (await exporter.export(request(1))).fd!;
  const closed = await exporter.export(request(1));
  closed.close();
  exporter[Symbol.dispose]();
  assert.equal(isOpen(open), false);
  assert.equal(kernel.openGntdevs, 1);
  assert(memfdCreate('next', context) <= open);
});
