// Kernels that fail on purpose, behind the interface of an open device file. What they show is real
// memory (memfds) mapped by real mmap; only the ioctls are played. The lab runs the real ones.

import { fstatSync, readFileSync, writeSync } from 'node:fs';
import koffi from 'koffi';
import {
  ioctlGntallocAllocGref,
  ioctlGntallocDeallocGref,
  ioctlGntallocUnmapNotify,
} from '../../src/abi/gntalloc.ts';
import {
  gntdevGrantCopySegment,
  ioctlGntdevGrantCopy,
  ioctlGntdevMapGrantRef,
  ioctlGntdevUnmapGrantRef,
  ioctlGntdevUnmapNotify,
  UNMAP_NOTIFY_CLEAR_BYTE,
  UNMAP_NOTIFY_SEND_EVENT,
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

/** The permissions with which this process maps a place of a file, as `rw-s`; undefined when it does not. */
function permissionsAt(fd: number, offset: bigint): string | undefined {
  const inode = String(fstatSync(fd).ino);
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [range, permissions, start, , mapped] = line.split(/\s+/);
    if (mapped !== inode) continue;
    const [from, to] = range!.split('-').map((address) => BigInt(`0x${address}`));
    const first = BigInt(`0x${start}`);
    if (offset >= first && offset < first + (to! - from!)) return permissions;
  }
  return undefined;
}

/** What SET_UNMAP_NOTIFY asked for. */
interface Notify {
  /** Offset of the byte in the file. */
  readonly index: bigint;
  readonly action: number;
  readonly port: number;
}

const KNOWN_ACTIONS = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;

/** A device whose pages say farewell: what is set is done once, when their time has come. */
abstract class NotifyingDevice extends FakeDevice {
  /** Event channels of this domain that are open. */
  readonly openPorts = new Set<number>([5]);
  /** Ports that the kernel signalled, in order. */
  readonly signalled: number[] = [];
  /** By the offset of the record or of the page. */
  readonly notifies = new Map<bigint, Notify>();

  /** As both drivers: an unknown action, or a port that is not open, is refused. */
  protected keep(place: bigint, { index, action, port }: Notify): number | string {
    if ((action & ~KNOWN_ACTIONS) !== 0) return 'EINVAL';
    if ((action & UNMAP_NOTIFY_SEND_EVENT) !== 0 && !this.openPorts.has(port)) return 'EINVAL';
    this.notifies.set(place, { index, action, port });
    return 0;
  }

  protected sayFarewell(place: bigint): void {
    const notify = this.notifies.get(place);
    this.notifies.delete(place);
    if (notify === undefined) return;
    const { index, action, port } = notify;
    if ((action & UNMAP_NOTIFY_CLEAR_BYTE) !== 0) writeSync(this.fd, '\0', Number(index));
    if ((action & UNMAP_NOTIFY_SEND_EVENT) !== 0) this.signalled.push(port);
  }

  /** The process is gone, or the device closed with all its mappings. */
  override [Symbol.dispose](): void {
    for (const place of [...this.notifies.keys()]) this.sayFarewell(place);
    super[Symbol.dispose]();
  }
}

/** A gntdev over a granting domain where each granted page begins with the number of its ref. */
export class FakeGntdev extends NotifyingDevice {
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
    if (name === 'IOCTL_GNTDEV_SET_UNMAP_NOTIFY') return this.#notify(argument);
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
    // A record that is still mapped goes with its mapping.
    if (permissionsAt(this.fd, index) === undefined) this.sayFarewell(index);
    return 0;
  }

  /** The record that has the byte; one that is mapped for reading has no byte to clear. */
  #notify(argument: DataView): number | string {
    const { index, action, event_channel_port: port } = ioctlGntdevUnmapNotify.read(argument, 0);
    const isIn = ([start, count]: [bigint, number]) =>
      index >= start && index < start + BigInt(count * PAGE_SIZE);
    const found = [...this.records].find(isIn);
    if (found === undefined) return 'ENOENT';
    const permissions = permissionsAt(this.fd, found[0]);
    const readOnly = permissions !== undefined && !permissions.includes('w');
    if (readOnly && (action & UNMAP_NOTIFY_CLEAR_BYTE) !== 0) return 'EINVAL';
    return this.keep(found[0], { index, action, port });
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

/** Where a gntalloc gets its references from, and what becomes of them. */
export interface RefSource {
  grant(domid: number): number | undefined;
  end(ref: number): void;
}

function countingFrom(first: number): RefSource {
  let next = first;
  return { grant: () => next++, end: () => undefined };
}

/** A gntalloc with room for `limit` pages. */
export class FakeGntalloc extends NotifyingDevice {
  limit = 1024;
  readonly records = new Map<bigint, number>();
  /** Whether mmap of what is allocated next fails. */
  mmapFails = false;
  readonly #source: RefSource;
  readonly #refs = new Map<bigint, number>();
  #end = 0;

  constructor(source: RefSource = countingFrom(100)) {
    super(memfdCreate('fake-gntalloc', context));
    this.#source = source;
  }

  protected answer(name: string, argument: DataView): number | string {
    if (name === 'IOCTL_GNTALLOC_ALLOC_GREF') return this.#alloc(argument);
    if (name === 'IOCTL_GNTALLOC_DEALLOC_GREF') return this.#dealloc(argument);
    if (name === 'IOCTL_GNTALLOC_SET_UNMAP_NOTIFY') return this.#notify(argument);
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
    for (let i = 0; i < count; i++) {
      const ref = this.#source.grant(fields.domid.get(argument, 0))!;
      this.#refs.set(BigInt(index + i * PAGE_SIZE), ref);
      fields.gref_ids.setAt(argument, 0, i, ref);
    }
    return 0;
  }

  /** A page that is still mapped goes with its mapping. */
  #dealloc(argument: DataView): number | string {
    const { index, count } = ioctlGntallocDeallocGref.read(argument, 0);
    if (this.records.get(index) !== count) return 'EINVAL';
    this.records.delete(index);
    if (permissionsAt(this.fd, index) !== undefined) return 0;
    for (let i = 0; i < count; i++) this.#endGrant(index + BigInt(i * PAGE_SIZE));
    return 0;
  }

  #endGrant(page: bigint): void {
    this.sayFarewell(page);
    const ref = this.#refs.get(page);
    this.#refs.delete(page);
    if (ref !== undefined) this.#source.end(ref);
  }

  #notify(argument: DataView): number | string {
    const { index, action, event_channel_port: port } = ioctlGntallocUnmapNotify.read(argument, 0);
    const page = index - (index % BigInt(PAGE_SIZE));
    if (!this.#refs.has(page)) return 'ENOENT';
    return this.keep(page, { index, action, port });
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
