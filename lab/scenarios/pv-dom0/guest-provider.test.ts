// The Linux provider in guests, a PV and a PVH one, and in dom0: any two of the three share pages and event channels
// both ways, and meet in xenstore as far as Xen lets guests; what is left when a program is killed, and when a whole
// guest goes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { DOMAIN_END, DomainEnd } from '../../domain-end.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { NodePermission } from '../../probes/domain-acts.ts';

const TIMEOUT_MS = 30_000;
const PAGES = 4;
/** A screen of 1920x1080, 32 bits a pixel. */
const SCREEN_PAGES = 2025;
/** Status of a program that SIGKILL ended. */
const KILLED = 137;

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
  for (const type of ['pv', 'pvh'] as const) {
    guests.set(type, await Guest.create(dom0, { name: type, type, programs: [DOMAIN_END] }));
  }
  ends.set('dom0', await DomainEnd.inDom0(dom0));
  for (const [name, guest] of guests) {
    await guest.booted();
    ends.set(name, await DomainEnd.inGuest(guest));
  }
});
after(() => dom0.close());

test('a program of ours in a guest knows the domain it runs in', async () => {
  for (const [name, type] of [
    ['pv', 'PV'],
    ['pvh', 'PVH'],
  ] as const) {
    const { domid } = named(guests, name);
    assert.deepEqual(await named(ends, name).do('identify'), { domid, guestType: type });
  }
});

interface Passage {
  readonly from: DomainEnd;
  readonly to: DomainEnd;
  readonly how: 'share' | 'lend';
  readonly pages: number;
}

/** Both sides see what the other has written; afterwards nobody holds anything. */
async function passes({ from, to, how, pages }: Passage): Promise<void> {
  const given = await from.do(how, { domid: to.domid, pages, writable: true });
  assert.equal(given.refs.length, pages);
  await from.do('fill', { ...given, seed: 1 });
  const request = { domid: from.domid, refs: given.refs, writable: true };
  const mapped = await to.do('map', request);
  assert(await to.do('matches', { ...mapped, seed: 1 }), 'what the owner wrote');
  await to.do('fill', { ...mapped, seed: 2 });
  assert(await from.do('matches', { ...given, seed: 2 }), 'what the other wrote');
  assert.equal((await to.do('end', mapped)).heldPages, 0);
  assert.equal((await from.do('end', given)).heldPages, 0);
}

for (const [how, manner] of [
  ['share', 'pages are shared'],
  ['lend', 'buffers are lent'],
] as const) {
  test(`${manner} between any two domains`, async (t) => {
    for (const { ours, theirs } of pairs()) {
      const [from, to] = [named(ends, ours), named(ends, theirs)];
      await t.test(`from ${ours} to ${theirs}`, () => passes({ from, to, how, pages: PAGES }));
    }
  });

  test(`${manner} between guests, as many as a screen has`, async () => {
    const [from, to] = [named(ends, 'pv'), named(ends, 'pvh')];
    await passes({ from, to, how, pages: SCREEN_PAGES });
  });
}

test('event channels carry notifications both ways', async (t) => {
  for (const { ours, theirs } of pairs()) {
    await t.test(`${ours} offers, ${theirs} binds`, async () => {
      const [from, to] = [named(ends, ours), named(ends, theirs)];
      const offered = await from.do('offer', { remote: to.domid });
      const bound = await to.do('bind', { remote: from.domid, port: offered.port });
      await calledUp(to, bound, 1);
      await to.do('notify', bound);
      await calledUp(from, offered, 1);
      await from.do('notify', offered);
      await calledUp(to, bound, 2);
      await to.do('closeChannel', bound);
      await from.do('closeChannel', offered);
    });
  }
});

/** Resolves when a channel's handler has been called `wanted` times in all. */
function calledUp(end: DomainEnd, channel: { handle: number }, wanted: number): Promise<void> {
  const called = async () => (await end.do('calls', channel)) >= wanted;
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 100 };
  return until(runtime, called, { what: `${wanted} calls in domain ${end.domid}`, ...timing });
}

/** A node that the PV guest owns, in the one folder of its own where it may make nodes. */
function dataPath(name: string): string {
  return `/local/domain/${named(ends, 'pv').domid}/data/${name}`;
}

/** The owner alone writes; `readers` read, and get the events of watches. */
function readableBy(...readers: DomainEnd[]): NodePermission[] {
  const owner = { domid: named(ends, 'pv').domid, read: false, write: false };
  return [owner, ...readers.map(({ domid }) => ({ domid, read: true, write: false }))];
}

/** Resolves when a watch has named the path. */
function changed(end: DomainEnd, watch: { handle: number }, path: string): Promise<void> {
  const seen = async () => (await end.do('changes', watch)).includes(path);
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 100 };
  return until(runtime, seen, { what: `a change of ${path}`, ...timing });
}

test('a node of one guest is read and watched by whom it permits, and by nobody else', async () => {
  const [owner, other, zero] = [named(ends, 'pv'), named(ends, 'pvh'), named(ends, 'dom0')];
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
  const [owner, other] = [named(ends, 'pv'), named(ends, 'pvh')];
  for (const path of ['/', '/local/domain', `/local/domain/${owner.domid}`, '/local/domain/0']) {
    await assert.rejects(other.do('listNode', { path }), /EACCES/);
  }
  const path = `/local/domain/${owner.domid}/elsewhere`;
  await assert.rejects(owner.do('writeNode', { path, value: '' }), /EACCES/);
});

test('a guest cannot look at its own grant table', async () => {
  await assert.rejects(named(ends, 'pv').do('observe'), /EPERM/);
  await assert.rejects(named(ends, 'pvh').do('observe'), /EOPNOTSUPP/);
});

test('pages of a program that is killed stay while they are mapped, and can even be mapped anew', async () => {
  const peer = named(ends, 'pvh');
  const victim = await DomainEnd.inGuest(named(guests, 'pv'));
  const share = () => victim.do('share', { domid: peer.domid, pages: PAGES, writable: true });
  const [mapped, unmapped] = [await share(), await share()];
  await victim.do('fill', { ...mapped, seed: 3 });
  const mapThem = ({ refs }: { refs: readonly number[] }) =>
    peer.do('map', { domid: victim.domid, refs, writable: true });
  const first = await mapThem(mapped);
  assert.equal(await victim.kill(), KILLED);
  assert(await peer.do('matches', { ...first, seed: 3 }));
  const second = await mapThem(mapped);
  assert(await peer.do('matches', { ...second, seed: 3 }));
  await assert.rejects(mapThem(unmapped), /GNTST_/);
  for (const mapping of [first, second]) await peer.do('end', mapping);
  const refused = () =>
    mapThem(mapped).then(
      async (mapping) => {
        await peer.do('end', mapping);
        return false;
      },
      () => true,
    );
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 1000 };
  await until(runtime, refused, { what: 'the end of the grants', ...timing });
});

test('a guest that is destroyed takes its nodes along, and stays, dying, while its pages are mapped', async () => {
  const [owner, other] = [named(ends, 'pv'), named(ends, 'pvh')];
  const path = dataPath('last');
  await owner.do('writeNode', { path, value: 'will go' });
  await owner.do('permit', { path, permissions: readableBy(other) });
  const watch = await other.do('watch', { path });
  await changed(other, watch, path);
  const given = await owner.do('share', { domid: other.domid, pages: PAGES, writable: true });
  await owner.do('fill', { ...given, seed: 4 });
  const request = { domid: owner.domid, refs: given.refs, writable: true };
  const mapped = await other.do('map', request);
  await dom0.output(['xl', 'destroy', `${owner.domid}`]);
  await changed(other, watch, path);
  await assert.rejects(other.do('readNode', { path }), /EACCES/);
  assert(await other.do('matches', { ...mapped, seed: 4 }), 'the pages stay');
  const late = await other.do('map', request);
  assert(await other.do('matches', { ...late, seed: 4 }), 'its grants stay as well');
  for (const mapping of [mapped, late]) await other.do('end', mapping);
  await named(guests, 'pv').gone();
  await assert.rejects(other.do('map', request), /GNTST_/);
});

test('everything is as before when the programs and the guests have gone', async () => {
  assert.equal(await named(ends, 'pvh').end(), 0);
  assert.equal(await named(ends, 'dom0').end(), 0);
  await named(guests, 'pvh').shutdown();
  await host.settled(counts);
  assert.deepEqual(await host.complaints(), []);
});
