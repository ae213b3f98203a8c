// Kernels that fail on purpose, behind the interface of an open device file. What they show is real
// memory (memfds) mapped by real mmap; only the ioctls are played. The lab runs the real ones.

import { writeSync } from 'node:fs';
import koffi from 'koffi';
import { ioctlGntallocAllocGref, ioctlGntallocDeallocGref } from '../../src/abi/gntalloc.ts';
import {
  gntdevGrantCopySegment,
  ioctlGntdevGrantCopy,
  ioctlGntdevMapGrantRef,
  ioctlGntdevUnmapGrantRef,
} from '../../src/abi/gntdev.ts';
import { GNTST_bad_gntref, GNTST_okay } from '../../src/abi/grant-table.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { DeviceFile } from '../../src/linux/device.ts';
import {
  type CallContext,
  close,
  ftruncate,
  type IoctlRequest,
  memfdCreate,
  read,
  viewOf,
  write,
} from '../../src/posix/libc.ts';
import { SysError } from '../../src/runtime/errors.ts';

const context = { context: 'a fake device' };

/** What an ioctl was asked with: the argument as it was before the fake answered. */
export interface SeenRequest {
  readonly name: string;
  readonly number: number;
  readonly argument: Uint8Array;
}

/** Remembers every ioctl; a subclass says what each does. */
export abstract class FakeDevice implements DeviceFile {
  readonly fd: number;
  readonly seen: SeenRequest[] = [];
  /** What the next calls of an ioctl come to by its name: an errno, or what they are asked. */
  readonly planned = new Map<string, (string | undefined)[]>();
  closed = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  ioctl({ name, number, argument }: IoctlRequest, { context, remedy }: CallContext): number {
    this.seen.push({ name, number, argument: argument.slice() });
    const planned = this.planned.get(name)?.shift();
    const errnoOrResult =
      planned ?? this.answer(name, new DataView(argument.buffer, argument.byteOffset));
    if (typeof errnoOrResult === 'number') return errnoOrResult;
    const details = { call: `ioctl ${name}`, errnoName: errnoOrResult, context };
    throw new SysError(remedy === undefined ? details : { ...details, remedy });
  }

  /** The result of the call, or the name of its errno. */
  protected abstract answer(name: string, argument: DataView): number | string;

  read(_into: Uint8Array, { context }: CallContext): number | undefined {
    throw new SysError({ call: 'read', errnoName: 'EINVAL', context });
  }

  write(_bytes: Uint8Array, { context }: CallContext): void {
    throw new SysError({ call: 'write', errnoName: 'EINVAL', context });
  }

  [Symbol.dispose](): void {
    this.closed = true;
    close(this.fd, context);
  }

  /** How many calls of one name there were. */
  count(name: string): number {
    return this.seen.filter((request) => request.name === name).length;
  }
}

/** Makes the file longer by `pages` pages, the i-th beginning with `first(i)`. @returns where they begin */
function appendPages(fd: number, at: number, marks: readonly number[]): number {
  ftruncate(fd, at + marks.length * PAGE_SIZE, context);
  for (const [i, mark] of marks.entries()) {
    writeSync(fd, Uint32Array.of(mark), 0, 4, at + i * PAGE_SIZE);
  }
  return at + marks.length * PAGE_SIZE;
}

/** A gntdev over a granting domain where each granted page begins with the number of its ref. */
export class FakeGntdev extends FakeDevice {
  /** Refs that cannot be mapped; their copies fail too unless they are `readOnly`. */
  readonly bad = new Set<number>();
  readonly readOnly = new Set<number>();
  /** How many grants may be mapped at a time. */
  maptrack = Number.POSITIVE_INFINITY;
  /** How many grants one request may have. */
  limit = 65536;
  readonly records = new Map<bigint, number>();
  pagesAsked = 0;
  /** Runs when a record is dropped, before it is. */
  onUnmap: () => void = () => undefined;
  #end = 0;

  constructor() {
    super(memfdCreate('fake-gntdev', context));
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name === 'IOCTL_GNTDEV_MAP_GRANT_REF') return this.#map(argument);
    if (name === 'IOCTL_GNTDEV_UNMAP_GRANT_REF') return this.#unmap(argument);
    if (name === 'IOCTL_GNTDEV_GRANT_COPY') return this.#copy(argument);
    return 'ENOTTY';
  }

  #map(argument: DataView): number | string {
    const { fields } = ioctlGntdevMapGrantRef;
    const count = fields.count.get(argument, 0);
    if (count === 0 || count > this.limit) return 'EINVAL';
    const refs = Array.from({ length: count }, (_, i) => fields.refs.getAt(argument, 0, i).ref);
    const mapped = [...this.records.values()].reduce((sum, pages) => sum + pages, 0);
    const good = mapped + count <= this.maptrack && !refs.some((ref) => this.bad.has(ref));
    const index = this.#end;
    this.#end = appendPages(this.fd, index, refs);
    // The failure must come from mmap itself: an offset that is not a multiple of the page size.
    const offset = BigInt(good ? index : index + 1);
    this.records.set(offset, count);
    this.pagesAsked += count;
    fields.index.set(argument, 0, offset);
    return 0;
  }

  #unmap(argument: DataView): number | string {
    const { index, count } = ioctlGntdevUnmapGrantRef.read(argument, 0);
    if (this.records.get(index) !== count) return 'ENOENT';
    this.onUnmap();
    this.records.delete(index);
    return 0;
  }

  #copy(argument: DataView): number | string {
    const { count, segments } = ioctlGntdevGrantCopy.read(argument, 0);
    if (count !== 1) return 'EINVAL';
    const segment = new DataView(viewOf(segments, gntdevGrantCopySegment.size));
    const { source, status } = gntdevGrantCopySegment.fields;
    const { ref } = source.fields.foreign.get(segment, 0);
    const refused = this.bad.has(ref) && !this.readOnly.has(ref);
    status.set(segment, 0, refused ? GNTST_bad_gntref : GNTST_okay);
    return 0;
  }
}

/** A gntalloc with room for `limit` pages. */
export class FakeGntalloc extends FakeDevice {
  limit = 1024;
  readonly records = new Map<bigint, number>();
  /** Whether mmap of what is allocated next fails. */
  mmapFails = false;
  #end = 0;
  #nextRef = 100;

  constructor() {
    super(memfdCreate('fake-gntalloc', context));
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name === 'IOCTL_GNTALLOC_ALLOC_GREF') return this.#alloc(argument);
    if (name === 'IOCTL_GNTALLOC_DEALLOC_GREF') return this.#dealloc(argument);
    return 'ENOTTY';
  }

  #alloc(argument: DataView): number | string {
    const { fields } = ioctlGntallocAllocGref;
    const count = fields.count.get(argument, 0);
    const used = [...this.records.values()].reduce((sum, pages) => sum + pages, 0);
    if (used + count > this.limit) return 'ENOSPC';
    const index = this.#end;
    this.#end = appendPages(this.fd, index, new Array(count).fill(0));
    const offset = BigInt(this.mmapFails ? index + 1 : index);
    this.records.set(offset, count);
    fields.index.set(argument, 0, offset);
    for (let i = 0; i < count; i++) fields.gref_ids.setAt(argument, 0, i, this.#nextRef++);
    return 0;
  }

  #dealloc(argument: DataView): number | string {
    const { index, count } = ioctlGntallocDeallocGref.read(argument, 0);
    if (this.records.get(index) !== count) return 'EINVAL';
    this.records.delete(index);
    return 0;
  }
}

const createEventfd = koffi.load('libc.so.6').func('int eventfd(unsigned int, int)');
const EFD_NONBLOCK = 0o4000;

/** An evtchn whose readiness is a real file descriptor's: an eventfd that is readable while ports are pending. */
export class FakeEvtchn extends FakeDevice {
  /** Ports in the kernel's list, oldest first. */
  readonly pending: number[] = [];
  readonly masked = new Set<number>();
  readonly bound = new Set<number>();
  /** The ports of each write. */
  readonly writes: number[][] = [];
  readonly notified: number[] = [];
  reads = 0;
  overflowed = false;
  #nextPort = 10;

  constructor() {
    super(createEventfd(0, EFD_NONBLOCK));
  }

  /** What the hypervisor does when the other end notifies. */
  raise(...ports: number[]): void {
    for (const port of ports) {
      if (!this.bound.has(port) || this.masked.has(port)) continue;
      this.masked.add(port);
      this.pending.push(port);
    }
    if (this.pending.length > 0)
      write(this.fd, new Uint8Array(BigUint64Array.of(1n).buffer), context);
  }

  protected answer(name: string, argument: DataView): number | string {
    const port = argument.byteLength >= 4 ? argument.getUint32(0, true) : 0;
    switch (name) {
      case 'IOCTL_EVTCHN_BIND_UNBOUND_PORT':
      case 'IOCTL_EVTCHN_BIND_INTERDOMAIN':
        this.bound.add(this.#nextPort);
        return this.#nextPort++;
      case 'IOCTL_EVTCHN_UNBIND':
        this.masked.delete(port);
        return this.bound.delete(port) ? 0 : 'ENOTCONN';
      case 'IOCTL_EVTCHN_NOTIFY':
        this.notified.push(port);
        return this.bound.has(port) ? 0 : 'ENOTCONN';
      case 'IOCTL_EVTCHN_RESET':
        this.pending.length = 0;
        this.overflowed = false;
        return 0;
      default:
        return 'ENOTTY';
    }
  }

  override read(into: Uint8Array, { context }: CallContext): number | undefined {
    this.reads += 1;
    if (this.overflowed) throw new SysError({ call: 'read', errnoName: 'EFBIG', context });
    const ports = Uint32Array.from(this.pending.splice(0, into.length / 4));
    if (this.pending.length === 0) read(this.fd, new Uint8Array(8), { context });
    if (ports.length === 0) return undefined;
    into.set(new Uint8Array(ports.buffer));
    return ports.byteLength;
  }

  override write(bytes: Uint8Array): void {
    const ports = [...new Uint32Array(bytes.slice().buffer)];
    this.writes.push(ports);
    for (const port of ports) this.masked.delete(port);
  }
}
