// The hypercalls of a domain whose code runs in a process of its own: calls as messages over the machine's
// socket, notifications through the doorbell, memory by mapping the machine's frames here.
//
// Invariants:
// - A view is revoked (zero pages) before the call that closes its window goes out.
// - When the connection is lost or the domain is stopped, every view is revoked first; then all calls fail, those to
//   come included, the domain is told, and last the connection is closed: to the machine that says that we let go.
// - What waits to be sent is bounded: calls wait here while the machine does not read.

import { Mapping } from '../../posix/mapping.ts';
import { SysError } from '../../runtime/errors.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { DomId, Port } from '../../xen/ids.ts';
import type { VirtualCpu } from '../hosted-domain.ts';
import type {
  HypercallName,
  HypercallPort,
  HypercallRequest,
  HypercallResult,
  WindowRef,
} from '../hypercalls.ts';
import { mapFrames } from '../machine-memory.ts';
import { Doorbell } from '../remote/doorbell.ts';
import { WAKE_UP } from '../remote/messages.ts';
import { PendingCalls } from '../remote/pending-calls.ts';
import { Lookups } from './lookups.ts';
import type { MachineFile } from './machine-file.ts';
import type { MessageStream } from './message-stream.ts';
import type { ToProcess, Welcome } from './messages.ts';

/** What may wait for the machine before further calls wait for their turn. */
const MAX_PENDING_BYTES = 256 * 1024;

export interface ProcessPortOptions {
  readonly runtime: Runtime;
  readonly stream: MessageStream;
  /** The port owns it from now on. */
  readonly memory: MachineFile;
  readonly welcome: Welcome;
}

/** What a window shows, for when somebody looks. */
interface Shown {
  readonly frames: Uint32Array;
  readonly writable: boolean;
}

export class ProcessPort implements HypercallPort {
  readonly domid: DomId;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly grantTable: Uint8Array;
  readonly sharedInfo: Uint8Array;
  readonly store: { readonly page: Uint8Array; readonly port: Port };
  readonly lookups: Lookups;
  /** Resolves when nothing of the machine can be seen from here any more. */
  readonly ended: Promise<void>;
  readonly #runtime: Runtime;
  readonly #stream: MessageStream;
  readonly #memory: MachineFile;
  readonly #calls: PendingCalls;
  readonly #doorbell: Doorbell;
  readonly #grantMapping: Mapping;
  /** Everything of the machine that is mapped here, windows' views included. */
  readonly #mappings = new Set<Mapping>();
  readonly #windows = new Map<number, Shown>();
  readonly #views = new Map<number, Mapping>();
  #grantFrames: number;
  #cpu: VirtualCpu | undefined;
  #over = false;
  #tellEnded!: () => void;

  /** Takes the stream over. @throws SysError when the machine's pages cannot be mapped, with nothing left mapped */
  constructor({ runtime, stream, memory, welcome }: ProcessPortOptions) {
    this.#runtime = runtime;
    this.#stream = stream;
    this.#memory = memory;
    this.domid = welcome.domid;
    this.maxGrantFrames = welcome.maxGrantFrames;
    this.maxExtentOrder = welcome.maxExtentOrder;
    this.#grantFrames = welcome.grantFrames.length;
    try {
      this.sharedInfo = this.#mapPage(welcome.sharedInfoFrame);
      this.#grantMapping = this.#track(new Mapping(welcome.maxGrantFrames));
      memory.show(this.#grantMapping, welcome.grantFrames, { atPage: 0, writable: true });
      this.grantTable = this.#grantMapping.bytes;
      this.#doorbell = new Doorbell(this.#mapPage(welcome.doorbellFrame).buffer);
      const { frame, port } = welcome.store;
      this.store = { page: this.#mapPage(frame), port };
    } catch (error) {
      this.#revokeAll();
      memory[Symbol.dispose]();
      throw error;
    }
    const post = (message: unknown) => stream.send(message);
    const mayPost = () => stream.pendingBytes < MAX_PENDING_BYTES;
    this.#calls = new PendingCalls({ post, mayPost });
    this.lookups = new Lookups(post);
    this.ended = new Promise((resolve) => {
      this.#tellEnded = resolve;
    });
    stream.listen({
      onMessage: (message) => this.#receive(message as ToProcess),
      onClose: (reason) => this.#finish(connectionLost(reason)),
      onDrain: () => this.#calls.sendWaiting(),
    });
  }

  /** The domain does not run any more, or cannot be reached. */
  get over(): boolean {
    return this.#over;
  }

  async call<N extends HypercallName>(
    name: N,
    request: HypercallRequest<N>,
  ): Promise<HypercallResult<N>> {
    switch (name) {
      case 'populate':
        return this.#populate(request as HypercallRequest<'populate'>) as never;
      case 'openWindow':
        return this.#openWindow(request as HypercallRequest<'openWindow'>) as never;
      case 'mapGrants':
        return this.#mapGrants(request as HypercallRequest<'mapGrants'>) as never;
      case 'setupGrantTable':
        return this.#setupGrantTable(request as HypercallRequest<'setupGrantTable'>) as never;
      case 'closeWindow':
      case 'unmapGrants':
        this.#revoke((request as HypercallRequest<'closeWindow'>).window);
    }
    return this.#calls.call(name, request);
  }

  notify(port: Port): void {
    if (!this.#over && this.#doorbell.ring(port)) this.#stream.send(WAKE_UP);
  }

  view(window: WindowRef): Uint8Array {
    const view = this.#views.get(window.window);
    if (view) return view.bytes;
    const shown = this.#windows.get(window.window);
    return shown ? this.#show(window, shown).bytes : zeroPages(window.pages);
  }

  /** Nothing is mapped before somebody looks. */
  forgoView({ window }: WindowRef): void {
    this.#windows.delete(window);
  }

  run(cpu: VirtualCpu): void {
    this.#cpu = cpu;
    if (this.#over) this.#runtime.defer(() => cpu.stopped());
  }

  async #populate(request: HypercallRequest<'populate'>): Promise<HypercallResult<'populate'>> {
    const opened = await this.#calls.call('populate', request);
    this.#opened(opened, { frames: opened.frames, writable: true });
    return opened;
  }

  async #openWindow(request: HypercallRequest<'openWindow'>): Promise<WindowRef> {
    const frames = request.frames.slice();
    const opened = await this.#calls.call('openWindow', { frames });
    this.#opened(opened, { frames, writable: true });
    return opened;
  }

  /** The frames are asked for as if for devices: we map them ourselves. */
  async #mapGrants(request: HypercallRequest<'mapGrants'>): Promise<HypercallResult<'mapGrants'>> {
    const mapped = await this.#calls.call('mapGrants', { ...request, device: true });
    const { frames } = mapped;
    this.#opened(mapped, { frames, writable: request.writable });
    return request.device ? mapped : { ...mapped, frames: new Uint32Array(0) };
  }

  async #setupGrantTable(request: HypercallRequest<'setupGrantTable'>): Promise<Uint32Array> {
    const frames = await this.#calls.call('setupGrantTable', request);
    const atPage = this.#grantFrames;
    if (frames.length > atPage && !this.#over) {
      this.#memory.show(this.#grantMapping, frames.subarray(atPage), { atPage, writable: true });
      this.#grantFrames = frames.length;
    }
    return frames;
  }

  #opened({ window }: WindowRef, shown: Shown): void {
    if (!this.#over) this.#windows.set(window, shown);
  }

  /** @throws SysError ENOMEM */
  #show({ window }: WindowRef, shown: Shown): Mapping {
    const mapping = this.#track(mapFrames(this.#memory, shown.frames, shown.writable));
    this.#views.set(window, mapping);
    return mapping;
  }

  /** Before the machine is asked to close a window. @throws SysError, with the view as it was */
  #revoke(window: number): void {
    const view = this.#views.get(window);
    view?.[Symbol.dispose]();
    if (view) this.#mappings.delete(view);
    this.#views.delete(window);
    this.#windows.delete(window);
  }

  #receive(message: ToProcess): void {
    if (message === WAKE_UP) this.#cpu?.upcall();
    else if ('lookUp' in message) this.lookups.settle(message);
    else if ('id' in message) this.#calls.settle(message);
    else if ('over' in message) this.#finish(stopped(this.domid, message.over));
  }

  #finish(reason: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#revokeAll();
    this.#memory[Symbol.dispose]();
    this.#calls.fail(reason);
    this.lookups.fail(reason);
    this.#cpu?.stopped();
    this.#stream.close();
    this.#tellEnded();
  }

  #mapPage(frame: number): Uint8Array {
    return this.#track(mapFrames(this.#memory, Uint32Array.of(frame), true)).bytes;
  }

  #track(mapping: Mapping): Mapping {
    this.#mappings.add(mapping);
    return mapping;
  }

  /** Should this fail, the process ends by an uncaught exception, which takes the views away as well. */
  #revokeAll(): void {
    for (const mapping of this.#mappings) mapping[Symbol.dispose]();
    this.#mappings.clear();
    this.#views.clear();
    this.#windows.clear();
  }
}

/** What a window shows that is not there any more. */
function zeroPages(pages: number): Uint8Array {
  const mapping = new Mapping(pages);
  const { bytes } = mapping;
  mapping[Symbol.dispose]();
  return bytes;
}

function stopped(domid: DomId, over: string): SysError {
  const context = `domain ${domid} does not run any more (${over})`;
  return new SysError({ call: 'hypercall', errnoName: 'ESRCH', context });
}

function connectionLost(reason: Error | undefined): SysError {
  const context = `the connection to the machine was lost${reason ? `: ${reason.message}` : ''}`;
  return new SysError({ call: 'hypercall', errnoName: 'ECONNRESET', context });
}
