// probes/hostile-end.ts from outside: a guest's display without manners, which does what it is told.
import type { Guest } from './guest.ts';
import type { HostileActs } from './probes/hostile-acts.ts';
import { ToldProgram } from './told-program.ts';

/** The program's name in lab/probes/, for `GuestConfig.programs`. */
export const HOSTILE_END = 'hostile-end';

type Acts = Omit<HostileActs, 'connector' | 'closeAll'>;

export type HostileEnd = ToldProgram<Acts>;

export const HostileEnd = {
  /** In a guest whose `programs` have HOSTILE_END, and whose kernel has no driver for PV displays loaded. */
  inGuest: async (guest: Guest): Promise<HostileEnd> =>
    ToldProgram.of<Acts>(await guest.startNode(HOSTILE_END)),
};
