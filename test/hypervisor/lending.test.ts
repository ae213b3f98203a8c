import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { onMachine } from './world.ts';

const noMemory = (error: unknown) => error instanceof SysError && error.errnoName === 'ENOMEM';
const cannotMap = (error: unknown) =>
  error instanceof GrantMapError && error.status === 'GNTST_general_error';

test('a lent buffer is the same memory on both sides, and whole again when the loan has ended', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const buffer = await dom0.memory.allocate({ pages: 3, contiguity: 'none' });
    assert.equal(buffer.fd, undefined);
    const lent = await dom0.grants.lend({ domid: alice.domid, buffer, writable: true });
    assert.deepEqual([lent.domid, lent.writable, lent.refs.length], [alice.domid, true, 3]);
    const mapping = await alice.foreign.map({ domid: DOM0, refs: lent.refs, writable: true });
    mapping.bytes[2 * PAGE_SIZE] = 7;
    assert.equal(buffer.bytes[2 * PAGE_SIZE], 7);
    assert.deepEqual(await lent.end(), { heldPages: 3, evidence: 'grant table' });
    await mapping[Symbol.asyncDispose]();
    assert.deepEqual(await lent.end(), { heldPages: 0, evidence: 'grant table' });
    assert.deepEqual(await lent.end(), { heldPages: 0, evidence: 'grant table' });
    assert.equal(buffer.bytes[2 * PAGE_SIZE], 7, 'the buffer stays');
    assert.deepEqual(await buffer.free(), { heldPages: 0, evidence: 'grant table' });
    assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
  }));

test('G5: a buffer lent for reading is refused for writing', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    const buffer = await dom0.memory.allocate({ pages: 2, contiguity: 'none' });
    const { refs } = await dom0.grants.lend({ domid: alice.domid, buffer, writable: false });
    await assert.rejects(alice.foreign.map({ domid: DOM0, refs, writable: true }), cannotMap);
    await assert.rejects(
      alice.foreign.export({ domid: DOM0, refs, caching: 'cached' }),
      cannotMap,
      'a dma-buf is always writable',
    );
    const mapping = await alice.foreign.map({ domid: DOM0, refs, writable: false });
    buffer.bytes[0] = 4;
    assert.equal(mapping.bytes[0], 4);
  }));

test('G1: revoked while mapped: what is unmapped ends, what is mapped is held with its reference', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    const buffer = await dom0.memory.allocate({ pages: 5, contiguity: 'none' });
    const lent = await dom0.grants.lend({ domid: alice.domid, buffer, writable: true });
    const refs = [lent.refs[1]!, lent.refs[3]!];
    const mapping = await alice.foreign.map({ domid: DOM0, refs, writable: true });
    assert.equal((await lent.end()).heldPages, 2);
    await assert.rejects(
      alice.foreign.map({ domid: DOM0, refs: [lent.refs[0]!, lent.refs[2]!], writable: true }),
      GrantMapError,
    );
    const next = await dom0.grants.share({ domid: alice.domid, pages: 600, writable: true });
    assert(!refs.some((ref) => next.refs.includes(ref)), 'held references are not given out');
    await mapping[Symbol.asyncDispose]();
    assert.equal((await lent.end()).heldPages, 0);
    await next[Symbol.asyncDispose]();
  }));

test('a buffer may be lent to two domains; freeing it ends both loans, as far as they let go', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const bob = guest('bob');
    const buffer = await dom0.memory.allocate({ pages: 4, contiguity: 'none' });
    const view = buffer.bytes.fill(9);
    const toAlice = await dom0.grants.lend({ domid: alice.domid, buffer, writable: true });
    const toBob = await dom0.grants.lend({ domid: bob.domid, buffer, writable: false });
    const alices = await alice.foreign.map({
      domid: DOM0,
      refs: toAlice.refs.slice(0, 2),
      writable: true,
    });
    const bobs = await bob.foreign.map({
      domid: DOM0,
      refs: toBob.refs.slice(1, 3),
      writable: false,
    });
    assert.equal((await buffer.free()).heldPages, 3, 'page 1 counts once');
    assert(
      view.every((byte) => byte === 0),
      'our view reads zeros',
    );
    assert.throws(() => buffer.bytes, /freed/);
    assert.equal(hypervisor.memory.ownedBy(DOM0), 3, 'the page that nobody maps is gone');
    assert.equal(bobs.bytes[0], 9, 'who maps it sees the old content');
    await alices[Symbol.asyncDispose]();
    assert.equal((await buffer.free()).heldPages, 2);
    await bobs[Symbol.asyncDispose]();
    assert.equal((await toBob.end()).heldPages, 0);
    assert.equal((await buffer.free()).heldPages, 0);
    assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
  }));

test('what is lent must be of this hypervisor and of this domain, and not freed', () =>
  onMachine(async ({ dom0, guest }) => {
    const alice = guest('alice');
    const buffer = await dom0.memory.allocate({ pages: 1, contiguity: 'none' });
    const request = { domid: alice.domid, buffer, writable: true };
    await assert.rejects(alice.grants.lend(request), /belongs to domain 0/);
    const foreign = { ...buffer, bytes: new Uint8Array(PAGE_SIZE) } as unknown as typeof buffer;
    await assert.rejects(dom0.grants.lend({ ...request, buffer: foreign }), assert.AssertionError);
    await buffer.free();
    await assert.rejects(dom0.grants.lend(request), /freed/);
  }));

test('G2: without grant entries nothing is lent, and nothing is lost', () =>
  onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const alice = guest('alice');
      const buffer = await dom0.memory.allocate({ pages: 300, contiguity: 'none' });
      const request = { domid: alice.domid, buffer, writable: true };
      const first = await dom0.grants.lend(request);
      await assert.rejects(
        dom0.grants.lend(request),
        (error) => error instanceof SysError && error.errnoName === 'ENOSPC',
      );
      assert.equal((await first.end()).heldPages, 0);
      const second = await dom0.grants.lend(request);
      assert.equal((await second.end()).heldPages, 0);
      assert.equal((await buffer.free()).heldPages, 0);
      assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
    },
    { dom0Limits: { maxGrantFrames: 1 } },
  ));

test('a guest that dies lets go of what it had been lent', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const pool = await dom0.memory.createPool({ domid: alice.domid, pages: 8 });
    const buffer = await pool.allocate(6);
    const lent = await dom0.grants.lend({ domid: alice.domid, buffer, writable: true });
    const mapping = await alice.foreign.map({ domid: DOM0, refs: lent.refs, writable: true });
    const view = mapping.bytes;
    assert.equal((await buffer.free()).heldPages, 6);
    assert.equal(pool.freePages, 2);
    hypervisor.destroy(alice.domid);
    view.fill(1);
    assert.equal((await buffer.free()).heldPages, 0);
    assert.equal(pool.freePages, 8);
    const again = await pool.allocate(8);
    assert(again.bytes.every((byte) => byte === 0));
    await again.free();
    await pool[Symbol.asyncDispose]();
    assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
  }));

test('a lender that dies while its buffer is mapped: the frames stay until the other side lets go', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const buffer = await alice.memory.allocate({ pages: 3, contiguity: 'none' });
    buffer.bytes.fill(5);
    const { refs } = await alice.grants.lend({ domid: DOM0, buffer, writable: true });
    const mapping = await dom0.foreign.map({ domid: alice.domid, refs, writable: false });
    hypervisor.destroy(alice.domid);
    assert.equal((await buffer.free()).heldPages, 0, 'a dead domain holds nothing');
    assert(mapping.bytes.every((byte) => byte === 5));
    assert.equal(hypervisor.memory.ownedBy(alice.domid), 3);
    await mapping[Symbol.asyncDispose]();
    assert.equal(hypervisor.domain(alice.domid), undefined);
  }));

test('a pool is set aside at once, all or nothing, and lends zeroed memory out of it', () =>
  onMachine(
    async ({ dom0, guest, hypervisor }) => {
      const { domid } = guest('alice');
      await assert.rejects(dom0.memory.createPool({ domid, pages: 101 }), noMemory);
      assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
      const pool = await dom0.memory.createPool({ domid, pages: 100 });
      await assert.rejects(dom0.memory.allocate({ pages: 1, contiguity: 'none' }), noMemory);
      const first = await pool.allocate(60);
      first.bytes.fill(0xaa);
      assert.equal(pool.freePages, 40);
      await assert.rejects(pool.allocate(41), noMemory);
      await first.free();
      const second = await pool.allocate(100);
      assert(
        second.bytes.every((byte) => byte === 0),
        'nothing of the first loan',
      );
      await pool[Symbol.asyncDispose]();
      await assert.rejects(pool.allocate(1), /closed pool/);
      assert.equal(hypervisor.memory.ownedBy(DOM0), 100, 'what is lent stays');
      await second.free();
      assert.equal(hypervisor.memory.ownedBy(DOM0), 0);
    },
    { dom0Limits: { maxFrames: 100 } },
  ));

test('contiguity is read off the frames: an extent, scattered ones, and below an address', () =>
  onMachine(async ({ dom0, hypervisor }) => {
    const contiguous = await dom0.memory.allocate({ pages: 2025, contiguity: 'host' });
    assert.equal(contiguous.contiguity.kind, 'host');
    assert.match(contiguous.contiguity.proof, /^1 run of machine frames, 2048 to 4072$/);
    assert.equal(hypervisor.memory.ownedBy(DOM0), 2025, 'the rounded up tail went back');
    const low = await dom0.memory.allocate({ pages: 100, contiguity: 'none', addressBits: 20 });
    assert(low.frames.every((frame) => frame < 256));
    await assert.rejects(
      dom0.memory.allocate({ pages: 256, contiguity: 'host', addressBits: 20 }),
      noMemory,
    );
    const singles = [];
    for (let made = 0; made < 20; made++) {
      singles.push(await dom0.memory.allocate({ pages: 1, contiguity: 'none' }));
    }
    for (const [index, single] of singles.entries()) if (index % 2 === 0) await single.free();
    const rest = hypervisor.memory.freeFrames;
    const scattered = await dom0.memory.allocate({ pages: rest, contiguity: 'none' });
    assert.equal(scattered.contiguity.kind, 'none');
    assert.match(scattered.contiguity.proof, /^\d+ runs of machine frames$/);
    for (const buffer of [contiguous, low, scattered]) await buffer.free();
  }));
