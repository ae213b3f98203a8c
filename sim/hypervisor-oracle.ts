// What must hold of memory and grants at every moment, whatever guests, backend and faults do: read off the
// hypervisor's own tables, window by window, and compared with what the domains permit.
//
// Nothing of this changes but by a hypercall, by the making or the end of a domain, or by a domain that writes its own
// grant table; so it is checked after every step in which one of these happened, and as a whole each time.

import {
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_type_mask,
} from '../src/abi/grant-table.ts';
import { DOMID_XEN } from '../src/abi/xen.ts';
import type { Window } from '../src/hypervisor/address-space.ts';
import { WORDS_PER_GRANT, wordsOf } from '../src/hypervisor/grant-table.ts';
import type { HostedDomain } from '../src/hypervisor/hosted-domain.ts';
import type { HypercallName, HypercallRequest } from '../src/hypervisor/hypercalls.ts';
import type { Hypervisor } from '../src/hypervisor/hypervisor.ts';
import type { MappedGrant } from '../src/hypervisor/maptrack.ts';
import { DOM0, type DomId } from '../src/xen/ids.ts';
import type { Findings } from './findings.ts';
import type { HypercallObserver } from './observed-port.ts';
import type { Trace } from './trace.ts';

const DOMID_SHIFT = 16;
const NOBODY = -1;

/** What domain 0 has to do with another domain. */
export interface Tally {
  /** Grants of the other's that domain 0 maps, one by one, and its windows over them. */
  grants: number;
  windows: number;
  /** Entries of domain 0's table that permit the other something. */
  granted: number;
}

/** Entries of a grant table that a domain maps, and those that it maps for writing. */
interface Pinned {
  readonly all: ReadonlySet<number>;
  readonly writers: ReadonlySet<number>;
}

const NOTHING: Readonly<Tally> = { grants: 0, windows: 0, granted: 0 };
/** Numbers that domains can have, the special ones of Xen included. */
const DOMIDS = 0x1_0000;

export class HypervisorOracle implements HypercallObserver {
  readonly #trace: Trace;
  readonly #findings: Findings;
  /** Domains that keep the rules in their own grant tables. */
  readonly #honest = new Set<DomId>([DOM0]);
  #hypervisor: Hypervisor | undefined;
  /** Per frame: users counted in this check, and who may reach dom0's frames by its grants. */
  #users = new Uint32Array(0);
  #grantee = new Int32Array(0);
  /** By domid: 1 for those that are there. */
  readonly #present = new Uint8Array(DOMIDS);
  readonly #tallies = new Map<DomId, Tally>();
  #changed = true;

  constructor({ trace, findings }: { trace: Trace; findings: Findings }) {
    this.#trace = trace;
    this.#findings = findings;
  }

  /** The machine is on. */
  watch(hypervisor: Hypervisor): void {
    this.#hypervisor = hypervisor;
    this.#users = new Uint32Array(hypervisor.memory.frames);
    this.#grantee = new Int32Array(hypervisor.memory.frames);
    hypervisor.onDomainChange((domid, state) => {
      this.#trace.note(`domain ${state}`, domid);
      this.#changed = true;
    });
  }

  /** A domain whose kernel keeps to the rules of grants: what it says, it means. */
  trust(domid: DomId): void {
    this.#honest.add(domid);
  }

  permitted(by: DomId, { domid, refs, writable }: HypercallRequest<'mapGrants'>): boolean[] {
    const granter = this.#hypervisor?.domain(domid);
    let pinned: Pinned | undefined;
    return Array.from(refs, (ref) => {
      if (!granter || ref >= granter.grants.entries) return false;
      const word = granter.grants.flagsOf(ref);
      const overreaches = writable && (word & GTF_readonly) !== 0;
      if (permits(word, by) && !overreaches) return true;
      // Of an entry that is in use nobody asks again who may use it, nor whether for writing, once it is.
      pinned ??= this.#pinnedBy(by, domid);
      return overreaches ? pinned.writers.has(ref) : pinned.all.has(ref);
    });
  }

  called(by: DomId, name: HypercallName, done: boolean): void {
    this.#trace.note(name, by, Number(done));
    this.#changed = true;
  }

  /** Grants were given or ended, which takes no hypercall. */
  grantsChanged(): void {
    this.#changed = true;
  }

  /** Whether anything happened since the last check; what did is checked now. */
  check(): boolean {
    if (!this.#changed) return false;
    this.#changed = false;
    this.#tallies.clear();
    this.#checkWindows();
    this.#checkFrames();
    this.#checkLoans();
    return true;
  }

  /** What domain 0 had of `domid`, and the other way round, at the last check. */
  tallyOf(domid: DomId): Readonly<Tally> {
    return this.#tallies.get(domid) ?? NOTHING;
  }

  #tally(domid: DomId): Tally {
    const tally = this.#tallies.get(domid) ?? { ...NOTHING };
    this.#tallies.set(domid, tally);
    return tally;
  }

  #pinnedBy(by: DomId, granter: DomId): Pinned {
    const pinned = { all: new Set<number>(), writers: new Set<number>() };
    const mapper = this.#hypervisor?.domain(by);
    for (const { handles = [] } of mapper?.space.windows ?? []) {
      for (const handle of handles) {
        const grant = mapper!.maptrack.get(handle);
        if (grant?.domid !== granter) continue;
        pinned.all.add(grant.ref);
        if (grant.writable) pinned.writers.add(grant.ref);
      }
    }
    return pinned;
  }

  /** Every page in every window is its domain's own, or one that its owner granted to just this domain. */
  #checkWindows(): void {
    this.#users.fill(0);
    for (const domain of this.#hypervisor!.domains) {
      for (const window of domain.space.windows) {
        if (window.handles) this.#checkMapped(domain, window.frames, window.handles);
        else this.#checkOwn(domain, window);
      }
    }
  }

  #checkOwn({ domid }: HostedDomain, { frames, id }: Window): void {
    const { memory } = this.#hypervisor!;
    for (const frame of frames) {
      if (frame === 0) continue;
      this.#users[frame]!++;
      if (!memory.isOwnedBy(frame, domid))
        this.#reused(`frame ${frame} in window ${id} of domain ${domid}`);
    }
  }

  #checkMapped(mapper: HostedDomain, frames: Uint32Array, handles: Uint32Array): void {
    let last: Tally | undefined;
    for (let page = 0; page < frames.length; page++) {
      const frame = frames[page]!;
      if (frame === 0) continue;
      this.#users[frame]!++;
      const granter = this.#checkMapping(mapper, handles[page]!, frame);
      if (mapper.domid !== DOM0 || granter === undefined) continue;
      const tally = this.#tally(granter);
      tally.grants += 1;
      // The pages of a window are of one domain.
      if (tally !== last) tally.windows += 1;
      last = tally;
    }
  }

  /** @returns whose page it is */
  #checkMapping(mapper: HostedDomain, handle: number, frame: number): DomId | undefined {
    const grant = mapper.maptrack.get(handle);
    if (!grant) {
      this.#unpermitted(
        `frame ${frame}, mapped by domain ${mapper.domid} under handle ${handle}, which is free`,
      );
      return undefined;
    }
    const granter = this.#hypervisor!.domain(grant.domid);
    if (!this.#hypervisor!.memory.isOwnedBy(frame, grant.domid)) {
      this.#reused(mappedBy(mapper, grant, frame));
    }
    if (!granter) this.#unpermitted(mappedBy(mapper, grant, frame));
    else if (this.#honest.has(grant.domid)) {
      const word = granter.grants.flagsOf(grant.ref);
      const granted = permits(word, mapper.domid) && (word & GTF_reading) !== 0;
      if (!granted) this.#unpermitted(mappedBy(mapper, grant, frame));
    }
    return grant.domid;
  }

  #reused(detail: string): void {
    this.#findings.hold(false, 'page-reused-while-mapped', () => detail);
  }

  #unpermitted(detail: string): void {
    this.#findings.hold(false, 'page-readable-without-grant', () => detail);
  }

  /** Every frame has as many users as there are windows with it, and its owner where it is allocated. */
  #checkFrames(): void {
    const { memory, domains } = this.#hypervisor!;
    this.#present.fill(0);
    this.#present[DOMID_XEN] = 1;
    for (const { domid } of domains) this.#present[domid] = 1;
    for (let frame = 1; frame < memory.frames; frame++) {
      const owner = memory.ownerOf(frame);
      const users = this.#users[frame]! + (owner === undefined ? 0 : this.#present[owner]!);
      if (memory.referencesTo(frame) !== users) this.#miscounted(frame, users);
    }
  }

  #miscounted(frame: number, users: number): void {
    this.#findings.hold(false, 'frame-counts', () => {
      return `frame ${frame} has ${users} users, and counts ${this.#hypervisor!.memory.referencesTo(frame)}`;
    });
  }

  /** No frame of domain 0 is granted to two domains: a guest's pool is that guest's alone. */
  #checkLoans(): void {
    const dom0 = this.#hypervisor!.domain(DOM0)!;
    const words = wordsOf(dom0.grants.mapping.bytes);
    this.#grantee.fill(NOBODY);
    for (let ref = 0; ref < dom0.grants.entries; ref++) {
      const word = words[ref * WORDS_PER_GRANT]!;
      if ((word & GTF_type_mask) !== GTF_permit_access) continue;
      const frame = words[ref * WORDS_PER_GRANT + 1]!;
      const grantee = word >>> DOMID_SHIFT;
      this.#tally(grantee as DomId).granted += 1;
      const before = this.#grantee[frame]!;
      if (before !== NOBODY && before !== grantee) {
        this.#reused(`frame ${frame} is granted to domains ${before} and ${grantee}`);
      }
      this.#grantee[frame] = grantee;
    }
  }
}

function mappedBy({ domid }: HostedDomain, grant: MappedGrant, frame: number): string {
  return `frame ${frame}, mapped by domain ${domid} (${JSON.stringify(grant)})`;
}

function permits(word: number, domid: DomId): boolean {
  return (word & GTF_type_mask) === GTF_permit_access && word >>> DOMID_SHIFT === domid;
}
