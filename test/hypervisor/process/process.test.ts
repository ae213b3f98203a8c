// Domains in processes of their own, over real sockets and really shared memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../../src/abi/page.ts';
import { enterMachine } from '../../../src/hypervisor/process/enter-machine.ts';
import { sleep, systemRuntime } from '../../../src/runtime/runtime.ts';
import { DOM0, type DomId, type Port } from '../../../src/xen/ids.ts';
import { eventually } from '../worker/host.ts';
import { onMachine, type ProcessGuest } from './world.ts';

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
    await eventually(async () => (await alice.tell<number>('events')) > before, 'an event of dom0');
    const offered = await dom0.events.allocUnbound({ remote: domid, handler });
    const heard = await alice.tell<number>('events');
    await alice.tell('bind', { domid: DOM0, remote: offered.port });
    offered.notify();
    await eventually(async () => (await alice.tell<number>('events')) > heard, 'another event');
    await bound[Symbol.asyncDispose]();
    await offered[Symbol.asyncDispose]();
  }));

/** What the process has seen at a place, once it is `value`. */
async function seen(
  guest: ProcessGuest,
  { value, ...at }: { of: string; index: number; byte: number; value: number },
): Promise<void> {
  await eventually(async () => (await guest.tell('peek', at)) === value, `${value} is seen`);
}

test('xenstore: a process reads, writes and watches its own home', () =>
  onMachine(async ({ host: { dom0 }, guest }) => {
    const alice = await guest('alice');
    const home = `/local/domain/${alice.domid}`;
    assert.equal(await alice.tell('read', { path: `${home}/name` }), 'alice');
    await alice.tell('watch', { path: `${home}/data` });
    await alice.tell('write', { path: `${home}/data/x`, text: 'hello' });
    assert.equal(await dom0.store.read(`${home}/data/x`), 'hello');
    const before = await alice.tell<number>('storeEvents');
    await dom0.store.write(`${home}/data/y`, 'there');
    await eventually(
      async () => (await alice.tell<number>('storeEvents')) > before,
      'the watch of the process fires',
    );
    await assert.rejects(alice.tell('write', { path: `${home}/name`, text: 'bob' }), /EACCES/);
    await alice.kill();
    await eventually(
      async () => (await dom0.store.directory(home)) === undefined,
      'its home is removed',
    );
  }));

test('two processes share with each other and see the same bytes', () =>
  onMachine(async ({ host, guest }) => {
    const [alice, bob] = await Promise.all([guest('alice'), guest('bob')]);
    const refs = await alice.share({ domid: bob.domid, pages: 600, writable: true, fill: 3 });
    await bob.tell('map', { domid: alice.domid, refs, writable: true });
    const last = 600 * PAGE_SIZE - 1;
    assert.equal(await bob.tell('peek', { of: 'mapped', index: 0, byte: last }), 3);
    await alice.tell('poke', { of: 'shared', index: 0, byte: last, value: 4 });
    assert.equal(await bob.tell('peek', { of: 'mapped', index: 0, byte: last }), 4);
    await bob.tell('poke', { of: 'mapped', index: 0, byte: 0, value: 5 });
    assert.equal(await alice.tell('peek', { of: 'shared', index: 0, byte: 0 }), 5);
    assert(host.hypervisor.memory.ownedBy(bob.domid) < 10, 'nothing was copied into pages of his');

    const remote = await alice.tell<Port>('offer', { domid: bob.domid });
    await bob.tell('bind', { domid: alice.domid, remote });
    const before = await alice.tell<number>('events');
    await bob.tell('notify');
    await eventually(
      async () => (await alice.tell<number>('events')) > before,
      'an event from one process to the other',
    );
    assert.equal(await alice.tell('end', { index: 0 }), 600);
    await bob.tell('leave');
    assert.equal(await alice.tell('end', { index: 0 }), 0);
    await alice.tell('leave');
  }));

test('many calls at a time, and batches as large as there are', () =>
  onMachine(async ({ guest }) => {
    const alice = await guest('alice');
    const { domid } = alice;
    const pages = 64 * 1024;
    const refs = await alice.share({ domid, pages, writable: true, fill: 1 });
    const maps = Array.from({ length: 3 }, () =>
      alice.tell('map', { domid, refs, writable: true }),
    );
    const ends = Array.from({ length: 200 }, () => alice.tell('offer', { domid: DOM0 }));
    assert.deepEqual(await Promise.all(maps), new Array(3).fill(pages));
    assert.equal(new Set(await Promise.all(ends)).size, 200);
    await alice.tell('poke', { of: 'mapped', index: 2, byte: pages * PAGE_SIZE - 1, value: 2 });
    await seen(alice, { of: 'shared', index: 0, byte: pages * PAGE_SIZE - 1, value: 2 });
  }));

test('one that is killed while it maps: the other gets its pages back', () =>
  onMachine(async ({ guest }) => {
    const [alice, bob] = await Promise.all([guest('alice'), guest('bob')]);
    const refs = await alice.share({ domid: bob.domid, pages: 64, writable: true, fill: 3 });
    await bob.tell('map', { domid: alice.domid, refs, writable: true });
    assert.equal(await alice.tell('end', { index: 0 }), 64);
    await bob.kill();
    await eventually(
      async () => (await alice.tell('end', { index: 0 })) === 0,
      'nobody maps the pages any more',
    );
  }));

test('one that is killed while it is mapped: the mapping stays until it is unmapped', () =>
  onMachine(async ({ host, guest }) => {
    const { hypervisor } = host;
    const [alice, bob] = await Promise.all([guest('alice'), guest('bob')]);
    const { domid } = alice;
    const refs = await alice.share({ domid: bob.domid, pages: 64, writable: true, fill: 3 });
    await bob.tell('map', { domid, refs, writable: true });
    await alice.kill();
    await eventually(() => hypervisor.domain(domid)?.state === 'dying', 'the domain is dying');
    const carol = await guest('carol');
    await carol.share({ domid: DOM0, pages: 1000, writable: true, fill: 9 });
    assert.equal(await bob.tell('peek', { of: 'mapped', index: 0, byte: 63 * PAGE_SIZE }), 3);
    await bob.tell('unmap', { index: 0 });
    assert.equal(await bob.tell('peek', { of: 'view', index: 0, byte: 63 * PAGE_SIZE }), 0);
    await eventually(() => hypervisor.domain(domid) === undefined, 'the domain is dead');
  }));

test('killed at any moment of sharing and mapping, a process leaves nothing behind', () =>
  onMachine(async ({ host, guest }) => {
    const { dom0 } = host;
    for (let round = 0; round < 5; round++) {
      const alice = await guest(`alice-${round}`);
      const { domid } = alice;
      const lent = await dom0.grants.share({ domid, pages: 64, writable: true });
      const busy = Array.from({ length: 20 }, () => [
        alice.tell('map', { domid: DOM0, refs: lent.refs, writable: true }),
        alice.share({ domid: DOM0, pages: 512, writable: true, fill: round }),
      ]).flat();
      await busy[round * 7];
      await alice.kill();
      await lent[Symbol.asyncDispose]();
    }
  }));

test('a domain that is crashed from outside: its process loses every view and goes on', () =>
  onMachine(async ({ host, guest }) => {
    const alice = await guest('alice');
    await alice.share({ domid: DOM0, pages: 2, writable: true, fill: 3 });
    const [mine] = host.guests;
    const own = await host.dom0.grants.share({ domid: alice.domid, pages: 1, writable: true });
    own.bytes[0] = 8;
    await alice.tell('map', { domid: DOM0, refs: own.refs, writable: true });
    mine!.crash();
    assert.equal(await mine!.gone, 'crash');
    assert.equal(await alice.tell('stopped'), true);
    assert.equal(await alice.tell('peek', { of: 'view', index: 0, byte: 0 }), 0);
    assert.equal(await alice.tell('peek', { of: 'shared', index: 0, byte: 0 }), 0);
    const more = { domid: DOM0, pages: 1, writable: true, fill: 0 };
    await assert.rejects(alice.share(more), /ESRCH/);
    await assert.rejects(alice.tell('read', { path: '/x' }), /ECONNRESET/);
    await assert.rejects(alice.tell('resolve', { name: 'Domain-0' }), /ESRCH/);
    await alice.tell('leave');
    await own[Symbol.asyncDispose]();
  }));

test('a process that does not let go keeps what it looks at from everybody else', () =>
  onMachine(async ({ host, guest }) => {
    const alice = await guest('alice');
    const { domid } = alice;
    await alice.share({ domid: DOM0, pages: 8, writable: true, fill: 3 });
    const [mine] = host.guests;
    alice.signal('SIGSTOP');
    mine!.crash();
    const hurried = await Promise.race([mine!.gone, sleep(systemRuntime(), 200)]);
    assert.equal(hurried, undefined);
    assert(host.hypervisor.memory.ownedBy(domid) >= 8, "its pages are nobody else's");
    alice.signal('SIGCONT');
    assert.equal(await mine!.gone, 'crash');
    assert.equal(host.hypervisor.memory.ownedBy(domid), 0);
    assert.equal(await alice.tell('peek', { of: 'shared', index: 0, byte: 0 }), 0);
  }));

test('names: taken, malformed and too many are refused; a name is free when its domain is over', () =>
  onMachine(
    async ({ path, guest, host }) => {
      const enter = (name: string) => enterMachine({ runtime: systemRuntime(), path, name });
      const alice = await guest('alice');
      await assert.rejects(enter('alice'), /EEXIST/);
      await assert.rejects(enter('Domain-0'), /EEXIST/);
      for (const name of ['', ' ', 'a/b', '-a', 'a'.repeat(65), 'ä']) {
        await assert.rejects(enter(name), /EINVAL/, name);
      }
      await guest('bob');
      await assert.rejects(enter('carol'), /EUSERS/);
      assert.equal(host.guests.length, 2);
      await alice.kill();
      await eventually(() => host.guests.length === 1, 'the first is gone');
      const again = await guest('alice');
      assert.notEqual(again.domid, alice.domid);
    },
    { maxGuests: 2 },
  ));

test('a name is looked up, and waited for', () =>
  onMachine(async ({ guest }) => {
    const alice = await guest('alice');
    assert.equal(await alice.tell('resolve', { name: 'Domain-0' }), DOM0);
    assert.equal(await alice.tell('resolve', { name: 'alice', wait: true }), alice.domid);
    await assert.rejects(alice.tell('resolve', { name: 'bob' }), /ESRCH/);
    const found = alice.tell<DomId>('resolve', { name: 'bob', wait: true });
    const bob = await guest('bob');
    assert.equal(await found, bob.domid);
    const unanswered = alice.tell('resolve', { name: 'carol', wait: true });
    await Promise.all([assert.rejects(unanswered, /ESRCH|ECONNRESET/), alice.tell('leave')]);
  }));
