// A guest without our daemon: it boots, does what it is told over its console, has the frontends' modules,
// and leaves nothing behind when it goes.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attach } from '../../attached.ts';
import { Guest, listDomains } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let counts: HostCounts;
let guest: Guest;

before(async () => {
  await machine.reset();
  counts = await host.counts();
  guest = await Guest.create(dom0, { name: 'plain' });
  await guest.booted();
});
after(() => dom0.close());

test('the guest runs the unmodified kernel with the display frontend loaded', async () => {
  assert.match(await guest.shell('uname -r'), /^6\.12\..*\+deb12-amd64\n$/);
  assert.match(await guest.shell('cat /proc/modules'), /^drm_xen_front .*Live/m);
  assert.equal(await guest.shell('cat /sys/module/drm_xen_front/taint'), '\n');
  const drivers = (await guest.shell('ls /sys/bus/xen/drivers')).split('\n');
  assert(drivers.includes('vdispl') && drivers.includes('vkbd'), drivers.join());
});

test('a command in the guest gives its output, its status, and its end by a signal', async () => {
  const ended = await guest.run('echo out; echo err >&2; exit 3');
  assert.deepEqual(ended, { code: 3, signal: null, stdout: 'out\n', stderr: 'err\n' });
  assert.equal((await guest.run('sleep 1000', 1000)).signal, 'SIGKILL');
});

test('a large output comes back from the guest whole', async () => {
  const lines = (await guest.shell('seq 1 60000')).trimEnd().split('\n');
  assert.equal(lines.length, 60_000);
  assert.equal(lines.at(-1), '60000');
});

test('a program left running in the guest can be read while it runs, and stopped', async () => {
  const program = await guest.start('sh', '-c', `'echo 1; echo 2; exec sleep 1000'`);
  assert.deepEqual(await program.waitForLines<number>(2, 30_000), [1, 2]);
  await program.stop();
  assert.equal(await program.running(), false);
});

test('the guest holds mapped grants and ports while it lives', async () => {
  const now = await host.counts();
  assert.equal(now.domains, counts.domains + 1);
  assert(now.mappedGrants > counts.mappedGrants, 'its console and xenstore pages are mapped');
  assert(now.ports > counts.ports, 'its console and xenstore ports are bound');
});

test('the guest shuts down when it is asked, and everything is as before', async () => {
  await guest.shutdown();
  await host.settled(counts);
});

test('a guest that is destroyed while it boots leaves nothing behind', async () => {
  const victim = await Guest.create(dom0, { name: 'victim' });
  await victim.destroy();
  assert.deepEqual(
    (await listDomains(dom0)).map(({ name }) => name),
    ['Domain-0'],
  );
  await host.settled(counts);
});
