import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Doorbell } from '../../../src/hypervisor/remote/doorbell.ts';
import type { Port } from '../../../src/xen/ids.ts';
import { preempted } from '../preempted.ts';

const PORTS = [1, 31, 32, 1023, 1024, 4095] as Port[];

function taken(doorbell: Doorbell): Port[] {
  const ports: Port[] = [];
  doorbell.take((port) => ports.push(port));
  return ports.sort((a, b) => a - b);
}

test('many notifications take one wake-up, and each port is sent once', () => {
  const memory = Doorbell.memory();
  const [guest, hypervisor] = [new Doorbell(memory), new Doorbell(memory)];
  let wakeUps = 0;
  for (const port of [...PORTS, ...PORTS]) wakeUps += Number(guest.ring(port));
  assert.equal(wakeUps, 1);
  assert.deepEqual(taken(hypervisor), PORTS);
  assert.deepEqual(taken(hypervisor), []);
  assert.equal(guest.ring(PORTS[0]!), true);
});

test('a notification while the bits are taken is not lost, at whatever step it comes', (context) => {
  for (const port of PORTS) {
    let step = 0;
    for (let more = true; more; step++) {
      const doorbell = new Doorbell(Doorbell.memory());
      doorbell.ring(PORTS[2]!);
      const sent: Port[] = [];
      let woken = false;
      let sentBefore = 0;
      more = preempted(context, {
        step,
        operation: () => doorbell.take((each) => sent.push(each)),
        other: () => {
          sentBefore = sent.filter((each) => each === port).length;
          woken = doorbell.ring(port);
        },
      });
      if (woken) doorbell.take((each) => sent.push(each));
      const sentAfter = sent.filter((each) => each === port).length;
      assert.equal(sentAfter, sentBefore + 1, `port ${port}, step ${step}`);
    }
    assert(step > 4);
  }
});

test('taking in the middle of a notification loses nothing, at whatever step it comes', (context) => {
  let step = 0;
  for (let more = true; more; step++) {
    const doorbell = new Doorbell(Doorbell.memory());
    const [port, other] = PORTS as [Port, Port];
    doorbell.ring(other);
    const sent: Port[] = [];
    let woken = false;
    more = preempted(context, {
      step,
      operation: () => {
        woken = doorbell.ring(port);
      },
      other: () => doorbell.take((each) => sent.push(each)),
    });
    if (woken) doorbell.take((each) => sent.push(each));
    assert(sent.includes(port) && sent.includes(other), `step ${step}`);
  }
  assert(step > 2);
});
