// A file descriptor that a program was given (its standard input, a pipe), for reading or writing without ever
// waiting in the call: waiting is for the event loop, where it can be given up. A thread that waits in read(2)
// would keep the process from ending.
//
// Invariants: what others do with the same open file is not disturbed where the system lets us open it anew (pipes,
// terminals); files that are always ready (disks, /dev/null) need none of this, and `open` says so.

import { closeSync, constants, openSync } from 'node:fs';
import { SysError } from '../runtime/errors.ts';
import { FdWatcher, type Readiness } from './fd-watcher.ts';
import { type CallContext, read, tryWrite, widenPipe } from './libc.ts';

/** The most that Linux gives to a pipe of an ordinary user. */
const PIPE_BYTES = 1024 * 1024;

export class PatientFd implements Disposable {
  readonly #fd: number;
  readonly #owned: boolean;
  readonly #watcher: FdWatcher;
  readonly #context: CallContext;
  #wake: () => void = () => {};

  private constructor(fd: number, owned: boolean, options: PatientFdOptions) {
    this.#fd = fd;
    this.#owned = owned;
    this.#context = options;
    this.#watcher = new FdWatcher(fd, () => this.#onReady(), options.readiness);
    this.#watcher.pause();
  }

  /** Undefined when the file is always ready. @throws SysError */
  static open(fd: number, options: PatientFdOptions): PatientFd | undefined {
    const anew = openAnew(fd, options.readiness);
    try {
      const patient = new PatientFd(anew ?? fd, anew !== undefined, options);
      widenPipe(patient.#fd, PIPE_BYTES);
      return patient;
    } catch (error) {
      if (anew !== undefined) closeSync(anew);
      if (error instanceof SysError && error.errnoName === 'EPERM') return undefined;
      throw error;
    }
  }

  /** How many bytes came, 0 at the end; undefined when there is nothing now. @throws SysError */
  tryRead(into: Uint8Array): number | undefined {
    return read(this.#fd, into, this.#context);
  }

  /** How many bytes were taken; undefined when there is no room now. @throws SysError EPIPE */
  tryWrite(bytes: Uint8Array): number | undefined {
    return tryWrite(this.#fd, bytes, this.#context);
  }

  /** Resolves when it is worth to try again; rejects with the signal's reason. One waits at a time. */
  ready(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const leave = () => {
        this.#watcher.pause();
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        leave();
        reject(signal.reason);
      };
      this.#wake = () => {
        leave();
        resolve();
      };
      signal.addEventListener('abort', onAbort);
      this.#watcher.resume();
    });
  }

  [Symbol.dispose](): void {
    this.#watcher[Symbol.dispose]();
    if (this.#owned) closeSync(this.#fd);
  }

  #onReady(): void {
    this.#wake();
  }
}

export interface PatientFdOptions extends CallContext {
  readonly readiness: Readiness;
}

/** The same pipe or terminal with flags of our own; undefined where that cannot be had. */
function openAnew(fd: number, readiness: Readiness): number | undefined {
  const direction = readiness === 'readable' ? constants.O_RDONLY : constants.O_WRONLY;
  try {
    return openSync(`/proc/self/fd/${fd}`, direction | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return undefined;
  }
}
