// Brings together what a consumer of a buffer needs of its memory and who can allocate such memory, or says
// why nobody can. What a buffer is, it proves itself (`contiguity`): a source's promise is not enough.

import { SysError } from '../runtime/errors.ts';
import type { AllocateRequest, Contiguity, ContiguityKind, LocalBuffer } from '../xen/memory.ts';

/** Somebody who may have the memory that is needed, tried in the order given. */
export interface MemorySource {
  /** For messages: `card0`, `the pool of domain 3`. */
  readonly name: string;
  /** @returns undefined when it has none such @throws SysError when it has no room for it */
  allocate(request: AllocateRequest): Promise<LocalBuffer | undefined>;
}

const STRENGTH: Readonly<Record<ContiguityKind, number>> = { none: 0, device: 1, host: 2 };

/** Whether memory that lies so serves where `needed` is asked for: host-contiguous is so for every device. */
export function satisfies(contiguity: Contiguity, needed: ContiguityKind): boolean {
  return STRENGTH[contiguity.kind] >= STRENGTH[needed];
}

/**
 * Zeroed memory from the first source that has what is needed.
 * @throws SysError with the reason of every source: ENOMEM when at least one of them lacked only room, else
 *   EOPNOTSUPP
 */
export async function allocateFor(
  request: AllocateRequest,
  sources: readonly MemorySource[],
): Promise<LocalBuffer> {
  const reasons: string[] = [];
  let full = false;
  for (const source of sources) {
    try {
      const buffer = await source.allocate(request);
      if (buffer !== undefined && satisfies(buffer.contiguity, request.contiguity)) return buffer;
      reasons.push(`${source.name} ${buffer ? await refuse(buffer) : 'has none such'}`);
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      full ||= error.errnoName === 'ENOMEM';
      reasons.push(`${source.name}: ${error.message}`);
    }
  }
  const { pages, contiguity } = request;
  throw new SysError({
    call: 'allocating memory to lend',
    errnoName: full ? 'ENOMEM' : 'EOPNOTSUPP',
    context: `${pages} pages (contiguity: ${contiguity}): ${reasons.join('; ')}`,
  });
}

/** Gives unfit memory back. @returns why it is unfit */
async function refuse(buffer: LocalBuffer): Promise<string> {
  await buffer.free();
  const { kind, proof } = buffer.contiguity;
  return `gave memory with contiguity ${kind} (${proof})`;
}
