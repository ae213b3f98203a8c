// Every request that goes to the kernel, byte for byte, against what a C program makes of the same
// values with the real headers (linux-libc-dev, and libxen-dev for the types they name).

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { UDMABUF } from '../../src/linux/device.ts';
import { Evtchn } from '../../src/linux/evtchn.ts';
import { GrantExporter } from '../../src/linux/exports.ts';
import { Gntalloc } from '../../src/linux/gntalloc.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import { Lender } from '../../src/linux/lends.ts';
import { memfdBuffer } from '../../src/linux/memfd-buffer.ts';
import { Udmabuf } from '../../src/linux/udmabuf.ts';
import { domId, type Gref, gref, port } from '../../src/xen/ids.ts';
import { FakeEvtchn, FakeGntalloc, FakeGntdev, type SeenRequest } from './fake-devices.ts';
import { FakeKernel } from './fake-dma-bufs.ts';

/** File descriptors that requests name. */
interface Numbers {
  readonly exported: number;
  readonly lent: number;
}

/** What our code asks below, as C says it. Pointers are left out: they differ from run to run. */
const PROGRAM = `
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

static void say(const char *name, unsigned long number, const void *argument, size_t size) {
  printf("%s %lu ", name, number);
  for (size_t i = 0; i < size; i++) printf("%02x", ((const unsigned char *)argument)[i]);
  printf("\\n");
}
#define SAY(number, argument, size) say(#number, number, argument, size)

int main(int argc, char **argv) {
  if (argc != 3) return 1;
  __u32 exported = atoi(argv[1]), lent = atoi(argv[2]);
  size_t size = sizeof(struct ioctl_gntdev_map_grant_ref) + 2 * sizeof(struct ioctl_gntdev_grant_ref);
  struct ioctl_gntdev_map_grant_ref *map = calloc(1, size);
  map->count = 3;
  for (int i = 0; i < 3; i++) map->refs[i] = (struct ioctl_gntdev_grant_ref){ 0x123, 0x1000000 + i };
  SAY(IOCTL_GNTDEV_MAP_GRANT_REF, map, size);
  struct ioctl_gntdev_unmap_notify farewell = {
    .index = 0x2005,
    .action = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT,
    .event_channel_port = 5,
  };
  SAY(IOCTL_GNTDEV_SET_UNMAP_NOTIFY, &farewell, sizeof farewell);
  struct ioctl_gntdev_unmap_grant_ref unmap = { .index = 0, .count = 3 };
  SAY(IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap, sizeof unmap);

  size = offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids) + 2 * sizeof(__u32);
  struct ioctl_gntalloc_alloc_gref *alloc = calloc(1, size);
  alloc->domid = 0x123;
  alloc->flags = GNTALLOC_FLAG_WRITABLE;
  alloc->count = 2;
  SAY(IOCTL_GNTALLOC_ALLOC_GREF, alloc, size);
  struct ioctl_gntalloc_unmap_notify notify_end = {
    .index = 0x1005,
    .action = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT,
    .event_channel_port = 5,
  };
  SAY(IOCTL_GNTALLOC_SET_UNMAP_NOTIFY, &notify_end, sizeof notify_end);
  struct ioctl_gntalloc_unmap_notify no_notify = { .index = 0x1005 };
  SAY(IOCTL_GNTALLOC_SET_UNMAP_NOTIFY, &no_notify, sizeof no_notify);
  struct ioctl_gntalloc_dealloc_gref dealloc = { .index = 0, .count = 2 };
  SAY(IOCTL_GNTALLOC_DEALLOC_GREF, &dealloc, sizeof dealloc);

  struct ioctl_evtchn_bind_unbound_port unbound = { .remote_domain = 0x123 };
  SAY(IOCTL_EVTCHN_BIND_UNBOUND_PORT, &unbound, sizeof unbound);
  struct ioctl_evtchn_bind_interdomain bind = { .remote_domain = 0x123, .remote_port = 0x456789 };
  SAY(IOCTL_EVTCHN_BIND_INTERDOMAIN, &bind, sizeof bind);
  struct ioctl_evtchn_notify notify = { .port = 10 };
  SAY(IOCTL_EVTCHN_NOTIFY, &notify, sizeof notify);
  struct ioctl_evtchn_unbind unbind = { .port = 10 };
  SAY(IOCTL_EVTCHN_UNBIND, &unbind, sizeof unbind);

  size = offsetof(struct ioctl_gntdev_dmabuf_exp_from_refs, refs) + 2 * sizeof(__u32);
  struct ioctl_gntdev_dmabuf_exp_from_refs *export = calloc(1, size);
  export->flags = GNTDEV_DMA_FLAG_COHERENT;
  export->count = 2;
  export->domid = 0x123;
  for (int i = 0; i < 2; i++) export->refs[i] = 0x1000000 + i;
  SAY(IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, export, size);
  struct ioctl_gntdev_dmabuf_exp_wait_released wait = { .fd = exported, .wait_to_ms = 0 };
  SAY(IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED, &wait, sizeof wait);
  size = offsetof(struct ioctl_gntdev_dmabuf_imp_to_refs, refs) + 3 * sizeof(__u32);
  struct ioctl_gntdev_dmabuf_imp_to_refs *import = calloc(1, size);
  import->fd = lent;
  import->count = 3;
  import->domid = 0x123;
  SAY(IOCTL_GNTDEV_DMABUF_IMP_TO_REFS, import, size);
  struct ioctl_gntdev_dmabuf_imp_release release = { .fd = lent };
  SAY(IOCTL_GNTDEV_DMABUF_IMP_RELEASE, &release, sizeof release);
  return 0;
}
`;

function compiledAnswers({ exported, lent }: Numbers): string[] {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-requests-`);
  try {
    writeFileSync(`${folder}/requests.c`, PROGRAM);
    execFileSync('gcc', ['-Wall', '-Werror', '-o', `${folder}/requests`, `${folder}/requests.c`]);
    const numbers = [`${exported}`, `${lent}`];
    return execFileSync(`${folder}/requests`, numbers, { encoding: 'utf8' }).trim().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function bufferRequests(refs: readonly Gref[]) {
  const kernel = new FakeKernel();
  const domid = domId(0x123);
  const { open } = kernel;
  const map = () => assert.fail('nothing to explain');
  const exporter = new GrantExporter({ open, map, guestType: undefined, limit: 10 });
  const exporting = await exporter.export({ domid, refs, caching: 'coherent' });
  const exported = exporting.fd!;
  exporting.close();
  await exporting.released();
  const udmabuf = new Udmabuf(open(UDMABUF), 10);
  const buffer = await memfdBuffer({ pages: 3, udmabuf });
  const lender = new Lender({ open, observer: () => undefined });
  const loan = await lender.lend({ domid, buffer, writable: true });
  await loan.end();
  const seen = kernel.gntdevs.flatMap((device) => device.seen);
  return { seen, numbers: { exported, lent: buffer.fd! } };
}

async function ourRequests(): Promise<{ seen: SeenRequest[]; numbers: Numbers }> {
  const domid = domId(0x123);
  const gntdevDevice = new FakeGntdev();
  const nothing = { notify: () => undefined, [Symbol.asyncDispose]: async () => undefined };
  const channel = { port: port(5), ...nothing };
  const refs = [gref(0x1000000), gref(0x1000001), gref(0x1000002)];
  {
    using gntdev = new Gntdev(gntdevDevice);
    const farewell = { byte: 0x2005, channel };
    await gntdev.map({ domid, refs, writable: true, farewell });
  }
  const gntallocDevice = new FakeGntalloc();
  {
    using gntalloc = new Gntalloc(gntallocDevice);
    const farewell = { byte: 0x1005, channel };
    const shared = await gntalloc.share({ domid, pages: 2, writable: true, farewell });
    await shared.end();
  }
  const evtchnDevice = new FakeEvtchn();
  {
    using evtchn = new Evtchn(evtchnDevice, (error) => assert.fail(String(error)));
    const handler = () => undefined;
    const offered = await evtchn.allocUnbound({ remote: domid, handler });
    const remotePort = port(0x456789);
    await evtchn.bindInterdomain({ remote: domid, remotePort, handler });
    offered.notify();
    await offered[Symbol.asyncDispose]();
  }
  const buffers = await bufferRequests(refs.slice(0, 2));
  const seen = [
    ...gntdevDevice.seen,
    ...gntallocDevice.seen,
    ...evtchnDevice.seen,
    ...buffers.seen,
  ];
  return { seen, numbers: buffers.numbers };
}

test('each request is what the headers of Linux make of the same values', async () => {
  const ours = await ourRequests();
  const seen = ours.seen.map(
    ({ name, number, argument }) => `${name} ${number} ${Buffer.from(argument).toString('hex')}`,
  );
  assert.deepEqual(seen, compiledAnswers(ours.numbers));
});
