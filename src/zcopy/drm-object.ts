// What a GEM handle of drm-xen-zcopy.ts names: another domain's pages, or memory of ours that was imported to
// be granted.
//
// Invariants: an object is granted once at most, and being closed while that is under way undoes it; imported
// memory is freed only when the other domain's access has ended (the series of 2018 detached it before).

import type { Runtime } from '../runtime/runtime.ts';
import type { Grants, LentPages } from '../xen/domain.ts';
import type { DomId, Gref } from '../xen/ids.ts';
import type { DmaBuf, LocalBuffer } from '../xen/memory.ts';
import { refused } from './drm-dumb.ts';
import { Release, type ReleaseStep } from './release.ts';
import { endAccessStep, freeStep, type SharedBuffer } from './shared-buffer.ts';

/** The end of an object: where it stands, who is waited for, and when it is over. */
export type GemRelease = Pick<Release, 'state' | 'holders' | 'released' | 'release'>;

export interface GemObject {
  /** @throws AssertionError when it is freed, SysError where the driver gives no view */
  readonly bytes: Uint8Array;
  /** @throws SysError EOPNOTSUPP when drivers of this host cannot have it */
  dmaBuf(call: string): DmaBuf;
  /** Grants it. @throws SysError EINVAL when it cannot be granted, EBUSY when it is, ENOSPC */
  grant(call: string, request: GrantRequest): Promise<readonly Gref[]>;
  /** Begins its end. */
  close(): GemRelease;
}

export interface GrantRequest {
  readonly domid: DomId;
  readonly num_grefs: number;
}

/** Pages of another domain. */
export class ForeignObject implements GemObject {
  readonly buffer: SharedBuffer;

  constructor(buffer: SharedBuffer) {
    this.buffer = buffer;
  }

  get bytes(): Uint8Array {
    return this.buffer.bytes;
  }

  dmaBuf(call: string): DmaBuf {
    const { memory, withoutDmaBuf = 'this host makes none' } = this.buffer;
    if (memory === undefined) throw refused(call, 'EOPNOTSUPP', `no dma-buf: ${withoutDmaBuf}`);
    return memory;
  }

  async grant(call: string): Promise<never> {
    const context = `the pages are those of domain ${this.buffer.domid}, who alone can grant them`;
    throw refused(call, 'EINVAL', context);
  }

  close(): GemRelease {
    void this.buffer.release();
    return this.buffer;
  }
}

/** Memory of ours. */
export class ImportedObject implements GemObject {
  readonly memory: LocalBuffer;
  readonly #grants: Grants;
  readonly #release: Release;
  /** Who has it, or is about to. */
  #peer: DomId | undefined;
  /** Settles with what is lent, or with nothing when that failed. */
  #lending: Promise<LentPages | undefined> = Promise.resolve(undefined);

  constructor({ runtime, grants, memory }: ImportedParts) {
    this.memory = memory;
    this.#grants = grants;
    const steps = [this.#endGrant(), freeStep(memory, 'a driver that imported the memory')];
    this.#release = new Release({ runtime, steps });
  }

  get bytes(): Uint8Array {
    return this.memory.bytes;
  }

  dmaBuf(): DmaBuf {
    return this.memory;
  }

  async grant(call: string, { domid, num_grefs }: GrantRequest): Promise<readonly Gref[]> {
    const { pages } = this.memory;
    if (num_grefs !== pages) {
      throw refused(call, 'EINVAL', `${num_grefs} grants for a buffer of ${pages} pages`);
    }
    if (this.#peer !== undefined) {
      throw refused(call, 'EBUSY', `the buffer is granted to domain ${this.#peer}`);
    }
    this.#peer = domid;
    const { refs } = await this.#lend(domid);
    if (this.#release.state === 'live') return refs;
    throw refused(call, 'EINVAL', 'the handle was closed meanwhile');
  }

  close(): GemRelease {
    void this.#release.release();
    return this.#release;
  }

  async #lend(domid: DomId): Promise<LentPages> {
    const lending = this.#grants.lend({ domid, buffer: this.memory, writable: true });
    this.#lending = lending.catch(() => undefined);
    try {
      return await lending;
    } catch (error) {
      this.#peer = undefined;
      throw error;
    }
  }

  /** Waits for a call that is granting the pages, then ends the access. */
  #endGrant(): ReleaseStep {
    const holder = {
      who: 'our own granting of it',
      pages: this.memory.pages,
      evidence: 'is under way',
    };
    return {
      holder,
      attempt: async () => {
        const lent = await this.#lending;
        return lent && endAccessStep(lent).attempt();
      },
    };
  }
}

export interface ImportedParts {
  readonly runtime: Runtime;
  readonly grants: Grants;
  /** Becomes the object's own. */
  readonly memory: LocalBuffer;
}
