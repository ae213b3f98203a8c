// A client that keeps xenstored busy gets its share of the time, and leaves the rest to the others.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XS_READ } from '../../../src/abi/xs-wire.ts';
import { Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import type { Runtime } from '../../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import { DOM0, domId } from '../../../src/xen/ids.ts';
import type { ByteListener, PacedByteChannel } from '../../../src/xen/xenstore.ts';
import { encodeMessage } from '../../../src/xen/xenstore-wire.ts';

const REQUEST = encodeMessage({ type: XS_READ, requestId: 1, transactionId: 0 }, '/local\0');
const ANSWER_MS = 2;

/** Time passes while xenstored works: each answer that is sent has taken ANSWER_MS. */
class BusyWorld {
  readonly virtual = new VirtualRuntime(1);
  #busyMs = 0;
  readonly runtime: Runtime = {
    nowMs: () => this.virtual.nowMs() + this.#busyMs,
    wallMs: () => this.virtual.wallMs(),
    after: (delayMs, task) => this.virtual.after(delayMs, task),
    defer: (task) => this.virtual.defer(task),
    random: this.virtual.random,
    log: this.virtual.log,
  };

  /** A channel whose other end always has one more request, and takes every answer at once. */
  greedy(): PacedByteChannel & { answers: number } {
    let listener: ByteListener | undefined;
    let paused = false;
    const ask = () => {
      if (!paused) listener?.onBytes(REQUEST);
    };
    const channel = {
      answers: 0,
      pendingBytes: 0,
      send: () => {
        channel.answers += 1;
        this.#busyMs += ANSWER_MS;
        this.virtual.defer(ask);
      },
      listen: (its: ByteListener) => {
        listener = its;
        this.virtual.defer(ask);
      },
      pause: () => {
        paused = true;
      },
      resume: () => {
        if (!paused) return;
        paused = false;
        this.virtual.defer(ask);
      },
      close: () => {},
    };
    return channel;
  }
}

test('a domain that never stops asking gets a quarter of the time; the control domain is not bound', async () => {
  const world = new BusyWorld();
  const { runtime, virtual } = world;
  const server = new Xenstored({ runtime });
  const guest = world.greedy();
  server.introduceDomain(domId(1));
  server.accept({ channel: guest, domid: domId(1) });
  const ELAPSED_MS = 10_000;
  await virtual.runUntil(() => runtime.nowMs() >= ELAPSED_MS, { what: 'ten seconds' });
  const share = (guest.answers * ANSWER_MS) / ELAPSED_MS;
  assert(share > 0.24 && share < 0.27, `${share} of the time`);
  const dom0 = world.greedy();
  server.accept({ channel: dom0, domid: DOM0 });
  const { answers } = guest;
  await virtual.runUntil(() => dom0.answers >= 100, { what: 'dom0 is answered' });
  assert(guest.answers - answers <= 50, 'which the guest’s requests do not hold up');
  server.close();
});
