// The hypervisor's books: what every domain has and uses, for status, tests, and the question whether
// anything was left behind.

import type { DomId } from '../xen/ids.ts';
import type { DomainState } from './hosted-domain.ts';

/** What a domain's own kernel keeps, as it says itself. */
export interface KernelBooks {
  /** Pools that are open, or have pages out on loan. */
  readonly pools: number;
  /** Buffers that are not freed, or of which somebody still uses pages. */
  readonly buffers: number;
  /** Loans of buffers to other domains with grants that have not ended. */
  readonly loans: number;
  /** Dma-bufs of other domains' grants that are not released. */
  readonly dmaBufs: number;
  /** Devices attached to dma-bufs and buffers. */
  readonly attachments: number;
  /** Shared pages that are wanted back and still mapped by others. */
  readonly deferredPages: number;
  /** Pages by which the domain is smaller than it should be. */
  readonly balloonDeficit: number;
}

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
  /** Entries of its grant table that permit access to a page, mapped or not; xenstored's excepted. */
  readonly grantsGiven: number;
  readonly ports: number;
  readonly windows: number;
  /** How many of its grants each domain maps. */
  readonly mappedBy: ReadonlyMap<DomId, number>;
  /** Undefined for a domain whose code runs in another thread or process, or has not begun. */
  readonly kernel: KernelBooks | undefined;
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
    const { domid, name, state, mappedBy, kernel, ...numbers } = books;
    const holders = [...mappedBy].map(([by, count]) => `${count} grants mapped by domain ${by}`);
    const held = Object.entries({ ...numbers, ...kernel })
      .filter(([, count]) => count > 0)
      .map(([what, count]) => `${count} ${what}`);
    if (domid === 0 && held.length === 0 && holders.length === 0) return [];
    return [`domain ${domid} (${name}, ${state}): ${[...held, ...holders].join(', ')}`];
  });
}
