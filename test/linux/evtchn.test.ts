// Event channels over a kernel whose pending ports we choose; the waiting is real (an eventfd).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Evtchn, type HandlerErrorListener } from '../../src/linux/evtchn.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import type { EventChannel, EventHandler } from '../../src/xen/domain.ts';
import { domId, port } from '../../src/xen/ids.ts';
import { FakeEvtchn } from './fake-devices.ts';

const remote = domId(5);
const runtime = systemRuntime();
const neverFails: HandlerErrorListener = (error) => assert.fail(String(error));

function waitFor(what: string, condition: () => boolean): Promise<void> {
  return until(runtime, condition, { what });
}

function open(onHandlerError = neverFails) {
  const device = new FakeEvtchn();
  const evtchn = new Evtchn(device, onHandlerError);
  const bind = (handler: EventHandler): Promise<EventChannel> =>
    evtchn.allocUnbound({ remote, handler });
  return { device, evtchn, bind };
}

test('a wake-up calls the handlers of the ports that are pending and unmasks them in one write', async () => {
  const { device, evtchn, bind } = open();
  using _evtchn = evtchn;
  const called: number[] = [];
  const channels: EventChannel[] = [];
  for (let i = 0; i < 5; i++) channels.push(await bind(() => void called.push(i)));
  device.raise(channels[3]!.port, channels[0]!.port, channels[4]!.port);
  await waitFor('the write', () => device.writes.length > 0);
  assert.deepEqual(called, [3, 0, 4]);
  assert.deepEqual(device.writes, [[channels[3]!.port, channels[0]!.port, channels[4]!.port]]);
  assert.equal(device.reads, 1);
});

test('a port stays masked until the promise of its handler has resolved', async () => {
  const { device, evtchn, bind } = open();
  using _evtchn = evtchn;
  const done = deferred();
  let calls = 0;
  const channel = await bind(() => {
    calls += 1;
    return calls === 1 ? done.promise : undefined;
  });
  device.raise(channel.port);
  await waitFor('the first call', () => calls === 1);
  device.raise(channel.port);
  await turn();
  assert.equal(calls, 1);
  assert.deepEqual(device.writes, []);
  done.resolve();
  await waitFor('the unmasking', () => device.writes.length === 1);
  device.raise(channel.port);
  await waitFor('the second call', () => calls === 2);
});

test('a handler that throws or rejects is reported, and no other channel notices', async () => {
  const reported: [string, number][] = [];
  const { device, evtchn, bind } = open((error, channel) => {
    reported.push([(error as Error).message, channel.port]);
    assert.equal(channel.remote, remote);
  });
  using _evtchn = evtchn;
  let calls = 0;
  const throwing = await bind(() => {
    throw new Error('thrown');
  });
  const rejecting = await bind(async () => {
    throw new Error('rejected');
  });
  const healthy = await bind(() => {
    calls += 1;
  });
  device.raise(throwing.port, rejecting.port, healthy.port);
  await waitFor('both reports', () => reported.length === 2);
  assert.deepEqual(reported, [
    ['thrown', throwing.port],
    ['rejected', rejecting.port],
  ]);
  await waitFor('all unmasked', () => device.masked.size === 0);
  device.raise(healthy.port);
  await waitFor('the second call', () => calls === 2);
});

test('more pending ports than one read takes are all handled, a page of them at a time', async () => {
  const { device, evtchn, bind } = open();
  using _evtchn = evtchn;
  const calls = new Array<number>(2500).fill(0);
  const channels: EventChannel[] = [];
  for (let i = 0; i < calls.length; i++) {
    const handler = () => {
      calls[i]! += 1;
    };
    channels.push(await bind(handler));
  }
  device.raise(...channels.map((channel) => channel.port));
  await waitFor('all calls', () => calls.every((count) => count === 1));
  assert.deepEqual(
    device.writes.map((ports) => ports.length),
    [1024, 1024, 452],
  );
});

test('when the kernel lost count every channel is taken for pending', async () => {
  const { device, evtchn, bind } = open();
  using _evtchn = evtchn;
  let calls = 0;
  const channels: EventChannel[] = [];
  for (let i = 0; i < 1500; i++) channels.push(await bind(() => void calls++));
  device.overflowed = true;
  device.raise(...channels.slice(0, 700).map((channel) => channel.port));
  await waitFor('all calls', () => calls === 1500);
  await waitFor('all unmasked', () => device.masked.size === 0);
  assert.equal(device.count('IOCTL_EVTCHN_RESET'), 1);
  device.raise(channels[1499]!.port);
  await waitFor('another call', () => calls === 1501);
});

test('a closed channel is not called, not notified and not unmasked, even in the same wake-up', async () => {
  const { device, evtchn, bind } = open();
  using _evtchn = evtchn;
  let victimCalls = 0;
  const victim = await bind(() => void victimCalls++);
  const done = deferred();
  const slow = await bind(() => done.promise);
  const killer = await bind(async () => {
    await victim[Symbol.asyncDispose]();
    await slow[Symbol.asyncDispose]();
  });
  device.raise(killer.port, slow.port, victim.port);
  await waitFor('the unmasking', () => device.writes.length === 1);
  done.resolve();
  await turn();
  assert.equal(victimCalls, 0);
  assert.deepEqual(device.writes, [[killer.port]]);
  victim.notify();
  killer.notify();
  assert.deepEqual(device.notified, [killer.port]);
  assert.deepEqual([...device.bound], [killer.port]);
});

test('binding names the remote port; closing the device closes every channel', async () => {
  const { device, evtchn } = open();
  const handler = () => undefined;
  const channel = await evtchn.bindInterdomain({ remote, remotePort: port(77), handler });
  const { argument } = device.seen[0]!;
  assert.deepEqual([...new Uint32Array(argument.buffer)], [5, 77]);
  evtchn[Symbol.dispose]();
  evtchn[Symbol.dispose]();
  assert.equal(device.closed, true);
  channel.notify();
  await channel[Symbol.asyncDispose]();
  assert.equal(device.count('IOCTL_EVTCHN_UNBIND'), 0);
});

interface Deferred {
  readonly promise: Promise<void>;
  resolve(): void;
}

function deferred(): Deferred {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** Lets the event loop turn, with everything that is ready. */
function turn(): Promise<void> {
  return new Promise((resolve) => runtime.defer(resolve));
}
