// A DRM device file, open: the whole of the kernel that this folder talks to. Tests put a card that
// misbehaves on purpose in its place.

import type { CallContext, IoctlRequest } from '../../posix/libc.ts';
import { type DeviceFile, openDeviceFile } from '../device.ts';

export const CARD_FOLDER = '/dev/dri';

export interface CardFile extends DeviceFile {
  /** Such as `/dev/dri/card0`. */
  readonly path: string;
  /** The file to map memory of; `fd` itself on a real card. */
  readonly mapFd: number;
  readonly closed: boolean;
}

function remedyOf(errnoName: string): string {
  switch (errnoName) {
    case 'ENOENT':
    case 'ENXIO':
      return `\`ls ${CARD_FOLDER}\` shows the cards that there are; load the driver of the GPU`;
    case 'EACCES':
    case 'EPERM':
      return 'run as root, or as a member of the group video';
    default:
      return 'see the kernel log (dmesg)';
  }
}

class OpenCard implements CardFile {
  readonly path: string;
  readonly #file: DeviceFile;
  #closed = false;

  constructor(path: string) {
    this.path = path;
    this.#file = openDeviceFile(path, remedyOf);
  }

  get fd(): number {
    return this.#file.fd;
  }

  get mapFd(): number {
    return this.#file.fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  ioctl(request: IoctlRequest, context: CallContext): number {
    return this.#file.ioctl(request, context);
  }

  read(into: Uint8Array, context: CallContext): number | undefined {
    return this.#file.read(into, context);
  }

  write(bytes: Uint8Array, context: CallContext): void {
    this.#file.write(bytes, context);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file[Symbol.dispose]();
  }
}

/** Opens a card. The first who has it open is its master. @throws SysError with what to do about it */
export function openCardFile(path: string): CardFile {
  return new OpenCard(path);
}
