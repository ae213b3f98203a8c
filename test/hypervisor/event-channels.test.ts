import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SysError } from '../../src/runtime/errors.ts';
import { DOM0, type DomId, type Port } from '../../src/xen/ids.ts';
import { onMachine } from './world.ts';

const nothing = () => {};

function refusal(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

test('a notification calls the other end’s handler, whoever bound', () =>
  onMachine(async ({ dom0, guest, runtime }) => {
    const alice = guest('alice');
    const heard = { alice: 0, dom0: 0 };
    const offered = await alice.events.allocUnbound({
      remote: DOM0,
      handler: () => void heard.alice++,
    });
    const bound = await dom0.events.bindInterdomain({
      remote: alice.domid,
      remotePort: offered.port,
      handler: () => void heard.dom0++,
    });
    await runtime.runUntil(() => heard.dom0 === 1, { what: 'binding gives one event' });
    bound.notify();
    await runtime.runUntil(() => heard.alice === 1, { what: 'alice heard' });
    offered.notify();
    await runtime.runUntil(() => heard.dom0 === 2, { what: 'dom0 heard' });
  }));

test('notifications to an unbound, closed or foreign port do nothing', () =>
  onMachine(async ({ dom0, guest, runtime }) => {
    const alice = guest('alice');
    let heard = 0;
    const offered = await alice.events.allocUnbound({ remote: DOM0, handler: () => void heard++ });
    offered.notify();
    const bound = await dom0.events.bindInterdomain({
      remote: alice.domid,
      remotePort: offered.port,
      handler: nothing,
    });
    while (await runtime.step());
    bound.notify();
    await offered[Symbol.asyncDispose]();
    bound.notify();
    offered.notify();
    while (await runtime.step());
    assert.equal(heard, 0);
    await bound[Symbol.asyncDispose]();
    bound.notify();
    while (await runtime.step());
  }));

test('only what was offered to us can be bound, and a refused bind takes no port', () =>
  onMachine(async ({ dom0, guest, hypervisor }) => {
    const alice = guest('alice');
    const bob = guest('bob');
    const offered = await alice.events.allocUnbound({ remote: bob.domid, handler: nothing });
    const bind = (remote: DomId, remotePort: Port) =>
      dom0.events.bindInterdomain({ remote, remotePort, handler: nothing });
    await assert.rejects(bind(alice.domid, offered.port), refusal('EINVAL'));
    await assert.rejects(bind(alice.domid, 99 as Port), refusal('EINVAL'));
    await assert.rejects(bind(alice.domid, 0xffff_ffff as Port), refusal('EINVAL'));
    await assert.rejects(bind(66 as DomId, offered.port), refusal('ESRCH'));
    assert.equal(hypervisor.books().domains[0]!.ports, 0);
    const request = { remote: alice.domid, remotePort: offered.port, handler: nothing };
    await bob.events.bindInterdomain(request);
    await assert.rejects(bob.events.bindInterdomain(request), refusal('EINVAL'));
  }));

test('XSA-496: when no port is left, the refused call disturbs nobody', () =>
  onMachine(async ({ dom0, guest, hypervisor, runtime }) => {
    const alice = guest('alice', { maxEventChannels: 3 });
    let heard = 0;
    const mine = await dom0.events.allocUnbound({
      remote: alice.domid,
      handler: () => void heard++,
    });
    const ports = await Promise.all(
      [1, 2, 3].map(() => alice.events.allocUnbound({ remote: DOM0, handler: nothing })),
    );
    const bind = () =>
      alice.events.bindInterdomain({ remote: DOM0, remotePort: mine.port, handler: nothing });
    await assert.rejects(
      alice.events.allocUnbound({ remote: DOM0, handler: nothing }),
      refusal('ENOSPC'),
    );
    await assert.rejects(bind(), refusal('ENOSPC'));
    assert.equal(hypervisor.books().domains[1]!.ports, 3);
    await ports[1]![Symbol.asyncDispose]();
    const bound = await bind();
    bound.notify();
    await runtime.runUntil(() => heard === 1, { what: 'the offered port was still offered' });
  }));

test('a port is masked while its handler runs; what came meanwhile gives one more call', () =>
  onMachine(async ({ dom0, guest, runtime }) => {
    const alice = guest('alice');
    const releases: (() => void)[] = [];
    const offered = await alice.events.allocUnbound({
      remote: DOM0,
      handler: () => new Promise<void>((resolve) => releases.push(resolve)),
    });
    const { notify } = await dom0.events
      .bindInterdomain({ remote: alice.domid, remotePort: offered.port, handler: nothing })
      .then((channel) => ({ notify: () => channel.notify() }));
    notify();
    await runtime.runUntil(() => releases.length === 1, { what: 'the first call' });
    for (let times = 0; times < 10; times++) notify();
    while (await runtime.step());
    assert.equal(releases.length, 1);
    releases[0]!();
    while (await runtime.step());
    assert.equal(releases.length, 2);
    releases[1]!();
    while (await runtime.step());
    assert.equal(releases.length, 2);
  }));

test('a handler that throws is called again next time', () =>
  onMachine(async ({ dom0, guest, runtime }) => {
    const alice = guest('alice');
    let calls = 0;
    const handler = () => {
      calls++;
      throw new Error('in the handler');
    };
    const offered = await alice.events.allocUnbound({ remote: DOM0, handler });
    const remotePort = offered.port;
    const bound = await dom0.events.bindInterdomain({ remote: alice.domid, remotePort, handler });
    await runtime.runUntil(() => calls === 1, { what: 'the call of the binding' });
    bound.notify();
    await runtime.runUntil(() => calls === 2, { what: 'the first call' });
    bound.notify();
    await runtime.runUntil(() => calls === 3, { what: 'the second call' });
  }));

test('when a domain is destroyed, the ports bound to it become unbound and can be closed', () =>
  onMachine(async ({ dom0, guest, hypervisor, runtime }) => {
    const alice = guest('alice');
    const offered = await alice.events.allocUnbound({ remote: DOM0, handler: nothing });
    let heard = 0;
    const bound = await dom0.events.bindInterdomain({
      remote: alice.domid,
      remotePort: offered.port,
      handler: () => void heard++,
    });
    while (await runtime.step());
    hypervisor.destroy(alice.domid);
    bound.notify();
    offered.notify();
    while (await runtime.step());
    assert.equal(heard, 1);
    assert.equal(hypervisor.books().domains[0]!.ports, 1);
    await bound[Symbol.asyncDispose]();
    assert.equal(hypervisor.books().domains[0]!.ports, 0);
  }));

test('no notification is lost, however the handlers interleave', async () => {
  for (let seed = 0; seed < 50; seed++) {
    await onMachine(
      async ({ dom0, guest, runtime }) => {
        const alice = guest('alice');
        let sent = 0;
        let seen = 0;
        const look = () => {
          seen = sent;
          return runtime.random.below(2) === 0
            ? undefined
            : new Promise<void>((resolve) => runtime.after(runtime.random.below(3), resolve));
        };
        const offered = await alice.events.allocUnbound({ remote: DOM0, handler: look });
        const bound = await dom0.events.bindInterdomain({
          remote: alice.domid,
          remotePort: offered.port,
          handler: nothing,
        });
        for (let round = 0; round < 30; round++) {
          runtime.after(runtime.random.below(20), () => {
            sent++;
            bound.notify();
          });
        }
        while (await runtime.step());
        assert.equal(sent, 30);
        assert.equal(seen, sent, `seed ${seed}: the handler ran after the last notification`);
      },
      { seed },
    );
  }
});
