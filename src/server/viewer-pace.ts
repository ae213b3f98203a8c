// How much one viewer may make us do: what goes beyond is not read from its connection until it is paid for, so that
// a page, or a program with a token, that floods us waits for itself, and neither guests nor other viewers wait for it.
//
// Invariants: a message is paid for after it was served, so an honest viewer's is never late; at most what one
// read of the socket brought is served beyond the rate. Nothing is lost and nobody is cut off.
//
// A mouse of 1000 Hz whose every move is a message is 2000 a second, ten fingers at 240 Hz are 2640, four screens at
// 240 Hz are 960 acknowledgements: 5600 together.

import type { ViewerMessage } from '../outputs/browser/protocol.ts';
import { RateLimit } from '../runtime/rate-limit.ts';
import type { Runtime, Timer } from '../runtime/runtime.ts';

/** Of a message, whatever it says; an input event costs as much again. */
const MESSAGE_WORK = 1;
/** Of a screen that was not watched before: its first update is a whole picture. */
const NEW_SCREEN_WORK = 100;
/** A flood of little things wakes us up for many of them at a time. */
const REST_MIN_MS = 10;

/** Where what the viewer says comes from. */
export interface PacedSource {
  pause(): void;
  resume(): void;
}

export interface ViewerPaceOptions {
  readonly source: PacedSource;
  /** Units of work; as many may be done at once by a viewer that has been quiet. */
  readonly workPerSecond: number;
  /** The viewer is made to wait. */
  readonly onRest: () => void;
}

export class ViewerPace {
  readonly #runtime: Runtime;
  readonly #options: ViewerPaceOptions;
  readonly #limit: RateLimit;
  #rest: Timer | undefined;
  /** It has not taken what it asked for: more is not taken from it. */
  #congested = false;

  constructor(runtime: Runtime, options: ViewerPaceOptions) {
    const perSecond = options.workPerSecond;
    this.#runtime = runtime;
    this.#options = options;
    this.#limit = new RateLimit(runtime, { perSecond, burst: perSecond });
  }

  /** Whether it has to wait for its rate, and is not listened to. */
  get resting(): boolean {
    return this.#rest !== undefined;
  }

  /** A message was served, which made us watch so many further screens. */
  served(message: ViewerMessage, newScreens: number): void {
    const events = message.type === 'input' ? message.events.length : 0;
    this.#limit.spend(MESSAGE_WORK + events + NEW_SCREEN_WORK * newScreens);
    const { overdrawnMs } = this.#limit;
    if (overdrawnMs === 0 || this.resting) return;
    this.#stop();
    this.#rest = this.#runtime.after(Math.max(overdrawnMs, REST_MIN_MS), () => {
      this.#rest = undefined;
      this.#goOn();
    });
  }

  /** Whether it has more on its way than it watches screens. */
  set congested(congested: boolean) {
    if (this.#congested === congested) return;
    if (congested) this.#stop();
    this.#congested = congested;
    if (!congested) this.#goOn();
  }

  /** The viewer is gone. */
  end(): void {
    this.#rest?.cancel();
    this.#rest = undefined;
  }

  get #paused(): boolean {
    return this.resting || this.#congested;
  }

  #stop(): void {
    if (this.#paused) return;
    this.#options.source.pause();
    this.#options.onRest();
  }

  #goOn(): void {
    if (!this.#paused) this.#options.source.resume();
  }
}
