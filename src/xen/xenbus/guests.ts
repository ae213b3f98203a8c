// Who is served now: one context per guest, shared by all of its devices of every type.
//
// A device enters its guest before it makes us hold anything and leaves when it holds nothing any more; the
// first to enter makes the context, the last to leave closes the guest's scope. Invariant: of one domain
// there is never more than one context, also while an old one is still closing.

import type { DomId } from '../ids.ts';
import type { GuestContext } from './driver.ts';

/** A device's presence in its guest. Disposing it leaves; doing that twice does nothing. */
export interface GuestStay extends AsyncDisposable {
  readonly guest: GuestContext;
}

interface Entry {
  readonly guest: Promise<GuestContext>;
  stays: number;
}

export class Guests {
  readonly #open: (domid: DomId) => GuestContext | Promise<GuestContext>;
  readonly #entries = new Map<DomId, Entry>();
  readonly #closing = new Map<DomId, Promise<void>>();

  /**
   * `open` makes a guest's context when its first device appears. Whatever has to happen when the guest is
   * gone (closing its row in the ledger) is deferred into the context's scope, which is closed here.
   */
  constructor(open: (domid: DomId) => GuestContext | Promise<GuestContext>) {
    this.#open = open;
  }

  /** Rejects with what `open` threw. */
  async enter(domid: DomId): Promise<GuestStay> {
    for (;;) {
      const closing = this.#closing.get(domid);
      if (!closing) break;
      await closing;
    }
    const entry = this.#entries.get(domid) ?? this.#add(domid);
    entry.stays += 1;
    let open = true;
    const leave = async () => {
      if (!open) return;
      open = false;
      await this.#leave(domid, entry);
    };
    try {
      return { guest: await entry.guest, [Symbol.asyncDispose]: leave };
    } catch (error) {
      entry.stays -= 1;
      if (this.#entries.get(domid) === entry) this.#entries.delete(domid);
      throw error;
    }
  }

  #add(domid: DomId): Entry {
    const entry = { guest: Promise.resolve(domid).then(this.#open), stays: 0 };
    this.#entries.set(domid, entry);
    return entry;
  }

  async #leave(domid: DomId, entry: Entry): Promise<void> {
    entry.stays -= 1;
    if (entry.stays > 0) return;
    this.#entries.delete(domid);
    // Noted before anything is awaited, so that nobody can enter in between.
    const closed = entry.guest.then(({ scope }) => scope.close());
    const over = closed
      .catch(() => {})
      .finally(() => {
        this.#closing.delete(domid);
      });
    this.#closing.set(domid, over);
    await closed;
  }
}
