// Domains in processes of their own, over real sockets and really shared memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../../src/abi/page.ts';
import { DOM0, type Port } from '../../../src/xen/ids.ts';
import { eventually } from '../worker/host.ts';
import { onMachine } from './guest-process.ts';

test('a process shares pages with domain 0 and maps pages of it', () =>
  onMachine(async ({ host: { dom0 }, guest }) => {
    const alice = await guest('alice');
    const refs = await alice.share({ domid: DOM0, pages: 3, writable: true, fill: 7 });
    const { domid } = alice;
    const mapping = await dom0.foreign.map({ domid, refs, writable: true });
    assert(mapping.bytes.every((byte) => byte === 7));
    mapping.bytes[2 * PAGE_SIZE] = 9;
    const at = { of: 'shared', index: 0, byte: 2 * PAGE_SIZE };
    assert.equal(await alice.tell('peek', at), 9);
    await mapping[Symbol.asyncDispose]();
    assert.equal(await alice.tell('end', { index: 0 }), 0);

    const lent = await dom0.grants.share({ domid, pages: 2, writable: true });
    lent.bytes[PAGE_SIZE] = 5;
    await alice.tell('map', { domid: DOM0, refs: lent.refs, writable: true });
    assert.equal(await alice.tell('peek', { of: 'mapped', index: 0, byte: PAGE_SIZE }), 5);
    await alice.tell('poke', { of: 'mapped', index: 0, byte: 0, value: 6 });
    assert.equal(lent.bytes[0], 6);
    assert.equal((await lent.end()).heldPages, 2);
    await alice.tell('unmap', { index: 0 });
    assert.equal((await lent.end()).heldPages, 0);
    assert.equal(await alice.tell('peek', { of: 'view', index: 0, byte: 0 }), 0, 'revoked');
    await lent[Symbol.asyncDispose]();
    await alice.tell('leave');
    assert.equal(await alice.tell('stopped'), true);
  }));

test('event channels, both ways, both made', () =>
  onMachine(async ({ host: { dom0 }, guest }) => {
    const alice = await guest('alice');
    const { domid } = alice;
    let events = 0;
    const handler = () => void events++;
    const remotePort = await alice.tell<Port>('offer', { domid: DOM0 });
    const bound = await dom0.events.bindInterdomain({ remote: domid, remotePort, handler });
    await eventually(() => events === 1, 'the first event of a bound port');
    for (let round = 1; round <= 20; round++) {
      await alice.tell('notify');
      await eventually(() => events > round, 'an event of the process');
    }
    const before = await alice.tell<number>('events');
    bound.notify();
    while ((await alice.tell<number>('events')) === before);
    const offered = await dom0.events.allocUnbound({ remote: domid, handler });
    const seen = await alice.tell<number>('events');
    await alice.tell('bind', { domid: DOM0, remote: offered.port });
    offered.notify();
    while ((await alice.tell<number>('events')) === seen);
    await bound[Symbol.asyncDispose]();
    await offered[Symbol.asyncDispose]();
  }));
