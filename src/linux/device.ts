// The device files of Linux that this folder uses, Xen's and those that make dma-bufs, and one of them open:
// the whole of the kernel that it talks to, apart from mmap and memfds. Tests put a kernel that fails on
// purpose in its place.

import {
  type CallContext,
  close,
  type IoctlRequest,
  ioctl,
  openDevice,
  read,
  write,
} from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';

/** A device file, and the kernel module that makes it unless it is built into the kernel. */
export interface XenDevice {
  readonly path: string;
  readonly module?: string;
  /** What to do when it is not there, where it is none of Xen's. */
  readonly whenAbsent?: string;
}

export const GNTDEV: XenDevice = { path: '/dev/xen/gntdev', module: 'xen-gntdev' };
export const GNTALLOC: XenDevice = { path: '/dev/xen/gntalloc', module: 'xen-gntalloc' };
export const EVTCHN: XenDevice = { path: '/dev/xen/evtchn', module: 'xen-evtchn' };
export const XENBUS: XenDevice = { path: '/dev/xen/xenbus' };
export const PRIVCMD: XenDevice = { path: '/dev/xen/privcmd', module: 'xen-privcmd' };
/** Memory that stays where it is, for the arguments of hypercalls. */
export const HYPERCALL: XenDevice = { path: '/dev/xen/hypercall', module: 'xen-privcmd' };
export const UDMABUF: XenDevice = {
  path: '/dev/udmabuf',
  module: 'udmabuf',
  whenAbsent: 'run `modprobe udmabuf`, or use a kernel with CONFIG_UDMABUF',
};

/** What a person without Xen can do instead. */
export const WITHOUT_XEN = 'without Xen there are `xen-zcopy demo` and `xen-zcopy lab`';

/** An open device file. Disposing closes it. */
export interface DeviceFile extends Disposable {
  /** For mmap and for waiting. */
  readonly fd: number;
  /** @returns what the call returned @throws SysError */
  ioctl(request: IoctlRequest, context: CallContext): number;
  /** @returns how many bytes came, or undefined when there is nothing to read now @throws SysError */
  read(into: Uint8Array, context: CallContext): number | undefined;
  /** Writes all of `bytes` in one call. @throws SysError */
  write(bytes: Uint8Array, context: CallContext): void;
}

function remedyFor({ module, whenAbsent }: XenDevice, errnoName: string): string {
  switch (errnoName) {
    case 'ENOENT':
      if (whenAbsent !== undefined) return whenAbsent;
      return module === undefined ? WITHOUT_XEN : `run \`modprobe ${module}\`; ${WITHOUT_XEN}`;
    case 'EACCES':
    case 'EPERM':
      return 'run as root';
    default:
      return WITHOUT_XEN;
  }
}

class OpenedDevice implements DeviceFile {
  readonly fd: number;
  readonly #path: string;

  constructor(path: string, remedyOf: (errnoName: string) => string) {
    this.#path = path;
    try {
      this.fd = openDevice(path, { context: `opening ${path}` });
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      const { call, errnoName, context } = error;
      throw new SysError({ call, errnoName, context, remedy: remedyOf(errnoName) });
    }
  }

  ioctl(request: IoctlRequest, context: CallContext): number {
    return ioctl(this.fd, request, context);
  }

  read(into: Uint8Array, context: CallContext): number | undefined {
    return read(this.fd, into, context);
  }

  write(bytes: Uint8Array, context: CallContext): void {
    const taken = write(this.fd, bytes, context);
    if (taken === bytes.length) return;
    const errnoName = `${taken} of ${bytes.length} bytes taken`;
    throw new SysError({ call: `write ${this.#path}`, errnoName, ...context });
  }

  [Symbol.dispose](): void {
    close(this.fd, { context: `closing ${this.#path}` });
  }
}

/** How devices are opened; tests put kernels of their own in its place. */
export type OpenDevice = (device: XenDevice) => DeviceFile;

/** Opens a device, read-write. @throws SysError with what to do about it */
export function openXenDevice(device: XenDevice): DeviceFile {
  return new OpenedDevice(device.path, (errnoName) => remedyFor(device, errnoName));
}

/** Opens a device that is not Xen's, read-write. @throws SysError with the remedy for its errno */
export function openDeviceFile(path: string, remedyOf: (errnoName: string) => string): DeviceFile {
  return new OpenedDevice(path, remedyOf);
}
