import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { areasInUse } from '../../src/posix/map-areas.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { DOM0, type DomId, type Gref } from '../../src/xen/ids.ts';
import { onMachine } from './world.ts';

test('shared pages are zero, contiguous on both sides, and the same memory', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    await using shared = await alice.grants.share({ domid: DOM0, pages: 3, writable: true });
    assert(shared.bytes.every((byte) => byte === 0));
    assert.equal(shared.refs.length, 3);
    const refs = [...shared.refs].reverse();
    await using mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: true });
    shared.bytes[2 * PAGE_SIZE] = 11;
    mapping.bytes[2 * PAGE_SIZE + 1] = 22;
    assert.equal(mapping.bytes[0], 11);
    assert.equal(shared.bytes[1], 22);
    const [zero, one] = hypervisor.books().domains;
    assert.deepEqual([zero!.maptrackUsed, one!.grantsMapped, one!.frames], [3, 3, 3]);
    assert.deepEqual(one!.mappedBy, new Map([[DOM0, 3]]));
  }));

test('pages that were used are zero when they are granted again, to whomever', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    const bob = guest('bob');
    const pages = 4;
    const first = await alice.grants.share({ domid: DOM0, pages, writable: true });
    first.bytes.fill(0xaa);
    await first[Symbol.asyncDispose]();
    await using second = await bob.grants.share({ domid: DOM0, pages, writable: true });
    await using mapping = await dom0.foreign.map({
      domid: bob.domid,
      refs: second.refs,
      writable: false,
    });
    assert(mapping.bytes.every((byte) => byte === 0));
  }));

test('a grant that cannot be mapped is named, and everything before it is unmapped', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    await using shared = await alice.grants.share({ domid: DOM0, pages: 40, writable: true });
    const refs = [...shared.refs];
    refs[17] = 500 as Gref;
    await assert.rejects(
      dom0.foreign.map({ domid: alice.domid, refs, writable: true }),
      (error) =>
        error instanceof GrantMapError &&
        error.index === 17 &&
        error.ref === 500 &&
        error.status === 'GNTST_general_error',
    );
    const [zero, one] = hypervisor.books().domains;
    assert.deepEqual([zero!.maptrackUsed, zero!.windows, one!.grantsMapped], [0, 0, 0]);
  }));

test('the status of a failed mapping is the hypervisor’s', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    await using readOnly = await alice.grants.share({ domid: DOM0, pages: 1, writable: false });
    const cases = [
      { domid: alice.domid, refs: readOnly.refs, status: 'GNTST_general_error' },
      { domid: alice.domid, refs: [1_000_000 as Gref], status: 'GNTST_bad_gntref' },
      { domid: 99 as DomId, refs: [8 as Gref], status: 'GNTST_bad_domain' },
    ];
    for (const { status, ...request } of cases) {
      await assert.rejects(
        dom0.foreign.map({ ...request, writable: true }),
        (error) => error instanceof GrantMapError && error.status === status,
      );
    }
  }));

test('an unmapped mapping throws, and a view kept of it shows nothing of anybody', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    await using shared = await alice.grants.share({ domid: DOM0, pages: 1, writable: true });
    const { refs } = shared;
    const mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: true });
    const stale = mapping.bytes;
    shared.bytes[0] = 1;
    await mapping[Symbol.asyncDispose]();
    await mapping[Symbol.asyncDispose]();
    assert.throws(() => mapping.bytes, /unmapped/);
    assert.equal(stale[0], 0);
    stale[0] = 9;
    assert.equal(shared.bytes[0], 1);
  }));

test('revoking while mapped: page and ref stay out of use until the other domain lets go', () =>
  onMachine(async ({ dom0, guest, hypervisor, runtime }) => {
    const alice = guest('alice');
    const shared = await alice.grants.share({ domid: DOM0, pages: 3, writable: true });
    shared.bytes.fill(7);
    const request = { domid: alice.domid, refs: [shared.refs[1]!], writable: false };
    const mapping = await dom0.foreign.map(request);
    const mapped = shared.refs[1]!;
    await shared[Symbol.asyncDispose]();
    assert.equal(alice.grants.deferredPages, 1);
    assert.equal(mapping.bytes[0], 7, 'the reader sees the old content');
    const next = await alice.grants.share({ domid: DOM0, pages: 20, writable: true });
    assert(!next.refs.includes(mapped), 'the ref is not given out again');
    next.bytes.fill(8);
    assert.equal(mapping.bytes[0], 7);
    await mapping[Symbol.asyncDispose]();
    await runtime.runUntil(() => alice.grants.deferredPages === 0, { what: 'the page came back' });
    assert.equal(hypervisor.memory.ownedBy(alice.domid), 20);
    await next[Symbol.asyncDispose]();
    assert.equal(hypervisor.memory.ownedBy(alice.domid), 0);
  }));

test('destroyed while mapped: dying, with who holds what; dead and scrubbed when they let go', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const states: string[] = [];
    using _ = hypervisor.onDomainChange((domid, state) => states.push(`${domid} ${state}`));
    const alice = guest('alice');
    const { domid } = alice;
    const shared = await alice.grants.share({ domid: DOM0, pages: 5, writable: true });
    shared.bytes.fill(0x55);
    const refs = shared.refs.slice(1, 3);
    const mapping = await dom0.foreign.map({ domid, refs, writable: false });
    const free = hypervisor.memory.freeFrames;

    hypervisor.destroy(domid);
    hypervisor.destroy(domid);
    const dying = hypervisor.books().domains.find((books) => books.domid === domid)!;
    assert.equal(dying.state, 'dying');
    assert.equal(dying.frames, 2);
    assert.deepEqual(dying.mappedBy, new Map([[DOM0, 2]]));
    assert.equal(hypervisor.memory.freeFrames, free + 3, 'what nobody maps is free at once');
    assert(
      mapping.bytes.every((byte) => byte === 0x55),
      'the reader sees the old content',
    );
    const bob = guest('bob');
    await using theirs = await bob.grants.share({ domid: DOM0, pages: 1000, writable: true });
    theirs.bytes.fill(0x66);
    assert(
      mapping.bytes.every((byte) => byte === 0x55),
      'and never another’s',
    );
    await assert.rejects(
      dom0.foreign.map({ domid, refs: [shared.refs[0]!], writable: false }),
      (error) => error instanceof GrantMapError && error.status === 'GNTST_bad_page',
    );

    await mapping[Symbol.asyncDispose]();
    assert.equal(hypervisor.domain(domid), undefined);
    assert.deepEqual(states, ['1 running', '1 dying', '2 running', '1 dead']);
  }));

test('a dying domain’s own mappings are dropped at once', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const lent = await dom0.grants.share({ domid: alice.domid, pages: 2, writable: true });
    const mapping = await alice.foreign.map({ domid: DOM0, refs: lent.refs, writable: true });
    const view = mapping.bytes;
    hypervisor.destroy(alice.domid);
    view.fill(3);
    assert(
      lent.bytes.every((byte) => byte === 0),
      'a zombie writes to nobody',
    );
    await lent[Symbol.asyncDispose]();
    assert.equal(dom0.grants.deferredPages, 0);
    await mapping[Symbol.asyncDispose]();
  }));

test('a domain that is shut down runs no more and keeps what it has until it is destroyed', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const shared = await alice.grants.share({ domid: DOM0, pages: 1, writable: true });
    hypervisor.shutdown(alice.domid, 'crash');
    assert.equal(hypervisor.domain(alice.domid)!.shutdownReason, 'crash');
    assert(alice.stopped.aborted);
    await assert.rejects(
      alice.grants.share({ domid: DOM0, pages: 1, writable: true }),
      (error) => error instanceof SysError && error.errnoName === 'ESRCH',
    );
    const { refs } = shared;
    await using mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: false });
    assert.equal(mapping.pages, 1);
    await alice[Symbol.asyncDispose]();
  }));

test('no memory and no grant entries are ordinary errors that leave nothing behind', () =>
  onMachine(async ({ guest, hypervisor }) => {
    const alice = guest('alice', { maxFrames: 600, maxGrantFrames: 1 });
    const tooManyRefs = alice.grants.share({ domid: DOM0, pages: 505, writable: true });
    await assert.rejects(tooManyRefs, (e) => e instanceof SysError && e.errnoName === 'ENOSPC');
    const bob = guest('bob', { maxFrames: 10 });
    const tooManyPages = bob.grants.share({ domid: DOM0, pages: 11, writable: true });
    await assert.rejects(tooManyPages, (e) => e instanceof SysError && e.errnoName === 'ENOMEM');
    const all = await alice.grants.share({ domid: DOM0, pages: 504, writable: true });
    assert.equal(new Set(all.refs).size, 504);
    assert(Math.min(...all.refs) >= 8, 'the reserved entries are not handed out');
    await all[Symbol.asyncDispose]();
    await bob.grants.share({ domid: DOM0, pages: 10, writable: true });
    assert.equal(hypervisor.memory.ownedBy(alice.domid), 0);
  }));

test('a machine without enough frames refuses, and gives what it has once there is enough', () =>
  onMachine(
    async ({ guest, hypervisor }) => {
      const alice = guest('alice');
      const { freeFrames } = hypervisor.memory;
      const request = { domid: DOM0, pages: freeFrames + 1, writable: true };
      await assert.rejects(
        alice.grants.share(request),
        (e) => e instanceof SysError && e.errnoName === 'ENOMEM' && e.remedy !== undefined,
      );
      const pages = hypervisor.memory.freeFrames - 1;
      const shared = await alice.grants.share({ domid: DOM0, pages, writable: true });
      await shared[Symbol.asyncDispose]();
    },
    { machineFrames: 300 },
  ));

test('scattered frames show as one view', () =>
  onMachine(
    async ({ dom0, guest }) => {
      const alice = guest('alice');
      const share = (pages: number) => alice.grants.share({ domid: DOM0, pages, writable: true });
      const singles = await Promise.all(Array.from({ length: 200 }, () => share(1)));
      for (const [index, single] of singles.entries()) {
        if (index % 2 === 0) await single[Symbol.asyncDispose]();
      }
      const scattered = await share(150);
      for (let page = 0; page < 150; page++) scattered.bytes[page * PAGE_SIZE] = page + 1;
      const { refs } = scattered;
      await using mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: false });
      for (let page = 0; page < 150; page++) {
        assert.equal(mapping.bytes[page * PAGE_SIZE], page + 1);
        assert.equal(mapping.bytes[page * PAGE_SIZE + 1], 0);
      }
    },
    { machineFrames: 300 },
  ));

test('pages without neighbours are shown in turns, so that nobody waits for all of them, and only if they may be', () =>
  onMachine(async ({ runtime, dom0, guest, hypervisor }) => {
    const PAGES = 600;
    const { domid, grants } = guest('alice');
    const shared = await grants.share({ domid: DOM0, pages: PAGES, writable: true });
    for (let page = 0; page < PAGES; page++) shared.bytes[page * PAGE_SIZE] = page;
    const request = { domid, refs: [...shared.refs].reverse(), writable: false };
    const tooMany = (error: unknown) => error instanceof SysError && error.errnoName === 'E2BIG';
    await assert.rejects(dom0.foreign.map({ ...request, maxAreas: PAGES - 1 }), tooMany);
    assert.equal(hypervisor.books().domains[0]!.maptrackUsed, 0);
    const mapped = dom0.foreign.map({ ...request, maxAreas: PAGES });
    let turns = 0;
    while (await runtime.step()) turns += 1;
    assert.equal(turns, Math.ceil(PAGES / 64) - 1, '64 in the first turn, and in each other');
    const mapping = await mapped;
    assert.equal(mapping.areas, PAGES);
    for (let page = 0; page < PAGES; page++) {
      assert.equal(mapping.bytes[page * PAGE_SIZE], (PAGES - 1 - page) & 0xff);
    }
    const inUse = areasInUse();
    await mapping[Symbol.asyncDispose]();
    // Meanwhile the garbage collector may have given back others.
    assert(areasInUse() <= inUse - PAGES, 'all but its addresses, which a view may still exist of');
  }));

test('a domain that is over while pages are being shown to it leaves nothing', () =>
  onMachine(async ({ runtime, guest, hypervisor }) => {
    const alice = guest('alice');
    const bob = guest('bob');
    const shared = await alice.grants.share({ domid: bob.domid, pages: 600, writable: true });
    const refs = [...shared.refs].reverse();
    const mapped = bob.foreign.map({ domid: alice.domid, refs, writable: false });
    await runtime.step();
    hypervisor.destroy(bob.domid);
    const refused = assert.rejects(mapped, SysError);
    while (await runtime.step());
    await refused;
    assert.equal(hypervisor.domain(bob.domid), undefined);
    assert.equal(hypervisor.books().domains[1]!.grantsMapped, 0);
  }));

test('a domain that maps its own grants is destroyed like any other', () =>
  onMachine(async ({ guest, hypervisor }) => {
    const alice = guest('alice');
    const { domid } = alice;
    const shared = await alice.grants.share({ domid, pages: 2, writable: true });
    const mapping = await alice.foreign.map({ domid, refs: shared.refs, writable: true });
    shared.bytes[0] = 5;
    assert.equal(mapping.bytes[0], 5);
    hypervisor.destroy(domid);
    assert.equal(hypervisor.domain(domid), undefined);
  }));
