// The machine's memory as a process sees it that entered: the memfd of the machine's own process, opened
// through /proc.
//
// Invariant: what is mapped is the machine's memory and nothing else: device, inode and length of the file are
// those that the machine told.

import { closeSync, fstatSync, openSync } from 'node:fs';
import type { Mapping } from '../../posix/mapping.ts';
import { messageOf, SysError } from '../../runtime/errors.ts';
import type { Extent } from '../frame-allocator.ts';
import { type FrameSource, type MachineMemory, mapExtent, showFrames } from '../machine-memory.ts';
import type { MachineFileRef } from './messages.ts';

/** What a process needs to know to find the memory of a machine in this one. */
export function machineFileRef({ fd }: MachineMemory): MachineFileRef {
  return { pid: process.pid, fd, ...identityOf(fd) };
}

export class MachineFile implements FrameSource, Disposable {
  readonly #fd: number;

  /** @throws SysError when the file cannot be opened, or is not the machine's memory */
  constructor(ref: MachineFileRef) {
    const path = `/proc/${ref.pid}/fd/${ref.fd}`;
    this.#fd = open(path);
    const { device, inode, bytes } = identityOf(this.#fd);
    if (device === ref.device && inode === ref.inode && bytes === ref.bytes) return;
    closeSync(this.#fd);
    throw fileError(path, 'ESTALE', 'it is another file: run this where the machine runs');
  }

  mapRun(run: Extent, writable: boolean): Mapping {
    return mapExtent(run, { fd: this.#fd, writable });
  }

  show(
    mapping: Mapping,
    frames: Uint32Array,
    options: { atPage: number; writable: boolean },
  ): void {
    showFrames(mapping, frames, { ...options, fd: this.#fd });
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

function open(path: string): number {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    const { code = messageOf(error) } = error as NodeJS.ErrnoException;
    throw fileError(path, code, 'run this as the user who runs the machine, and where it runs');
  }
}

function identityOf(fd: number): Pick<MachineFileRef, 'device' | 'inode' | 'bytes'> {
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  return { device: `${dev}`, inode: `${ino}`, bytes: Number(size) };
}

function fileError(path: string, errnoName: string, remedy: string): SysError {
  const context = `opening the machine's memory at ${path}`;
  return new SysError({ call: 'open', errnoName, context, remedy });
}
