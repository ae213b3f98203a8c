// What any two domains with a program of ours (DomainEnd) can do with each other, as checks that scenarios make of
// guests of every kind: pages and buffers pass, notifications arrive, and pages outlive who has given them.
import assert from 'node:assert/strict';
import { type Runtime, until } from '../src/runtime/runtime.ts';
import { DomainEnd } from './domain-end.ts';
import type { Guest } from './guest.ts';

const TIMEOUT_MS = 30_000;
const PAGES = 4;
/** Status of a program that SIGKILL ended. */
const KILLED = 137;

/** A screen of 1920x1080, 32 bits a pixel. */
export const SCREEN_PAGES = 2025;

export interface Pair {
  readonly from: DomainEnd;
  readonly to: DomainEnd;
}

export interface Passage extends Pair {
  readonly how: 'share' | 'lend';
  readonly pages?: number;
}

/** Both sides see what the other has written; afterwards nobody holds anything. */
export async function passPages({ from, to, how, pages = PAGES }: Passage): Promise<void> {
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

/** An event channel that one offers and the other binds to carries notifications both ways. */
export async function notifyBothWays(runtime: Runtime, { from, to }: Pair): Promise<void> {
  /** Resolves when a channel's handler has been called `wanted` times in all. */
  const calledUp = (end: DomainEnd, channel: { handle: number }, wanted: number) => {
    const called = async () => (await end.do('calls', channel)) >= wanted;
    const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 100 };
    return until(runtime, called, { what: `${wanted} calls in domain ${end.domid}`, ...timing });
  };
  const offered = await from.do('offer', { remote: to.domid });
  const bound = await to.do('bind', { remote: from.domid, port: offered.port });
  await calledUp(to, bound, 1);
  await to.do('notify', bound);
  await calledUp(from, offered, 1);
  await from.do('notify', offered);
  await calledUp(to, bound, 2);
  await to.do('closeChannel', bound);
  await from.do('closeChannel', offered);
}

/** Pages of a program that is killed stay while `peer` maps them, and can even be mapped anew; nobody else's do. */
export async function pagesOutliveProgram(guest: Guest, peer: DomainEnd): Promise<void> {
  const victim = await DomainEnd.inGuest(guest);
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
  await until(guest.runtime, refused, { what: 'the end of the grants', ...timing });
}

export interface DyingGuest {
  readonly guest: Guest;
  /** The program in it whose pages are to be mapped. */
  readonly owner: DomainEnd;
  readonly peer: DomainEnd;
  /** What else is to hold while the guest is dying. */
  readonly meanwhile?: () => Promise<void>;
}

/** A guest that is destroyed stays, dying, while `peer` maps its pages, and its grants stay as well. */
export async function pagesOutliveGuest(dying: DyingGuest): Promise<void> {
  const { guest, owner, peer, meanwhile = async () => {} } = dying;
  const given = await owner.do('share', { domid: peer.domid, pages: PAGES, writable: true });
  await owner.do('fill', { ...given, seed: 4 });
  const request = { domid: owner.domid, refs: given.refs, writable: true };
  const mapped = await peer.do('map', request);
  await guest.dom0.output(['xl', 'destroy', `${owner.domid}`]);
  await meanwhile();
  assert(await peer.do('matches', { ...mapped, seed: 4 }), 'the pages stay');
  const late = await peer.do('map', request);
  assert(await peer.do('matches', { ...late, seed: 4 }), 'its grants stay as well');
  for (const mapping of [mapped, late]) await peer.do('end', mapping);
  await guest.gone();
  await assert.rejects(peer.do('map', request), /GNTST_/);
}
