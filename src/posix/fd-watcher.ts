// Waits for a device's file descriptor to become readable (or writable) in Node's own event loop, which
// net.Socket cannot do for such files: libuv's uv_poll_t, reached through the uv_* functions that Node exports.
// No thread and no copy: a wake-up costs one epoll event and one call into JavaScript.
//
// Invariants:
// - Level-triggered: `onReady` is called again in the next turn of the loop while something is unread.
// - The handle's memory lives in `alive` until libuv has said that it is closed, whoever forgets it here.
// - Nothing is thrown through libuv's frames (the callback would never be entered again): what `onReady`
//   throws is thrown again from a microtask of its own, and so is an uncaught exception as ever.
// - An open watcher keeps the process alive. Main thread only: a worker's loop cannot be reached.

import assert from 'node:assert/strict';
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';
import { SysError } from '../runtime/errors.ts';
import { addressOf } from './libc.ts';

/** enum uv_handle_type and enum uv_poll_event of uv.h. */
const UV_POLL = 8;
const UV_READABLE = 1;
const UV_WRITABLE = 2;

/** What a file descriptor is watched for. */
export type Readiness = 'readable' | 'writable';

function load() {
  const node = koffi.load(null);
  const onPoll = koffi.proto('void xen_zcopy_on_poll(intptr_t handle, int status, int events)');
  const onClose = koffi.proto('void xen_zcopy_on_close(intptr_t handle)');
  const handleSize = node.func('size_t uv_handle_size(int)');
  const defaultLoop = node.func('uintptr_t uv_default_loop()');
  return {
    handleBytes: Number(handleSize(UV_POLL)),
    loop: BigInt(defaultLoop()),
    errName: node.func('const char *uv_err_name(int)'),
    init: node.func('int uv_poll_init(uintptr_t, uintptr_t, int)'),
    start: node.func('int uv_poll_start(uintptr_t, int, xen_zcopy_on_poll *)'),
    stop: node.func('int uv_poll_stop(uintptr_t)'),
    close: node.func('void uv_close(uintptr_t, xen_zcopy_on_close *)'),
    onPoll: koffi.register(polled, koffi.pointer(onPoll)),
    onClose: koffi.register(forget, koffi.pointer(onClose)),
  };
}

let loaded: ReturnType<typeof load> | undefined;

function uv(): ReturnType<typeof load> {
  loaded ??= load();
  return loaded;
}

/** What libuv has: the handle's memory, kept from the collector, and what to call. */
interface Handle {
  readonly memory: Uint8Array;
  readonly wake: (status: number) => void;
}

/** Every handle that libuv knows, by its address. */
const alive = new Map<number, Handle>();

function polled(address: number, status: number): void {
  try {
    const handle = alive.get(address);
    assert(handle !== undefined, 'an event for a handle that is closed');
    handle.wake(status);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

function forget(address: number): void {
  alive.delete(address);
}

function succeed(call: string, status: number, fd: number): void {
  if (status >= 0) return;
  const errnoName = String(uv().errName(status));
  throw new SysError({ call, errnoName, context: `watching file descriptor ${fd}` });
}

export class FdWatcher implements Disposable {
  readonly #fd: number;
  readonly #onReady: () => void;
  readonly #address: bigint;
  readonly #events: number;
  #open = true;
  #paused = false;

  /**
   * Calls `onReady` whenever `fd` is ready or in error (using it tells which), until disposed or paused. The
   * file must stay open until then, is made to wait no more in read(2) and write(2), and may have one watcher
   * only. @throws SysError EPERM for files that are always ready, such as those on disks
   */
  constructor(fd: number, onReady: () => void, readiness: Readiness = 'readable') {
    assert(isMainThread, 'file descriptors can be watched in the main thread only');
    this.#fd = fd;
    this.#onReady = onReady;
    this.#events = readiness === 'readable' ? UV_READABLE : UV_WRITABLE;
    const memory = new Uint8Array(uv().handleBytes);
    this.#address = addressOf(memory);
    succeed('uv_poll_init', uv().init(uv().loop, this.#address, fd), fd);
    alive.set(Number(this.#address), { memory, wake: (status) => this.#wake(status) });
    try {
      this.#start();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** How many handles libuv still has: 0 when every watcher is closed and the loop has turned once. */
  static get handles(): number {
    return alive.size;
  }

  #wake(status: number): void {
    try {
      this.#onReady();
    } finally {
      // libuv stops a handle that reported an error.
      if (status < 0 && this.#open && !this.#paused) this.#start();
    }
  }

  /** Calls nothing, and keeps nothing alive, until it is resumed. */
  pause(): void {
    if (this.#paused || !this.#open) return;
    this.#paused = true;
    succeed('uv_poll_stop', uv().stop(this.#address), this.#fd);
  }

  resume(): void {
    if (!this.#paused || !this.#open) return;
    this.#paused = false;
    this.#start();
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    uv().close(this.#address, uv().onClose);
  }

  #start(): void {
    succeed('uv_poll_start', uv().start(this.#address, this.#events, uv().onPoll), this.#fd);
  }
}
