// Buffers shared with guests that come, map, keep and die, next to a reference that only counts who has what:
// the system under test and the simplest thing that says what must be true of it.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { ForeignMapping, SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type DomId } from '../../src/xen/ids.ts';
import type { MemoryPool } from '../../src/xen/memory.ts';
import { accountedDomain } from '../../src/zcopy/accounted-domain.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { type Account, Ledger } from '../../src/zcopy/ledger.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { Zcopy } from '../../src/zcopy/zcopy.ts';
import { listed, type SharingWorld, TestDevice } from './world.ts';

/** Longer than the longest pause between two tries of a release. */
export const SETTLED_MS = 1100;
const POOL_PAGES = 64;

/** A buffer, and what the reference knows of it. */
export class ModelBuffer {
  readonly buffer: SharedBuffer;
  readonly peer: ModelGuest;
  /** What the guest granted, for refs to buffer. */
  readonly shared: SharedPages | undefined;
  /** What its first byte is. */
  readonly mark: number;
  readonly view: Uint8Array;
  readonly readers: (() => void)[] = [];
  readonly devices: Disposable[] = [];
  readonly mappings: ForeignMapping[] = [];
  releasing = false;
  /** Somebody waited in vain, while it was held. */
  gaveUp = false;

  constructor(made: Pick<ModelBuffer, 'buffer' | 'peer' | 'shared' | 'mark'>) {
    this.buffer = made.buffer;
    this.peer = made.peer;
    this.shared = made.shared;
    this.mark = made.mark;
    this.view = made.buffer.bytes;
    this.view[0] = made.mark;
  }

  get held(): boolean {
    const mapped = this.peer.alive && this.mappings.length > 0;
    return this.readers.length + this.devices.length > 0 || mapped;
  }

  /** What must be true when nothing is under way. */
  check(): void {
    const { state } = this.buffer;
    const kept = this.gaveUp ? 'quarantined' : 'releasing';
    const expected = this.releasing ? (this.held ? kept : 'released') : 'live';
    assert.equal(state, expected);
    assert.equal(this.buffer.holders.length, this.releasing && this.held ? 1 : 0);
    if (state === 'released') assert(this.view.every((byte) => byte === 0));
    else if (this.readers.length > 0 || state === 'live') assert.equal(this.view[0], this.mark);
    if (!this.peer.alive) return;
    for (const { bytes } of this.mappings) assert.equal(bytes[0], this.mark, 'what the peer sees');
  }
}

export interface ModelGuest {
  readonly domain: GuestDomain;
  readonly domid: DomId;
  readonly account: Account;
  readonly pool: MemoryPool;
  readonly zcopy: Zcopy;
  alive: boolean;
}

export class Model {
  readonly world: SharingWorld;
  readonly ledger = new Ledger();
  readonly buffers: ModelBuffer[] = [];
  readonly guests: ModelGuest[] = [];
  readonly #waits: Promise<void>[] = [];
  #marks = 0;

  constructor(world: SharingWorld) {
    this.world = world;
  }

  async addGuest(): Promise<ModelGuest> {
    const { runtime, dom0 } = this.world;
    const domain = this.world.guest(`guest-${this.guests.length}`);
    const { domid } = domain;
    const account = this.ledger.open({ domid, name: 'guest', budget: DEFAULT_BUDGET });
    const ours = accountedDomain(dom0, account);
    const pool = await ours.memory.createPool({ domid, pages: POOL_PAGES });
    const zcopy = new Zcopy({ runtime, domain: ours });
    const guest = { domain, domid, account, pool, zcopy, alive: true };
    this.guests.push(guest);
    return guest;
  }

  async fromRefs(peer: ModelGuest, pages: number): Promise<void> {
    if (!peer.alive) return;
    const { domid, domain, zcopy } = peer;
    const shared = await domain.grants.share({ domid: DOM0, pages, writable: true });
    const { refs } = shared;
    const request = { domid, refs, writable: true, dmaBuf: 'required' } as const;
    this.#add({ buffer: await this.world.run(zcopy.fromRefs(request)), peer, shared });
  }

  async toRefs(peer: ModelGuest, pages: number): Promise<void> {
    if (!peer.alive || peer.pool.freePages < pages) return;
    const memory = await peer.pool.allocate(pages);
    assert(
      memory.bytes.every((byte) => byte === 0),
      'nothing of an earlier loan',
    );
    const lending = peer.zcopy.toRefs({ domid: peer.domid, memory });
    this.#add({ buffer: await this.world.run(lending), peer, shared: undefined });
  }

  read(target: ModelBuffer): void {
    if (target.releasing) return;
    target.buffer.readBy(new Promise((resolve) => target.readers.push(resolve)));
  }

  attach(target: ModelBuffer): void {
    if (!target.releasing) target.devices.push(new TestDevice().attach(target.buffer.memory));
  }

  /** The peer maps one page, or all of them, of what we lent. */
  async map(target: ModelBuffer, whole: boolean): Promise<void> {
    const { peer, buffer, shared } = target;
    if (shared !== undefined || !peer.alive || target.releasing) return;
    const refs = whole ? buffer.refs : buffer.refs.slice(0, 1);
    target.mappings.push(await peer.domain.foreign.map({ domid: DOM0, refs, writable: true }));
  }

  async unmap(target: ModelBuffer): Promise<void> {
    await target.mappings.pop()?.[Symbol.asyncDispose]();
  }

  /** The peer ends the access to what it granted, mapped or not. */
  async revoke({ shared, peer }: ModelBuffer): Promise<void> {
    if (peer.alive) await shared?.[Symbol.asyncDispose]();
  }

  kill(guest: ModelGuest): void {
    if (!guest.alive) return;
    guest.alive = false;
    this.world.hypervisor.destroy(guest.domid);
  }

  /** Somebody asks for the end, and waits so long for it. */
  release(target: ModelBuffer, timeoutMs: number): void {
    target.releasing = true;
    const { held } = target;
    const waiting = target.buffer.release({ timeoutMs }).then(({ state }) => {
      if (state === 'quarantined') target.gaveUp = true;
      else assert(!target.held || !held, 'released while it was held');
    });
    this.#waits.push(waiting);
  }

  /** Lets everything that is under way come to an end, and compares. */
  async settle(): Promise<void> {
    await this.world.run(Promise.all(this.#waits.splice(0)));
    await this.world.pause(SETTLED_MS);
    for (const buffer of this.buffers) buffer.check();
    for (const { account, domid } of this.guests) this.#compare(account, domid);
  }

  /** Everybody lets go of everything: nothing may be left, in the ledger nor on the hypervisor's books. */
  async finish(): Promise<void> {
    for (const target of this.buffers) {
      this.release(target, 0);
      for (const stop of target.readers.splice(0)) stop();
      for (const device of target.devices.splice(0)) device[Symbol.dispose]();
      while (target.mappings.length > 0) await this.unmap(target);
      await this.revoke(target);
    }
    await this.settle();
    for (const { account, pool } of this.guests) {
      assert.equal(pool.freePages, POOL_PAGES);
      await pool[Symbol.asyncDispose]();
      assert(account.empty, `left: ${JSON.stringify(account.held)}`);
      this.ledger.close(account);
    }
    assert.deepEqual([...this.ledger.accounts], []);
    assert.deepEqual([this.world.mapped(), this.world.frames()], [0, 0]);
  }

  #add(made: Pick<ModelBuffer, 'buffer' | 'peer' | 'shared'>): void {
    this.#marks = (this.#marks % 255) + 1;
    const { buffer, peer } = made;
    this.buffers.push(new ModelBuffer({ ...made, mark: this.#marks }));
    peer.account.track(listed(`buffer ${this.buffers.length}`, buffer));
    assert.equal(buffer.bytes.length, buffer.pages * PAGE_SIZE);
  }

  /** The guest's row against what the reference says of its buffers. */
  #compare(account: Account, domid: DomId): void {
    const own = this.buffers.filter(({ peer }) => peer.domid === domid);
    const left = own.filter(({ releasing, held }) => !releasing || held);
    const quarantined = left.filter(({ releasing, gaveUp }) => releasing && gaveUp);
    const pages = (some: readonly ModelBuffer[]) =>
      some.reduce((sum, { buffer }) => sum + buffer.pages, 0);
    assert.equal(account.held.quarantinedPages, pages(quarantined));
    assert.equal(account.buffers.length, left.length);
    const mapped = left.filter(({ shared }) => shared !== undefined);
    assert(account.held.mappings <= 2 * mapped.length);
    assert(account.held.poolPages <= pages(left));
    for (const { releasing } of left) {
      if (!releasing) assert(account.held.pages > 0);
    }
  }
}
