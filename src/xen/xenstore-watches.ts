// The client's side of watches: which registration an event is for, and delivery in the client's own time.
//
// Invariants (XSA-349): what waits for delivery is bounded, whatever the other side does: per watch at most
// MAX_CHANGED_PATHS different paths, each once, and past that the watched path alone, which stands for
// all; one delivery at a time is scheduled; a watch that is removed hears nothing any more.

import type { Runtime } from '../runtime/runtime.ts';
import { decodeStrings } from './xenstore-wire.ts';

/** Changed paths that one watch may have waiting. */
const MAX_CHANGED_PATHS = 64;

type OnEvent = (changedPath: string) => void;

class Registration {
  readonly path: string;
  readonly onEvent: OnEvent;
  changed = new Set<string>();
  removed = false;

  constructor(path: string, onEvent: OnEvent) {
    this.path = path;
    this.onEvent = onEvent;
  }

  note(changedPath: string): void {
    if (this.changed.size >= MAX_CHANGED_PATHS && !this.changed.has(changedPath)) {
      this.changed = new Set([this.path]);
    } else {
      this.changed.add(changedPath);
    }
  }
}

export class ClientWatches {
  readonly #runtime: Runtime;
  readonly #byToken = new Map<string, Registration>();
  /** Registrations that have something to hear, in the order in which they got it. */
  #ready = new Set<Registration>();
  #scheduled = false;
  #lastToken = 0;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /** A new registration's token. Events are taken from now on. */
  add(path: string, onEvent: OnEvent): string {
    this.#lastToken++;
    const token = `w${this.#lastToken}`;
    this.#byToken.set(token, new Registration(path, onEvent));
    return token;
  }

  /** Whether the token was there. Nothing is delivered to it any more. */
  remove(token: string): boolean {
    const registration = this.#byToken.get(token);
    if (!registration) return false;
    registration.removed = true;
    this.#ready.delete(registration);
    return this.#byToken.delete(token);
  }

  clear(): void {
    for (const token of [...this.#byToken.keys()]) this.remove(token);
  }

  /** Takes the payload of an XS_WATCH_EVENT; one for a token that is gone is late, not wrong. */
  take(payload: Uint8Array): void {
    const [changedPath, token] = decodeStrings(payload);
    if (changedPath === undefined || token === undefined) return;
    const registration = this.#byToken.get(token);
    if (!registration) return;
    registration.note(changedPath);
    this.#ready.add(registration);
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#runtime.defer(() => this.#deliver());
  }

  #deliver(): void {
    this.#scheduled = false;
    const ready = this.#ready;
    this.#ready = new Set();
    for (const registration of ready) {
      const changed = registration.changed;
      registration.changed = new Set();
      for (const path of changed) {
        if (registration.removed) break;
        this.#tell(registration, path);
      }
    }
  }

  /** One watcher's bug must not cost the others their events. */
  #tell({ path, onEvent }: Registration, changedPath: string): void {
    try {
      onEvent(changedPath);
    } catch (error) {
      this.#runtime.log.error({ err: error, path, changedPath }, 'xenstore watch handler failed');
    }
  }
}
