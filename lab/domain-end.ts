// probes/domain-end.ts from outside: a program that shares, maps, notifies and reads xenstore as it is told.
import type { Dom0 } from './dom0.ts';
import type { Guest } from './guest.ts';
import { startProbe } from './payload.ts';
import type { DomainActs } from './probes/domain-acts.ts';
import { ToldProgram } from './told-program.ts';

/** The program's name in lab/probes/, for `GuestConfig.programs`. */
export const DOMAIN_END = 'domain-end';

export type DomainEnd = ToldProgram<DomainActs>;

export const DomainEnd = {
  inDom0: async (dom0: Dom0): Promise<DomainEnd> =>
    ToldProgram.of<DomainActs>(await startProbe(dom0, DOMAIN_END)),

  /** In a guest whose `programs` have DOMAIN_END. */
  inGuest: async (guest: Guest): Promise<DomainEnd> =>
    ToldProgram.of<DomainActs>(await guest.startNode(DOMAIN_END)),
};
