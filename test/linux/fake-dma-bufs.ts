// Kernels for buffers, with their traps: a gntdev that exports and lends dma-bufs, a udmabuf, heaps, and a
// privcmd over a grant table of the test's own. Buffers are real memfds; a page "in use" is a real writable
// mapping, as that makes the real kernel refuse F_SEAL_WRITE just so.

import {
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import koffi from 'koffi';
import { dmaBufSync } from '../../src/abi/dma-buf.ts';
import { dmaHeapAllocationData } from '../../src/abi/dma-heap.ts';
import { F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_WRITE } from '../../src/abi/fcntl.ts';
import {
  ioctlGntdevDmabufExpFromRefs,
  ioctlGntdevDmabufExpWaitReleased,
  ioctlGntdevDmabufImpRelease,
  ioctlGntdevDmabufImpToRefs,
} from '../../src/abi/gntdev.ts';
import {
  GNTST_okay,
  GNTTABOP_get_version,
  GNTTABOP_query_size,
  GNTTABOP_setup_table,
  GTF_permit_access,
  GTF_writing,
  gnttabGetVersion,
  gnttabQuerySize,
  gnttabSetupTable,
  grantEntryV1,
} from '../../src/abi/grant-table.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { privcmdHypercall, privcmdMmapbatchV2 } from '../../src/abi/privcmd.ts';
import { udmabufCreate } from '../../src/abi/udmabuf.ts';
import { DOMID_SELF } from '../../src/abi/xen.ts';
import { BUFFER_FILES, type BufferFile, type BufferFiles } from '../../src/linux/buffer-files.ts';
import type { DeviceFile, XenDevice } from '../../src/linux/device.ts';
import { close, ftruncate, memfdCreate, sealsOf, viewOf } from '../../src/posix/libc.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { FakeDevice, FakeGntalloc, FakeGntdev } from './fake-devices.ts';

const context = { context: 'a fake kernel' };
const libc = koffi.load('libc.so.6');
const dup = libc.func('int dup(int)');
const eventfd = libc.func('int eventfd(unsigned int, int)');
const ENTRIES_PER_FRAME = PAGE_SIZE / grantEntryV1.size;

/** What tells the descriptors of dma-bufs here, and their duplicates, from those of the memfds below them. */
const DMA_BUF_MARK = constants.O_NONBLOCK;

/** A memfd's memory by a descriptor that is a dma-buf's. */
function asDmaBuf(memfd: number, access = constants.O_RDWR): number {
  return openSync(`/proc/self/fd/${memfd}`, access | DMA_BUF_MARK);
}

function isDmaBuf(fd: number): boolean {
  if (!existsSync(`/proc/self/fdinfo/${fd}`)) return false;
  const flags = /^flags:\s+([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return (Number.parseInt(flags ?? '0', 8) & DMA_BUF_MARK) !== 0;
}

/** A descriptor of a dma-buf that was handed over. */
class FakeDmaBufFile extends FakeDevice {
  /** Begins and ends of access by the processor. */
  readonly syncs: number[] = [];

  protected answer(name: string, argument: DataView): number | string {
    if (name !== 'DMA_BUF_IOCTL_SYNC') return 'ENOTTY';
    this.syncs.push(Number(dmaBufSync.fields.flags.get(argument, 0)));
    return 0;
  }
}

/** Our own grant table, as Xen keeps it. */
export class FakeGrantTable {
  readonly fd = memfdCreate('fake-grant-table', context);
  version = 1;
  frames = 1;
  /** Entries that are mapped by the domain they are given to. */
  readonly mapped = new Set<number>();
  #next = 8;

  constructor() {
    ftruncate(this.fd, this.frames * PAGE_SIZE, context);
  }

  /** Free entries, for a kernel that has only so many. */
  limit = 4096;

  grant(domid: number): number | undefined {
    if (this.#next >= this.limit) return undefined;
    const ref = this.#next++;
    if (ref >= this.frames * ENTRIES_PER_FRAME) {
      this.frames += 1;
      ftruncate(this.fd, this.frames * PAGE_SIZE, context);
    }
    this.write(ref, { flags: GTF_permit_access, domid, frame: 0x1000 + ref });
    return ref;
  }

  /** The other domain maps a page, or lets go of it. */
  map(ref: number): void {
    this.mapped.add(ref);
    this.write(ref, { ...this.read(ref), flags: GTF_permit_access | GTF_writing });
  }

  unmap(ref: number): void {
    this.mapped.delete(ref);
    this.write(ref, { ...this.read(ref), flags: GTF_permit_access });
  }

  /** What the kernel does at the end of access: nothing while the entry is mapped. */
  end(ref: number): void {
    if (!this.mapped.has(ref)) this.write(ref, { ...this.read(ref), flags: 0 });
  }

  read(ref: number): { flags: number; domid: number; frame: number } {
    const bytes = new Uint8Array(grantEntryV1.size);
    readSync(this.fd, bytes, 0, bytes.length, ref * grantEntryV1.size);
    return grantEntryV1.read(new DataView(bytes.buffer), 0);
  }

  write(ref: number, entry: { flags: number; domid: number; frame: number }): void {
    const bytes = new Uint8Array(grantEntryV1.size);
    grantEntryV1.write(new DataView(bytes.buffer), 0, entry);
    writeSync(this.fd, bytes, 0, bytes.length, ref * grantEntryV1.size);
  }
}

/** An exported or a lent buffer, as one open gntdev keeps it. */
interface Imported {
  readonly fd: number;
  readonly refs: readonly number[];
}

/** One open gntdev of a kernel with dma-bufs. */
export class FakeDmaBufGntdev extends FakeGntdev {
  readonly #kernel: FakeKernel;
  /** Numbers of file descriptors of exported buffers that somebody still has. */
  readonly exported = new Set<number>();
  readonly imported: Imported[] = [];

  constructor(kernel: FakeKernel) {
    super();
    this.#kernel = kernel;
  }

  protected override answer(name: string, argument: DataView): number | string {
    const { refuses } = this.#kernel;
    const refusal = refuses.get(name);
    if (refusal !== undefined) return refusal;
    switch (name) {
      case 'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS':
        return this.#export(argument);
      case 'IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED':
        return this.#wait(argument);
      case 'IOCTL_GNTDEV_DMABUF_IMP_TO_REFS':
        return this.#import(argument);
      case 'IOCTL_GNTDEV_DMABUF_IMP_RELEASE':
        return this.#release(argument);
      default:
        return super.answer(name, argument);
    }
  }

  override [Symbol.dispose](): void {
    for (const { refs } of this.imported.splice(0)) {
      for (const ref of refs) this.#kernel.table.end(ref);
    }
    super[Symbol.dispose]();
  }

  #export(argument: DataView): number | string {
    const { fields } = ioctlGntdevDmabufExpFromRefs;
    const count = fields.count.get(argument, 0);
    const refs = Array.from({ length: count }, (_, i) => fields.refs.getAt(argument, 0, i));
    if (count === 0 || refs.some((ref) => this.bad.has(ref))) return 'EINVAL';
    const fd = memfdCreate('fake-dma-buf', context);
    this.exported.add(fd);
    fields.fd.set(argument, 0, fd);
    return 0;
  }

  #wait(argument: DataView): number | string {
    const { fd, wait_to_ms } = ioctlGntdevDmabufExpWaitReleased.read(argument, 0);
    if (wait_to_ms !== 0) throw new Error('a wait that blocks the event loop');
    return this.exported.has(fd) ? 'ETIMEDOUT' : 'ENOENT';
  }

  /** As the kernel counts: in 16 bits. */
  #import(argument: DataView): number | string {
    const { fields } = ioctlGntdevDmabufImpToRefs;
    const { fd, count, domid } = ioctlGntdevDmabufImpToRefs.read(argument, 0);
    if (this.#kernel.pagesOf(fd) !== count) return 'EINVAL';
    if (count > 0xffff) throw new Error('65,536 entries become none');
    const refs: number[] = [];
    for (let i = 0; i < count; i++) {
      const ref = this.#kernel.table.grant(domid);
      if (ref === undefined) {
        for (const given of refs) this.#kernel.table.end(given);
        return 'ENOSPC';
      }
      refs.push(ref);
      fields.refs.setAt(argument, 0, i, ref);
    }
    this.imported.push({ fd, refs });
    return 0;
  }

  /** Succeeds whoever still maps what: the kernel's own way. */
  #release(argument: DataView): number | string {
    const { fd } = ioctlGntdevDmabufImpRelease.read(argument, 0);
    const index = this.imported.findLastIndex((imported) => imported.fd === fd);
    if (index < 0) return 'ENOENT';
    const [released] = this.imported.splice(index, 1);
    for (const ref of released!.refs) this.#kernel.table.end(ref);
    return 0;
  }
}

const NO_WRITING = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;

class FakeUdmabuf extends FakeDevice {
  readonly #kernel: FakeKernel;

  constructor(kernel: FakeKernel) {
    super(memfdCreate('fake-udmabuf', context));
    this.#kernel = kernel;
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name !== 'UDMABUF_CREATE') return 'ENOTTY';
    const { memfd, size } = udmabufCreate.read(argument, 0);
    const pages = Number(size) / PAGE_SIZE;
    const seals = sealsOf(memfd, context);
    if ((seals & F_SEAL_SHRINK) === 0 || (seals & NO_WRITING) !== 0) return 'EINVAL';
    if (pages > this.#kernel.udmabufLimit) return 'EINVAL';
    if (this.#kernel.udmabufsLeft-- <= 0) return 'ENOMEM';
    return this.#kernel.dmaBuf(asDmaBuf(memfd), pages);
  }
}

class FakeHeap extends FakeDevice {
  readonly #kernel: FakeKernel;

  constructor(kernel: FakeKernel) {
    super(memfdCreate('fake-heap', context));
    this.#kernel = kernel;
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name !== 'DMA_HEAP_IOCTL_ALLOC') return 'ENOTTY';
    const pages = Number(dmaHeapAllocationData.fields.len.get(argument, 0)) / PAGE_SIZE;
    dmaHeapAllocationData.fields.fd.set(argument, 0, this.#kernel.newDmaBuf(pages));
    return 0;
  }
}

class FakePrivcmd extends FakeDevice {
  readonly #table: FakeGrantTable;

  constructor(table: FakeGrantTable) {
    super(dup(table.fd));
    this.#table = table;
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name === 'IOCTL_PRIVCMD_MMAPBATCH_V2') return this.#mmapbatch(argument);
    const { arg } = privcmdHypercall.read(argument, 0);
    const [op, address] = arg;
    const view = new DataView(viewOf(address!, PAGE_SIZE));
    if (Number(op) === GNTTABOP_get_version) {
      gnttabGetVersion.fields.version.set(view, 0, this.#table.version);
      return 0;
    }
    if (Number(op) === GNTTABOP_query_size) {
      gnttabQuerySize.fields.nr_frames.set(view, 0, this.#table.frames);
      gnttabQuerySize.fields.status.set(view, 0, GNTST_okay);
      return 0;
    }
    return Number(op) === GNTTABOP_setup_table ? this.#setupTable(view) : 'ENOSYS';
  }

  #setupTable(view: DataView): number {
    const { nr_frames, frame_list, dom } = gnttabSetupTable.read(view, 0);
    if (dom !== DOMID_SELF) throw new Error('the table of another domain');
    if (nr_frames !== this.#table.frames) throw new Error('the table would grow');
    const list = new BigUint64Array(viewOf(frame_list, nr_frames * 8));
    for (let i = 0; i < nr_frames; i++) list[i] = 0x500n + BigInt(i);
    return 0;
  }

  #mmapbatch(argument: DataView): number | string {
    const { num, dom, arr } = privcmdMmapbatchV2.read(argument, 0);
    const frames = new BigUint64Array(viewOf(arr, num * 8));
    const expected = Array.from({ length: num }, (_, i) => 0x500n + BigInt(i));
    return dom === DOMID_SELF && String([...frames]) === String(expected) ? 0 : 'EINVAL';
  }
}

/** A device of plain memory: /dev/xen/hypercall. */
class FakeMemory extends FakeDevice {
  constructor() {
    super(memfdCreate('fake-hypercall', context));
    ftruncate(this.fd, 64 * PAGE_SIZE, context);
  }

  protected answer(): string {
    return 'ENOTTY';
  }
}

/** All devices of one kernel. */
export class FakeKernel {
  readonly table = new FakeGrantTable();
  /** Every gntdev that was opened, in order. */
  readonly gntdevs: FakeDmaBufGntdev[] = [];
  /** Errno names that ioctls of gntdev answer with. */
  readonly refuses = new Map<string, string>();
  /** Paths that cannot be opened. */
  readonly absent = new Set<string>();
  /** Refs that cannot be mapped. */
  readonly bad = new Set<number>();
  udmabufLimit = 64;
  udmabufsLeft = Number.POSITIVE_INFINITY;
  readonly #dmaBufs = new Map<number, number>();

  readonly open = ({ path }: XenDevice): DeviceFile => {
    const device = this.absent.has(path) ? undefined : this.#device(path);
    if (device !== undefined) return device;
    throw new SysError({ call: `open ${path}`, errnoName: 'ENOENT', context: `opening ${path}` });
  };

  #device(path: string): DeviceFile | undefined {
    if (path === '/dev/xen/gntdev') return this.gntdev();
    if (path === '/dev/xen/gntalloc') return new FakeGntalloc(this.table);
    if (path === '/dev/udmabuf') return new FakeUdmabuf(this);
    if (path === '/dev/xen/privcmd') return new FakePrivcmd(this.table);
    if (path === '/dev/xen/hypercall') return new FakeMemory();
    if (path.startsWith('/dev/dma_heap/')) return new FakeHeap(this);
    return undefined;
  }

  gntdev(): FakeDmaBufGntdev {
    const device = new FakeDmaBufGntdev(this);
    for (const ref of this.bad) device.bad.add(ref);
    this.gntdevs.push(device);
    return device;
  }

  /** Remembers how many pages the dma-buf with this number has. */
  dmaBuf(fd: number, pages: number): number {
    this.#dmaBufs.set(fd, pages);
    return fd;
  }

  /** A dma-buf that a driver made; `readOnly` as by a descriptor that gives no writable view. */
  newDmaBuf(pages: number, { readOnly = false }: { readOnly?: boolean } = {}): number {
    const memfd = memfdCreate('fake-dma-buf', context);
    ftruncate(memfd, pages * PAGE_SIZE, context);
    const fd = asDmaBuf(memfd, readOnly ? constants.O_RDONLY : constants.O_RDWR);
    close(memfd, context);
    return this.dmaBuf(fd, pages);
  }

  /** A dma-buf whose driver gives no view of it, as gntdev's: a file that has no mmap. */
  newViewlessDmaBuf(pages: number): number {
    return this.dmaBuf(eventfd(0, DMA_BUF_MARK), pages);
  }

  /** Every dma-buf that was handed over, in order. */
  readonly handedOver: FakeDmaBufFile[] = [];

  readonly files: BufferFiles = {
    identify: (fd) => {
      const { kind, key, sizeBytes } = isDmaBuf(fd)
        ? {
            kind: 'dma-buf' as const,
            key: `dma-buf:${fstatSync(fd).ino}`,
            sizeBytes: fstatSync(fd).size,
          }
        : BUFFER_FILES.identify(fd);
      const pages = kind === 'dma-buf' ? this.pagesOf(fd) : undefined;
      return { kind, key, sizeBytes: pages === undefined ? sizeBytes : pages * PAGE_SIZE };
    },
    duplicate: (fd) => (isDmaBuf(fd) ? this.#handOver(fd) : BUFFER_FILES.duplicate(fd)),
  };

  #handOver(fd: number): BufferFile {
    const pages = this.pagesOf(fd);
    const own = new FakeDmaBufFile(dup(fd));
    if (pages !== undefined) this.dmaBuf(own.fd, pages);
    this.handedOver.push(own);
    return own;
  }

  pagesOf(fd: number): number | undefined {
    return this.#dmaBufs.get(fd);
  }

  /** How many ioctls of one name all gntdevs got. */
  count(name: string): number {
    return this.gntdevs.reduce((sum, device) => sum + device.count(name), 0);
  }

  /** How many gntdevs are open. */
  get openGntdevs(): number {
    return this.gntdevs.filter((device) => !device.closed).length;
  }

  [Symbol.dispose](): void {
    close(this.table.fd, context);
  }
}
