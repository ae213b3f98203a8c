// Programs of a domain, told apart by number and start.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { linuxProgram } from '../../src/linux/program.ts';

test('a program lives as long as its process, and a number that is used again is another program', async () => {
  const { own, isAlive } = linuxProgram();
  assert.match(own, /^\d+\.\d+$/);
  assert(isAlive(own));
  assert(!isAlive(`${process.pid}.1`), 'another start');
  for (const name of ['', 'x', '1', `${process.pid}`, `${process.pid}.`, '../1.2', '0.0']) {
    assert(!isAlive(name), name);
  }
  const child = spawn(process.execPath, [
    '-e',
    'process.stdout.write(require("fs").readFileSync("/proc/self/stat", "utf8")); setInterval(() => {}, 1e3)',
  ]);
  const [stat] = (await once(child.stdout, 'data')) as [Buffer];
  const start = stat
    .toString()
    .replace(/^.*\) /s, '')
    .split(' ')[19];
  const name = `${child.pid}.${start}`;
  assert(isAlive(name));
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert(!isAlive(name));
});
