// Descriptors of memory that somebody else in this domain made: what they are, whether two are of the same
// memory, and a descriptor of our own (proc_pid_fd(5), memfd_create(2), fcntl(2)). Tests put files that play
// dma-bufs in its place.
//
// Invariants:
// - A descriptor is told by what the kernel calls its file; its number says nothing.
// - The same inode is the same memory for as long as anybody has it open.

import { fstatSync, readlinkSync } from 'node:fs';
import { type CallContext, close, duplicate, type IoctlRequest, ioctl } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';

const REMEDY = 'hand over a dma-buf or a memfd';

/** How the kernel names files without a name, and what they are to us. */
const KINDS = [
  { prefix: '/dmabuf:', kind: 'dma-buf' },
  { prefix: '/memfd:', kind: 'memfd' },
] as const;

export interface FileIdentity {
  readonly kind: (typeof KINDS)[number]['kind'];
  /** The same for the same memory, while somebody has it open. */
  readonly key: string;
  readonly sizeBytes: number;
}

/** A descriptor of our own. Disposing closes it. */
export interface BufferFile extends Disposable {
  readonly fd: number;
  /** @throws SysError */
  ioctl(request: IoctlRequest, context: CallContext): number;
}

export interface BufferFiles {
  /** @throws SysError EBADF when it is not open, EINVAL when it is neither a dma-buf nor a memfd */
  identify(fd: number): FileIdentity;
  /** @throws SysError */
  duplicate(fd: number): BufferFile;
}

export class OwnedFile implements BufferFile {
  readonly fd: number;
  readonly #closing: CallContext;

  /** Owns `fd`. `closing`: what closing it is, for errors. */
  constructor(fd: number, closing: string) {
    this.fd = fd;
    this.#closing = { context: closing };
  }

  ioctl(request: IoctlRequest, context: CallContext): number {
    return ioctl(this.fd, request, context);
  }

  [Symbol.dispose](): void {
    close(this.fd, this.#closing);
  }
}

/** The kernel's own answers. */
export const BUFFER_FILES: BufferFiles = {
  identify,
  duplicate: (fd) =>
    new OwnedFile(duplicate(fd, { context: contextOf(fd) }), 'giving memory of another back'),
};

function contextOf(fd: number): string {
  return `taking the memory of file descriptor ${fd}`;
}

function identify(fd: number): FileIdentity {
  const link = linkOf(fd);
  const found = KINDS.find(({ prefix }) => link.startsWith(prefix));
  if (found === undefined) {
    const context = `${contextOf(fd)}, which is ${link}`;
    throw new SysError({
      call: 'readlink /proc/self/fd',
      errnoName: 'EINVAL',
      context,
      remedy: REMEDY,
    });
  }
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  return { kind: found.kind, key: `${dev}:${ino}`, sizeBytes: Number(size) };
}

/** How the kernel names the file. @throws SysError EBADF */
function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    const context = contextOf(fd);
    throw new SysError({
      call: 'readlink /proc/self/fd',
      errnoName: 'EBADF',
      context,
      remedy: REMEDY,
    });
  }
}
