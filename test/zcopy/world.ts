// A machine with domain 0 sharing buffers with guests, under virtual time; at its end the guests are
// destroyed, and nothing may be left of anything on the hypervisor's books.

import assert from 'node:assert/strict';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { BusExtent, DeviceMapping, DmaImporter } from '../../src/hypervisor/dma-buf.ts';
import { GuestBuffer } from '../../src/hypervisor/guest-buffer.ts';
import { GuestExport } from '../../src/hypervisor/guest-export.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { ExportRequest, LendRequest, MapRequest } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import type { DmaBuf } from '../../src/xen/memory.ts';
import type { HeldBuffer } from '../../src/xen/xenbus/driver.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { type SharingDomain, Zcopy } from '../../src/zcopy/zcopy.ts';
import { type MachineOptions, onMachine, type World } from '../hypervisor/world.ts';
import { runUntilSettled } from '../runtime/run-until-settled.ts';

export interface SharingWorld extends World {
  /** Of domain 0. */
  readonly zcopy: Zcopy;
  /** What the promise gives, with virtual time going on until it does. */
  run<T>(promise: Promise<T>): Promise<T>;
  /** Lets virtual time go by. */
  pause(delayMs: number): Promise<void>;
  /** Grants that domain 0 maps, on the hypervisor's books. */
  mapped(): number;
  /** Frames that domain 0 has. */
  frames(): number;
}

export function sharing(
  body: (world: SharingWorld) => Promise<void>,
  options: MachineOptions = {},
): Promise<void> {
  return onMachine(async (machine) => {
    const { runtime, hypervisor, dom0 } = machine;
    const run = <T>(promise: Promise<T>) => runUntilSettled(runtime, promise);
    const books = () => hypervisor.books().domains.find(({ domid }) => domid === DOM0)!;
    await body({
      ...machine,
      zcopy: new Zcopy({ runtime, domain: dom0 }),
      run,
      pause: (delayMs) => run(sleep(runtime, delayMs)),
      mapped: () => books().maptrackUsed,
      frames: () => books().frames,
    });
    for (const { domid } of hypervisor.books().domains) {
      if (domid !== DOM0) hypervisor.destroy(domid);
    }
    assert.deepEqual(leakReport(hypervisor.books()), []);
  }, options);
}

/** Whether it is a SysError of that errno whose message has those words. */
export function sysError(errnoName: string, words = /./): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof SysError, `not a SysError: ${String(error)}`);
    assert.equal(error.errnoName, errnoName, error.message);
    assert.match(error.message, words);
    return true;
  };
}

/** A device that can reach all memory. */
export class TestDevice implements DmaImporter {
  readonly name = 'a test device';

  map(frames: Uint32Array): DeviceMapping {
    const extents: BusExtent[] = [{ address: 0n, pages: frames.length }];
    return { extents, [Symbol.dispose]: () => {} };
  }

  /** Imports a buffer of the hypervisor in this process. */
  attach(memory: DmaBuf | undefined): Disposable {
    assert(memory instanceof GuestExport || memory instanceof GuestBuffer, 'not a dma-buf');
    return memory.attach(this);
  }
}

/** The buffer as the ledger lists it. */
export function listed(name: string, buffer: SharedBuffer): HeldBuffer {
  return {
    name,
    pages: buffer.pages,
    direction: 'from-guest',
    contiguity: buffer.contiguity,
    dmaBuf: buffer.memory !== undefined,
    get state() {
      return buffer.state;
    },
    get holders() {
      return buffer.holders;
    },
    gone: buffer.released,
  };
}

export type SharingCall = 'map' | 'export' | 'lend';

/** A failure that no other way helps against. */
export const BROKEN = { call: 'a test', errnoName: 'EIO', context: 'broken' };
export const NO_ROOM = { call: 'a test', errnoName: 'ENOMEM', context: 'no room' };

/** `domain`, of whose calls one kind is changed. */
export function intercepting(
  domain: SharingDomain,
  call: SharingCall,
  before: (request: MapRequest | ExportRequest | LendRequest) => Promise<void> | void,
): SharingDomain {
  const { grants, foreign } = domain;
  const when = async (
    name: SharingCall,
    request: MapRequest | ExportRequest | LendRequest,
  ): Promise<void> => {
    if (name === call) await before(request);
  };
  return {
    grants: {
      share: (request) => grants.share(request),
      lend: async (request) => {
        await when('lend', request);
        return grants.lend(request);
      },
    },
    foreign: {
      map: async (request) => {
        await when('map', request);
        return foreign.map(request);
      },
      export: async (request) => {
        await when('export', request);
        return foreign.export(request);
      },
    },
  };
}

/** `domain`, of whose calls one kind fails. */
export function failing(
  domain: SharingDomain,
  call: SharingCall,
  details = NO_ROOM,
): SharingDomain {
  return intercepting(domain, call, () => {
    throw new SysError(details);
  });
}
