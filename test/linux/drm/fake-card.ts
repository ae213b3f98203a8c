// A card that misbehaves on purpose, behind the interface of an open device file: two connectors, each with a
// CRTC, a primary plane and a cursor, and the rules of the kernel's atomic interface. Memory is real (mmap of a
// memfd), readiness is real (an eventfd); a refresh happens when the test says so.

import { fstatSync } from 'node:fs';
import koffi from 'koffi';
import {
  DRM_EVENT_FLIP_COMPLETE,
  drmEventVblank,
  drmGemClose,
  drmGetCap,
  drmPrimeHandle,
  drmVersion,
} from '../../../src/abi/drm.ts';
import {
  DRM_MODE_ATOMIC_ALLOW_MODESET,
  DRM_MODE_ATOMIC_NONBLOCK,
  DRM_MODE_ATOMIC_TEST_ONLY,
  DRM_MODE_PAGE_FLIP_EVENT,
  drmModeAtomic,
  drmModeCreateBlob,
  drmModeCreateDumb,
  drmModeDestroyBlob,
  drmModeFbCmd2,
  drmModeGetBlob,
  drmModeGetConnector,
  drmModeGetPlane,
  drmModeMapDumb,
  drmModeModeinfo,
} from '../../../src/abi/drm-mode.ts';
import { PAGE_SIZE } from '../../../src/abi/page.ts';
import { RGB565, XRGB8888 } from '../../../src/display/pixel-format.ts';
import type { CardFile } from '../../../src/linux/drm/card-file.ts';
import {
  type CallContext,
  close,
  ftruncate,
  type IoctlRequest,
  memfdCreate,
  read,
  viewOf,
  write,
} from '../../../src/posix/libc.ts';
import { SysError } from '../../../src/runtime/errors.ts';

const context = { context: 'a fake card' };
const EFD_NONBLOCK = 0o4000;
const createEventfd = koffi.load('libc.so.6').func('int eventfd(unsigned int, int)');

/** Objects of the i-th output. */
export const CONNECTORS = [31, 32];
const ENCODERS = [41, 42];
export const CRTCS = [51, 52];
export const PLANES = [61, 62];
const CURSORS = [71, 72];
/** What the text console shows before anybody comes. */
export const CONSOLE_FRAMEBUFFER = 900;
const CONSOLE_MODE_BLOB = 901;

const PROPERTIES = [
  'type',
  'CRTC_ID',
  'FB_ID',
  'CRTC_X',
  'CRTC_Y',
  'CRTC_W',
  'CRTC_H',
  'SRC_X',
  'SRC_Y',
  'SRC_W',
  'SRC_H',
  'ACTIVE',
  'MODE_ID',
];
const PROPERTY_BASE = 100;

export interface FakeMode {
  readonly width: number;
  readonly height: number;
  readonly preferred?: boolean;
  readonly refreshHz?: number;
}

function modeBytes({ width, height, preferred = false, refreshHz = 60 }: FakeMode): Uint8Array {
  const bytes = new Uint8Array(drmModeModeinfo.size);
  const view = new DataView(bytes.buffer);
  const { fields } = drmModeModeinfo;
  fields.hdisplay.set(view, 0, width);
  fields.vdisplay.set(view, 0, height);
  fields.vrefresh.set(view, 0, refreshHz);
  fields.type.set(view, 0, preferred ? 1 << 3 : 0);
  bytes.set(Buffer.from(`${width}x${height}`), fields.name.offset);
  return bytes;
}

interface Framebuffer {
  readonly handle: number;
  readonly width: number;
  readonly height: number;
  readonly stride: number;
  readonly offset: number;
  readonly format: number;
}

type State = Map<number, Map<string, number>>;

interface Underway {
  readonly userData: bigint;
  readonly plane: number;
}

export class FakeCard implements CardFile {
  readonly path = '/dev/dri/card7';
  readonly fd: number;
  readonly mapFd: number;
  closed = false;
  driver = 'fakems';
  atomic = true;
  master = true;
  /** Whether somebody else is master and stays it. */
  masterHeld = false;
  readonly plugged = [true, true];
  readonly modes: FakeMode[][] = [
    [
      { width: 800, height: 600, preferred: true },
      { width: 640, height: 480 },
    ],
    [
      { width: 800, height: 600, preferred: true },
      { width: 640, height: 480 },
    ],
  ];
  /** Where an imported buffer on a plane is refused: vkms does so when it is committed. */
  refusesImports: 'never' | 'test' | 'commit' = 'never';
  pitchAlignment = 4;
  acceptsStride: (stride: number) => boolean = () => true;
  /** The errno of every atomic commit, while set. */
  atomicFails: string | undefined;
  readonly framebuffers = new Map<number, Framebuffer>();
  readonly dumb = new Map<number, { offset: number; size: number; file: number }>();
  readonly imported = new Map<number, number>();
  readonly blobs = new Map<number, Uint8Array>();
  readonly calls: string[] = [];
  reads = 0;
  /** Framebuffers that were removed while a plane had them: there must be none. */
  removedWhileShown = 0;
  /** What each primary plane scanned out at the last refresh. */
  readonly scannedOut = [CONSOLE_FRAMEBUFFER, 0];
  #state: State = new Map();
  readonly #underway = new Map<number, Underway>();
  readonly #events: Uint8Array[] = [];
  #memoryEnd = 0;
  #next = 1000;

  constructor() {
    this.fd = createEventfd(0, EFD_NONBLOCK);
    this.mapFd = memfdCreate('fake-card', context);
    this.blobs.set(CONSOLE_MODE_BLOB, modeBytes({ width: 800, height: 600 }));
    const none = { CRTC_ID: 0 };
    const place = { CRTC_X: 0, CRTC_Y: 0, CRTC_W: 0, CRTC_H: 0, SRC_X: 0, SRC_Y: 0 };
    const plane = { FB_ID: 0, ...none, ...place, SRC_W: 0, SRC_H: 0 };
    for (const i of [0, 1]) {
      this.#define(CONNECTORS[i]!, none);
      this.#define(CRTCS[i]!, { ACTIVE: 0, MODE_ID: 0 });
      this.#define(PLANES[i]!, { type: 1, ...plane });
      this.#define(CURSORS[i]!, { type: 2, ...plane });
    }
    this.#define(CONNECTORS[0]!, { CRTC_ID: CRTCS[0]! });
    this.#define(CRTCS[0]!, { ACTIVE: 1, MODE_ID: CONSOLE_MODE_BLOB });
    this.#define(PLANES[0]!, {
      ...{ ...this.properties(PLANES[0]!), FB_ID: CONSOLE_FRAMEBUFFER, CRTC_ID: CRTCS[0]! },
    });
  }

  /** The state of an object, by property. */
  properties(object: number): Record<string, number> {
    return Object.fromEntries(this.#state.get(object)!);
  }

  /** The framebuffer on a CRTC at the last refresh. */
  framebufferOn(output: number): Framebuffer | undefined {
    return this.framebuffers.get(this.scannedOut[output]!);
  }

  /** Whether a commit waits for the refresh of an output. */
  underway(output: number): boolean {
    return this.#underway.has(CRTCS[output]!);
  }

  /** A refresh of every output: commits are done, and their events can be read. */
  refresh(): void {
    for (const [crtc, { userData }] of this.#underway) this.#finish(crtc, userData);
    this.#underway.clear();
    for (const i of [0, 1]) this.scannedOut[i] = this.#state.get(PLANES[i]!)!.get('FB_ID')!;
    if (this.#events.length > 0)
      write(this.fd, new Uint8Array(BigUint64Array.of(1n).buffer), context);
  }

  count(name: string): number {
    return this.calls.filter((call) => call === name).length;
  }

  ioctl({ name, argument }: IoctlRequest, { context, remedy }: CallContext): number {
    this.calls.push(name);
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    const result = this.#answer(name, view);
    if (typeof result === 'number') return result;
    const details = { call: `ioctl ${name}`, errnoName: result, context };
    throw new SysError(remedy === undefined ? details : { ...details, remedy });
  }

  read(into: Uint8Array): number | undefined {
    this.reads += 1;
    let length = 0;
    while (this.#events.length > 0 && length + this.#events[0]!.length <= into.length) {
      const event = this.#events.shift()!;
      into.set(event, length);
      length += event.length;
    }
    if (this.#events.length === 0) read(this.fd, new Uint8Array(8), context);
    return length === 0 ? undefined : length;
  }

  write(_bytes: Uint8Array, { context }: CallContext): void {
    throw new SysError({ call: 'write', errnoName: 'EINVAL', context });
  }

  [Symbol.dispose](): void {
    if (this.closed) return;
    this.closed = true;
    close(this.fd, context);
    close(this.mapFd, context);
  }

  #define(object: number, properties: Record<string, number>): void {
    this.#state.set(object, new Map(Object.entries(properties)));
  }

  #finish(crtc: number, userData: bigint): void {
    const event = new Uint8Array(drmEventVblank.size);
    drmEventVblank.write(new DataView(event.buffer), 0, {
      base: { type: DRM_EVENT_FLIP_COMPLETE, length: event.length },
      user_data: userData,
      tv_sec: 0,
      tv_usec: 0,
      sequence: 0,
      crtc_id: crtc,
    });
    this.#events.push(event);
  }

  #answer(name: string, view: DataView): number | string {
    switch (name) {
      case 'DRM_IOCTL_VERSION':
        return this.#version(view);
      case 'DRM_IOCTL_GET_CAP':
        drmGetCap.fields.value.set(view, 0, 3n);
        return 0;
      case 'DRM_IOCTL_SET_CLIENT_CAP':
        return this.atomic ? 0 : 'EOPNOTSUPP';
      case 'DRM_IOCTL_SET_MASTER':
        if (this.masterHeld) return 'EBUSY';
        this.master = true;
        return 0;
      case 'DRM_IOCTL_DROP_MASTER':
        this.master = false;
        return 0;
      case 'DRM_IOCTL_MODE_GETRESOURCES':
        fill(view, 8, 36, CRTCS);
        fill(view, 16, 40, CONNECTORS);
        return 0;
      case 'DRM_IOCTL_MODE_GETENCODER': {
        const i = ENCODERS.indexOf(view.getUint32(0, true));
        view.setUint32(8, this.#state.get(CONNECTORS[i]!)!.get('CRTC_ID')!, true);
        view.setUint32(12, 1 << i, true);
        return 0;
      }
      case 'DRM_IOCTL_MODE_GETCONNECTOR':
        return this.#connector(view);
      case 'DRM_IOCTL_MODE_GETPLANERESOURCES':
        fill(view, 0, 8, [...PLANES, ...CURSORS]);
        return 0;
      case 'DRM_IOCTL_MODE_GETPLANE': {
        const id = view.getUint32(0, true);
        const i = Math.max(PLANES.indexOf(id), CURSORS.indexOf(id));
        drmModeGetPlane.fields.possible_crtcs.set(view, 0, 1 << i);
        fill(view, 24, 20, [XRGB8888.fourcc, RGB565.fourcc]);
        return 0;
      }
      case 'DRM_IOCTL_MODE_OBJ_GETPROPERTIES':
        return this.#objectProperties(view);
      case 'DRM_IOCTL_MODE_GETPROPERTY': {
        const property = PROPERTIES[view.getUint32(16, true) - PROPERTY_BASE]!;
        new Uint8Array(view.buffer, view.byteOffset + 24, 32).set(Buffer.from(property));
        return 0;
      }
      case 'DRM_IOCTL_MODE_ATOMIC':
        return this.#atomic(view);
      default:
        return this.#answerAboutMemory(name, view);
    }
  }

  #answerAboutMemory(name: string, view: DataView): number | string {
    switch (name) {
      case 'DRM_IOCTL_MODE_GETPROPBLOB': {
        const { blob_id, length, data } = drmModeGetBlob.read(view, 0);
        const blob = this.blobs.get(blob_id);
        if (blob === undefined) return 'ENOENT';
        if (length >= blob.length) new Uint8Array(viewOf(data, length)).set(blob);
        drmModeGetBlob.fields.length.set(view, 0, blob.length);
        return 0;
      }
      case 'DRM_IOCTL_MODE_CREATEPROPBLOB': {
        const { data, length } = drmModeCreateBlob.read(view, 0);
        const id = this.#next++;
        this.blobs.set(id, new Uint8Array(viewOf(data, length)).slice());
        drmModeCreateBlob.fields.blob_id.set(view, 0, id);
        return 0;
      }
      case 'DRM_IOCTL_MODE_DESTROYPROPBLOB':
        return this.blobs.delete(drmModeDestroyBlob.read(view, 0).blob_id) ? 0 : 'ENOENT';
      case 'DRM_IOCTL_MODE_CREATE_DUMB':
        return this.#createDumb(view);
      case 'DRM_IOCTL_MODE_MAP_DUMB': {
        const dumb = this.dumb.get(drmModeMapDumb.read(view, 0).handle);
        if (dumb === undefined) return 'ENOENT';
        drmModeMapDumb.fields.offset.set(view, 0, BigInt(dumb.offset));
        return 0;
      }
      case 'DRM_IOCTL_MODE_DESTROY_DUMB':
        return this.dumb.delete(view.getUint32(0, true)) ? 0 : 'EINVAL';
      case 'DRM_IOCTL_PRIME_HANDLE_TO_FD': {
        const dumb = this.dumb.get(drmPrimeHandle.read(view, 0).handle);
        if (dumb === undefined) return 'ENOENT';
        const fd = memfdCreate('fake-dma-buf', context);
        dumb.file = fstatSync(fd).ino;
        drmPrimeHandle.fields.fd.set(view, 0, fd);
        return 0;
      }
      case 'DRM_IOCTL_PRIME_FD_TO_HANDLE':
        return this.#import(view);
      case 'DRM_IOCTL_GEM_CLOSE':
        return this.imported.delete(drmGemClose.read(view, 0).handle) ? 0 : 'EINVAL';
      case 'DRM_IOCTL_MODE_ADDFB2':
        return this.#addFramebuffer(view);
      case 'DRM_IOCTL_MODE_RMFB':
        return this.#removeFramebuffer(view.getUint32(0, true));
      default:
        return 'ENOTTY';
    }
  }

  #version(view: DataView): number {
    const { name, name_len } = drmVersion.read(view, 0);
    const bytes = Buffer.from(this.driver);
    if (name_len >= bytes.length) new Uint8Array(viewOf(name, bytes.length)).set(bytes);
    drmVersion.fields.name_len.set(view, 0, BigInt(bytes.length));
    return 0;
  }

  #connector(view: DataView): number {
    const { fields } = drmModeGetConnector;
    const i = CONNECTORS.indexOf(fields.connector_id.get(view, 0));
    const modes = this.plugged[i] ? this.modes[i]!.map(modeBytes) : [];
    const room = fields.count_modes.get(view, 0);
    if (room >= modes.length && modes.length > 0) {
      const at = viewOf(fields.modes_ptr.get(view, 0), modes.length * drmModeModeinfo.size);
      new Uint8Array(at).set(Buffer.concat(modes));
    }
    fields.count_modes.set(view, 0, modes.length);
    fill(view, 0, fields.count_encoders.offset, [ENCODERS[i]!]);
    fields.encoder_id.set(view, 0, ENCODERS[i]!);
    fields.connector_type.set(view, 0, 15);
    fields.connector_type_id.set(view, 0, i + 1);
    fields.connection.set(view, 0, this.plugged[i] ? 1 : 2);
    return 0;
  }

  #objectProperties(view: DataView): number {
    const entries = [...this.#state.get(view.getUint32(20, true))!];
    if (view.getUint32(16, true) >= entries.length) {
      const values = new DataView(viewOf(view.getBigUint64(8, true), entries.length * 8));
      for (const [i, [, value]] of entries.entries())
        values.setBigUint64(i * 8, BigInt(value), true);
    }
    fill(
      view,
      0,
      16,
      entries.map(([name]) => PROPERTY_BASE + PROPERTIES.indexOf(name)),
    );
    return 0;
  }

  #createDumb(view: DataView): number | string {
    const { width, height, bpp } = drmModeCreateDumb.read(view, 0);
    const align = this.pitchAlignment;
    const pitch = Math.ceil((width * bpp) / (8 * align)) * align;
    const size = Math.ceil((pitch * height) / PAGE_SIZE) * PAGE_SIZE;
    const handle = this.#next++;
    this.dumb.set(handle, { offset: this.#memoryEnd, size, file: 0 });
    this.#memoryEnd += size;
    ftruncate(this.mapFd, this.#memoryEnd, context);
    const { fields } = drmModeCreateDumb;
    fields.handle.set(view, 0, handle);
    fields.pitch.set(view, 0, pitch);
    fields.size.set(view, 0, BigInt(size));
    return 0;
  }

  #import(view: DataView): number {
    const file = fstatSync(drmPrimeHandle.read(view, 0).fd).ino;
    const own = [...this.dumb].find(([, dumb]) => dumb.file === file)?.[0];
    const known = [...this.imported].find(([, imported]) => imported === file)?.[0];
    const handle = own ?? known ?? this.#next++;
    if (own === undefined) this.imported.set(handle, file);
    drmPrimeHandle.fields.handle.set(view, 0, handle);
    return 0;
  }

  #addFramebuffer(view: DataView): number | string {
    const given = drmModeFbCmd2.read(view, 0);
    const [handle, stride, offset] = [given.handles[0]!, given.pitches[0]!, given.offsets[0]!];
    if (!this.dumb.has(handle) && !this.imported.has(handle)) return 'ENOENT';
    if (!this.acceptsStride(stride)) return 'EINVAL';
    const { width, height, pixel_format: format } = given;
    const id = this.#next++;
    this.framebuffers.set(id, { handle, width, height, stride, offset, format });
    drmModeFbCmd2.fields.fb_id.set(view, 0, id);
    return 0;
  }

  #removeFramebuffer(id: number): number | string {
    if (!this.framebuffers.delete(id)) return 'ENOENT';
    for (const [i, plane] of PLANES.entries()) {
      const state = this.#state.get(plane)!;
      if (state.get('FB_ID') !== id && this.scannedOut[i] !== id) continue;
      this.removedWhileShown += 1;
      state.set('FB_ID', 0);
      this.scannedOut[i] = 0;
    }
    return 0;
  }

  #atomic(view: DataView): number | string {
    if (!this.master) return 'EACCES';
    if (this.atomicFails !== undefined) return this.atomicFails;
    const { flags, user_data } = drmModeAtomic.read(view, 0);
    const next: State = new Map([...this.#state].map(([id, values]) => [id, new Map(values)]));
    const touched = apply(view, next);
    const crtcs = CRTCS.filter((crtc, i) => touched.has(crtc) || touched.has(PLANES[i]!));
    const problem = this.#check(next, { flags, crtcs });
    if (problem !== undefined || (flags & DRM_MODE_ATOMIC_TEST_ONLY) !== 0) return problem ?? 0;
    if (this.refusesImports !== 'never' && this.#showsImport(next)) return 'EINVAL';
    const nonblock = (flags & DRM_MODE_ATOMIC_NONBLOCK) !== 0;
    if (nonblock && crtcs.some((crtc) => this.#underway.has(crtc))) return 'EBUSY';
    this.#state = next;
    if ((flags & DRM_MODE_PAGE_FLIP_EVENT) !== 0) {
      for (const crtc of crtcs) this.#underway.set(crtc, { userData: user_data, plane: crtc + 10 });
    } else if (!nonblock) this.refresh();
    return 0;
  }

  #check(next: State, { flags, crtcs }: { flags: number; crtcs: number[] }): string | undefined {
    if (this.refusesImports === 'test' && this.#showsImport(next)) return 'EINVAL';
    const modeset = (flags & DRM_MODE_ATOMIC_ALLOW_MODESET) !== 0;
    for (const crtc of crtcs) {
      const i = CRTCS.indexOf(crtc);
      const [now, then] = [this.#state.get(crtc)!, next.get(crtc)!];
      const event = (flags & DRM_MODE_PAGE_FLIP_EVENT) !== 0;
      if (event && now.get('ACTIVE') === 0 && then.get('ACTIVE') === 0) return 'EINVAL';
      const changes = now.get('ACTIVE') !== then.get('ACTIVE');
      if ((changes || now.get('MODE_ID') !== then.get('MODE_ID')) && !modeset) return 'EINVAL';
      const framebuffer = next.get(PLANES[i]!)!.get('FB_ID')!;
      if (framebuffer === 0 || framebuffer === CONSOLE_FRAMEBUFFER) continue;
      const known = this.framebuffers.get(framebuffer);
      if (known === undefined) return 'EINVAL';
      if (next.get(PLANES[i]!)!.get('SRC_W')! / 65536 !== known.width) return 'EINVAL';
      if (then.get('ACTIVE') === 1 && !this.blobs.has(then.get('MODE_ID')!) && changes)
        return 'EINVAL';
    }
    return undefined;
  }

  #showsImport(state: State): boolean {
    return PLANES.some((plane) => {
      const framebuffer = this.framebuffers.get(state.get(plane)!.get('FB_ID')!);
      return framebuffer !== undefined && this.imported.has(framebuffer.handle);
    });
  }
}

/** Fills a u32 array of the caller's, as far as there is room, and says how many there are. */
function fill(view: DataView, pointerAt: number, countAt: number, values: readonly number[]): void {
  const room = view.getUint32(countAt, true);
  view.setUint32(countAt, values.length, true);
  if (room < values.length || values.length === 0) return;
  const array = new DataView(viewOf(view.getBigUint64(pointerAt, true), values.length * 4));
  for (const [i, value] of values.entries()) array.setUint32(i * 4, value, true);
}

/** Applies the assignments of a request to `state`. @returns the objects that it names */
function apply(view: DataView, state: State): Set<number> {
  const given = drmModeAtomic.read(view, 0);
  const array = (address: bigint, bytes: number) => new DataView(viewOf(address, bytes));
  const objects = array(given.objs_ptr, given.count_objs * 4);
  const counts = array(given.count_props_ptr, given.count_objs * 4);
  const touched = new Set<number>();
  let at = 0;
  for (let i = 0; i < given.count_objs; i++) {
    const object = objects.getUint32(i * 4, true);
    touched.add(object);
    for (let left = counts.getUint32(i * 4, true); left > 0; left--, at++) {
      const property = array(given.props_ptr + BigInt(at * 4), 4).getUint32(0, true);
      const value = array(given.prop_values_ptr + BigInt(at * 8), 8).getBigUint64(0, true);
      state.get(object)!.set(PROPERTIES[property - PROPERTY_BASE]!, Number(value));
    }
  }
  return touched;
}
