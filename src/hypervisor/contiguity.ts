// How the frames of a buffer lie, read off the frames themselves: consecutive in the machine, joined by an
// IOMMU for the devices behind it, or scattered.

import type { Contiguity } from '../xen/memory.ts';
import { runsOf } from './frame-allocator.ts';

/** `iommu` is the one that the devices in question are behind, when there is one. */
export function contiguityOf(
  frames: Uint32Array,
  iommu?: { readonly name: string } | undefined,
): Contiguity {
  const runs = [...runsOf(frames)];
  if (runs.length === 1) {
    const { start, count } = runs[0]!;
    return { kind: 'host', proof: `1 run of machine frames, ${start} to ${start + count - 1}` };
  }
  const proof = `${runs.length} runs of machine frames`;
  return iommu
    ? { kind: 'device', proof: `${iommu.name} joins ${proof}` }
    : { kind: 'none', proof };
}
