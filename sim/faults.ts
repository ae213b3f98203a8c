// What goes wrong in a run, and how often: each kind of fault has a rate of its own, drawn from the seed, and
// some kinds are off, so that runs differ in what they are about (swarm testing).
//
// Invariant: every fault that was injected is counted by its kind and noted in the trace; once the world is
// healed none is injected any more.

import { between, happens, oneOf, streamOf } from './chance.ts';
import type { Trace } from './trace.ts';

export const FAULT_KINDS = [
  /** A hypercall takes a long time; what it did is seen by others before its caller knows. */
  'hypercall-slow',
  /** Xen has no frames (at any allocation, also inside of the hypervisor's own). */
  'no-frames',
  /** The kernel has no memory for a mapping, a window, a grant or a pool. */
  'no-memory',
  /** No event channel, no grant entry is free. */
  'no-room',
  /** A batch of grants fails at its i-th. */
  'partial-map',
  /** Unmapping is refused once, and works the next time. */
  'unmap-refused',
  /** Access that was to be ended is still in use, as far as can be seen. */
  'end-refused',
  /** A notification is lost; some time later something else makes the other side look. */
  'notification-lost',
  'notification-spurious',
  /** A transaction has to be done again (EAGAIN). */
  'store-conflict',
  /** Xenstored refuses a request: it has no memory, or a quota is used up. */
  'store-refused',
  /** A program's connection to xenstored breaks. */
  'xenstore-lost',
  'watch-spurious',
  /** An output completes a flip late. */
  'flip-late',
  /** An output goes on reading a picture that is taken away. */
  'reader-slow',
  /** An output cannot be connected, or has no memory for a buffer, or none that fits. */
  'output-refused',
  /** An output that is being closed does not come to an end in time. */
  'output-stuck',
  /** A viewer's link is slow. */
  'viewer-slow',
  /** What befalls whole programs and guests. */
  'guest-crash',
  'guest-destroy',
  'guest-shutdown',
  'sharer-kill',
  'device-detach',
  /** A toolstack writes what makes no sense. */
  'toolstack-slip',
  'backend-kill',
  'backend-restart',
  'viewer-gone',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

/** How often a fault comes that does, once in so many times: from often to seldom. */
const RATES = [8, 20, 60, 200] as const;
/** Kinds that could come so often (a handshake is some thirty requests to xenstored) that nothing else would: so much seldomer. */
const SELDOMER: Partial<Record<FaultKind, number>> = { 'store-refused': 10 };
/** Kinds that are off in a run: one in so many. */
const OFF_ONE_IN = 3;

export interface FaultOptions {
  readonly seed: number;
  readonly trace: Trace;
  /** Kinds that are left out. */
  readonly muted: ReadonlySet<string>;
}

export class Faults {
  readonly counts = new Map<FaultKind, number>();
  readonly #trace: Trace;
  readonly #rates = new Map<FaultKind, number>();
  readonly #streams = new Map<FaultKind, ReturnType<typeof streamOf>>();
  #healed = false;

  constructor({ seed, trace, muted }: FaultOptions) {
    this.#trace = trace;
    for (const kind of FAULT_KINDS) {
      const stream = streamOf(seed, kind);
      const off = happens(stream, OFF_ONE_IN) || muted.has(kind);
      this.#rates.set(kind, off ? 0 : oneOf(stream, RATES) * (SELDOMER[kind] ?? 1));
      this.#streams.set(kind, stream);
    }
  }

  /** Nothing goes wrong from now on. */
  heal(): void {
    this.#healed = true;
  }

  get healed(): boolean {
    return this.#healed;
  }

  /** Whether this fault comes now, where it could; it is counted then. */
  strikes(kind: FaultKind): boolean {
    if (this.#healed || !happens(this.#streams.get(kind)!, this.#rates.get(kind)!)) return false;
    this.count(kind);
    return true;
  }

  /** Whether the kind is among those of this run at all. */
  has(kind: FaultKind): boolean {
    return !this.#healed && this.#rates.get(kind)! > 0;
  }

  /** Enters a fault that somebody else decided on. */
  count(kind: FaultKind): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    this.#trace.note(`fault ${kind}`);
  }

  /** How bad it is: a number from `min` to `max` out of the kind's own stream. */
  measure(kind: FaultKind, min: number, max: number): number {
    return between(this.#streams.get(kind)!, min, max);
  }
}
