// The Linux provider in a PVH guest, beside a PV guest and dom0: what of guest-provider.test.ts depends on how a guest
// maps, shares and signals, which a PVH guest does otherwise. It is a file of its own, as QEMU may lose the guest (docs/lab.md).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { DOMAIN_END, DomainEnd } from '../../domain-end.ts';
import {
  notifyBothWays,
  type Pair,
  pagesOutliveGuest,
  pagesOutliveProgram,
  passPages,
  SCREEN_PAGES,
} from '../../domain-pairs.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';

const machine = await attach(import.meta);
const { dom0, runtime } = machine;
const host = new HostWatch(dom0);
let counts: HostCounts;
let pvhGuest: Guest;
let pvGuest: Guest;
let zero: DomainEnd;
let pv: DomainEnd;
let pvh: DomainEnd;

/** The PVH guest with each of the others, both ways round. */
function pairs(): Record<string, Pair> {
  return {
    'from dom0 to pvh': { from: zero, to: pvh },
    'from pvh to dom0': { from: pvh, to: zero },
    'from pv to pvh': { from: pv, to: pvh },
    'from pvh to pv': { from: pvh, to: pv },
  };
}

before(async () => {
  await machine.reset();
  counts = await host.counts();
  await host.complaints();
  // The one that may be lost first: nothing else was begun then.
  pvhGuest = await Guest.create(dom0, { name: 'pvh', type: 'pvh', programs: [DOMAIN_END] });
  pvGuest = await Guest.create(dom0, { name: 'pv', programs: [DOMAIN_END] });
  zero = await DomainEnd.inDom0(dom0);
  await pvhGuest.booted();
  pvh = await DomainEnd.inGuest(pvhGuest);
  await pvGuest.booted();
  pv = await DomainEnd.inGuest(pvGuest);
});
after(() => dom0.close());

test('a program of ours in a PVH guest knows the domain it runs in', async () => {
  const { domid } = pvhGuest;
  assert.deepEqual(await pvh.do('identify'), { domid, guestType: 'PVH' });
});

for (const [how, manner] of [
  ['share', 'pages are shared'],
  ['lend', 'buffers are lent'],
] as const) {
  test(`${manner} between a PVH guest and any other domain`, async (t) => {
    for (const [name, pair] of Object.entries(pairs())) {
      await t.test(name, () => passPages({ ...pair, how }));
    }
  });

  test(`${manner} between guests of two kinds, as many as a screen has`, async () => {
    await passPages({ from: pv, to: pvh, how, pages: SCREEN_PAGES });
  });
}

test('event channels of a PVH guest carry notifications both ways', async (t) => {
  for (const [name, pair] of Object.entries(pairs())) {
    await t.test(`offered ${name}`, () => notifyBothWays(runtime, pair));
  }
});

test('a PVH guest cannot look at its own grant table', async () => {
  await assert.rejects(pvh.do('observe'), /EOPNOTSUPP/);
});

test('pages of a program that is killed stay while a PVH guest maps them, and can even be mapped anew', async () => {
  await pagesOutliveProgram(pvGuest, pvh);
});

test('a guest that is destroyed stays, dying, while a PVH guest maps its pages', async () => {
  await pagesOutliveGuest({ guest: pvGuest, owner: pv, peer: pvh });
});

test('everything is as before when the programs and the guests have gone', async () => {
  assert.equal(await pvh.end(), 0);
  assert.equal(await zero.end(), 0);
  await pvhGuest.shutdown();
  await host.settled(counts);
  assert.deepEqual(await host.complaints(), []);
});
