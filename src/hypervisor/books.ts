// The hypervisor's books: what every domain has and uses, for status, tests, and the question whether
// anything was left behind.

import type { DomId } from '../xen/ids.ts';
import type { DomainState } from './hosted-domain.ts';

/** What one domain has and uses. */
export interface DomainBooks {
  readonly domid: DomId;
  readonly name: string;
  readonly state: DomainState;
  /** Frames of its own, those that only others' mappings keep included. */
  readonly frames: number;
  /** Entries of its grant table that are mapped. */
  readonly grantsMapped: number;
  /** Grants of others that it maps. */
  readonly maptrackUsed: number;
  readonly ports: number;
  readonly windows: number;
  /** How many of its grants each domain maps. */
  readonly mappedBy: ReadonlyMap<DomId, number>;
}

export interface HypervisorBooks {
  readonly freeFrames: number;
  /** Frames of the hypervisor's own: grant tables and shared info pages. */
  readonly xenFrames: number;
  readonly domains: readonly DomainBooks[];
}

/** What a machine without guests should not hold: a line for each thing, none when all is well. */
export function leakReport({ domains }: HypervisorBooks): string[] {
  return domains.flatMap((books) => {
    const { domid, name, state, mappedBy, ...numbers } = books;
    const holders = [...mappedBy].map(([by, count]) => `${count} grants mapped by domain ${by}`);
    const held = Object.entries(numbers)
      .filter(([, count]) => count > 0)
      .map(([what, count]) => `${count} ${what}`);
    if (domid === 0 && held.length === 0 && holders.length === 0) return [];
    return [`domain ${domid} (${name}, ${state}): ${[...held, ...holders].join(', ')}`];
  });
}
