import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SharedInfo } from '../../src/hypervisor/shared-info.ts';
import type { Port } from '../../src/xen/ids.ts';
import { preempted } from './preempted.ts';

const PORTS = [1, 31, 32, 63, 64, 2047, 4095] as Port[];
const FIRST = PORTS[0]!;

/** A domain's page with all of PORTS open and unmasked. */
function pageWithPorts(): SharedInfo {
  const info = new SharedInfo(new Uint8Array(PAGE_SIZE));
  info.maskAll();
  for (const port of PORTS) info.unmask(port);
  return info;
}

function taken(info: SharedInfo): Port[] {
  const ports: Port[] = [];
  info.take((port) => ports.push(port));
  return ports;
}

test('what was raised is delivered once, and the first raise alone asks for a wake-up', () => {
  const info = pageWithPorts();
  assert.deepEqual(
    PORTS.map((port) => info.raise(port)),
    PORTS.map((_, index) => index === 0),
  );
  assert.deepEqual(
    taken(info).sort((a, b) => a - b),
    PORTS,
  );
  assert.deepEqual(taken(info), []);
});

test('a masked port waits until it is unmasked', () => {
  const info = pageWithPorts();
  info.mask(FIRST);
  assert.equal(info.raise(FIRST), false);
  assert.deepEqual(taken(info), []);
  assert.equal(info.unmask(FIRST), true);
  assert.deepEqual(taken(info), [FIRST]);
});

test('a notification in the middle of the unmasking is not lost, at whatever step it comes', (context) => {
  let step = 0;
  for (let more = true; more; step++) {
    const info = pageWithPorts();
    info.mask(FIRST);
    const woken: boolean[] = [];
    more = preempted(context, {
      step,
      operation: () => woken.push(info.unmask(FIRST)),
      other: () => woken.push(info.raise(FIRST)),
    });
    assert.equal(woken.filter(Boolean).length, 1, `step ${step}`);
    assert.deepEqual(taken(info), [FIRST]);
  }
  assert(step > 2);
});

test('a notification in the middle of an upcall is not lost, at whatever step it comes', (context) => {
  for (const raised of PORTS) {
    let step = 0;
    for (let more = true; more; step++) {
      const info = pageWithPorts();
      info.raise(FIRST);
      info.raise(PORTS[3]!);
      const handled = new Map<Port, number>();
      const wakeUps: boolean[] = [];
      // A handler that is done at once, as a guest's: what came meanwhile asks for another upcall.
      const upcall = () =>
        info.take((port) => {
          handled.set(port, (handled.get(port) ?? 0) + 1);
          wakeUps.push(info.unmask(port));
        });
      let before: number | undefined;
      more = preempted(context, {
        step,
        operation: upcall,
        other: () => {
          before = handled.get(raised) ?? 0;
          wakeUps.push(info.raise(raised));
        },
      });
      for (let turn = 0; turn < 4 && wakeUps.includes(true); turn++) {
        wakeUps.length = 0;
        upcall();
      }
      assert(!wakeUps.includes(true), 'it comes to rest');
      assert((handled.get(raised) ?? 0) > before!, `port ${raised}, step ${step}`);
      assert.deepEqual(taken(info), []);
    }
    assert(step > 5);
  }
});
