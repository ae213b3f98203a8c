// What Xen says when QEMU has lost a guest, and what it says of guests that end for reasons of their own.
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { lostGuests } from '../../lab/lost-guests.ts';
import { ScenarioRuns } from '../../lab/scenario-runs.ts';
import { newSerialLog } from '../../lab/serial-log.ts';

/** Xen 4.17's words for the end of a guest, shortened behind what tells one from the other. */
function tripleFault({ domid, rip, context }: { domid: number; rip: string; context?: string }) {
  return [
    `(XEN) d${domid}v0 Triple fault - invoking HVM shutdown action 1`,
    `(XEN) *** Dumping Dom${domid} vcpu#0 state: ***`,
    '(XEN) ----[ Xen-4.17.7  x86_64  debug=n  Not tainted ]----',
    '(XEN) CPU:    0',
    `(XEN) RIP:    ${rip}`,
    `(XEN) RFLAGS: 0000000000000246   CONTEXT: ${context ?? `hvm guest (d${domid}v0)`}`,
    '(XEN) rax: 000000013b055000   rbx: 0000000000000000   rcx: 0000000000000008',
    '',
  ].join('\n');
}

const AT_XENS = 'e008:[<ffff82d0402044a5>]';
const ADDRESS = 'ffff82d0402044a5';

test('a guest that went on at an address of Xen’s is one that QEMU has lost', () => {
  const serial = `${tripleFault({ domid: 2, rip: AT_XENS })}lab: between\n${tripleFault({ domid: 4, rip: AT_XENS })}`;
  assert.deepEqual(lostGuests(serial), [
    { domid: 2, address: ADDRESS },
    { domid: 4, address: ADDRESS },
  ]);
});

test('what dom0 says on the same line, between Xen’s words and in front of them, changes nothing', () => {
  const serial = tripleFault({ domid: 2, rip: AT_XENS })
    .replaceAll('\n', '\n[   25.188518] clocksource: switched\n')
    .replace('(XEN) RIP', '[   25.3(XEN) RIP');
  assert.deepEqual(lostGuests(serial), [{ domid: 2, address: ADDRESS }]);
});

test('a guest that ends by a fault at an address of its own is none', () => {
  const rips = [
    '0010:[<ffffffff81000123>]',
    '0033:[<000055d0c0ffee00>]',
    // Its own code segment, whatever the address, and the other way round.
    '0010:[<ffff82d0402044a5>]',
    'e008:[<ffffffff81000123>]',
    // Beyond the gigabyte that Xen's image is in.
    'e008:[<ffff82d0802044a5>]',
  ];
  for (const rip of rips) assert.deepEqual(lostGuests(tripleFault({ domid: 2, rip })), [], rip);
});

test('a crash of Xen itself, of a PV guest, or of a guest by a hypercall of its own is none', () => {
  const crash = tripleFault({ domid: 2, rip: AT_XENS, context: 'hypervisor' });
  const other = tripleFault({ domid: 2, rip: AT_XENS, context: 'hvm guest (d3v0)' });
  const called = tripleFault({ domid: 2, rip: AT_XENS }).replace(
    /d2v0 Triple fault.*/,
    'domain_crash called from svm.c:2850',
  );
  for (const serial of [crash, other, called]) assert.deepEqual(lostGuests(serial), []);
});

test('a log that ends within the dump names no guest', () => {
  const serial = tripleFault({ domid: 2, rip: AT_XENS });
  assert.deepEqual(lostGuests(serial.slice(0, serial.indexOf('CONTEXT'))), []);
});

test('a lost guest belongs to the scenario that ran then, in its latest run', () => {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-logs-`);
  try {
    const runs = new ScenarioRuns();
    const first = newSerialLog(folder, 'pv-dom0');
    appendFileSync(first, tripleFault({ domid: 1, rip: AT_XENS }));
    runs.begin('pv-dom0/display', first);
    runs.begin('pv-dom0/share', first);
    appendFileSync(first, tripleFault({ domid: 7, rip: AT_XENS }));
    const second = newSerialLog(folder, 'pvh-dom0');
    runs.begin('pvh-dom0/display', second);
    appendFileSync(second, tripleFault({ domid: 1, rip: AT_XENS }));
    const lost = (scenario: string) => runs.lostGuests(scenario).map(({ domid }) => domid);
    assert.deepEqual(lost('pv-dom0/display'), []);
    assert.deepEqual(lost('pv-dom0/share'), [7]);
    assert.deepEqual(lost('pvh-dom0/display'), [1]);
    assert.deepEqual(lost('pv-dom0/nobody'), []);
    runs.begin('pvh-dom0/display', second);
    assert.deepEqual(lost('pvh-dom0/display'), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('every machine has a log of its own, two of one mode as well', () => {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-logs-`);
  try {
    const names = ['pv-dom0', 'pvh-dom0', 'pv-dom0'].map((mode) => newSerialLog(folder, mode));
    assert.deepEqual(
      names.map((path) => path.slice(folder.length)),
      ['/boot-1-pv-dom0.log', '/boot-2-pvh-dom0.log', '/boot-3-pv-dom0.log'],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
