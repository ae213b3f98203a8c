// probes/share-end.ts from outside: a program that shares with other domains as it is told.
import type { Dom0 } from './dom0.ts';
import type { Guest } from './guest.ts';
import { startProbe } from './payload.ts';
import type { ShareActs } from './probes/share-acts.ts';
import { ToldProgram } from './told-program.ts';

/** The program's name in lab/probes/, for `GuestConfig.programs`. */
export const SHARE_END = 'share-end';

export type ShareEnd = ToldProgram<ShareActs>;

export const ShareEnd = {
  inDom0: async (dom0: Dom0): Promise<ShareEnd> =>
    ToldProgram.of<ShareActs>(await startProbe(dom0, SHARE_END)),

  /** In a guest whose `programs` have SHARE_END. */
  inGuest: async (guest: Guest): Promise<ShareEnd> =>
    ToldProgram.of<ShareActs>(await guest.startNode(SHARE_END)),
};
