// What a program in domain 0 and domain 0's kernel say to each other over a socket: the calls of /dev/xen/gntdev and
// /dev/xen/evtchn, as far as the daemon makes them. Pages are not copied: both map frames of the machine's memory.

import type { GivenBack } from '../../src/xen/memory.ts';

/** What a program has from the kernel, by number; it is the kernel's to give back when the program dies. */
export type Handle = number;

export interface Dom0Calls {
  map(request: { domid: number; refs: Uint32Array; writable: boolean }): {
    readonly handle: Handle;
    readonly frames: Uint32Array;
  };
  bind(request: { remote: number; remotePort: number }): {
    readonly handle: Handle;
    readonly port: number;
  };
  createPool(request: { domid: number; pages: number }): { readonly handle: Handle };
  /** Out of a pool. */
  allocate(request: { pool: Handle; pages: number }): {
    readonly handle: Handle;
    readonly frames: Uint32Array;
  };
  lend(request: { buffer: Handle; domid: number; writable: boolean }): {
    readonly handle: Handle;
    readonly refs: readonly number[];
  };
  /** Gives a mapping, a port, a pool, or as much as goes of a buffer or a loan back. */
  giveBack(request: { handle: Handle }): GivenBack;
}

export type Dom0Call = keyof Dom0Calls;

export type ToKernel =
  | { readonly call: Dom0Call; readonly id: number; readonly request: unknown }
  | { readonly notify: Handle }
  /** The handler of the port is done. */
  | { readonly unmask: Handle };

export type FromKernel =
  /** The machine's memory, once, at first. */
  | { readonly memory: unknown }
  | { readonly id: number; readonly result: unknown }
  | {
      readonly id: number;
      readonly error: { readonly errnoName: string; readonly context: string };
    }
  | { readonly id: number; readonly badGrant: { readonly index: number; readonly status: string } }
  | { readonly pending: Handle };
