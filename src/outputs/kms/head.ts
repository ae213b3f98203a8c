// One monitor: which framebuffer is on it, which one is coming, and which one is wanted.
//
// Invariants:
// - One commit is under way at most; what is wanted meanwhile is committed when its event has come. So no
//   call waits for the monitor, and a flip is one ioctl and one event, without an allocation.
// - A framebuffer is in use from its commit until the event of the next one; `left` says when it is not.
// - A commit whose event does not come within two periods of the watchdog makes the head stalled. What the card
//   may still read then stays in use; the head goes on when the event comes, or when the card takes a new commit.

import type { Size } from '../../display/geometry.ts';
import type { FlipReceiver } from '../../linux/drm/events.ts';
import type { Scene } from '../../linux/drm/pipe.ts';
import type { Mode } from '../../linux/drm/resources.ts';
import { SysError } from '../../runtime/errors.ts';
import type { Runtime, Timer } from '../../runtime/runtime.ts';
import type { Frame } from './picture-frames.ts';
import { candidateModes } from './scenes.ts';

/** A flip is late after one to two of these; the frontend gives up after 3 s. */
const WATCHDOG_MS = 1000;
/** Between two tries while somebody else's commit is under way: about a refresh. */
const BUSY_RETRY_MS = 16;

/** What a head drives: a `Pipe`. */
export interface HeadPipe {
  receiver: FlipReceiver | undefined;
  test(scene: Scene): void;
  start(scene: Scene, sequence: number): void;
  flip(framebuffer: number, sequence: number): void;
  /** Without a number, no event follows. */
  stop(sequence?: number): void;
}

export interface HeadListener {
  /** On the screen is `frame` alone, or nothing. */
  onShown(frame: Frame | undefined): void;
  /** The card does not take `frame`; nothing is wanted now. */
  onRefused(frame: Frame, error: SysError): void;
  /** Somebody else sets modes; the head is paused. */
  onMasterLost(): void;
  /** The card does not finish what it was told. */
  onStalled(): void;
}

/** Somebody who waits for something to be over. */
interface Waiter {
  readonly over: () => boolean;
  readonly resolve: () => void;
}

export class Head implements FlipReceiver {
  readonly #runtime: Runtime;
  readonly #listener: HeadListener;
  readonly #pipe: HeadPipe;
  #modes: readonly Mode[];
  #wanted: Frame | undefined;
  /** Whether what is wanted has not been committed. */
  #due = false;
  /** Whether a commit is under way: that of `#coming`. */
  #busy = false;
  #coming: Frame | undefined;
  #sequence = 0;
  #shown: Frame | undefined;
  /** The size of the framebuffers that a flip is enough for; undefined while the head is off. */
  #size: Size | undefined;
  #paused = false;
  #stalled = false;
  #waiters: Waiter[] = [];
  #retry: Timer | undefined;
  #watchdog: Timer | undefined;
  /** How often something was wanted, and how often when the watchdog looked last. */
  #wishes = 0;
  #wishesSeen = 0;

  constructor(runtime: Runtime, { pipe, modes, listener }: HeadParts) {
    this.#runtime = runtime;
    this.#listener = listener;
    this.#modes = modes;
    this.#pipe = pipe;
    pipe.receiver = this;
  }

  get stalled(): boolean {
    return this.#stalled;
  }

  /** The monitor has these modes now; what is shown is to be set anew. */
  set modes(modes: readonly Mode[]) {
    this.#modes = modes;
    this.#size = undefined;
  }

  /** Shows `frame` as soon as can be; then, and for every later one, the listener is told. */
  show(frame: Frame): void {
    this.#wanted = frame;
    this.#due = true;
    this.#wishes += 1;
    this.#advance();
  }

  /** Shows nothing. */
  off(): void {
    this.#wanted = undefined;
    this.#due = this.#busy || this.#shown !== undefined;
    this.#wishes += 1;
    this.#advance();
  }

  /** Resolves when the card does not read `frame` any more; somebody must have wanted something else. */
  left(frame: Frame): Promise<void> {
    return this.#until(() => !this.#uses(frame));
  }

  /** Resolves when nothing is shown and nothing is under way. */
  idle(): Promise<void> {
    return this.#until(() => !this.#busy && !this.#due && this.#shown === undefined);
  }

  /** Commits nothing until `resume`; what is shown belongs to others. */
  pause(): void {
    this.#paused = true;
    this.#due = false;
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#size = undefined;
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  resume(): void {
    this.#paused = false;
  }

  /** Tries whether a stalled card takes commits again. */
  prod(): void {
    if (!this.#stalled || this.#paused) return;
    if (this.#coming !== undefined) this.#commit();
    else this.#prodDark();
  }

  /** Ends all timers and waiting; no call follows. */
  close(): void {
    this.pause();
    this.#watchdog?.cancel();
    this.#watchdog = undefined;
  }

  flipped(sequence: number): void {
    if (!this.#busy || sequence !== this.#sequence) return;
    this.#busy = false;
    this.#stalled = false;
    this.#shown = this.#coming;
    this.#coming = undefined;
    this.#listener.onShown(this.#shown);
    this.#advance();
    if (this.#waiters.length > 0) this.#letGo();
  }

  /** The card was told to go dark: only when it has, it takes the same again, which then has no event. */
  #prodDark(): void {
    try {
      this.#pipe.stop();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      if (error.errnoName !== 'EBUSY') this.#failed(undefined, error);
      return;
    }
    this.flipped(this.#sequence);
  }

  #uses(frame: Frame): boolean {
    return this.#shown === frame || (this.#busy && this.#coming === frame);
  }

  #until(over: () => boolean): Promise<void> {
    if (this.#paused || over()) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ over, resolve });
    });
  }

  #letGo(): void {
    const gone = this.#waiters.filter(({ over }) => over());
    this.#waiters = this.#waiters.filter((waiter) => !gone.includes(waiter));
    for (const { resolve } of gone) resolve();
  }

  #advance(): void {
    if (!this.#due || this.#paused) return;
    if (!this.#busy) this.#commit();
    this.#watch();
  }

  #commit(): void {
    const frame = this.#wanted;
    const sequence = (this.#sequence + 1) >>> 0;
    try {
      if (frame === undefined) this.#pipe.stop(sequence);
      else if (this.#fits(frame)) this.#pipe.flip(frame.framebuffer, sequence);
      else this.#start(frame, sequence);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      this.#failed(frame, error);
      return;
    }
    // A card that takes a commit has finished the one before.
    if (this.#busy) this.#shown = this.#coming;
    this.#stalled = false;
    this.#due = false;
    this.#busy = true;
    this.#coming = frame;
    this.#sequence = sequence;
    if (frame === undefined) this.#size = undefined;
  }

  #fits({ width, height }: Frame): boolean {
    return this.#size?.width === width && this.#size.height === height;
  }

  #start(frame: Frame, sequence: number): void {
    const { framebuffer, width, height } = frame;
    let refusal: SysError | undefined;
    for (const mode of candidateModes(this.#modes, frame)) {
      const scene = { mode, framebuffer, width, height };
      try {
        this.#pipe.test(scene);
      } catch (error) {
        if (!(error instanceof SysError) || error.errnoName !== 'EINVAL') throw error;
        refusal ??= error;
        continue;
      }
      this.#pipe.start(scene, sequence);
      this.#size = { width, height };
      return;
    }
    throw refusal ?? noMode(frame);
  }

  #failed(frame: Frame | undefined, error: SysError): void {
    switch (error.errnoName) {
      case 'EBUSY':
        this.#tryLater();
        return;
      case 'EACCES':
      case 'EPERM':
        this.pause();
        this.#listener.onMasterLost();
        return;
    }
    // The driver checks before it looks whether it is busy, so this says nothing about an earlier commit.
    if (this.#busy) return;
    this.#due = false;
    this.#size = undefined;
    // What cannot be switched off is off: somebody else has seen to that.
    if (frame === undefined) this.#shown = undefined;
    else {
      this.#wanted = undefined;
      this.#listener.onRefused(frame, error);
    }
    this.#letGo();
  }

  #tryLater(): void {
    if (this.#stalled) return;
    this.#retry ??= this.#runtime.after(BUSY_RETRY_MS, () => {
      this.#retry = undefined;
      this.#advance();
    });
  }

  /** One timer for any number of flips: it looks whether the same one is outstanding as a period ago. */
  #watch(): void {
    if (this.#watchdog !== undefined || this.#stalled) return;
    this.#wishesSeen = this.#wishes;
    this.#watchdog = this.#runtime.after(WATCHDOG_MS, () => {
      this.#watchdog = undefined;
      this.#look();
    });
  }

  #look(): void {
    if (this.#paused || this.#stalled || !(this.#busy || this.#due)) return;
    if (this.#wishes !== this.#wishesSeen) {
      this.#watch();
      return;
    }
    this.#stalled = true;
    this.#busy = true;
    this.#listener.onStalled();
  }
}

export interface HeadParts {
  /** The head is told of its events. */
  readonly pipe: HeadPipe;
  readonly modes: readonly Mode[];
  readonly listener: HeadListener;
}

function noMode({ width, height }: Frame): SysError {
  return new SysError({
    call: 'choosing a mode',
    errnoName: 'EINVAL',
    context: `the monitor has no mode as large as the picture of ${width}x${height}`,
    remedy: "configure the guest's connector with a size that the monitor has",
  });
}
