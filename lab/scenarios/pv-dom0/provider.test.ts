// The Linux provider on a real host: what it maps, binds, shares and watches is really there, and gone
// afterwards.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { Guest } from '../../guest.ts';
import { HostWatch } from '../../host.ts';
import { probe } from '../../payload.ts';
import type { ProviderSightings } from '../../probes/provider.ts';

const machine = await attach(import.meta);
const { dom0 } = machine;
before(() => machine.reset());
after(() => dom0.close());

test('the provider maps, binds, shares and watches, and gives all of it back', async () => {
  const host = new HostWatch(dom0);
  const empty = await host.counts();
  const guest = await Guest.create(dom0, { name: 'granter', keyboard: {}, modules: [] });
  await guest.published('device/vkbd/0/event-channel');
  const before = await host.counts();
  const sightings = await probe<ProviderSightings>(dom0, 'provider', `${guest.domid}`);
  assert.deepEqual(sightings, {
    domid: 0,
    mappedBytes: 4096,
    revoked: true,
    refusal: 'GNTST_bad_gntref',
    sharedRefs: 3,
    watchedPaths: ['/local/domain/0/xen-zcopy-probe', '/local/domain/0/xen-zcopy-probe/child'],
  } satisfies ProviderSightings);
  await host.settled(before);
  await guest.destroy();
  await host.settled(empty);
});
