// The Linux provider in two PV guests and in dom0: any two of the three share pages and event channels both ways, and
// meet in xenstore as far as Xen lets guests; what is left when a program is killed, and when a whole guest goes.
// What a PVH guest alone can show is in guest-provider-pvh.test.ts: QEMU may lose it (docs/lab.md).
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { DOMAIN_END, DomainEnd } from '../../domain-end.ts';
import {
  notifyBothWays,
  pagesOutliveGuest,
  pagesOutliveProgram,
  passPages,
  SCREEN_PAGES,
} from '../../domain-pairs.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { NodePermission } from '../../probes/domain-acts.ts';

const TIMEOUT_MS = 30_000;
/** The guests: `owner` is destroyed in the end, `other` sees it go. */
const NAMES = ['owner', 'other'] as const;

const machine = await attach(import.meta);
const { dom0, runtime } = machine;
const host = new HostWatch(dom0);
const guests = new Map<string, Guest>();
const ends = new Map<string, DomainEnd>();
let counts: HostCounts;

function named<T>(map: ReadonlyMap<string, T>, name: string): T {
  const found = map.get(name);
  assert(found !== undefined, `${name} is not up`);
  return found;
}

/** Every two of the three ends, both ways round. */
function* pairs(): Generator<{ ours: string; theirs: string }> {
  for (const ours of ends.keys()) {
    for (const theirs of ends.keys()) if (ours !== theirs) yield { ours, theirs };
  }
}

before(async () => {
  await machine.reset();
  counts = await host.counts();
  await host.complaints();
  for (const name of NAMES) {
    guests.set(name, await Guest.create(dom0, { name, programs: [DOMAIN_END] }));
  }
  ends.set('dom0', await DomainEnd.inDom0(dom0));
  for (const [name, guest] of guests) {
    await guest.booted();
    ends.set(name, await DomainEnd.inGuest(guest));
  }
});
after(() => dom0.close());

test('a program of ours in a guest knows the domain it runs in', async () => {
  for (const name of NAMES) {
    const { domid } = named(guests, name);
    assert.deepEqual(await named(ends, name).do('identify'), { domid, guestType: 'PV' });
  }
});

for (const [how, manner] of [
  ['share', 'pages are shared'],
  ['lend', 'buffers are lent'],
] as const) {
  test(`${manner} between any two domains`, async (t) => {
    for (const { ours, theirs } of pairs()) {
      const [from, to] = [named(ends, ours), named(ends, theirs)];
      await t.test(`from ${ours} to ${theirs}`, () => passPages({ from, to, how }));
    }
  });

  test(`${manner} between guests, as many as a screen has`, async () => {
    const [from, to] = [named(ends, 'owner'), named(ends, 'other')];
    await passPages({ from, to, how, pages: SCREEN_PAGES });
  });
}

test('event channels carry notifications both ways', async (t) => {
  for (const { ours, theirs } of pairs()) {
    await t.test(`${ours} offers, ${theirs} binds`, async () => {
      await notifyBothWays(runtime, { from: named(ends, ours), to: named(ends, theirs) });
    });
  }
});

/** A node that one guest owns, in the one folder of its own where it may make nodes. */
function dataPath(name: string): string {
  return `/local/domain/${named(ends, 'owner').domid}/data/${name}`;
}

/** The owner alone writes; `readers` read, and get the events of watches. */
function readableBy(...readers: DomainEnd[]): NodePermission[] {
  const owner = { domid: named(ends, 'owner').domid, read: false, write: false };
  return [owner, ...readers.map(({ domid }) => ({ domid, read: true, write: false }))];
}

/** Resolves when a watch has named the path. */
function changed(end: DomainEnd, watch: { handle: number }, path: string): Promise<void> {
  const seen = async () => (await end.do('changes', watch)).includes(path);
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 100 };
  return until(runtime, seen, { what: `a change of ${path}`, ...timing });
}

test('a node of one guest is read and watched by whom it permits, and by nobody else', async () => {
  const [owner, other, zero] = [named(ends, 'owner'), named(ends, 'other'), named(ends, 'dom0')];
  const path = dataPath('watched');
  const watch = await other.do('watch', { path });
  await changed(other, watch, path);
  await owner.do('writeNode', { path, value: 'secret' });
  await assert.rejects(other.do('readNode', { path }), /EACCES/);
  await owner.do('permit', { path, permissions: readableBy(other, zero) });
  await changed(other, watch, path);
  assert.equal(await other.do('readNode', { path }), 'secret');
  await assert.rejects(other.do('writeNode', { path, value: 'mine' }), /EACCES/);
  await owner.do('writeNode', { path, value: 'news' });
  await changed(other, watch, path);
  await owner.do('writeNode', { path: `${path}/child`, value: 'permitted as the folder is' });
  await changed(other, watch, `${path}/child`);
  assert.equal(await zero.do('readNode', { path }), 'news');
  await owner.do('removeNode', { path });
  await changed(other, watch, path);
  await owner.do('writeNode', { path, value: 'anew, permitted to nobody' });
  await zero.do('readNode', { path });
  assert.deepEqual(await other.do('changes', watch), []);
  await owner.do('removeNode', { path });
  await other.do('unwatch', watch);
});

test('a guest sees nothing of xenstore that nobody has shown it', async () => {
  const [owner, other] = [named(ends, 'owner'), named(ends, 'other')];
  for (const path of ['/', '/local/domain', `/local/domain/${owner.domid}`, '/local/domain/0']) {
    await assert.rejects(other.do('listNode', { path }), /EACCES/);
  }
  const path = `/local/domain/${owner.domid}/elsewhere`;
  await assert.rejects(owner.do('writeNode', { path, value: '' }), /EACCES/);
});

test('a guest cannot look at its own grant table', async () => {
  await assert.rejects(named(ends, 'owner').do('observe'), /EPERM/);
});

test('pages of a program that is killed stay while they are mapped, and can even be mapped anew', async () => {
  await pagesOutliveProgram(named(guests, 'owner'), named(ends, 'other'));
});

test('a guest that is destroyed takes its nodes along, and stays, dying, while its pages are mapped', async () => {
  const [owner, other] = [named(ends, 'owner'), named(ends, 'other')];
  const path = dataPath('last');
  await owner.do('writeNode', { path, value: 'will go' });
  await owner.do('permit', { path, permissions: readableBy(other) });
  const watch = await other.do('watch', { path });
  await changed(other, watch, path);
  const nodeHasGone = async () => {
    await changed(other, watch, path);
    await assert.rejects(other.do('readNode', { path }), /EACCES/);
  };
  const guest = named(guests, 'owner');
  await pagesOutliveGuest({ guest, owner, peer: other, meanwhile: nodeHasGone });
});

test('everything is as before when the programs and the guests have gone', async () => {
  assert.equal(await named(ends, 'other').end(), 0);
  assert.equal(await named(ends, 'dom0').end(), 0);
  await named(guests, 'other').shutdown();
  await host.settled(counts);
  assert.deepEqual(await host.complaints(), []);
});
