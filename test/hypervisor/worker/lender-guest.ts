// A guest that lends memory to domain 0 out of a pool, exports what it has itself, and tells what it saw
// through its own data nodes; it waits for domain 0's word before each step.

import assert from 'node:assert/strict';
import { DmaDevice } from '../../../src/hypervisor/dma-device.ts';
import { enterGuest } from '../../../src/hypervisor/worker/enter-guest.ts';
import { DOM0 } from '../../../src/xen/ids.ts';

const PAGES = 16;

const guest = await enterGuest();
const { domain } = guest;
const data = `/local/domain/${domain.domid}/data`;

/** Resolves when domain 0 has written `step`. */
async function told(step: string): Promise<void> {
  await using _ = await domain.store.watch(`${data}/step`, () => look());
  let resolve: () => void = () => {};
  const reached = new Promise<void>((resolver) => {
    resolve = resolver;
  });
  function look(): void {
    domain.store.read(`${data}/step`).then(
      (seen) => seen === step && resolve(),
      () => {},
    );
  }
  await reached;
}

const pool = await domain.memory.createPool({ domid: DOM0, pages: PAGES });
const buffer = await pool.allocate(PAGES);
buffer.bytes.fill(7);
const lent = await domain.grants.lend({ domid: DOM0, buffer, writable: true });
await domain.store.write(`${data}/refs`, lent.refs.join(','));
await told('mapped');
assert.equal(buffer.bytes[0], 9, 'domain 0 wrote into our memory');
const view = buffer.bytes;
await domain.store.write(`${data}/held`, String((await buffer.free()).heldPages));
assert.equal(view[0], 0, 'a freed buffer reads zeros');
await told('unmapped');
assert.equal((await buffer.free()).heldPages, 0);
assert.equal(pool.freePages, PAGES);
const again = await pool.allocate(PAGES);
assert(again.bytes.every((byte) => byte === 0));

const own = await domain.grants.lend({ domid: domain.domid, buffer: again, writable: true });
const request = { domid: domain.domid, refs: own.refs, caching: 'coherent' } as const;
const exported = await domain.foreign.export(request);
const device = new DmaDevice({ name: 'display', addressBits: 32, maxSegments: PAGES });
const attachment = exported.attach(device);
const extents = attachment.map('to-device');
assert.equal(
  extents.reduce((pages, extent) => pages + extent.pages, 0),
  PAGES,
);
exported.close();
assert.equal(await exported.released(), false);
attachment[Symbol.dispose]();
assert.equal(await exported.released(), true);
assert.equal((await again.free()).heldPages, 0);
await pool[Symbol.asyncDispose]();
await domain.store.write(`${data}/held`, 'nothing');
await guest.shutdown();
