// Atomic commits (drm_mode.h): any number of properties set at once, or none of them.
//
// Invariant: a request's memory is off V8's heap and stays where it is, for it holds its own address; a flip
// writes two numbers into a request that was made long before, and allocates nothing.

import {
  DRM_IOCTL_MODE_ATOMIC,
  DRM_MODE_ATOMIC_NONBLOCK,
  DRM_MODE_PAGE_FLIP_EVENT,
  drmModeAtomic,
} from '../../abi/drm-mode.ts';
import { addressOf, type CallContext, type IoctlRequest } from '../../posix/libc.ts';
import { SysError } from '../../runtime/errors.ts';
import type { DeviceFile } from '../device.ts';
import { repeatIoctl } from './requests.ts';

const NAME = 'DRM_IOCTL_MODE_ATOMIC';
const U32_BYTES = 4;
const U64_BYTES = 8;

/** One property to set. */
export interface Assignment {
  readonly object: number;
  readonly property: number;
  readonly value: bigint;
}

/** What comes back in the event of a commit: whose it is, and which one of theirs. */
export interface CommitTag {
  /** Who is told; 32 bits. */
  readonly receiver: number;
  /** 32 bits. */
  readonly sequence: number;
}

interface Encoded {
  readonly request: IoctlRequest;
  /** The whole of it: the struct at 0, then its arrays. */
  readonly view: DataView;
  /** Where the value of the first assignment is in `view`. */
  readonly firstValueAt: number;
}

/** Lays a request out; what belongs to one object must come in a row. */
function encode(assignments: readonly Assignment[]): Encoded {
  const objects: { id: number; count: number }[] = [];
  for (const { object } of assignments) {
    const last = objects.at(-1);
    if (last?.id === object) last.count += 1;
    else objects.push({ id: object, count: 1 });
  }
  const objectsAt = drmModeAtomic.size;
  const countsAt = objectsAt + objects.length * U32_BYTES;
  const propertiesAt = countsAt + objects.length * U32_BYTES;
  const valuesEnd = propertiesAt + assignments.length * U32_BYTES;
  const valuesAt = Math.ceil(valuesEnd / U64_BYTES) * U64_BYTES;
  const view = new DataView(new ArrayBuffer(valuesAt + assignments.length * U64_BYTES));
  for (const [i, { id, count }] of objects.entries()) {
    view.setUint32(objectsAt + i * U32_BYTES, id, true);
    view.setUint32(countsAt + i * U32_BYTES, count, true);
  }
  for (const [i, { property, value }] of assignments.entries()) {
    view.setUint32(propertiesAt + i * U32_BYTES, property, true);
    view.setBigUint64(valuesAt + i * U64_BYTES, value, true);
  }
  const base = addressOf(new Uint8Array(view.buffer));
  const { fields } = drmModeAtomic;
  fields.count_objs.set(view, 0, objects.length);
  fields.objs_ptr.set(view, 0, base + BigInt(objectsAt));
  fields.count_props_ptr.set(view, 0, base + BigInt(countsAt));
  fields.props_ptr.set(view, 0, base + BigInt(propertiesAt));
  fields.prop_values_ptr.set(view, 0, base + BigInt(valuesAt));
  const argument = new Uint8Array(view.buffer, 0, drmModeAtomic.size);
  const request = { name: NAME, number: DRM_IOCTL_MODE_ATOMIC, argument };
  return { request, view, firstValueAt: valuesAt };
}

const RECEIVER_AT = drmModeAtomic.fields.user_data.offset;
const SEQUENCE_AT = RECEIVER_AT + U32_BYTES;

/** Reads the tag that a commit put into `user_data` at `at`. */
export function tagReceiver(view: DataView, at: number): number {
  return view.getUint32(at, true);
}

export function tagSequence(view: DataView, at: number): number {
  return view.getUint32(at + U32_BYTES, true);
}

/**
 * Sets the properties, or fails and sets none. With a tag, an event follows when it is done.
 * @throws SysError: EINVAL (the driver cannot), EBUSY (an earlier commit is under way), EACCES (not master)
 */
export function commit(
  file: DeviceFile,
  assignments: readonly Assignment[],
  { flags, tag, context }: { flags: number; tag?: CommitTag } & CallContext,
): void {
  const { request, view } = encode(assignments);
  const events = tag === undefined ? 0 : DRM_MODE_PAGE_FLIP_EVENT;
  drmModeAtomic.fields.flags.set(view, 0, flags | events);
  if (tag !== undefined) {
    view.setUint32(RECEIVER_AT, tag.receiver, true);
    view.setUint32(SEQUENCE_AT, tag.sequence, true);
  }
  repeatIoctl(file, request, { context });
}

/** Another framebuffer on one plane, nothing else: the request of every flip of that plane. */
export class FlipRequest {
  readonly #file: DeviceFile;
  readonly #request: IoctlRequest;
  readonly #view: DataView;
  readonly #framebufferAt: number;
  readonly #context: CallContext;

  constructor(
    file: DeviceFile,
    { plane, property, receiver }: { plane: number; property: number; receiver: number },
  ) {
    const { request, view, firstValueAt } = encode([{ object: plane, property, value: 0n }]);
    drmModeAtomic.fields.flags.set(view, 0, DRM_MODE_PAGE_FLIP_EVENT | DRM_MODE_ATOMIC_NONBLOCK);
    view.setUint32(RECEIVER_AT, receiver, true);
    this.#file = file;
    this.#request = request;
    this.#view = view;
    this.#framebufferAt = firstValueAt;
    this.#context = { context: `flipping plane ${plane}` };
  }

  /** @throws SysError as `commit` */
  flip(framebuffer: number, sequence: number): void {
    this.#view.setUint32(this.#framebufferAt, framebuffer, true);
    this.#view.setUint32(SEQUENCE_AT, sequence, true);
    try {
      this.#file.ioctl(this.#request, this.#context);
    } catch (error) {
      if (!(error instanceof SysError) || error.errnoName !== 'EINTR') throw error;
      repeatIoctl(this.#file, this.#request, this.#context);
    }
  }
}
