// The DRM floor for real, on the vkms of dom0: modes on every connector, dumb buffers, flips with their
// events, import of a foreign dma-buf, and what the card showed before put back. Prints one JSON line: for
// each check null, or what went wrong, and figures. With a number (and a size such as 1024x768): what so many flips
// through the whole output cost, as kms-flip-bare prints it. The scenario kms-card runs it.
import assert from 'node:assert/strict';
import pino from 'pino';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { ConnectorInfo, Picture } from '../../src/display/output.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { openXenDevice } from '../../src/linux/device.ts';
import { Card } from '../../src/linux/drm/card.ts';
import { DisplayState } from '../../src/linux/drm/display-state.ts';
import { CardEvents } from '../../src/linux/drm/events.ts';
import { addFramebuffer, removeFramebuffer } from '../../src/linux/drm/framebuffers.ts';
import { Pipe } from '../../src/linux/drm/pipe.ts';
import { describeCards } from '../../src/linux/drm/report.ts';
import { LinuxMemory } from '../../src/linux/memory.ts';
import { KmsOutput } from '../../src/outputs/kms/kms-output.ts';
import { FdWatcher } from '../../src/posix/fd-watcher.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import { domId } from '../../src/xen/ids.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';

const PATH = '/dev/dri/card0';
const CONNECTORS = ['Virtual-1', 'Virtual-2'];
const FLIPS = 30;
/** A mode that vkms has; kms-flip-bare takes the preferred one, 1024x768. */
const [WIDTH, HEIGHT] = (process.argv[3] ?? '640x480').split('x').map(Number);
const SIZE = { width: WIDTH!, height: HEIGHT! };
const runtime = systemRuntime();
const figures: Record<string, number> = {};

interface Lit {
  readonly pipe: Pipe;
  readonly framebuffers: readonly number[];
  /** The numbers of the commits that are done, in order. */
  readonly done: number[];
  readonly release: () => Promise<void>;
}

interface Bench {
  readonly card: Card;
  readonly events: CardEvents;
  readonly before: DisplayState;
  readonly taken: Set<number>;
}

function openBench(): Bench & Disposable {
  const card = Card.open(PATH);
  const events = new CardEvents(card.file, (error) => assert.fail(String(error)));
  const before = DisplayState.read(card);
  return {
    card,
    events,
    before,
    taken: new Set(),
    [Symbol.dispose]: () => {
      events[Symbol.dispose]();
      card[Symbol.dispose]();
    },
  };
}

/** Shows the first of two buffers on a connector and waits until it is there. */
async function light({ card, events, before, taken }: Bench, name: string): Promise<Lit> {
  const connector = card.connectors({ probe: true }).find((found) => found.name === name);
  assert(connector?.status === 'connected', `${name}: ${connector?.status}`);
  const done: number[] = [];
  const pipe = Pipe.find({ card, events, before, connector, taken });

  assert(pipe, `no pipe for ${name}`);
  pipe.receiver = { flipped: (sequence) => void done.push(sequence) };
  taken.add(pipe.crtc).add(pipe.plane.id);
  const mode = connector.modes.find((m) => m.width === SIZE.width && m.height === SIZE.height);
  assert(mode, `${name} has no mode of ${SIZE.width}x${SIZE.height}`);
  const buffers = [0, 1].map(() => card.buffers.createDumb({ ...SIZE, bitsPerPixel: 32 }));
  const framebuffers = buffers.map(({ handle, pitch }) =>
    addFramebuffer(card.file, {
      ...SIZE,
      handle,
      fourcc: XRGB8888.fourcc,
      stride: pitch,
      offset: 0,
    }),
  );
  const scene = { ...SIZE, mode, framebuffer: framebuffers[0]! };
  pipe.test(scene);
  pipe.start(scene, 0);
  await until(runtime, () => done.length === 1, { what: `${name} is lit` });
  const release = async () => {
    for (const framebuffer of framebuffers) removeFramebuffer(card.file, framebuffer);
    for (const { memory } of buffers) await memory.free();
    pipe[Symbol.dispose]();
  };
  return { pipe, framebuffers, done, release };
}

async function flipAll(lit: readonly Lit[]): Promise<void> {
  const startMs = runtime.nowMs();
  for (let flip = 1; flip <= FLIPS; flip++) {
    for (const { pipe, framebuffers } of lit) pipe.flip(framebuffers[flip % 2]!, flip);
    const all = () => lit.every(({ done }) => done.length === flip + 1);
    await until(runtime, all, { what: `flip ${flip}`, intervalMs: 1 });
  }
  figures['flips a second'] = Math.round((FLIPS * 1000) / (runtime.nowMs() - startMs));
  for (const { done } of lit) assert.equal(done.at(-1), FLIPS);
}

async function twoScreens(): Promise<void> {
  using bench = openBench();
  const lit: Lit[] = [];
  for (const name of CONNECTORS) lit.push(await light(bench, name));
  await flipAll(lit);
  for (const { pipe, framebuffers } of lit) {
    assert.equal(pipe.framebuffer(), framebuffers[FLIPS % 2]);
    pipe.stop(FLIPS + 1);
  }
  const dark = () => lit.every(({ done }) => done.at(-1) === FLIPS + 1);
  await until(runtime, dark, { what: 'both screens are off' });
  for (const { pipe, release } of lit) {
    assert.equal(pipe.framebuffer(), 0);
    await release();
  }
  assert.equal(bench.card.buffers.handles, 0);
}

async function busyWhileFlipping(): Promise<void> {
  using bench = openBench();
  const { pipe, framebuffers, done, release } = await light(bench, 'Virtual-1');
  pipe.flip(framebuffers[1]!, 1);
  assert.throws(() => pipe.flip(framebuffers[0]!, 2), { errnoName: 'EBUSY' });
  await until(runtime, () => done.length === 2, { what: 'the flip' });
  await release();
}

async function putBack(): Promise<void> {
  using bench = openBench();
  const { card, before } = bench;
  const lit = await light(bench, 'Virtual-1');
  before.restore(card);
  const shown = (state: DisplayState) =>
    [...state.planes, ...state.connectors].map((properties) => [
      properties.object.id,
      Number(properties.value('CRTC_ID')),
    ]);
  assert.deepEqual(shown(DisplayState.read(card)), shown(before));
  await lit.release();
}

async function ownBufferAgain(): Promise<void> {
  using bench = openBench();
  const { buffers } = bench.card;
  const { memory, handle } = buffers.createDumb({ ...SIZE, bitsPerPixel: 32 });
  using used = buffers.use(memory.fd!);
  assert.deepEqual([used.handle, used.own], [handle, true]);
  assert.equal((await memory.free()).heldPages, 0);
}

async function cards(): Promise<void> {
  const report = (await describeCards()).find(({ path }) => path === PATH);
  assert.equal(report?.driver, 'vkms');
  assert(report.atomic && report.dumbBuffers && report.prime?.exports && report.prime.imports);
  assert.deepEqual(
    report.connectors.map(({ name }) => name),
    CONNECTORS,
  );
}

function outputOn(log: (line: string) => void): KmsOutput {
  return KmsOutput.open(PATH, { runtime: systemRuntime(pino({ level: 'info' }, { write: log })) });
}

function infoOf(uniqueId: string, index = 0): ConnectorInfo {
  return { domid: domId(1), index, uniqueId, ...SIZE };
}

const STRIDE = SIZE.width * 4;
const PAGES = Math.ceil((STRIDE * SIZE.height) / PAGE_SIZE);

function pictureIn(memory: LocalBuffer): Picture {
  const bytes = new Uint8Array(0);
  return { ...SIZE, stride: STRIDE, format: XRGB8888, memory, offset: 0, bytes };
}

async function guestBuffers(output: KmsOutput): Promise<LocalBuffer[]> {
  const request = { domid: domId(1), ...SIZE, bitsPerPixel: 32, stride: STRIDE, pages: PAGES };
  const buffers = [await output.allocate(request), await output.allocate(request)];
  return buffers.filter((buffer) => buffer !== undefined);
}

/** Flips through the whole output, each when the last one is complete, and says what that cost. */
async function outputFlips(count: number, uniqueId = CONNECTORS[0]!): Promise<object> {
  const output = outputOn(() => {});
  const connector = await output.connect(infoOf(uniqueId));
  const memory = await guestBuffers(output);
  const pictures = memory.map(pictureIn);
  connector.show(pictures[0]);
  await new Promise<void>((resolve) => connector.flip(pictures[1]!, resolve));
  const startMs = runtime.nowMs();
  const before = process.cpuUsage();
  await new Promise<void>((resolve) => {
    let flips = 0;
    const next = () => {
      if (flips === count) resolve();
      else connector.flip(pictures[flips++ % 2]!, next);
    };
    next();
  });
  const { user, system } = process.cpuUsage(before);
  const wallMs = runtime.nowMs() - startMs;
  assert.deepEqual([connector.path, connector.bytesCopied], ['kms', 0]);
  await output[Symbol.asyncDispose]();
  for (const one of memory) await one.free();
  return { flips: count, wallMs, userMs: user / 1000, systemMs: system / 1000 };
}

/** Shows memory of another driver: on the screen if the card can, and in the viewer in any case. */
async function foreignMemory(): Promise<void> {
  const lines: string[] = [];
  const output = outputOn((line) => lines.push(line));
  const connector = await output.connect(infoOf(CONNECTORS[1]!));
  await using linux = new LinuxMemory({ open: openXenDevice });
  const memory = await linux.allocate({ pages: PAGES, contiguity: 'none' });
  const picture = pictureIn(memory);
  connector.show(picture);
  for (let flip = 0; flip < FLIPS; flip++) {
    await new Promise<void>((resolve) => connector.flip(picture, resolve));
  }
  figures['udmabuf is scanned out'] = connector.path === 'kms-import' ? 1 : 0;
  if (connector.path !== 'kms-import')
    assert.match(lines.join(''), /showing it in the viewer only/);
  connector.show(undefined);
  await connector.retire(picture);
  await output[Symbol.asyncDispose]();
  assert.equal((await memory.free()).heldPages, 0);
}

async function throughTheOutput(): Promise<void> {
  await outputFlips(FLIPS);
  const card = Card.open(PATH);
  const { planes } = DisplayState.read(card);
  card[Symbol.dispose]();
  // Nothing of ours is left on a plane: there is the console, or nothing.
  const shown = planes.map((plane) => Number(plane.value('CRTC_ID')));
  figures['planes in use afterwards'] = shown.filter((crtc) => crtc !== 0).length;
}

const CHECKS: Readonly<Record<string, () => Promise<void>>> = {
  'the card is described': cards,
  'two connectors flip side by side, with an event for each flip': twoScreens,
  'a flip while another is under way is refused with EBUSY': busyWhileFlipping,
  'what the card showed before is put back': putBack,
  'an output lends buffers, flips them and closes': throughTheOutput,
  'memory of udmabuf is shown, by the card or by the viewer': foreignMemory,
  'a dumb buffer that comes back as a dma-buf is the same handle': ownBufferAgain,
};

async function runChecks(): Promise<void> {
  const results: Record<string, string | null> = {};
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      await check();
      results[name] = null;
    } catch (error) {
      results[name] = error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  }
  await until(runtime, () => FdWatcher.handles === 0, { what: 'the watchers are closed' });
  process.stdout.write(`${JSON.stringify({ results, figures })}\n`);
}

const flips = Number(process.argv[2]);
if (flips > 0) process.stdout.write(`${JSON.stringify(await outputFlips(flips))}\n`);
else await runChecks();
