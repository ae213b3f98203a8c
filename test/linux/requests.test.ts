// Every request that goes to the kernel, byte for byte, against what a C program makes of the same
// values with the real headers (linux-libc-dev, and libxen-dev for the types they name).

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Evtchn } from '../../src/linux/evtchn.ts';
import { Gntalloc } from '../../src/linux/gntalloc.ts';
import { Gntdev } from '../../src/linux/gntdev.ts';
import { domId, gref, port } from '../../src/xen/ids.ts';
import { FakeEvtchn, FakeGntalloc, FakeGntdev, type SeenRequest } from './fake-devices.ts';

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

int main(void) {
  size_t size = sizeof(struct ioctl_gntdev_map_grant_ref) + 2 * sizeof(struct ioctl_gntdev_grant_ref);
  struct ioctl_gntdev_map_grant_ref *map = calloc(1, size);
  map->count = 3;
  for (int i = 0; i < 3; i++) map->refs[i] = (struct ioctl_gntdev_grant_ref){ 0x123, 0x1000000 + i };
  SAY(IOCTL_GNTDEV_MAP_GRANT_REF, map, size);
  struct ioctl_gntdev_unmap_grant_ref unmap = { .index = 0, .count = 3 };
  SAY(IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap, sizeof unmap);

  size = offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids) + 2 * sizeof(__u32);
  struct ioctl_gntalloc_alloc_gref *alloc = calloc(1, size);
  alloc->domid = 0x123;
  alloc->flags = GNTALLOC_FLAG_WRITABLE;
  alloc->count = 2;
  SAY(IOCTL_GNTALLOC_ALLOC_GREF, alloc, size);
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
  return 0;
}
`;

function compiledAnswers(): string[] {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-requests-`);
  try {
    writeFileSync(`${folder}/requests.c`, PROGRAM);
    execFileSync('gcc', ['-Wall', '-Werror', '-o', `${folder}/requests`, `${folder}/requests.c`]);
    return execFileSync(`${folder}/requests`, { encoding: 'utf8' }).trim().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function ourRequests(): Promise<SeenRequest[]> {
  const domid = domId(0x123);
  const gntdevDevice = new FakeGntdev();
  const refs = [gref(0x1000000), gref(0x1000001), gref(0x1000002)];
  {
    using gntdev = new Gntdev(gntdevDevice);
    await gntdev.map({ domid, refs, writable: true });
  }
  const gntallocDevice = new FakeGntalloc();
  {
    using gntalloc = new Gntalloc(gntallocDevice);
    await gntalloc.share({ domid, pages: 2, writable: true });
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
  return [...gntdevDevice.seen, ...gntallocDevice.seen, ...evtchnDevice.seen];
}

test('each request is what the headers of Linux make of the same values', async () => {
  const seen = (await ourRequests()).map(
    ({ name, number, argument }) => `${name} ${number} ${Buffer.from(argument).toString('hex')}`,
  );
  assert.deepEqual(seen, compiledAnswers());
});
