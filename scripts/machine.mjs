// A machine of the lab to work with (docs/lab.md):
//
//   up [MODE]              prepares, boots and stays until Ctrl-C
//   sh [LINE]              one line of shell in dom0, or a prompt for many
//   guest DOMID LINE       one line of shell in a guest
//   test [FILTER...]       scenarios in this machine
//
// Everything but `up` finds the machine by a file that `up` leaves in the cache folder while it runs.
// Uses dist/ as it is: build first.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { attach, attachment } from '../dist/lab/attached.js';
import { Machine } from '../dist/lab/machine.js';
import { defaultCacheFolder, prepare } from '../dist/lab/prepare.js';
import { HOST_PACKAGES } from '../dist/lab/recipe.js';
import { systemRuntime } from '../dist/src/runtime/runtime.js';
import { provide } from './packages.mjs';
import { runScenarios, scenarioFiles } from './scenarios.mjs';

const WHEREABOUTS = `${defaultCacheFolder()}/machine.json`;
const LINE_TIMEOUT_MS = 600_000;

function say(line) {
  process.stderr.write(`${line}\n`);
}

async function up(mode = 'pv-dom0') {
  provide(HOST_PACKAGES);
  const abort = new AbortController();
  const stopped = new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, resolve);
  }).then(() => abort.abort());
  const prepared = await prepare({ progress: say });
  say(`booting (log: ${prepared.serialLog})`);
  const runtime = systemRuntime();
  const machine = await Machine.boot({ prepared, runtime, mode, signal: abort.signal });
  writeFileSync(WHEREABOUTS, JSON.stringify(attachment(machine)), { mode: 0o600 });
  say(`up; Ctrl-C ends it. dom0's port 8470 is 127.0.0.1:${machine.daemonPort}`);
  await stopped;
  rmSync(WHEREABOUTS);
  await machine.close();
}

function environment() {
  try {
    return JSON.parse(readFileSync(WHEREABOUTS, 'utf8'));
  } catch {
    say('no machine is up: node scripts/machine.mjs up');
    return process.exit(1);
  }
}

function show({ stdout, stderr, code, signal }) {
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  if (signal !== null) say(`ended by ${signal}`);
  process.exitCode = code ?? 1;
}

function dom0() {
  Object.assign(process.env, environment());
  return attach().dom0;
}

async function sh(...words) {
  const host = dom0();
  const run = async (line) => show(await host.run(['sh', '-c', line], LINE_TIMEOUT_MS));
  if (words.length > 0) await run(words.join(' '));
  else {
    const input = createInterface({ input: process.stdin, output: process.stderr });
    input.setPrompt('dom0# ');
    input.prompt();
    for await (const line of input) {
      await run(line);
      input.prompt();
    }
  }
  host.close();
}

async function guest(domid, ...words) {
  const host = dom0();
  const command = { command: words.join(' '), timeoutMs: LINE_TIMEOUT_MS };
  show(await host.runInGuest(Number(domid), command));
  host.close();
}

async function test(...filters) {
  process.exitCode = await runScenarios(scenarioFiles(filters), { environment: environment() });
}

const [name, ...words] = process.argv.slice(2);
const commands = { up, sh, guest, test };
if (!Object.hasOwn(commands, name ?? '')) {
  say(`usage: node scripts/machine.mjs ${Object.keys(commands).join('|')} ...`);
  process.exit(2);
}
await commands[name](...words);
