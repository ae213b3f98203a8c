// The lab itself: a real Xen with a real dom0, an agent that does what it is told, and counters that
// count. What these prove, the other scenarios stand on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { CommandFailed } from '../../dom0.ts';
import { listDomains } from '../../guest.ts';
import { countActiveGrants, HostWatch } from '../../host.ts';

const machine = await attach(import.meta);
const { dom0 } = machine;
before(() => machine.reset());
after(() => dom0.close());

test('dom0 runs on Xen 4.17 and has the devices that the daemon needs', async () => {
  const info = await dom0.output(['xl', 'info']);
  assert.match(info, /^xen_major +: 4$/m);
  assert.match(info, /^xen_minor +: 17$/m);
  const devices = (await dom0.output(['ls', '/dev/xen'])).split('\n');
  for (const name of ['evtchn', 'gntdev', 'gntalloc', 'privcmd', 'xenbus']) {
    assert(devices.includes(name), `/dev/xen/${name} is missing`);
  }
  assert.equal(await dom0.output(['xenstore-read', '/local/domain/0/name']), 'Domain-0\n');
});

test('a command in dom0 gives its output, its status, and its end by a signal', async () => {
  const ended = await dom0.run(['sh', '-c', 'echo out; echo err >&2; exit 3']);
  assert.deepEqual(ended, { code: 3, signal: null, stdout: 'out\n', stderr: 'err\n' });
  const killed = await dom0.run(['sleep', '1000'], 500);
  assert.equal(killed.signal, 'SIGKILL');
  await assert.rejects(dom0.output(['false']), CommandFailed);
  await assert.rejects(dom0.run(['/no/such/program']), /ENOENT/);
});

test('a process left running has a log and ends when it is told', async () => {
  await dom0.start({
    name: 'ticker',
    argv: ['sh', '-c', 'echo "$WORD"; exec sleep 1000'],
    environment: { WORD: 'hello' },
  });
  assert.equal(await dom0.processState('nobody'), null);
  assert.equal((await dom0.processState('ticker'))?.running, true);
  await until(dom0.runtime, async () => (await dom0.log('ticker')) === 'hello\n', {
    what: 'the process says something',
    timeoutMs: 30_000,
    intervalMs: 100,
  });
  const end = await dom0.stop('ticker');
  assert.deepEqual([end.running, end.signal], [false, 'SIGTERM']);
});

test('files travel to dom0 and back, byte for byte', async () => {
  const bytes = dom0.runtime.random.bytes(3_000_001);
  await dom0.writeFile('/run/scenario/file', bytes);
  assert(Buffer.from(bytes).equals(await dom0.readFile('/run/scenario/file')));
  await assert.rejects(dom0.readFile('/run/scenario/none'), /ENOENT/);
});

test('the counters count a watch and a port that appear and go', async () => {
  const host = new HostWatch(dom0);
  const before = await host.counts();
  assert.equal(before.domains, (await listDomains(dom0)).length);
  await dom0.start({ name: 'watcher', argv: ['xenstore-watch', '/a', '/b'], environment: {} });
  await host.settled({ ...before, watches: before.watches + 2 });
  await dom0.stop('watcher');
  await host.settled(before);
});

test('a dump of the grant tables that is cut off is an error, not a zero', () => {
  assert.throws(() => countActiveGrants('(XEN) gnttab_usage_print_all [ key g pressed\n'), /whole/);
  const dump = [
    "(XEN) gnttab_usage_print_all [ key 'g' pressed",
    '(XEN) [ref] localdom mfn      pin          localdom gmfn     flags',
    '(XEN) grant-table for remote d1 (v1)',
    '(XEN) [0x001]      0 0x13bc01 0x00000002          0 0x13bc01 0x19',
    '(XEN) gnttab_usage_print_all ] done',
  ];
  assert.equal(countActiveGrants(dump.join('\n')), 1);
});

test('Node in dom0 loads koffi and calls the C library with it', async () => {
  const script =
    "const k = require('koffi'); console.log(k.load('libc.so.6').func('int getpid()')())";
  const run = `cd /opt/xen-zcopy && exec node -e "${script}"`;
  assert.match(await dom0.shell(run), /^\d+\n$/);
});
