// How a domain of the hypervisor says that it lets go of pages: the byte, the event, and who still maps what.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import type { EventChannel } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { onMachine, type World } from './world.ts';

interface Pair {
  readonly guest: GuestDomain;
  readonly heard: { dom0: number; guest: number };
  readonly dom0Channel: EventChannel;
  readonly guestChannel: EventChannel;
}

/** A guest with an event channel to domain 0, both ends counting. */
async function pair({ guest: create, dom0 }: World): Promise<Pair> {
  const guest = create('peer');
  const heard = { dom0: 0, guest: 0 };
  const count = (who: keyof typeof heard) => () => {
    heard[who]++;
  };
  const guestChannel = await guest.events.allocUnbound({ remote: DOM0, handler: count('guest') });
  const dom0Channel = await dom0.events.bindInterdomain({
    remote: guest.domid,
    remotePort: guestChannel.port,
    handler: count('dom0'),
  });
  return { guest, heard, dom0Channel, guestChannel };
}

test('who unmaps clears the byte and signals, once', () =>
  onMachine(async (world) => {
    const { guest, heard, dom0Channel } = await pair(world);
    const shared = await guest.grants.share({ domid: DOM0, pages: 2, writable: true });
    shared.bytes[4100] = 1;
    const mapping = await world.dom0.foreign.map({
      domid: guest.domid,
      refs: shared.refs,
      writable: true,
      farewell: { byte: 4100, channel: dom0Channel },
    });
    await mapping[Symbol.asyncDispose]();
    await mapping[Symbol.asyncDispose]();
    await world.runtime.runUntil(() => heard.guest > 0, { what: 'the guest hears of it' });
    assert.equal(shared.bytes[4100], 0);
    assert.equal(heard.guest, 1);
    await shared[Symbol.asyncDispose]();
    world.hypervisor.destroy(guest.domid);
  }));

test('the end of a program says farewell for what it shared and what it mapped', () =>
  onMachine(async (world) => {
    const { guest, heard, guestChannel } = await pair(world);
    const farewell = { byte: 7, channel: guestChannel };
    const shared = await guest.grants.share({ domid: DOM0, pages: 1, writable: true, farewell });
    shared.bytes[7] = 1;
    const mapping = await world.dom0.foreign.map({
      domid: guest.domid,
      refs: shared.refs,
      writable: false,
    });
    assert.equal(mapping.bytes[7], 1);
    await guest[Symbol.asyncDispose]();
    await world.runtime.runUntil(() => heard.dom0 > 0, { what: 'domain 0 hears of it' });
    assert.equal(mapping.bytes[7], 0, 'the page that the peer still maps');
    await mapping[Symbol.asyncDispose]();
    world.hypervisor.destroy(guest.domid);
  }));

test('the end of shared pages is tried again until nobody maps them', () =>
  onMachine(async ({ guest: create, dom0, hypervisor }) => {
    const guest = create('sharer');
    const shared = await guest.grants.share({ domid: DOM0, pages: 3, writable: false });
    const view = shared.bytes;
    view[0] = 9;
    const refs = shared.refs.slice(1);
    const mapping = await dom0.foreign.map({ domid: guest.domid, refs, writable: false });
    assert.deepEqual(await shared.end(), { heldPages: 2, evidence: 'grant table' });
    assert.equal(view[0], 0, 'our own view is revoked');
    assert.throws(() => shared.bytes, /given up/);
    assert.deepEqual(await shared.end(), { heldPages: 2, evidence: 'grant table' });
    await mapping[Symbol.asyncDispose]();
    assert.deepEqual(await shared.end(), { heldPages: 0, evidence: 'grant table' });
    const { frames } = hypervisor.books().domains.find(({ domid }) => domid === guest.domid)!;
    await shared[Symbol.asyncDispose]();
    assert.equal(
      hypervisor.books().domains.find(({ domid }) => domid === guest.domid)!.frames,
      frames,
      'nothing was left to free',
    );
    hypervisor.destroy(guest.domid);
    assert.deepEqual(leakReport(hypervisor.books()), []);
  }));
