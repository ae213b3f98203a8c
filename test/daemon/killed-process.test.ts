// The daemon as the process that it is, killed with SIGKILL at any instant, between any two instructions of its, and
// started again as an init system would: on the same port, with the same token, on guests that never stop.
//
// The hypervisor, xenstored, domain 0's kernel and the guests are in this process; the daemon is `serve` in another.

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { listenOnUnixSocket } from '../../src/hypervisor/xenstored/unix-listener.ts';
import { SeededRandom } from '../../src/runtime/random.ts';
import { sleep, systemRuntime } from '../../src/runtime/runtime.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { eventually } from '../hypervisor/worker/host.ts';
import { Dom0Kernel } from './dom0-kernel.ts';
import {
  type GuestKind,
  HEIGHT,
  LinuxGuest,
  OurGuest,
  type PaintingGuest,
  WIDTH,
} from './guests.ts';

const program = fileURLToPath(new URL('./serve-process.js', import.meta.url));
const TOKEN = 'of-the-killed-daemon-test';
const LIVES = 20;
/**
 * Every other life ends within this time from its start, whether it serves or not: some before they have found
 * xenstored, some with a guest half connected.
 */
const EARLY_MS = 900;
/** The others end within this time after they have served everybody, in the midst of frames. */
const LATE_MS = 60;
/** Each life presses a key of its own: KEY_1 and those that follow. */
const FIRST_KEY = 2;
/** From pino's levels. */
const LOG_ERROR = 50;

const runtime = systemRuntime();

/** A host whose domain 0 has a kernel and xenstored, and programs to come; with guests that do not mind. */
class ProcessWorld {
  readonly host: XenHost;
  readonly kernel: Dom0Kernel;
  readonly guests: { readonly guest: Guest; readonly painter: PaintingGuest }[] = [];
  /** What the daemons wrote to stderr, one after the other. */
  readonly said: string[] = [];
  /** Port 0 until the first daemon has chosen one. */
  listen = '127.0.0.1:0';
  readonly directory = mkdtempSync(join(tmpdir(), 'xen-zcopy-killed-'));
  readonly #free: number;
  /** What domain 0 maps and binds without a daemon: xenstored's. */
  #idle: ReturnType<ProcessWorld['inUse']>;
  readonly #processes: ServiceProcess[] = [];
  #xenstored: AsyncDisposable | undefined;
  #door: AsyncDisposable | undefined;

  private constructor(host: XenHost) {
    this.host = host;
    this.kernel = new Dom0Kernel(host);
    this.#free = host.hypervisor.memory.freeFrames;
    writeFileSync(this.#path('lock'), '');
    this.#idle = this.inUse();
  }

  static async open(kinds: readonly GuestKind[]): Promise<ProcessWorld> {
    const host = await XenHost.start({ runtime });
    const world = new ProcessWorld(host);
    world.#door = await world.kernel.listen(world.#path('kernel'));
    const { xenstored: server } = host;
    world.#xenstored = await listenOnUnixSocket({ server, path: world.#path('xenstored') });
    for (const kind of kinds) {
      const beAlloc = kind === 'linux';
      const displays = [{ uniqueId: kind, width: WIDTH, height: HEIGHT }];
      const guest = await host.createGuest({ name: kind, displays, keyboard: true, beAlloc });
      const parts = { runtime, domain: host.enter(guest), beAlloc };
      const painter = kind === 'ours' ? new OurGuest(parts) : new LinuxGuest(parts);
      world.guests.push({ guest, painter });
      await painter.start();
    }
    world.#idle = world.inUse();
    return world;
  }

  #path(name: string): string {
    return join(this.directory, name);
  }

  start(): ServiceProcess {
    const life = this.said.push('') - 1;
    const daemon = new ServiceProcess([program, this.directory, this.listen], {
      environment: { XEN_ZCOPY_TOKEN: TOKEN },
      onStderr: (text) => {
        this.said[life] += text;
      },
    });
    this.#processes.push(daemon);
    return daemon;
  }

  inUse() {
    const { domains } = this.host.hypervisor.books();
    const { maptrackUsed, ports } = domains.find(({ domid }) => domid === DOM0)!;
    return { maptrackUsed, ports };
  }

  /** Waits until each guest has shown its picture anew and has heard of `key`, which stays down. */
  async served(daemon: ServiceProcess, key: number): Promise<void> {
    for (const { guest, painter } of this.guests) {
      const { rounds } = painter;
      await daemon.guestWhen(guest.name, ({ input }) => input.state === 'connected');
      await daemon.input(guest, [{ type: 'key', code: key, pressed: true }]);
      const done = () => painter.rounds > rounds && painter.pressed.at(-1) === key;
      await eventually(done, `${guest.name} has its screen and its keyboard`);
      assert.deepEqual([...painter.down], [key], 'what the dead daemon held down is up');
      assert.deepEqual(painter.failures, []);
      let pixel: number | undefined;
      const shown = async () => {
        const picture = await daemon.pictureNow(guest);
        pixel = picture?.data[0];
        return picture !== undefined;
      };
      await eventually(shown, `${guest.name}’s picture`);
      assert.equal(pixel, painter.colour, 'the picture is the guest’s own');
    }
  }

  /** What the kernel gives back of a dead program by itself: all but memory that a guest still maps. */
  async nothingIsMapped(): Promise<void> {
    const clean = () => isDeepStrictEqual(this.inUse(), this.#idle);
    await eventually(clean, 'nothing of the dead daemon’s is mapped or bound');
  }

  /** Lines for people, and what the daemons logged that somebody should have been called for. */
  get alarms(): string[] {
    const lines = this.said.flatMap((text) => text.split('\n').filter((line) => line !== ''));
    return lines.filter((line) => !line.startsWith('{') || JSON.parse(line).level >= LOG_ERROR);
  }

  async loseXenstored(): Promise<void> {
    await this.#xenstored?.[Symbol.asyncDispose]();
    this.#xenstored = undefined;
  }

  /** The guests are gone, and so are the daemons: nothing may be left of any. */
  async nothingIsLeft(): Promise<void> {
    const clean = () =>
      this.kernel.programs === 0 && leakReport(this.host.hypervisor.books()).length === 0;
    await eventually(clean, 'everything of the dead is back');
    assert.equal(this.host.hypervisor.memory.freeFrames, this.#free);
  }

  /** Ends everything, also what a failed test has left: it would keep this process alive. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#processes.map((daemon) => daemon.kill('SIGKILL')));
    await this.host[Symbol.asyncDispose]();
    await this.loseXenstored();
    await this.#door?.[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true });
  }
}

test(`killed ${LIVES} times at random instants, the daemon is there again each time for the same guests`, async (t) => {
  const seed = randomInt(2 ** 32);
  t.diagnostic(`seed ${seed}`);
  const random = new SeededRandom(seed);
  await using world = await ProcessWorld.open(['ours', 'linux']);
  for (let life = 0; life < LIVES; life++) {
    const daemon = world.start();
    if (life % 2 === 1) {
      await sleep(runtime, random.below(EARLY_MS));
    } else {
      await daemon.started();
      world.listen = daemon.url.host;
      await world.served(daemon, FIRST_KEY + life);
      await sleep(runtime, random.below(LATE_MS));
    }
    assert.deepEqual(await daemon.kill('SIGKILL'), { code: null, signal: 'SIGKILL' });
    await world.nothingIsMapped();
  }
  const last = await world.start().started();
  assert.equal(last.url.host, world.listen, 'the port is the one that it always had');
  await world.served(last, FIRST_KEY + LIVES);
  for (const { guest } of world.guests) {
    const { services } = (await last.guest(guest.name))!;
    const failed = services.filter(({ restarts }) => restarts > 0);
    assert.deepEqual(failed, [], 'it took the guests up at the first try');
    await guest.destroy();
  }
  await eventually(async () => (await last.status()).guests.length === 0, 'both are forgotten');
  assert.equal(await last.stop(), 0, 'it ends in order when it is told');
  assert.deepEqual(world.alarms, []);
  await world.nothingIsLeft();
});

test('when xenstored is lost, the daemon says so in one line and ends with 1, for its supervisor to know', async () => {
  await using world = await ProcessWorld.open([]);
  const daemon = await world.start().started();
  await world.loseXenstored();
  assert.deepEqual(await daemon.exited, { code: 1, signal: null });
  const forPeople = world.alarms.filter((line) => !line.startsWith('{'));
  assert.equal(forPeople.length, 1);
  assert.match(
    forPeople[0]!,
    /^xen-zcopy: the connection to xenstored is lost, .* failed with E[A-Z]+; once xenstored is there again, start/,
  );
  await world.nothingIsLeft();
});

test('a second daemon of the domain says so in one line, ends with 1, and no guest notices', async () => {
  await using world = await ProcessWorld.open(['ours']);
  const first = await world.start().started();
  await world.served(first, FIRST_KEY);
  const [{ guest, painter }] = world.guests as [ProcessWorld['guests'][number]];
  const connections = async () => (await first.guest(guest.name))!.displays[0]!.flips;
  const flips = await connections();
  assert.deepEqual(await world.start().exited, { code: 1, signal: null });
  const lock = join(world.directory, 'lock');
  assert.deepEqual(world.alarms, [
    `xen-zcopy: another xen-zcopy serves the guests of this domain (it holds the lock on ${lock}): ` +
      'flock failed with EBUSY; stop that one first',
  ]);
  const { rounds } = painter;
  await eventually(() => painter.rounds > rounds + 1, 'the first goes on');
  assert((await connections()) > flips, 'over the connection that it had');
  await guest.destroy();
  assert.equal(await first.stop(), 0);
  await world.nothingIsLeft();
});

test('a port that is taken is told in one line, with exit code 1', async () => {
  await using world = await ProcessWorld.open([]);
  const taken = createServer();
  await once(taken.listen(0, '127.0.0.1'), 'listening');
  const { port } = taken.address() as AddressInfo;
  world.listen = `127.0.0.1:${port}`;
  assert.deepEqual(await world.start().exited, { code: 1, signal: null });
  assert.deepEqual(world.said, [
    `xen-zcopy: listening on 127.0.0.1:${port}: listen failed with EADDRINUSE; ` +
      'choose another address with --listen HOST:PORT (port 0 picks a free one)\n',
  ]);
  taken.close();
  await world.nothingIsLeft();
});
