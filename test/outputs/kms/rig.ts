// A KMS output on a card that misbehaves on purpose, in virtual time; only the readiness of the card is real.

import assert from 'node:assert/strict';
import pino from 'pino';
import type { ConnectorInfo, OutputConnector, Picture } from '../../../src/display/output.ts';
import { XRGB8888 } from '../../../src/display/pixel-format.ts';
import { Card } from '../../../src/linux/drm/card.ts';
import { KmsOutput } from '../../../src/outputs/kms/kms-output.ts';
import { close, ftruncate, memfdCreate } from '../../../src/posix/libc.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import { domId } from '../../../src/xen/ids.ts';
import type { DmaBuf, LocalBuffer } from '../../../src/xen/memory.ts';
import { CONSOLE_FRAMEBUFFER, FakeCard } from '../../linux/drm/fake-card.ts';

const context = { context: 'a test' };

export class LoggingRuntime extends VirtualRuntime {
  readonly lines: string[] = [];
  override readonly log = pino(
    { level: 'info' },
    { write: (line: string) => void this.lines.push(line) },
  );
}

export interface RigOptions {
  readonly connectors?: ReadonlyMap<string, string>;
}

export class Rig {
  readonly runtime = new LoggingRuntime(1);
  readonly fake: FakeCard;
  readonly card: Card;
  readonly output: KmsOutput;
  readonly #foreign: number[] = [];
  /** Whether another program was master: what it kept us from taking off the screen is removed as it is. */
  masterWasLost = false;

  constructor(fake = new FakeCard(), options: RigOptions = {}) {
    this.fake = fake;
    this.card = new Card(fake);
    this.output = new KmsOutput(this.card, { runtime: this.runtime, refreshHz: 50, ...options });
  }

  connect(
    uniqueId = 'Virtual-1',
    { domid = 1, index = 0 }: { domid?: number; index?: number } = {},
  ): Promise<OutputConnector> {
    const info: ConnectorInfo = { domid: domId(domid), index, uniqueId, width: 640, height: 480 };
    return this.output.connect(info);
  }

  /** A buffer of the card's for a connected guest. */
  async dumb({ width = 640, height = 480 } = {}): Promise<LocalBuffer> {
    const request = { domid: domId(1), width, height, bitsPerPixel: 32, stride: width * 4 };
    const pages = Math.ceil((width * height * 4) / 4096);
    const memory = await this.output.allocate({ ...request, pages });
    assert(memory, 'no dumb buffer');
    return memory;
  }

  /** A dma-buf of another driver. */
  foreign(): DmaBuf {
    const fd = memfdCreate('foreign', context);
    ftruncate(fd, 640 * 480 * 4, context);
    this.#foreign.push(fd);
    return { pages: 300, contiguity: { kind: 'none', proof: 'a test' }, fd };
  }

  /** The monitors refresh, and their events are delivered. */
  async refresh(): Promise<void> {
    this.fake.refresh();
    await turns();
  }

  /** Lets `ms` of virtual time pass. */
  async pass(ms: number): Promise<void> {
    let over = false;
    this.runtime.after(ms, () => {
      over = true;
    });
    await this.runtime.runUntil(() => over, { what: `${ms} ms` });
  }

  /** Closes the output, refreshing as a monitor would, and asserts that nothing is left anywhere. */
  async close(...memory: LocalBuffer[]): Promise<void> {
    let closed = false;
    const closing = this.output[Symbol.asyncDispose]().then(() => {
      closed = true;
    });
    for (let i = 0; !closed && i < 20; i++) await this.refresh();
    if (!closed) await this.pass(2000);
    await closing;
    for (const one of memory) await one.free();
    for (const fd of this.#foreign) close(fd, context);
    const { framebuffers, imported, scannedOut, master } = this.fake;
    const removedWhileShown = this.masterWasLost ? 0 : this.fake.removedWhileShown;
    assert.deepEqual(
      { framebuffers: framebuffers.size, imported: imported.size, removedWhileShown },
      { framebuffers: 0, imported: 0, removedWhileShown: 0 },
    );
    assert.equal(scannedOut[0], CONSOLE_FRAMEBUFFER, 'the console is not back');
    assert.equal(master, false);
    assert.equal(this.card.buffers.handles, 0);
  }

  complaints(): string[] {
    return this.runtime.lines.filter((line) => JSON.parse(line).level >= 40);
  }
}

/** Turns of the event loop, enough for what became readable to be read. */
export async function turns(count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

export function pictureOf(
  memory: DmaBuf | undefined,
  { width = 640, height = 480, offset = 0 } = {},
): Picture {
  const stride = width * 4;
  return {
    width,
    height,
    stride,
    format: XRGB8888,
    memory,
    offset,
    get bytes(): Uint8Array {
      return new Uint8Array(stride * height);
    },
  };
}

/** Counts the completions of flips. */
export function counter(): { count: number; onFlipped: () => void } {
  const state = {
    count: 0,
    onFlipped: () => {
      state.count += 1;
    },
  };
  return state;
}
