import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DOM0 } from '../../../src/xen/ids.ts';
import { eventually, onHost } from './host.ts';

const module = new URL('./hostile-guest.js', import.meta.url);

test('a message that is no hypercall crashes the guest that sent it', () =>
  onHost(async (host) => {
    const messages = [
      'x',
      null,
      { call: 'format' },
      { call: 'populate', id: 1 },
      { dropped: 'all' },
      new Map(),
    ];
    for (const message of messages) {
      const config = { name: 'hostile', module, arguments: [message] };
      const guest = await host.startGuestWorker(config);
      assert.equal(await guest.gone, 'crash');
    }
  }));

test('hypercalls that name what is not ours are refused, and the guest goes on', () =>
  onHost(async (host) => {
    const [dom0Books] = host.hypervisor.books().domains;
    await using lent = await host.dom0.grants.share({ domid: DOM0, pages: 4, writable: true });
    const frames = host.hypervisor.memory.allocatedTo(DOM0);
    const calls = [
      { call: 'decrease', request: { frames, extentOrder: 0 } },
      { call: 'decrease', request: { frames, extentOrder: 20 } },
      {
        call: 'decrease',
        request: { frames: Uint32Array.of(0, 1, 2, 0xffff_ffff), extentOrder: 0 },
      },
      { call: 'openWindow', request: { frames } },
      { call: 'exchange', request: { frames, inOrder: 0, outOrder: 2, addressBits: 0 } },
      { call: 'exchange', request: { frames, inOrder: 20, outOrder: 0, addressBits: 0 } },
      { call: 'increase', request: { extents: 1, extentOrder: 20, addressBits: 0 } },
      { call: 'increase', request: { extents: 1, extentOrder: 0, addressBits: 3 } },
      { call: 'closeWindow', request: { window: 1_000_000 } },
      { call: 'unmapGrants', request: { window: 1 } },
      { call: 'closePort', request: { port: 4000 } },
      { call: 'bindInterdomain', request: { remote: 0, remotePort: 1 } },
      { call: 'setupGrantTable', request: { frames: 0xffff_ffff } },
      { call: 'populate', request: { pages: 0xffff_ffff } },
      {
        call: 'mapGrants',
        request: {
          domid: 0,
          refs: Uint32Array.from(lent.refs),
          writable: true,
          device: true,
          maxAreas: 1,
        },
      },
      { call: 'showGrants', request: { window: 1_000_000 } },
      { call: 'populate', request: { pages: 7 } },
    ];
    const messages = calls.map((call, id) => ({ ...call, id }));
    const guest = await host.startGuestWorker({ name: 'hostile', module, arguments: messages });
    const booked = () => host.hypervisor.books().domains.find(({ domid }) => domid === guest.domid);
    const populated = () => (booked()?.frames ?? 0) >= 8 || booked()?.state !== 'running';
    await eventually(populated, 'the last call is done');
    assert.deepEqual(booked()?.state, 'running');
    assert.equal(booked()?.maptrackUsed, 0);
    assert.equal(host.hypervisor.memory.ownedBy(DOM0), 4);
    assert.equal(dom0Books!.ports + 1, host.hypervisor.books().domains[0]!.ports);
    guest.crash();
    await guest.gone;
  }));

test('a guest whose arguments cannot be handed over is not left behind', () =>
  onHost(async (host) => {
    const config = { name: 'odd', module, arguments: () => {} };
    await assert.rejects(host.startGuestWorker(config), { name: 'DataCloneError' });
    assert.deepEqual(host.guests, []);
  }));

test('a guest without a module has crashed', () =>
  onHost(async (host) => {
    const missing = new URL('./no-such-module.js', import.meta.url);
    const guest = await host.startGuestWorker({ name: 'empty', module: missing });
    assert.equal(await guest.gone, 'crash');
  }));
