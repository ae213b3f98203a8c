// A watch on a node that a guest writes: one that fires faster than the guest may make it is taken out of xenstored
// for a while, so that a flood of writes costs its sender, and xenstored nothing on our behalf (XSA-349).
//
// Setting a watch fires it, so nothing is lost that way: whoever listens looks once more, and sees what is there now.
// That event is our own doing, and not on the guest's bill: it would be the reason for the next pause, for ever.

import { ProtocolViolation, SysError } from '../../runtime/errors.ts';
import { type Runtime, sleep } from '../../runtime/runtime.ts';
import type { XenstoreWatch } from '../xenstore.ts';
import { isErrno } from '../xenstore-access.ts';
import type { GuestContext } from './driver.ts';

/** Shortest time without the watch, in milliseconds: taking it out and setting it again costs two requests. */
const DEAF_MIN_MS = 200;
/** Pause before another try when a watch is refused that was accepted before. */
const RETRY_MS = 1000;

export interface PacedWatchOptions {
  readonly runtime: Runtime;
  /** Who writes there, and pays for it. */
  readonly guest: Pick<GuestContext, 'domain' | 'spend' | 'rest' | 'log'>;
  readonly path: string;
  readonly onChange: () => void;
}

export class PacedWatch implements AsyncDisposable {
  readonly #options: PacedWatchOptions;
  readonly #closing = new AbortController();
  #watch: XenstoreWatch | undefined;
  /** Set, and its own event has not come yet. */
  #firing = false;
  #resting: Promise<void> | undefined;

  private constructor(options: PacedWatchOptions) {
    this.#options = options;
  }

  /** Calls `onChange` once at first, and after every change. @throws SysError, ProtocolViolation beyond the budget */
  static async open(options: PacedWatchOptions): Promise<PacedWatch> {
    const paced = new PacedWatch(options);
    await paced.#set();
    return paced;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#resting;
    await this.#watch?.[Symbol.asyncDispose]();
  }

  async #set(): Promise<void> {
    const { guest, path } = this.#options;
    this.#firing = true;
    this.#watch = await guest.domain.store.watch(path, () => this.#onEvent());
  }

  #onEvent(): void {
    const { guest, onChange } = this.#options;
    onChange();
    if (this.#firing) {
      this.#firing = false;
      return;
    }
    guest.spend('storeEventsPerSecond', 1);
    if (this.#resting !== undefined) return;
    const rest = guest.rest('storeEventsPerSecond', this.#closing.signal);
    if (rest === undefined) return;
    this.#resting = this.#deafFor(rest).finally(() => {
      this.#resting = undefined;
    });
  }

  async #deafFor(rest: Promise<void>): Promise<void> {
    const { signal } = this.#closing;
    const watch = this.#watch;
    this.#watch = undefined;
    await watch?.[Symbol.asyncDispose]();
    await Promise.all([rest, this.#sleep(DEAF_MIN_MS)]);
    while (!signal.aborted && !(await this.#guarded(() => this.#set()))) {
      await this.#sleep(RETRY_MS);
    }
  }

  /** Until the time is over or the watch is closed. */
  async #sleep(delayMs: number): Promise<void> {
    const { signal } = this.#closing;
    if (!signal.aborted) await sleep(this.#options.runtime, delayMs, signal).catch(() => {});
  }

  /** Whether it is done, or there is no use in trying again as xenstore is lost: its owner ends all of us then. */
  async #guarded(step: () => Promise<void>): Promise<boolean> {
    const { guest, path } = this.#options;
    try {
      await step();
      return true;
    } catch (error) {
      if (!(error instanceof SysError || error instanceof ProtocolViolation)) throw error;
      guest.log.warn({ path, reason: error.message }, 'a watch that was paused');
      return isErrno(error, 'ECONNRESET');
    }
  }
}
