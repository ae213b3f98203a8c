import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { XenHost } from '../../../src/hypervisor/xen-host.ts';
import type { Gref } from '../../../src/xen/ids.ts';
import { onHost } from './host.ts';

const module = new URL('./lender-guest.js', import.meta.url);

/** The value of a node, once it is there. */
async function nodeValue({ dom0 }: XenHost, path: string): Promise<string> {
  let resolve: (value: string) => void = () => {};
  const written = new Promise<string>((resolver) => {
    resolve = resolver;
  });
  const watch = await dom0.store.watch(path, () => {
    dom0.store.read(path).then(
      (value) => value !== undefined && resolve(value),
      () => {},
    );
  });
  const value = await written;
  await watch[Symbol.asyncDispose]();
  return value;
}

test('a guest in a worker lends out of a pool, exports and frees, and leaves nothing behind', () =>
  onHost(async (host) => {
    const { dom0 } = host;
    const guest = await host.startGuestWorker({ name: 'lender', module });
    const data = `/local/domain/${guest.domid}/data`;
    const refs = (await nodeValue(host, `${data}/refs`))
      .split(',')
      .map((ref) => Number(ref) as Gref);
    const mapping = await dom0.foreign.map({ domid: guest.domid, refs, writable: true });
    assert(mapping.bytes.every((byte) => byte === 7));
    mapping.bytes[0] = 9;
    await dom0.store.write(`${data}/step`, 'mapped');
    assert.equal(await nodeValue(host, `${data}/held`), '16');
    assert.equal(mapping.bytes[0], 9, 'what is mapped stays');
    await mapping[Symbol.asyncDispose]();
    await dom0.store.write(`${data}/step`, 'unmapped');
    assert.equal(await guest.gone, 'poweroff');
  }));
