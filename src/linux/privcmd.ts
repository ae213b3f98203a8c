// Hypercalls and machine frames by /dev/xen/privcmd (xen/privcmd.h of Linux). Arguments of hypercalls lie in
// memory of /dev/xen/hypercall, which stays where it is while Xen reads and writes it.
//
// Invariant: what Xen may write into is private to this class, and copied out before anybody looks.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../abi/page.ts';
import {
  IOCTL_PRIVCMD_HYPERCALL,
  IOCTL_PRIVCMD_MMAPBATCH_V2,
  privcmdHypercall,
  privcmdMmapbatchV2,
} from '../abi/privcmd.ts';
import { __HYPERVISOR_grant_table_op, DOMID_SELF } from '../abi/xen.ts';
import { addressOf, type CallContext } from '../posix/libc.ts';
import { Mapping } from '../posix/mapping.ts';
import { SysError } from '../runtime/errors.ts';
import { type DeviceFile, HYPERCALL, type OpenDevice, PRIVCMD } from './device.ts';

/** Pages for arguments: the first for a structure, the others for the list of frames it points at. */
const ARGUMENT_PAGES = 17;
/** Frame numbers that a list has room for. */
export const MAX_LISTED_FRAMES =
  ((ARGUMENT_PAGES - 1) * PAGE_SIZE) / BigUint64Array.BYTES_PER_ELEMENT;

/** What one grant table hypercall is about. */
export interface GrantTableCall {
  /** GNTTABOP_*, and its C name for errors. */
  readonly op: number;
  readonly name: string;
  /** Fills in the structure; `list` is the address of the list of frames. */
  readonly write: (view: DataView, list: bigint) => void;
}

export class Privcmd implements Disposable {
  readonly #privcmd: DeviceFile;
  readonly #buffers: DeviceFile;
  readonly #arguments: Mapping;

  /** @throws SysError where this kernel or this domain has no such devices */
  constructor(open: OpenDevice) {
    this.#privcmd = open(PRIVCMD);
    try {
      this.#buffers = open(HYPERCALL);
    } catch (error) {
      this.#privcmd[Symbol.dispose]();
      throw error;
    }
    try {
      const file = { fd: this.#buffers.fd, offset: 0, writable: true };
      this.#arguments = new Mapping(ARGUMENT_PAGES, file);
    } catch (error) {
      this.#buffers[Symbol.dispose]();
      this.#privcmd[Symbol.dispose]();
      throw error;
    }
  }

  /** Makes one call of the grant table. @returns a copy of its structure as Xen left it @throws SysError */
  grantTable({ op, name, write }: GrantTableCall, context: CallContext): DataView {
    const { address, bytes } = this.#arguments;
    bytes.fill(0);
    write(new DataView(bytes.buffer, bytes.byteOffset), address + BigInt(PAGE_SIZE));
    const argument = new Uint8Array(privcmdHypercall.size);
    privcmdHypercall.write(new DataView(argument.buffer), 0, {
      op: BigInt(__HYPERVISOR_grant_table_op),
      arg: [BigInt(op), address, 1n, 0n, 0n],
    });
    const request = { name: `IOCTL_PRIVCMD_HYPERCALL ${name}`, argument };
    this.#privcmd.ioctl({ ...request, number: IOCTL_PRIVCMD_HYPERCALL }, context);
    return new DataView(bytes.slice(0, PAGE_SIZE).buffer);
  }

  /** The list of frames that the last call left. */
  frames(count: number): bigint[] {
    assert(count <= MAX_LISTED_FRAMES);
    const list = this.#arguments.bytes.slice(PAGE_SIZE, PAGE_SIZE + count * 8);
    return [...new BigUint64Array(list.buffer)];
  }

  /** A view, for reading, of frames of this domain. @throws SysError where it may not map them */
  mapOwn(frames: readonly bigint[], context: CallContext): Mapping {
    const file = { fd: this.#privcmd.fd, offset: 0, writable: false };
    const mapping = new Mapping(frames.length, file);
    try {
      this.#fill(mapping, frames, context);
      return mapping;
    } catch (error) {
      mapping[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#arguments[Symbol.dispose]();
    this.#buffers[Symbol.dispose]();
    this.#privcmd[Symbol.dispose]();
  }

  #fill({ address }: Mapping, frames: readonly bigint[], context: CallContext): void {
    const list = new Uint8Array(BigUint64Array.from(frames).buffer);
    const errors = new Int32Array(frames.length);
    const argument = new Uint8Array(privcmdMmapbatchV2.size);
    privcmdMmapbatchV2.write(new DataView(argument.buffer), 0, {
      num: frames.length,
      dom: DOMID_SELF,
      addr: address,
      arr: addressOf(list),
      err: addressOf(new Uint8Array(errors.buffer)),
    });
    const name = 'IOCTL_PRIVCMD_MMAPBATCH_V2';
    this.#privcmd.ioctl({ name, number: IOCTL_PRIVCMD_MMAPBATCH_V2, argument }, context);
    const failed = errors.find((error) => error !== 0);
    if (failed === undefined) return;
    throw new SysError({ call: `ioctl ${name}`, errnoName: `${failed} for a frame`, ...context });
  }
}
