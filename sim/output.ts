// The output of the daemon in a simulation: screens as they are, and around them hardware and drivers that are
// late, refuse, and go on reading what is taken away from them.
//
// Invariant: a flip is completed once, and at the latest when the connector shows something else; a picture is
// read until `retire` has resolved, and what is read then is still the guest's.

import { PAGE_SIZE } from '../src/abi/page.ts';
import type {
  ConnectorInfo,
  OutputBufferRequest,
  OutputConnector,
  Picture,
} from '../src/display/output.ts';
import { BrowserOutput } from '../src/outputs/browser/browser-output.ts';
import type { OutputStatus } from '../src/outputs/output-status.ts';
import type { Screen } from '../src/outputs/screen.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../src/outputs/screen-output.ts';
import { type Runtime, sleep } from '../src/runtime/runtime.ts';
import type { DomId } from '../src/xen/ids.ts';
import type { ContiguityKind, LocalBuffer, Memory } from '../src/xen/memory.ts';
import { lacking } from './errors.ts';
import type { Faults } from './faults.ts';
import type { Findings } from './findings.ts';

/** How late a flip is, in milliseconds; and how long a reader stays, and a connector takes to close. */
const LATE_MS = [1, 300] as const;
const READING_MS = [1, 6000] as const;
const STUCK_MS = [1000, 5000] as const;

export interface SimOutputOptions {
  readonly faults: Faults;
  readonly findings: Findings;
  /** Whether a guest keeps the rules: what others do to a picture while it is read is their own business. */
  readonly keepsRules: (domid: DomId) => boolean;
  /** Whether the output hands pictures to drivers. */
  readonly importsBuffers: boolean;
  readonly outputMemory: OutputMemory;
  /** Of its domain. */
  readonly memory: Memory;
}

/** What an output has for guests whose buffers the backend allocates: nothing, any memory, or such as its device needs. */
export type OutputMemory = 'none' | 'any' | 'consecutive';

export class SimOutput implements ScreenOutput {
  readonly importsBuffers: boolean;
  readonly contiguity: ContiguityKind;
  readonly #memory: Memory | undefined;
  readonly #browser: BrowserOutput;
  readonly #runtime: Runtime;
  readonly #faults: Faults;
  readonly #findings: Findings;
  readonly #keepsRules: (domid: DomId) => boolean;

  constructor(options: ScreenOutputOptions, sim: SimOutputOptions) {
    this.#browser = new BrowserOutput(options);
    this.#runtime = options.runtime;
    this.#faults = sim.faults;
    this.#findings = sim.findings;
    this.#keepsRules = sim.keepsRules;
    this.importsBuffers = sim.importsBuffers;
    this.contiguity = sim.outputMemory === 'consecutive' ? 'host' : 'none';
    this.#memory = sim.outputMemory === 'none' ? undefined : sim.memory;
  }

  async connect(info: ConnectorInfo): Promise<OutputConnector> {
    if (this.#faults.strikes('output-refused')) throw lacking('connecting an output', 'EIO');
    const screen = await this.#browser.connect(info);
    return new SimConnector(screen, {
      runtime: this.#runtime,
      faults: this.#faults,
      findings: this.#findings,
      judged: this.#keepsRules(info.domid),
      importsBuffers: this.importsBuffers,
    });
  }

  /** Now and then it has none, or what its own device cannot use. */
  async allocate({ pages }: OutputBufferRequest): Promise<LocalBuffer | undefined> {
    if (this.#memory === undefined || this.#faults.strikes('output-refused')) return undefined;
    const fitting = !this.#faults.strikes('output-refused');
    return this.#memory.allocate({ pages, contiguity: fitting ? this.contiguity : 'none' });
  }

  get screens(): Iterable<Screen> {
    return this.#browser.screens;
  }

  screen(domid: ConnectorInfo['domid'], connector: number): Screen | undefined {
    return this.#browser.screen(domid, connector);
  }

  status(): OutputStatus {
    return this.#browser.status();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#browser[Symbol.asyncDispose]();
  }
}

interface ConnectorParts {
  readonly runtime: Runtime;
  readonly faults: Faults;
  readonly findings: Findings;
  /** Whether its guest's pictures are what that guest drew. */
  readonly judged: boolean;
  readonly importsBuffers: boolean;
}

class SimConnector implements OutputConnector {
  readonly path = 'browser';
  readonly #screen: Screen;
  readonly #runtime: Runtime;
  readonly #faults: Faults;
  readonly #findings: Findings;
  readonly #judged: boolean;
  readonly #importsBuffers: boolean;
  #complete: () => void = () => {};
  #closed = false;

  constructor(screen: Screen, parts: ConnectorParts) {
    this.#screen = screen;
    this.#runtime = parts.runtime;
    this.#faults = parts.faults;
    this.#findings = parts.findings;
    this.#judged = parts.judged;
    this.#importsBuffers = parts.importsBuffers;
  }

  get bytesCopied(): number {
    return this.#screen.bytesCopied;
  }

  show(picture: Picture | undefined): void {
    this.#complete();
    if (picture !== undefined) this.#import(picture);
    this.#screen.show(picture);
  }

  flip(picture: Picture, onFlipped: () => void): void {
    let open = true;
    const complete = () => {
      if (open && !this.#closed) {
        open = false;
        onFlipped();
      }
    };
    this.#complete = complete;
    this.#import(picture);
    this.#screen.flip(picture, () => {
      if (!this.#faults.strikes('flip-late')) return complete();
      this.#runtime.after(this.#faults.measure('flip-late', ...LATE_MS), complete);
    });
  }

  /** As an output does that hands pictures to its driver: all that it is to read lies in the memory. */
  #import({ memory, offset, bytes }: Picture): void {
    if (!this.#importsBuffers || memory === undefined) return;
    const fits = offset + bytes.length <= memory.pages * PAGE_SIZE;
    this.#findings.hold(fits, 'foreign-picture', () => {
      return `${bytes.length} bytes from ${offset} on in a dma-buf of ${memory.pages} pages`;
    });
  }

  async retire(picture: Picture): Promise<void> {
    await this.#screen.retire(picture);
    if (!this.#faults.strikes('reader-slow')) return;
    const { bytes } = picture;
    const isThere = () => bytes.some((byte) => byte !== 0);
    const before = isThere();
    await sleep(this.#runtime, this.#faults.measure('reader-slow', ...READING_MS));
    // Nobody waits for readers of a connector that is being closed.
    const still = this.#closed || !this.#judged || !before || isThere();
    this.#findings.hold(
      still,
      'output-reads-late',
      () => `a picture of domain ${this.#screen.info.domid} is gone`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.#screen[Symbol.asyncDispose]();
    if (!this.#faults.strikes('output-stuck')) return;
    await sleep(this.#runtime, this.#faults.measure('output-stuck', ...STUCK_MS));
  }
}

/** The first pixel that a screen shows; undefined while it shows nothing. */
export function firstPixel({ shown }: Screen): number | undefined {
  const bytes = shown?.bytes;
  return bytes && (bytes[0]! | (bytes[1]! << 8) | (bytes[2]! << 16) | (bytes[3]! << 24)) >>> 0;
}
