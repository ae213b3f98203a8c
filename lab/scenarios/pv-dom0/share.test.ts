// Sharing by name on a real Xen: two guests and dom0, each to each of the others, buffers and streams, of
// new pages and of dma-bufs; withdrawn with the importer's help and without; and either end killed at every step.
// The guests are PV: this takes minutes, in which QEMU may lose a PVH guest (docs/lab.md). What sharing
// stands on, guest-provider-pvh.test.ts runs in a PVH guest too.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import type { ExportRequest, ToldEvent } from '../../probes/share-acts.ts';
import { SHARE_END, ShareEnd } from '../../share-end.ts';

const TIMEOUT_MS = 60_000;
const PAGES = 3;
/** A screen of 1920x1080, 32 bits a pixel. */
const SCREEN_PAGES = 2025;
const KILLED = 137;

const machine = await attach(import.meta);
const { dom0, runtime } = machine;
const host = new HostWatch(dom0);
const guests = new Map<string, Guest>();
const ends = new Map<string, ShareEnd>();
const events = new Map<ShareEnd, ToldEvent[]>();
let counts: HostCounts;

function end(name: string): ShareEnd {
  return ends.get(name) ?? assert.fail(`${name} is not up`);
}

/** Starts a program in one of the domains and has it listen to the others. */
async function start(name: string): Promise<ShareEnd> {
  const guest = guests.get(name);
  const started = guest ? await ShareEnd.inGuest(guest) : await ShareEnd.inDom0(dom0);
  const domids = [0, ...[...guests.values()].map(({ domid }) => domid)];
  await started.do('listen', { from: domids.filter((domid) => domid !== started.domid) });
  ends.set(name, started);
  events.set(started, []);
  return started;
}

function eventually(what: string, condition: () => Promise<boolean>): Promise<void> {
  return until(runtime, condition, { what, timeoutMs: TIMEOUT_MS, intervalMs: 250 });
}

/** Resolves when the importer was told that of a share; what it is told otherwise is kept. */
async function told(importer: ShareEnd, type: string, id: string): Promise<ToldEvent> {
  const kept = events.get(importer)!;
  let found: ToldEvent | undefined;
  await eventually(`domain ${importer.domid} is told ${type}`, async () => {
    kept.push(...(await importer.do('events')));
    found = kept.find((event) => event.type === type && event.id === id);
    return found !== undefined;
  });
  kept.splice(kept.indexOf(found!), 1);
  return found!;
}

function inState(exporter: ShareEnd, id: string, wanted: string): Promise<void> {
  return eventually(`the share of domain ${exporter.domid} is ${wanted}`, async () => {
    return (await exporter.do('state', { id })).state === wanted;
  });
}

/** Offers something, and has the other end open it. */
async function opened(
  from: ShareEnd,
  to: ShareEnd,
  request: Partial<ExportRequest> & { writable?: boolean } = {},
): Promise<string> {
  const { writable = false, ...what } = request;
  const id = await from.do('export', { to: to.domid, pages: PAGES, name: 'a share', ...what });
  await told(to, 'offered', id);
  await to.do('open', { id, writable });
  return id;
}

/** Takes a share back that nobody has open any more. */
async function takenBack(from: ShareEnd, to: ShareEnd, id: string): Promise<void> {
  assert.deepEqual(await from.do('withdraw', { id, deadlineMs: 20_000 }), { state: 'released' });
  await told(to, 'withdrawn', id);
}

/** Every two of the three, both ways round. */
function* pairs(): Generator<{ name: string; from: () => ShareEnd; to: () => ShareEnd }> {
  for (const ours of ['dom0', 'alice', 'bob']) {
    for (const theirs of ['dom0', 'alice', 'bob']) {
      if (ours === theirs) continue;
      yield { name: `from ${ours} to ${theirs}`, from: () => end(ours), to: () => end(theirs) };
    }
  }
}

before(async () => {
  await machine.reset();
  counts = await host.counts();
  await host.complaints();
  for (const name of ['alice', 'bob']) {
    guests.set(name, await Guest.create(dom0, { name, programs: [SHARE_END] }));
  }
  for (const guest of guests.values()) await guest.booted();
  for (const name of ['dom0', 'alice', 'bob']) await start(name);
});
after(() => dom0.close());

test('a buffer is offered, opened, read in place, renamed, closed and withdrawn', async (t) => {
  for (const { name, from, to } of pairs()) {
    await t.test(name, async () => {
      const [exporter, importer] = [from(), to()];
      const id = await opened(exporter, importer);
      assert(await importer.do('sees', { id, seed: 1 }), 'what the exporter wrote before');
      await exporter.do('refill', { id, seed: 2 });
      assert(await importer.do('sees', { id, seed: 2 }), 'and what it writes now');
      await exporter.do('rename', { id, name: 'renamed' });
      assert.equal((await told(importer, 'updated', id)).name, 'renamed');
      assert.deepEqual(await exporter.do('state', { id }), { state: 'open', opens: 1 });
      await importer.do('close', { id });
      await inState(exporter, id, 'offered');
      await takenBack(exporter, importer, id);
    });
  }
});

test('a dma-buf is shared for writing, and both write', async (t) => {
  for (const { name, from, to } of pairs()) {
    await t.test(name, async () => {
      const [exporter, importer] = [from(), to()];
      const id = await opened(exporter, importer, { lent: true, writable: true });
      assert(await importer.do('sees', { id, seed: 1 }));
      await importer.do('overwrite', { id, seed: 9 });
      assert(await exporter.do('holds', { id, seed: 9 }));
      await importer.do('close', { id });
      await takenBack(exporter, importer, id);
    });
  }
});

test('what is offered for reading cannot be written to', async () => {
  const [exporter, importer] = [end('alice'), end('bob')];
  const id = await exporter.do('export', { to: importer.domid, pages: 1, name: 'for reading' });
  await told(importer, 'offered', id);
  await assert.rejects(importer.do('open', { id, writable: true }), /offered for reading/);
  await takenBack(exporter, importer, id);
});

test('a whole screen goes from guest to guest', async () => {
  const [exporter, importer] = [end('bob'), end('alice')];
  const id = await opened(exporter, importer, { pages: SCREEN_PAGES });
  assert(await importer.do('sees', { id, seed: 1 }));
  await importer.do('close', { id });
  await takenBack(exporter, importer, id);
});

test('frames go in order, are held, and given back', async (t) => {
  for (const { name, from, to } of pairs()) {
    await t.test(name, async () => {
      const [exporter, importer] = [from(), to()];
      const id = await opened(exporter, importer, { slots: 2 });
      for (const seed of [11, 12, 13]) {
        assert.equal(await exporter.do('publish', { id, seed }), seed - 10);
        const taken = await importer.do('take', { id, seed });
        assert.deepEqual(taken, { sequence: seed - 10, seen: true });
        assert.equal(await exporter.do('fate', { id, seed }), null, 'while it is held');
        await importer.do('giveBack', { id });
        assert.equal(await exporter.do('fate', { id, seed }), 'consumed');
      }
      await importer.do('close', { id });
      await takenBack(exporter, importer, id);
    });
  }
});

test('a second program of the importing domain is refused, and counted', async () => {
  const [exporter, importer] = [end('alice'), end('dom0')];
  const id = await opened(exporter, importer);
  const second = await ShareEnd.inDom0(dom0);
  await second.do('listen', { from: [exporter.domid] });
  await assert.rejects(second.do('open', { id }), /open in another program/);
  assert.deepEqual(await exporter.do('refusals', { id }), { 'second-importer': 1 });
  assert(await importer.do('sees', { id, seed: 1 }), 'the first one goes on');
  await importer.do('close', { id });
  await inState(exporter, id, 'offered');
  await second.do('open', { id });
  assert(await second.do('sees', { id, seed: 1 }));
  assert.equal(await second.end(), 0);
  await inState(exporter, id, 'offered');
  await takenBack(exporter, importer, id);
});

test('a domain that nobody offered it to cannot open a share', async () => {
  const [exporter, importer, third] = [end('alice'), end('bob'), end('dom0')];
  const id = await opened(exporter, importer);
  await assert.rejects(third.do('open', { id }), /no share .* is offered/);
  await importer.do('close', { id });
  await takenBack(exporter, importer, id);
});

test('who does not close what is withdrawn is closed at the deadline', async () => {
  const [exporter, importer] = [end('dom0'), end('bob')];
  const id = await opened(exporter, importer);
  assert.deepEqual(await exporter.do('withdraw', { id, deadlineMs: 3000 }), { state: 'released' });
  await told(importer, 'withdrawn', id);
  assert.equal(await importer.do('over', { id }), 'withdrawn');
  await assert.rejects(importer.do('sees', { id, seed: 1 }), /withdrawn/);
});

test('who cannot close is waited for: in quarantine until it lets go', async () => {
  const [exporter, importer] = [end('bob'), end('dom0')];
  const id = await opened(exporter, importer);
  await dom0.output(['kill', '-STOP', `${importer.program.pid}`]);
  const outcome = await exporter.do('withdraw', { id, deadlineMs: 500 });
  assert.equal(outcome.state, 'quarantined');
  await dom0.output(['kill', '-CONT', `${importer.program.pid}`]);
  await inState(exporter, id, 'released');
  await told(importer, 'withdrawn', id);
});

const ROUTES: readonly (readonly [string, string])[] = [
  ['alice', 'dom0'],
  ['dom0', 'bob'],
  ['alice', 'bob'],
];
const STEPS = ['offered', 'open', 'frame held', 'withdrawing'] as const;

/** Brings a stream to a step of its life. */
async function atStep(
  exporter: ShareEnd,
  importer: ShareEnd,
  step: (typeof STEPS)[number],
): Promise<string> {
  const id = await exporter.do('export', {
    to: importer.domid,
    pages: PAGES,
    slots: 2,
    name: step,
  });
  await told(importer, 'offered', id);
  if (step === 'offered') return id;
  await importer.do('open', { id });
  await exporter.do('publish', { id, seed: 5 });
  if (step === 'open') return id;
  await importer.do('take', { id, seed: 5 });
  if (step === 'frame held') return id;
  // Its answer comes after the importer is told, and long before the deadline.
  await exporter.program.tell(
    JSON.stringify({ id: 1_000_000, act: 'withdraw', request: { id, deadlineMs: 600_000 } }),
  );
  await told(importer, 'withdrawn', id);
  return id;
}

for (const [index, step] of STEPS.entries()) {
  const [ours, theirs] = ROUTES[index % ROUTES.length]!;

  test(`the exporter is killed, ${step}: from ${ours} to ${theirs}`, async () => {
    const [exporter, importer] = [end(ours), end(theirs)];
    const id = await atStep(exporter, importer, step);
    assert.equal(await exporter.kill(), KILLED);
    if (step === 'offered') {
      await assert.rejects(importer.do('open', { id }), /is gone|not there any more/);
    } else {
      if (step !== 'withdrawing') {
        await told(importer, 'gone', id);
        assert.equal(await importer.do('over', { id }), 'exporter-gone');
      }
      await importer.do('close', { id });
    }
    const next = await start(ours);
    await takenBack(next, importer, await closedAgain(next, importer));
    const offers = `/local/domain/${next.domid}/data/xen-zcopy/offers/${importer.domid}`;
    assert.equal(
      await dom0.output(['xenstore-list', offers]),
      '',
      'what the dead one left is swept',
    );
  });

  test(`the importer is killed, ${step}: from ${theirs} to ${ours}`, async () => {
    const [exporter, importer] = [end(theirs), end(ours)];
    const id = await atStep(exporter, importer, step);
    assert.equal(await importer.kill(), KILLED);
    if (step === 'withdrawing') {
      await inState(exporter, id, 'released');
    } else {
      await inState(exporter, id, 'offered');
      const outcome = await exporter.do('withdraw', { id, deadlineMs: 5000 });
      assert.deepEqual(outcome, { state: 'released' });
    }
    const next = await start(ours);
    await takenBack(exporter, next, await closedAgain(exporter, next));
  });
}

/** Shares a buffer once more: both domains go on. */
async function closedAgain(exporter: ShareEnd, importer: ShareEnd): Promise<string> {
  const id = await opened(exporter, importer);
  assert(await importer.do('sees', { id, seed: 1 }));
  await importer.do('close', { id });
  await inState(exporter, id, 'offered');
  return id;
}

test('a guest that is destroyed: who imports from it is told, who exports to it gets everything back', async () => {
  const [victim, other, zero] = [end('alice'), end('bob'), end('dom0')];
  const fromVictim = await opened(victim, other);
  const toVictim = await opened(zero, victim);
  await dom0.output(['xl', 'destroy', `${victim.domid}`]);
  await told(other, 'gone', fromVictim);
  assert.equal(await other.do('over', { id: fromVictim }), 'exporter-gone');
  assert(await other.do('sees', { id: fromVictim, seed: 1 }), 'what is mapped stays');
  await other.do('close', { id: fromVictim });
  await inState(zero, toVictim, 'offered');
  const outcome = await zero.do('withdraw', { id: toVictim, deadlineMs: 5000 });
  assert.deepEqual(outcome, { state: 'released' });
  await guests.get('alice')!.gone();
});

test('everything is as before when the programs and the guests have gone', async () => {
  assert.equal(await end('bob').end(), 0);
  assert.equal(await end('dom0').end(), 0);
  await guests.get('bob')!.shutdown();
  await host.settled(counts);
  assert.deepEqual(await host.complaints(), []);
});
