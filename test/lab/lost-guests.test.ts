// What Xen says when QEMU has lost a guest, and what it says of guests that end for reasons of their own.
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { doublyInterrupted, faultedGuests } from '../../lab/lost-guests.ts';
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
const AT_KERNELS = '0010:[<ffffffff81ce6113>]';
const faulted = (rip: string) => `ended by a triple fault at ${rip}`;

test('a guest that ended by a triple fault is one that QEMU has lost, with Xen’s state as well as with its own', () => {
  const serial = `${tripleFault({ domid: 2, rip: AT_XENS })}lab: between\n${tripleFault({ domid: 14, rip: AT_KERNELS })}`;
  assert.deepEqual(faultedGuests(serial), [
    { guest: 'domain 2', how: faulted(AT_XENS) },
    { guest: 'domain 14', how: faulted(AT_KERNELS) },
  ]);
});

test('what dom0 says on the same line, between Xen’s words and in front of them, changes nothing', () => {
  const serial = tripleFault({ domid: 2, rip: AT_XENS })
    .replaceAll('\n', '\n[   25.188518] clocksource: switched\n')
    .replace('(XEN) RIP', '[   25.3(XEN) RIP');
  assert.deepEqual(faultedGuests(serial), [{ guest: 'domain 2', how: faulted(AT_XENS) }]);
});

test('a crash of Xen itself, of a PV guest, or of a guest by a hypercall of its own is none', () => {
  const crash = tripleFault({ domid: 2, rip: AT_XENS, context: 'hypervisor' });
  const other = tripleFault({ domid: 2, rip: AT_XENS, context: 'hvm guest (d3v0)' });
  const called = tripleFault({ domid: 2, rip: AT_XENS }).replace(
    /d2v0 Triple fault.*/,
    'domain_crash called from svm.c:2850',
  );
  for (const serial of [crash, other, called]) assert.deepEqual(faultedGuests(serial), []);
});

test('a log that ends within the dump names no guest', () => {
  const serial = tripleFault({ domid: 2, rip: AT_XENS });
  assert.deepEqual(faultedGuests(serial.slice(0, serial.indexOf('CONTEXT'))), []);
});

/** The bottom of a panicking kernel's trace: what Xen's callback has interrupted. */
function panic({ frame, place, flags }: { frame: string; place: string; flags: string }): string {
  return [
    '[  158.347182]  sysvec_xen_hvm_callback+0xe/0x90',
    `[  158.347294]  ${frame}`,
    `[  158.347423] RIP: 0010:${place}`,
    '[  158.347525] Code: c6 00 ee ff e9 f1 05 00 00 90 <f3> 0f 1e fa 0f 1f 00 fc 6a ff',
    `[  158.347599] RSP: 0000:fffffe0000002fd8 EFLAGS: ${flags}`,
    '[  158.353070] Kernel panic - not syncing: Fatal exception in interrupt',
    '',
  ].join('\r\n');
}

const CALLBACK = 'asm_sysvec_xen_hvm_callback+0x1a/0x20';
const ENTRY = 'asm_sysvec_xen_hvm_callback+0x0/0x20';

test('a guest that was interrupted while it had interrupts off is one that QEMU has lost', () => {
  const console = `Linux version 6.12\r\n${panic({ frame: CALLBACK, place: ENTRY, flags: '00000002' })}`;
  const how = `was interrupted with interrupts off, at ${ENTRY}`;
  assert.deepEqual(doublyInterrupted('pvh', console), { guest: 'pvh', how });
});

test('a panic of any other cause is none of QEMU’s', () => {
  const others = [
    // Interrupted while interrupts were on: what went wrong came later.
    panic({ frame: CALLBACK, place: 'default_idle+0x9/0x20', flags: '00000246' }),
    // An exception of the kernel's own, with interrupts off.
    panic({
      frame: 'asm_exc_page_fault+0x26/0x30',
      place: 'gntdev_ioctl+0x12/0x80',
      flags: '00000046',
    }),
    // The trace ends before it says whether they were on.
    panic({ frame: CALLBACK, place: ENTRY, flags: '' }),
    'Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n',
    '',
  ];
  for (const console of others) assert.equal(doublyInterrupted('pvh', console), undefined, console);
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
    runs.noteLost('pv-dom0/share', [{ guest: 'pvh', how: 'was interrupted' }]);
    const lost = (scenario: string) => runs.lostGuests(scenario).map(({ guest }) => guest);
    assert.deepEqual(lost('pv-dom0/display'), []);
    assert.deepEqual(lost('pv-dom0/share'), ['domain 7', 'pvh']);
    assert.deepEqual(lost('pvh-dom0/display'), ['domain 1']);
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
