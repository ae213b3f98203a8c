// The C library, by FFI: the only door to system calls that Node does not offer. Loaded on first use,
// so that programs which touch no memory mapping or device run without any native part.
//
// Invariant: errno is read by the very next statement after the call (an allocation in between may
// make the runtime do system calls of its own), and every failure leaves here as a `SysError`.

import koffi from 'koffi';
import { F_ADD_SEALS, F_DUPFD_CLOEXEC, F_GET_SEALS, F_SETPIPE_SZ } from '../abi/fcntl.ts';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../abi/memfd.ts';
import { SysError } from '../runtime/errors.ts';

export const PROT_NONE = 0;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MAP_FIXED_NOREPLACE = 0x100000;
export const MADV_POPULATE_WRITE = 23;
export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

const LOCK_EX = 2;
const LOCK_NB = 4;

const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** What went on when a call failed, for its `SysError`. */
export interface CallContext {
  readonly context: string;
  readonly remedy?: string;
}

function load() {
  const libc = koffi.load('libc.so.6');
  return {
    mmap: libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
    munmap: libc.func('int munmap(uintptr_t, size_t)'),
    madvise: libc.func('int madvise(uintptr_t, size_t, int)'),
    mincore: libc.func('int mincore(void *, size_t, void *)'),
    memfd_create: libc.func('int memfd_create(const char *, unsigned int)'),
    ftruncate: libc.func('int ftruncate(int, int64_t)'),
    fallocate: libc.func('int fallocate(int, int, int64_t, int64_t)'),
    // Variadic in C; what is called so takes one int, and such calls may be asynchronous.
    fcntl: libc.func('int fcntl(int, int, int)'),
    ioctl: libc.func('int ioctl(int, unsigned long, void *)'),
    open: libc.func('int open(const char *, int)'),
    read: libc.func('intptr_t read(int, void *, size_t)'),
    write: libc.func('intptr_t write(int, const void *, size_t)'),
    flock: libc.func('int flock(int, int)'),
    close: libc.func('int close(int)'),
  };
}

let loaded: ReturnType<typeof load> | undefined;

function libc(): ReturnType<typeof load> {
  loaded ??= load();
  return loaded;
}

const errnoNames = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));

function fail(call: string, errno: number, { context, remedy }: CallContext): never {
  const errnoName = errnoNames.get(errno) ?? `errno ${errno}`;
  throw new SysError({ call, errnoName, context, ...(remedy === undefined ? {} : { remedy }) });
}

export interface MmapRequest extends CallContext {
  /** 0n lets the kernel choose; otherwise used with MAP_FIXED. */
  readonly address: bigint;
  readonly length: number;
  readonly prot: number;
  readonly flags: number;
  readonly fd: number;
  readonly offset: number;
}

/** mmap(2). @returns the address @throws SysError */
export function mmap(request: MmapRequest): bigint {
  const { address, length, prot, flags, fd, offset } = request;
  const result = libc().mmap(address, length, prot, flags, fd, offset);
  const errno = koffi.errno();
  const mapped = BigInt(result);
  return mapped === MAP_FAILED ? fail('mmap', errno, request) : mapped;
}

/** munmap(2). @throws SysError */
export function munmap(address: bigint, length: number, context: CallContext): void {
  const result = libc().munmap(address, length);
  const errno = koffi.errno();
  if (result < 0) fail('munmap', errno, context);
}

/** What mincore says of one page. */
const residency = new Uint8Array(1);

/**
 * mincore(2) of the page at the start of `page`: whether it has memory, which is not to be had by looking without
 * giving it some. @throws SysError
 */
export function isResident(page: Uint8Array, context: CallContext): boolean {
  const result = libc().mincore(page, 1, residency);
  const errno = koffi.errno();
  if (result < 0) fail('mincore', errno, context);
  return (residency[0]! & 1) === 1;
}

/**
 * memfd_create(2), close-on-exec; one that is `sealable` takes seals.
 * @returns the file descriptor @throws SysError
 */
export function memfdCreate(
  name: string,
  context: CallContext & { readonly sealable?: boolean },
): number {
  const flags = MFD_CLOEXEC | (context.sealable ? MFD_ALLOW_SEALING : 0);
  const fd = libc().memfd_create(name, flags);
  const errno = koffi.errno();
  return fd < 0 ? fail('memfd_create', errno, context) : fd;
}

/** Another descriptor of the same open file, close-on-exec. @throws SysError */
export function duplicate(fd: number, context: CallContext): number {
  const result = libc().fcntl(fd, F_DUPFD_CLOEXEC, 0);
  const errno = koffi.errno();
  return result < 0 ? fail('fcntl F_DUPFD_CLOEXEC', errno, context) : result;
}

/** ftruncate(2). @throws SysError */
export function ftruncate(fd: number, length: number, context: CallContext): void {
  const result = libc().ftruncate(fd, length);
  const errno = koffi.errno();
  if (result < 0) fail('ftruncate', errno, context);
}

/** Gives the pages of a stretch of a memfd back: they read as zeros afterwards. @throws SysError */
export function punchHole(
  fd: number,
  { offset, length }: { offset: number; length: number },
  context: CallContext,
): void {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const result = libc().fallocate(fd, mode, offset, length);
  const errno = koffi.errno();
  if (result < 0) fail('fallocate(PUNCH_HOLE)', errno, context);
}

/**
 * Allocates every page of a stretch of a memfd, on a thread, as that takes long. The reason of a failure is
 * not known then: an errno is the thread's. @returns whether all pages are there
 */
export function allocatePages(
  fd: number,
  { offset, length }: { offset: number; length: number },
): Promise<boolean> {
  return onThread((done) => libc().fallocate.async(fd, 0, offset, length, done));
}

/**
 * Makes every page of a stretch of a memfd hold what it is to hold, on a thread: zeros, where nobody has
 * written yet. Pages that fallocate has made are not cleared before they are touched, so without this a
 * driver that takes them gets what was in them before.
 * @throws SysError ENOMEM
 */
export async function populatePages(
  fd: number,
  { offset, length }: { offset: number; length: number },
  context: CallContext,
): Promise<void> {
  const prot = PROT_READ | PROT_WRITE;
  const address = mmap({ address: 0n, length, prot, flags: MAP_SHARED, fd, offset, ...context });
  try {
    const madvise = (done: Done) =>
      libc().madvise.async(address, length, MADV_POPULATE_WRITE, done);
    if (await onThread(madvise)) return;
    throw new SysError({ call: 'madvise MADV_POPULATE_WRITE', errnoName: 'ENOMEM', ...context });
  } finally {
    munmap(address, length, context);
  }
}

/** Adds F_SEAL_* to a memfd. @throws SysError EBUSY while somebody uses what a seal forbids */
export function addSeals(fd: number, seals: number, context: CallContext): void {
  const result = libc().fcntl(fd, F_ADD_SEALS, seals);
  const errno = koffi.errno();
  if (result < 0) fail('fcntl F_ADD_SEALS', errno, context);
}

/** The F_SEAL_* of a memfd. @throws SysError */
export function sealsOf(fd: number, context: CallContext): number {
  const result = libc().fcntl(fd, F_GET_SEALS, 0);
  const errno = koffi.errno();
  return result < 0 ? fail('fcntl F_GET_SEALS', errno, context) : result;
}

/**
 * Tries to add seals on a thread: the kernel looks at every page, and waits some 150 ms for those that are
 * in use. @returns whether the file has the seals now @throws SysError when it is no memfd
 */
export async function trySeal(fd: number, seals: number, context: CallContext): Promise<boolean> {
  await onThread((done) => libc().fcntl.async(fd, F_ADD_SEALS, seals, done));
  return (sealsOf(fd, context) & seals) === seals;
}

type Done = (error: unknown, result: number) => void;

/** Whether an asynchronous call succeeded. */
function onThread(call: (done: Done) => void): Promise<boolean> {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(error) : resolve(result === 0)));
  });
}

export interface IoctlRequest {
  /** As the header spells it, for the error message. */
  readonly name: string;
  readonly number: number;
  /** The structure; the kernel may write into it. */
  readonly argument: Uint8Array;
}

/** ioctl(2) with a structure. @returns its result @throws SysError */
export function ioctl(
  fd: number,
  { name, number, argument }: IoctlRequest,
  context: CallContext,
): number {
  const result = libc().ioctl(fd, number, argument);
  const errno = koffi.errno();
  return result < 0 ? fail(`ioctl ${name}`, errno, context) : result;
}

/**
 * open(2) of a device: read-write, close-on-exec, and never waiting in read(2).
 * @returns the file descriptor @throws SysError
 */
export function openDevice(path: string, context: CallContext): number {
  const fd = libc().open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  const errno = koffi.errno();
  return fd < 0 ? fail(`open ${path}`, errno, context) : fd;
}

/**
 * read(2) that does not wait: the file must have been opened so.
 * @returns how many bytes came, or undefined when there is nothing to read now @throws SysError
 */
export function read(fd: number, into: Uint8Array, context: CallContext): number | undefined {
  const result = Number(libc().read(fd, into, into.length));
  const errno = koffi.errno();
  if (result >= 0) return result;
  return errno === koffi.os.errno.EAGAIN ? undefined : fail('read', errno, context);
}

/** write(2). @returns how many bytes were taken @throws SysError */
export function write(fd: number, bytes: Uint8Array, context: CallContext): number {
  const result = Number(libc().write(fd, bytes, bytes.length));
  const errno = koffi.errno();
  return result < 0 ? fail('write', errno, context) : result;
}

/**
 * write(2) that does not wait: the file must have been opened so.
 * @returns how many bytes were taken, or undefined when there is no room now @throws SysError
 */
export function tryWrite(fd: number, bytes: Uint8Array, context: CallContext): number | undefined {
  const result = Number(libc().write(fd, bytes, bytes.length));
  const errno = koffi.errno();
  if (result >= 0) return result;
  return errno === koffi.os.errno.EAGAIN ? undefined : fail('write', errno, context);
}

/** Asks for room for so many bytes in a pipe, which the system may refuse. @returns whether it was given */
export function widenPipe(fd: number, bytes: number): boolean {
  return libc().fcntl(fd, F_SETPIPE_SZ, bytes) >= 0;
}

/** flock(2), exclusive, until the descriptor is closed. @returns false when another open file has it @throws SysError */
export function tryLock(fd: number, context: CallContext): boolean {
  const result = libc().flock(fd, LOCK_EX | LOCK_NB);
  const errno = koffi.errno();
  if (result >= 0) return true;
  return errno === koffi.os.errno.EWOULDBLOCK ? false : fail('flock', errno, context);
}

/** close(2). @throws SysError */
export function close(fd: number, context: CallContext): void {
  const result = libc().close(fd);
  const errno = koffi.errno();
  if (result < 0) fail('close', errno, context);
}

/** Where the bytes are in this process, for structures that point at them; they must be kept alive. */
export function addressOf(bytes: Uint8Array): bigint {
  return koffi.address(bytes);
}

/** The bytes of this process at `address`, not copied. Whoever asks keeps the mapping alive. */
export function viewOf(address: bigint, length: number): ArrayBuffer {
  return koffi.view(address, length);
}
