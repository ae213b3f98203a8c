// `xen-zcopy status` for people: what a guest does, holds, and was made to wait for, in words.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { rateText } from '../../src/daemon/limit-words.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { DEFAULT_BUDGET, RATE_KINDS } from '../../src/zcopy/budget.ts';
import { ScriptedView } from '../server/scripted-view.ts';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const runtime = systemRuntime();

test('every rate of a budget has words', () => {
  for (const kind of RATE_KINDS) {
    assert.match(rateText(kind, DEFAULT_BUDGET), /^[\d,]+ [a-z -]+ a second$/, kind);
  }
});

test('status says in words what a guest was slowed down for, and of what its budget was spent', async () => {
  const view = new ScriptedView(runtime);
  const guest = view.addGuest(3, 'greedy');
  guest.throttled.requestsPerSecond = 12;
  guest.throttled.mappedPagesPerSecond = 1;
  guest.refused['over-budget-areas'] = 2;
  guest.refused['unknown-operation'] = 1;
  const options = { view, host: '127.0.0.1', port: 0, token: 'a-token-for-status' };
  await using server = await ViewerServer.start(runtime, options);
  const argv = [main, 'status', '--url', server.url];
  const { stdout } = await promisify(execFile)(process.execPath, argv);
  const lines = stdout.split('\n');
  assert(lines.includes('greedy (domain 3): connected, input connected'), stdout);
  assert.deepEqual(
    lines.slice(lines.indexOf('  refused over-budget-areas 2, unknown-operation 1')),
    [
      '  refused over-budget-areas 2, unknown-operation 1',
      `  was refused more than ${DEFAULT_BUDGET.areas.toLocaleString('en')} areas of scattered pages`,
      '  was slowed down (12×), beyond 4,000 display requests a second',
      '  was slowed down (1×), beyond 32,400 pages of new buffers a second',
      '',
    ],
  );
});
