// The system without room for mappings, as it is at vm.max_map_count: mmap refuses.

import type { TestContext } from 'node:test';
import type { FrameSource } from '../../src/hypervisor/machine-memory.ts';
import { SysError } from '../../src/runtime/errors.ts';

/** What mmap says then. @throws SysError */
export function refuse(): never {
  throw new SysError({ call: 'mmap', errnoName: 'ENOMEM', context: 'as the test wants' });
}

/** From now on no frames are shown out of `memory`, a prototype. @returns what ends that */
export function refuseToShow(context: TestContext, memory: FrameSource): () => void {
  const mocked = [
    context.mock.method(memory, 'show', refuse),
    context.mock.method(memory, 'mapRun', refuse),
  ];
  return () => {
    for (const { mock } of mocked) mock.restore();
  };
}
