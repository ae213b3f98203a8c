// How the structs of DRM go to the kernel and come back. For set-up and changes of mode, where clarity
// counts; a flip has its request ready (atomic.ts).

import type { FieldSpecs, Struct } from '../../abi/layout.ts';
import { addressOf, type CallContext, type IoctlRequest } from '../../posix/libc.ts';
import { SysError } from '../../runtime/errors.ts';
import type { DeviceFile } from '../device.ts';

/** How often a call is repeated that a signal cut short, or that the driver asks to repeat. */
const MAX_ATTEMPTS = 100;
const CUT_SHORT = ['EINTR', 'EAGAIN'];
/** Between asking for lengths and asking for contents, a list may grow; so often it is asked again. */
const MAX_LIST_ATTEMPTS = 8;
/** More arrays than one call names. */
const ROOMS_KEPT = 8;
/** The newest arrays, kept from the collector: the kernel writes to them by their addresses alone. */
const keptRooms: Room[] = [];

export interface DrmRequest<F extends FieldSpecs> {
  readonly name: string;
  readonly number: number;
  readonly layout: Struct<F>;
}

type Input<F extends FieldSpecs> = Parameters<Struct<F>['write']>[2];
type Output<F extends FieldSpecs> = ReturnType<Struct<F>['read']>;

/** ioctl, repeated while it is cut short. @throws SysError */
export function repeatIoctl(file: DeviceFile, request: IoctlRequest, context: CallContext): number {
  for (let attempt = 1; ; attempt++) {
    try {
      return file.ioctl(request, context);
    } catch (error) {
      if (!(error instanceof SysError) || !CUT_SHORT.includes(error.errnoName)) throw error;
      if (attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

/** Asks with the given fields, the others being zero. @returns the struct afterwards @throws SysError */
export function ask<F extends FieldSpecs>(
  file: DeviceFile,
  { name, number, layout }: DrmRequest<F>,
  given: Partial<Input<F>>,
  context: CallContext,
): Output<F> {
  const argument = new Uint8Array(layout.size);
  const view = new DataView(argument.buffer);
  for (const [field, value] of Object.entries(given)) {
    layout.fields[field]?.set(view, 0, value as never);
  }
  repeatIoctl(file, { name, number, argument }, context);
  return layout.read(view, 0);
}

/** An array that the kernel reads or fills during one call, and its address for a struct. */
export class Room {
  readonly view: DataView;
  readonly address: bigint;
  readonly #elementBytes: number;

  constructor(count: number, elementBytes: number) {
    // Never empty, so that it has an address.
    this.view = new DataView(new ArrayBuffer(Math.max(1, count) * elementBytes));
    this.address = addressOf(new Uint8Array(this.view.buffer));
    this.#elementBytes = elementBytes;
    keptRooms.push(this);
    if (keptRooms.length > ROOMS_KEPT) keptRooms.shift();
  }

  /** An array of bytes with something in it. */
  static of(bytes: Uint8Array): Room {
    const room = new Room(bytes.length, 1);
    new Uint8Array(room.view.buffer).set(bytes);
    return room;
  }

  /** An array of `u32[count]`. */
  static u32(count: number): Room {
    return new Room(count, Uint32Array.BYTES_PER_ELEMENT);
  }

  static u64(count: number): Room {
    return new Room(count, BigUint64Array.BYTES_PER_ELEMENT);
  }

  numbers(count: number): number[] {
    return Array.from({ length: count }, (_, i) => this.view.getUint32(i * 4, true));
  }

  bigints(count: number): bigint[] {
    return Array.from({ length: count }, (_, i) => this.view.getBigUint64(i * 8, true));
  }

  /** A copy of the i-th element. */
  bytesOf(index: number): Uint8Array {
    const at = index * this.#elementBytes;
    return new Uint8Array(this.view.buffer, at, this.#elementBytes).slice();
  }
}

/**
 * Asks until the list fits the room that was made for it: `attempt` gets how many elements there were the
 * last time (0 at first), and gives how many there are now, and the result.
 */
export function askList<T>(attempt: (room: number) => { count: number; result: T }): T {
  let room = 0;
  for (let tries = 0; tries < MAX_LIST_ATTEMPTS; tries++) {
    const { count, result } = attempt(room);
    if (count <= room) return result;
    room = count;
  }
  const context = 'reading what a card has: it changes all the time';
  throw new SysError({ call: 'reading a list of DRM', errnoName: 'EAGAIN', context });
}

/** The text of a zero-terminated field. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString('utf8');
}
