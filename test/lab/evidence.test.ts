// What is kept of a scenario that failed, from a dom0 that answers and from one that does not.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { RunResult } from '../../lab/agent/protocol.ts';
import { gatherEvidence } from '../../lab/evidence.ts';

/** What dom0 says of two guests, one of which was interrupted with interrupts off. */
const GATHERED = [
  '',
  '--- xl list',
  'Domain-0 0 2560 2 r----- 123.4',
  '',
  '--- console of pv',
  '[    5.000000] RIP: 0010:asm_sysvec_xen_hvm_callback+0x0/0x20',
  '',
  '--- console of pvh',
  '[  158.347294]  asm_sysvec_xen_hvm_callback+0x1a/0x20',
  '[  158.347423] RIP: 0010:asm_sysvec_xen_hvm_callback+0x0/0x20',
  '[  158.347525] Code: c6 00 ee ff e9 f1 05 00 00 90 <f3> 0f 1e fa 0f 1f 00 fc 6a ff',
  '[  158.347599] RSP: 0000:fffffe0000002fd8 EFLAGS: 00000002',
  '',
].join('\n');

/** Gathers from a dom0 that answers so, and reads what is kept. */
async function gathered(answer: () => Promise<RunResult>) {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-logs-`);
  try {
    const serialLog = `${folder}/boot-1-pv-dom0.log`;
    const path = `${folder}/failure-1-pv-dom0-display.log`;
    writeFileSync(serialLog, '(XEN) the last words\r\n');
    const lost = await gatherEvidence({ dom0: { run: answer }, serialLog }, path);
    return { lost, kept: readFileSync(path, 'utf8') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('what Xen and dom0 say is kept, and a guest that its console shows to be lost is named', async () => {
  const answer = { code: 0, signal: null, stdout: GATHERED, stderr: '' };
  const { lost, kept } = await gathered(async () => answer);
  assert.deepEqual(
    lost.map(({ guest }) => guest),
    ['pvh'],
  );
  for (const words of ['(XEN) the last words', '--- xl list', '--- console of pv\n']) {
    assert(kept.includes(words), words);
  }
});

test('of a dom0 that does not answer Xen’s words are kept, and why there are no others', async () => {
  const { lost, kept } = await gathered(() => Promise.reject(new Error('no answer to POST /run')));
  assert.deepEqual(lost, []);
  assert(kept.includes('(XEN) the last words'));
  assert(kept.includes('no answer to POST /run'));
});
