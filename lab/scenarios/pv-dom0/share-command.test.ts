// `xen-zcopy share` from the shell on a real Xen: a file in one domain comes out in another, byte for byte, between
// dom0 and a guest and between two guests; and what is offered is listed without disturbing it.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { Guest } from '../../guest.ts';
import { type HostCounts, HostWatch } from '../../host.ts';
import { DAEMON_MAIN, deployDaemon } from '../../payload.ts';
import { Program, type ShellDomain } from '../../program.ts';

const FILE_BYTES = 5_000_001;
const TIMEOUT_MS = 120_000;

const machine = await attach(import.meta);
const { dom0 } = machine;
const host = new HostWatch(dom0);
let counts: HostCounts;

/** A domain with a shell and the command. */
interface Place extends ShellDomain {
  readonly domid: number;
  start(...args: string[]): Promise<Program>;
}

const places = new Map<string, Place>();
const guests: Guest[] = [];

function place(name: string): Place {
  return places.get(name) ?? assert.fail(`${name} is not up`);
}

function guestPlace(guest: Guest): Place {
  const { name, domid } = guest;
  const run = (line: string) => guest.run(line, TIMEOUT_MS);
  return {
    name,
    domid,
    runtime: dom0.runtime,
    run,
    start: (...args) => guest.startNode('cli', 'share', ...args),
  };
}

function dom0Place(): Place {
  const run = (line: string) => dom0.run(['sh', '-c', line], TIMEOUT_MS);
  const shell = { name: 'dom0', runtime: dom0.runtime, run };
  const command = (args: string[]) => ['node', DAEMON_MAIN, 'share', ...args].join(' ');
  return { ...shell, domid: 0, start: (...args) => Program.start(shell, command(args)) };
}

async function shell({ name, run }: Place, line: string): Promise<string> {
  const { code, stdout, stderr } = await run(line);
  assert.equal(code, 0, `${name}: ${line}: ${stderr}`);
  return stdout;
}

before(async () => {
  await machine.reset();
  counts = await host.counts();
  await host.complaints();
  await deployDaemon(dom0);
  for (const name of ['alice', 'bob']) {
    guests.push(await Guest.create(dom0, { name, programs: ['cli'] }));
  }
  places.set('dom0', dom0Place());
  for (const guest of guests) {
    await guest.booted();
    places.set(guest.name, guestPlace(guest));
  }
});
after(() => dom0.close());

for (const [ours, theirs] of [
  ['dom0', 'bob'],
  ['alice', 'bob'],
] as const) {
  test(`a file goes from ${ours} to ${theirs}`, async () => {
    const [from, to] = [place(ours), place(theirs)];
    const sum = await shell(
      from,
      `head -c ${FILE_BYTES} /dev/urandom >/tmp/sent; sha256sum </tmp/sent`,
    );
    const exporting = await from.start('export', '/tmp/sent', '--to', `${to.domid}`, '--json');
    const { id } = await exporting.waitForLine<{ id: string }>('{"id":', TIMEOUT_MS);
    const listing = await to.start('list', '--from', `${from.domid}`, '--json');
    assert.equal(await listing.ended(TIMEOUT_MS), 0);
    const [listed] = (await listing.lines<{ id: string; name: string; bytes: number }[]>())[0]!;
    assert.deepEqual(
      { id: listed?.id, name: listed?.name, bytes: listed?.bytes },
      { id, name: 'sent', bytes: FILE_BYTES },
    );
    const importing = await to.start(
      'import',
      id,
      '--from',
      `${from.domid}`,
      '--output',
      '/tmp/got',
    );
    assert.equal(await importing.ended(TIMEOUT_MS), 0, await importing.output());
    assert.equal(await exporting.ended(TIMEOUT_MS), 0, await exporting.output());
    assert.equal(await shell(to, 'sha256sum </tmp/got'), sum);
  });
}

test('an importer that is killed in the middle is told in one line', async () => {
  const [from, to] = [place('alice'), place('dom0')];
  const exporting = await from.start('export', '/dev/zero', '--to', '0', '--json');
  const { id } = await exporting.waitForLine<{ id: string }>('{"id":', TIMEOUT_MS);
  const importing = await to.start(
    'import',
    id,
    '--from',
    `${from.domid}`,
    '--output',
    '/dev/null',
  );
  const answer = `/local/domain/0/data/xen-zcopy/answers/${from.domid}/${id}`;
  const accepted = async () => (await to.run(`xenstore-read ${answer}`)).stdout === 'accepted\n';
  const timing = { timeoutMs: TIMEOUT_MS, intervalMs: 250 };
  await until(dom0.runtime, accepted, { what: 'the import opens the share', ...timing });
  await shell(to, 'sleep 3');
  assert.equal(await importing.stop({ signal: 'KILL' }), 137);
  assert.equal(await exporting.ended(TIMEOUT_MS), 1);
  assert.match(await exporting.output(), /xen-zcopy: .*\n$/);
});

test('everything is as before when the guests have gone', async () => {
  for (const guest of guests) await guest.shutdown();
  await host.settled(counts);
  assert.deepEqual(await host.complaints(), []);
});
