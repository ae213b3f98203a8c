// Events on their way to a guest that does not take them right now: bounded, with room kept for what must
// not be lost. While no more waits than the ring takes at once, each movement is told by itself, so that a
// drawn line keeps its shape; when the guest falls behind, movements that follow each other are merged.
//
// Invariant: for every press or touch that was accepted, the place of its release is reserved: a release is
// never refused, however full the queue is, so no key can get stuck because a guest was slow.

import assert from 'node:assert/strict';
import { XENKBD_IN_RING_LEN } from '../abi/kbdif.ts';
import type { KbdEvent } from './kbd-events.ts';

/** Events that may wait, those whose place is only reserved included. */
export const QUEUE_CAPACITY = 512;

const I32_MAX = 0x7fff_ffff;

function sum(a: number, b: number): number {
  return Math.max(-I32_MAX, Math.min(a + b, I32_MAX));
}

/** The event that stands for both, when `next` follows `last` directly; undefined when both must be told. */
function merged(last: KbdEvent | undefined, next: KbdEvent): KbdEvent | undefined {
  if (last?.kind === 'motion' && next.kind === 'motion') {
    const { dx, dy, wheel } = last;
    return {
      ...next,
      dx: sum(dx, next.dx),
      dy: sum(dy, next.dy),
      wheel: sum(wheel, next.wheel),
    };
  }
  if (last?.kind === 'position' && next.kind === 'position') {
    return { ...next, wheel: sum(last.wheel, next.wheel) };
  }
  if (last?.kind === 'move' && next.kind === 'move' && last.contact === next.contact) return next;
  return undefined;
}

export class EventQueue {
  readonly #events: KbdEvent[] = [];
  readonly #mergeFrom: number;
  #reserved = 0;

  /** `mergeFrom`: how many events have to wait before movements are merged. */
  constructor({ mergeFrom = XENKBD_IN_RING_LEN }: { mergeFrom?: number } = {}) {
    this.#mergeFrom = mergeFrom;
  }

  get size(): number {
    return this.#events.length;
  }

  /** The next event; undefined when there is none. */
  get head(): KbdEvent | undefined {
    return this.#events[0];
  }

  /** Takes the next event away. */
  shift(): void {
    this.#events.shift();
  }

  /** A movement of the pointer. False when there is no room. */
  tryMove(event: KbdEvent): boolean {
    const both = this.#congested ? merged(this.#events.at(-1), event) : undefined;
    if (both) this.#events[this.#events.length - 1] = both;
    return both !== undefined || this.#tryAdd([event]);
  }

  /** A contact's movement and the end of its group. False when there is no room. */
  tryMoveContact(move: KbdEvent, sync: KbdEvent): boolean {
    const last = this.#events.at(-1);
    const group = last?.kind === 'sync' ? this.#events.at(-2) : undefined;
    const both = this.#congested ? merged(group, move) : undefined;
    if (both) this.#events[this.#events.length - 2] = both;
    return both !== undefined || this.#tryAdd([move, sync]);
  }

  /** A repetition of what is down already. False when there is no room. */
  tryRepeat(event: KbdEvent): boolean {
    return this.#tryAdd([event]);
  }

  /** What puts something down; as many places are reserved for its end. False when there is no room. */
  tryBegin(events: readonly KbdEvent[]): boolean {
    if (!this.#tryAdd(events, events.length)) return false;
    this.#reserved += events.length;
    return true;
  }

  /** The end of what `tryBegin` accepted, as many events: there is always room. */
  end(events: readonly KbdEvent[]): void {
    this.#reserved -= events.length;
    assert(this.#reserved >= 0, 'a release without its press');
    this.#events.push(...events);
    assert(this.#events.length + this.#reserved <= QUEUE_CAPACITY, 'more waits than has room');
  }

  get #congested(): boolean {
    return this.#events.length >= this.#mergeFrom;
  }

  #tryAdd(events: readonly KbdEvent[], toReserve = 0): boolean {
    const wanted = this.#events.length + this.#reserved + events.length + toReserve;
    if (wanted > QUEUE_CAPACITY) return false;
    this.#events.push(...events);
    return true;
  }
}
