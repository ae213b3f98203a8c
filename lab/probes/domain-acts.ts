// What a program of ours can be told to do as the domain that it runs in: share and lend pages, map those of others,
// event channels, xenstore. What an act makes is kept by a number, its handle, which later acts name.
// Scenarios take the types of the requests and of the answers from here.
import assert from 'node:assert/strict';
import { openXenDevice } from '../../src/linux/device.ts';
import type { LinuxDomain } from '../../src/linux/domain.ts';
import { GrantObserver } from '../../src/linux/grant-observer.ts';
import { type GuestType, guestType } from '../../src/linux/kernel-facts.ts';
import type { EventChannel } from '../../src/xen/domain.ts';
import { domId, gref, port } from '../../src/xen/ids.ts';
import type { GivenBack } from '../../src/xen/memory.ts';

/** Pages that the program shares, lends or maps. */
interface HeldPages {
  readonly bytes: Uint8Array;
  /** One try to give them back. */
  end(): Promise<GivenBack>;
}

interface HeldChannel {
  readonly channel: EventChannel;
  calls: number;
}

interface HeldWatch {
  readonly watch: AsyncDisposable;
  readonly paths: string[];
}

/** Pages of ours that another domain may map. */
export interface GivenPages {
  readonly handle: number;
  readonly refs: readonly number[];
}

/** Who may do what with a node: the first entry is for its owner, and for all who are not named. */
export interface NodePermission {
  readonly domid: number;
  readonly read: boolean;
  readonly write: boolean;
}

/** The word that fill() writes at this place: no two pages are alike. */
function wordAt(index: number, seed: number): number {
  return Math.imul(index + seed, 2654435761) >>> 0;
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  const size = Uint32Array.BYTES_PER_ELEMENT;
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / size);
}

/** The acts, by their names: each takes one object and answers with something that JSON can say. */
export class DomainActs {
  readonly #domain: LinuxDomain;
  readonly #pages = new Map<number, HeldPages>();
  readonly #channels = new Map<number, HeldChannel>();
  readonly #watches = new Map<number, HeldWatch>();
  #lastHandle = 0;

  constructor(domain: LinuxDomain) {
    this.#domain = domain;
  }

  async identify(): Promise<{ domid: number; guestType: GuestType | undefined }> {
    return { domid: this.#domain.domid, guestType: guestType() };
  }

  /** New pages for another domain. */
  async share(request: { domid: number; pages: number; writable: boolean }): Promise<GivenPages> {
    const domid = domId(request.domid);
    const shared = await this.#domain.grants.share({ ...request, domid });
    return { handle: this.#keep(this.#pages, shared), refs: shared.refs };
  }

  /** A new buffer, lent to another domain as a dma-buf. */
  async lend(request: { domid: number; pages: number }): Promise<GivenPages> {
    const { pages } = request;
    const buffer = await this.#domain.memory.allocate({ pages, contiguity: 'none' });
    const domid = domId(request.domid);
    const loan = await this.#domain.grants.lend({ domid, buffer, writable: true });
    const end = async () => {
      const given = await loan.end();
      return given.heldPages > 0 ? given : buffer.free();
    };
    const handle = this.#keep(this.#pages, { bytes: buffer.bytes, end });
    return { handle, refs: loan.refs };
  }

  async map(request: {
    domid: number;
    refs: readonly number[];
    writable: boolean;
  }): Promise<{ handle: number }> {
    const { domid, refs, writable } = request;
    const mapping = await this.#domain.foreign.map({
      domid: domId(domid),
      refs: refs.map(gref),
      writable,
    });
    const end = async () => {
      await mapping[Symbol.asyncDispose]();
      return { heldPages: 0, evidence: 'unmapped' };
    };
    return { handle: this.#keep(this.#pages, { bytes: mapping.bytes, end }) };
  }

  /** Fills pages with what matches() recognises by the same seed. */
  async fill({ handle, seed }: { handle: number; seed: number }): Promise<void> {
    const words = wordsOf(this.#pagesOf(handle).bytes);
    for (let index = 0; index < words.length; index++) words[index] = wordAt(index, seed);
  }

  /** Whether every word is as fill() has written it. */
  async matches({ handle, seed }: { handle: number; seed: number }): Promise<boolean> {
    const words = wordsOf(this.#pagesOf(handle).bytes);
    return words.every((word, index) => word === wordAt(index, seed));
  }

  async byteAt({ handle, offset }: { handle: number; offset: number }): Promise<number> {
    const byte = this.#pagesOf(handle).bytes[offset];
    assert(byte !== undefined, `the pages have no byte ${offset}`);
    return byte;
  }

  /** One try to give pages back. */
  async end({ handle }: { handle: number }): Promise<GivenBack> {
    const given = await this.#pagesOf(handle).end();
    if (given.heldPages === 0) this.#pages.delete(handle);
    return given;
  }

  /** A port that `remote` may bind to. */
  async offer({ remote }: { remote: number }): Promise<{ handle: number; port: number }> {
    return this.#hold((handler) =>
      this.#domain.events.allocUnbound({ remote: domId(remote), handler }),
    );
  }

  /** Binds to a port that `remote` has offered. */
  async bind(request: { remote: number; port: number }): Promise<{ handle: number; port: number }> {
    const end = { remote: domId(request.remote), remotePort: port(request.port) };
    return this.#hold((handler) => this.#domain.events.bindInterdomain({ ...end, handler }));
  }

  async notify({ handle }: { handle: number }): Promise<void> {
    this.#channelOf(handle).channel.notify();
  }

  /** How often the channel's handler was called. Binding itself gives a call. */
  async calls({ handle }: { handle: number }): Promise<number> {
    return this.#channelOf(handle).calls;
  }

  async closeChannel({ handle }: { handle: number }): Promise<void> {
    await this.#channelOf(handle).channel[Symbol.asyncDispose]();
    this.#channels.delete(handle);
  }

  /** Null for a node that is not there. */
  async readNode({ path }: { path: string }): Promise<string | null> {
    return (await this.#domain.store.read(path)) ?? null;
  }

  async listNode({ path }: { path: string }): Promise<readonly string[] | null> {
    return (await this.#domain.store.directory(path)) ?? null;
  }

  async writeNode({ path, value }: { path: string; value: string }): Promise<void> {
    await this.#domain.store.write(path, value);
  }

  async removeNode({ path }: { path: string }): Promise<void> {
    await this.#domain.store.remove(path);
  }

  async permissionsOf({ path }: { path: string }): Promise<readonly NodePermission[]> {
    return this.#domain.store.getPermissions(path);
  }

  async permit(request: { path: string; permissions: readonly NodePermission[] }): Promise<void> {
    const permissions = request.permissions.map((entry) => ({
      ...entry,
      domid: domId(entry.domid),
    }));
    await this.#domain.store.setPermissions(request.path, permissions);
  }

  async watch({ path }: { path: string }): Promise<{ handle: number }> {
    const paths: string[] = [];
    const watch = await this.#domain.store.watch(path, (changed) => paths.push(changed));
    return { handle: this.#keep(this.#watches, { watch, paths }) };
  }

  /** The paths that a watch has named since it was last asked; registering names its own. */
  async changes({ handle }: { handle: number }): Promise<readonly string[]> {
    const held = this.#watches.get(handle);
    assert(held !== undefined, `no watch ${handle}`);
    return held.paths.splice(0);
  }

  async unwatch({ handle }: { handle: number }): Promise<void> {
    await this.#watches.get(handle)?.watch[Symbol.asyncDispose]();
    this.#watches.delete(handle);
  }

  /** Looks at this domain's own grant table. @throws where the host does not let it */
  async observe(): Promise<void> {
    GrantObserver.open(openXenDevice, guestType())[Symbol.dispose]();
  }

  #keep<T>(kept: Map<number, T>, thing: T): number {
    const handle = ++this.#lastHandle;
    kept.set(handle, thing);
    return handle;
  }

  #pagesOf(handle: number): HeldPages {
    const pages = this.#pages.get(handle);
    assert(pages !== undefined, `no pages ${handle}`);
    return pages;
  }

  #channelOf(handle: number): HeldChannel {
    const held = this.#channels.get(handle);
    assert(held !== undefined, `no channel ${handle}`);
    return held;
  }

  /** Keeps a channel whose calls are counted. */
  async #hold(
    open: (handler: () => void) => Promise<EventChannel>,
  ): Promise<{ handle: number; port: number }> {
    let early = 0;
    let held: HeldChannel | undefined;
    const channel = await open(() => {
      if (held === undefined) early += 1;
      else held.calls += 1;
    });
    held = { channel, calls: early };
    return { handle: this.#keep(this.#channels, held), port: channel.port };
  }
}
