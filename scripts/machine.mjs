// A machine of the lab to work with (docs/lab.md):
//
//   up [MODE] [icount]     prepares, boots and stays until Ctrl-C; icount: time follows the instructions
//   sh [LINE]              one line of shell in dom0, or a prompt for many
//   guest DOMID LINE       one line of shell in a guest
//   test [FILTER...]       those of this machine's scenarios whose name has one of the filters in it
//
// Everything but `up` finds the machine by a file that `up` leaves in this checkout while it runs.
// Uses dist/ as it is: build first.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { fileURLToPath } from 'node:url';
import { attachTo } from '../dist/lab/attached.js';
import { livedRuntime } from '../dist/lab/lived-time.js';
import { MACHINE_MODES } from '../dist/lab/machine.js';
import { prepare } from '../dist/lab/prepare.js';
import { HOST_PACKAGES } from '../dist/lab/recipe.js';
import { Supervisor } from '../dist/lab/supervisor.js';
import { systemRuntime } from '../dist/src/runtime/runtime.js';
import { provide } from './packages.mjs';
import { runScenarios, scenarioFiles } from './scenarios.mjs';

const FOLDER = fileURLToPath(new URL('../.cache', import.meta.url));
const WHEREABOUTS = `${FOLDER}/machine.json`;
const LINE_TIMEOUT_MS = 600_000;

function say(line) {
  process.stderr.write(`${line}\n`);
}

function usage() {
  const modes = MACHINE_MODES.join('|');
  say(`usage: node scripts/machine.mjs up [${modes}] [icount] | sh | guest | test ...`);
  return process.exit(2);
}

async function up(mode = 'pv-dom0', time = '') {
  if (!MACHINE_MODES.includes(mode) || !['', 'icount'].includes(time)) usage();
  provide(HOST_PACKAGES);
  const abort = new AbortController();
  const stopped = new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, resolve);
  }).then(() => abort.abort());
  const lab = await Supervisor.open({
    prepared: await prepare({ progress: say }),
    runtime: livedRuntime(systemRuntime()),
    progress: say,
    countInstructions: time === 'icount',
    signal: abort.signal,
  });
  try {
    const machine = await lab.machine(mode);
    const { environment } = lab;
    mkdirSync(FOLDER, { recursive: true });
    writeFileSync(WHEREABOUTS, JSON.stringify({ mode, environment }), { mode: 0o600 });
    say(`Ctrl-C ends it. dom0's port 8470 is 127.0.0.1:${machine.daemonPort}`);
    await stopped;
    rmSync(WHEREABOUTS, { force: true });
  } finally {
    await lab.close();
  }
}

/** What `up` left: the mode of the machine, and the environment of those who use it. */
function whereabouts() {
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

async function dom0() {
  const { mode, environment } = whereabouts();
  Object.assign(process.env, environment);
  return (await attachTo({ mode })).dom0;
}

async function sh(...words) {
  const host = await dom0();
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
  const host = await dom0();
  const command = { command: words.join(' '), timeoutMs: LINE_TIMEOUT_MS };
  show(await host.runInGuest(Number(domid), command));
  host.close();
}

async function test(...filters) {
  const { mode, environment } = whereabouts();
  const files = scenarioFiles(filters).filter((path) => path.includes(`/${mode}/`));
  if (files.length === 0) say(`none of these scenarios is one of ${mode}`);
  else process.exitCode = (await runScenarios(files, { environment })).status;
}

const [name, ...words] = process.argv.slice(2);
const commands = { up, sh, guest, test };
if (!Object.hasOwn(commands, name ?? '')) usage();
await commands[name](...words);
