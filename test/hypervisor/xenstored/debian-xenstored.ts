// Debian's own xenstored as a child process on a machine without Xen: the control domain talks to it over its socket,
// guests over ring pages that are files (no-xen.c stands in for the hypervisor).
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PAGE_SIZE } from '../../../src/abi/page.ts';
import { Mapping } from '../../../src/posix/mapping.ts';
import { type Runtime, type Timer, until } from '../../../src/runtime/runtime.ts';
import { connectUnixSocket } from '../../../src/xen/socket-channel.ts';
import type { PacedByteChannel } from '../../../src/xen/xenstore.ts';
import { XenstoreRing } from '../../../src/xen/xenstore-ring.ts';

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
/** Event channel ports of domains as no-xen.c numbers them. */
const FIRST_PORT = 100;
/** How often a guest looks at its ring: events to guests are not carried. */
const LOOK_MS = 1;

/** The program of the package that scripts/test.mjs unpacks. */
function findXenstored(): string {
  const lib = join(ROOT, '.cache/xen-utils/usr/lib');
  const versions = existsSync(lib)
    ? readdirSync(lib).filter((name) => name.startsWith('xen-'))
    : [];
  assert.equal(versions.length, 1, 'run this test by npm test, which fetches xenstored');
  return join(lib, versions[0]!, 'bin/xenstored');
}

export class DebianXenstored implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #directory: string;
  readonly #child: ChildProcess;
  readonly #events: number;
  readonly #looking = new Map<number, { mapping: Mapping; timer: Timer }>();

  private constructor(runtime: Runtime, directory: string, options: readonly string[]) {
    this.#runtime = runtime;
    this.#directory = directory;
    this.#events = openSync(join(directory, 'evtchn'), 'r+');
    const env = {
      ...process.env,
      XENSTORED_RUNDIR: directory,
      XENSTORED_ROOTDIR: directory,
      LD_PRELOAD: join(directory, 'no-xen.so'),
    };
    this.#child = spawn(findXenstored(), ['--no-fork', ...options], { env, stdio: 'ignore' });
  }

  /** A xenstored that listens, started with these options of its own. */
  static async start(runtime: Runtime, options: readonly string[]): Promise<DebianXenstored> {
    const directory = mkdtempSync(join(tmpdir(), 'debian-xenstored-'));
    const source = join(ROOT, 'test/hypervisor/xenstored/no-xen.c');
    const flags = ['-shared', '-fPIC', '-Wall', '-Werror'];
    execFileSync('gcc', [...flags, '-o', join(directory, 'no-xen.so'), source, '-ldl']);
    execFileSync('mkfifo', [join(directory, 'evtchn')]);
    writeFileSync(join(directory, 'xsd_port'), '2\n');
    writeFileSync(join(directory, 'page-0'), new Uint8Array(PAGE_SIZE));
    const started = new DebianXenstored(runtime, directory, options);
    await until(runtime, () => started.#listens(), { what: 'xenstored listens' });
    return started;
  }

  /** A connection as the control domain. */
  connect(): Promise<PacedByteChannel> {
    return connectUnixSocket(join(this.#directory, 'socket'));
  }

  /** A guest's end of a fresh ring page, to be introduced by whoever asked for it. */
  ring(domid: number): PacedByteChannel {
    this.#stopLooking(domid);
    // xenstored may still look at the page of the ring before: the same file, never shorter (emptying it
    // under its eyes would kill it by SIGBUS), zeroed through the mapping.
    const fd = openSync(join(this.#directory, `page-${domid}`), 'a+');
    ftruncateSync(fd, PAGE_SIZE);
    const mapping = new Mapping(1);
    mapping.place({ fd, offset: 0, atPage: 0, pages: 1, writable: true });
    mapping.bytes.fill(0);
    closeSync(fd);
    const port = new Uint32Array([FIRST_PORT + domid]);
    const ring = new XenstoreRing({
      runtime: this.#runtime,
      page: mapping.bytes,
      side: 'guest',
      notify: () => writeSync(this.#events, port),
    });
    const look = () => {
      ring.onEvent();
      this.#looking.set(domid, { mapping, timer: this.#runtime.after(LOOK_MS, look) });
    };
    look();
    return ring;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const domid of [...this.#looking.keys()]) this.#stopLooking(domid);
    assert.equal(this.#child.exitCode ?? this.#child.signalCode, null, 'xenstored has died');
    this.#child.kill();
    await once(this.#child, 'exit');
    closeSync(this.#events);
    rmSync(this.#directory, { recursive: true });
  }

  /** The socket's file is there a moment before anybody listens on it. */
  async #listens(): Promise<boolean> {
    try {
      (await this.connect()).close();
      return true;
    } catch {
      return false;
    }
  }

  #stopLooking(domid: number): void {
    const looking = this.#looking.get(domid);
    looking?.timer.cancel();
    looking?.mapping[Symbol.dispose]();
    this.#looking.delete(domid);
  }
}
