import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { XENSTORE_ERROR_RINGIDX, xenstoreInterface } from '../../src/abi/xs-wire.ts';
import { Xenstored } from '../../src/hypervisor/xenstored/server.ts';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { domId } from '../../src/xen/ids.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';
import { XenstoreRing } from '../../src/xen/xenstore-ring.ts';

const { req_cons, req_prod, rsp_cons, rsp_prod, error } = xenstoreInterface.fields;

/** A page whose four indices start at `index`, with both ends on it. */
function rings({ seed = 1, index = 0 }: { seed?: number; index?: number } = {}) {
  const runtime = new VirtualRuntime(seed);
  const page = new Uint8Array(new SharedArrayBuffer(PAGE_SIZE));
  const view = new DataView(page.buffer);
  for (const field of [req_cons, req_prod, rsp_cons, rsp_prod]) field.set(view, 0, index);
  const guest: XenstoreRing = new XenstoreRing({
    runtime,
    page,
    side: 'guest',
    notify: () => runtime.defer(() => server.onEvent()),
  });
  const server: XenstoreRing = new XenstoreRing({
    runtime,
    page,
    side: 'server',
    notify: () => runtime.defer(() => guest.onEvent()),
  });
  return { runtime, page, view, guest, server };
}

/** Listens and keeps what comes. */
function collect(channel: XenstoreRing) {
  const got: number[] = [];
  const ends: (Error | undefined)[] = [];
  channel.listen({
    onBytes: (bytes) => got.push(...bytes),
    onClose: (reason) => ends.push(reason),
  });
  return { got, ends };
}

async function idle(runtime: VirtualRuntime): Promise<void> {
  while (await runtime.step());
}

test('bytes cross in order in pieces of any size, also where the indices wrap at 2^32', async () => {
  const start = fc.constantFrom(0, 1, 0x7fff_ff00, 0xffff_fc00, 0xffff_ffff);
  const pieces = fc.array(fc.uint8Array({ minLength: 1, maxLength: 3000 }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(start, pieces, fc.nat(), async (index, sent, seed) => {
      const { runtime, guest, server } = rings({ seed, index });
      const expected = sent.flatMap((piece) => [...piece]);
      const atServer = collect(server);
      const atGuest = collect(guest);
      for (const piece of sent) {
        guest.send(piece);
        server.send(piece);
        piece.fill(0xee);
        if (runtime.random.below(2) === 0) await runtime.step();
      }
      await idle(runtime);
      assert.deepEqual(atServer.got, expected);
      assert.deepEqual(atGuest.got, expected);
      assert.equal(guest.pendingBytes + server.pendingBytes, 0);
    }),
    { numRuns: 60 },
  );
});

test('a store works over a ring that starts just below 2^32, with values larger than the ring', async () => {
  for (let seed = 0; seed < 10; seed++) {
    const { runtime, guest, server } = rings({ seed, index: 0xffff_fff0 });
    const xenstored = new Xenstored({ runtime });
    xenstored.introduceDomain(domId(0));
    xenstored.accept({ channel: server, domid: domId(0) });
    const client = new XenstoreClient({ runtime, channel: guest });
    const values = Array.from({ length: 20 }, (_, i) => `${i}-`.repeat(900));
    const writes = values.map((value, i) => client.write(`/v/${i}`, value));
    const reads = values.map((_, i) => client.read(`/v/${i}`));
    let read: unknown;
    void Promise.all([...writes, ...reads]).then((all) => {
      read = all.slice(values.length);
    });
    await runtime.runUntil(() => read !== undefined, { what: 'everything is read back' });
    assert.deepEqual(read, values);
  }
});

test('a peer that breaks an index loses the connection, and the page says why', async () => {
  const breaks = [
    { field: req_prod, value: 1025 },
    { field: req_prod, value: 0xffff_ffff },
    { field: rsp_cons, value: 1 },
    { field: rsp_cons, value: 0x8000_0000 },
  ];
  for (const { field, value } of breaks) {
    const { runtime, view, guest, server } = rings();
    const atServer = collect(server);
    const atGuest = collect(guest);
    await idle(runtime);
    field.set(view, 0, value);
    server.onEvent();
    assert.equal(atServer.ends.length, 1, `${field.name} = ${value}`);
    assert.ok(atServer.ends[0] instanceof ProtocolViolation);
    assert.equal(error.get(view, 0), XENSTORE_ERROR_RINGIDX);
    await idle(runtime);
    assert.match(String(atGuest.ends[0]), /the server closed it \(error 2\)/);
    server.onEvent();
    server.send(new Uint8Array(1));
    assert.equal(atServer.ends.length, 1);
  }
});

test('a peer that takes nothing costs a bounded queue, then the connection', async () => {
  const { runtime, server } = rings();
  const { ends } = collect(server);
  for (let i = 0; i < 2000 && ends.length === 0; i++) {
    server.send(new Uint8Array(1024));
    assert.ok(server.pendingBytes <= 1024 * 1024);
  }
  await idle(runtime);
  assert.match(String(ends[0]), /ENOBUFS/);
});

test('a paused end takes nothing until it goes on', async () => {
  const { runtime, guest, server } = rings();
  const { got } = collect(server);
  server.pause();
  guest.send(new Uint8Array(5000).fill(7));
  await idle(runtime);
  assert.equal(got.length, 0);
  assert.equal(guest.pendingBytes, 5000 - 1024);
  server.resume();
  await idle(runtime);
  assert.equal(got.length, 5000);
});
