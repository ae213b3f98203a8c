// How many entries our mappings take of this process's memory map, which the kernel bounds (vm.max_map_count). At the
// bound not only the next mapping fails but everything that needs one: the heap, a thread, even revoking a mapping. So
// some are left for that, whatever guests make us map.

import { readFileSync } from 'node:fs';
import { SysError } from '../runtime/errors.ts';

/** Entries for the program itself: V8, libraries, stacks. It has some hundreds. */
const LEFT_FOR_THE_REST = 8192;
/** The kernel's bound where it does not say (DEFAULT_MAX_MAP_COUNT of linux/mm.h). */
const DEFAULT_MAX = 65_530;

let inUse = 0;
let most: number | undefined;

function readMost(): number {
  let max = DEFAULT_MAX;
  try {
    max = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8')) || DEFAULT_MAX;
  } catch {
    // No /proc here, as in a sandbox.
  }
  return Math.max(max - LEFT_FOR_THE_REST, Math.floor(max / 2));
}

/** Enters one more entry, before it is made. @throws SysError ENOMEM when no more may be taken */
export function takeArea(context: string): void {
  most ??= readMost();
  if (inUse < most) {
    inUse += 1;
    return;
  }
  throw new SysError({
    call: 'mmap',
    errnoName: 'ENOMEM',
    context: `${context}, with ${inUse} mappings in this process`,
    remedy: 'raise vm.max_map_count (sysctl)',
  });
}

export function giveBackAreas(count: number): void {
  inUse -= count;
}

/** Entries that are in use, those of closed mappings included whose addresses are not given back yet. */
export function areasInUse(): number {
  return inUse;
}
