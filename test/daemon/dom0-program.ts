// Domain 0 as a program in a process of its own has it: what the kernel (dom0-kernel.ts) does for it over a socket,
// views of the machine's memory file, and xenstored's socket. The daemon runs on it as on /dev/xen/*.

import assert from 'node:assert/strict';
import { runsOf } from '../../src/hypervisor/frame-allocator.ts';
import { mapFrames } from '../../src/hypervisor/machine-memory.ts';
import { MachineFile } from '../../src/hypervisor/process/machine-file.ts';
import { MessageStream } from '../../src/hypervisor/process/message-stream.ts';
import type { MachineFileRef } from '../../src/hypervisor/process/messages.ts';
import type { Mapping } from '../../src/posix/mapping.ts';
import { SysError } from '../../src/runtime/errors.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import {
  type Domain,
  type EventChannel,
  type EventHandler,
  type ForeignMapping,
  GrantMapError,
  type LendRequest,
  type LentPages,
  type MapRequest,
} from '../../src/xen/domain.ts';
import { DOM0, type DomId, gref, type Port, port } from '../../src/xen/ids.ts';
import type { GivenBack, LocalBuffer, MemoryPool } from '../../src/xen/memory.ts';
import { connectUnixSocket } from '../../src/xen/socket-channel.ts';
import { unsupported } from '../../src/xen/unsupported.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';
import type { Dom0Call, Dom0Calls, FromKernel, Handle, ToKernel } from './dom0-wire.ts';

export interface Dom0Sockets {
  readonly kernel: string;
  readonly xenstored: string;
}

/** This process as a program in domain 0. @throws SysError as connect(2) */
export async function openDom0(
  runtime: Runtime,
  { kernel, xenstored }: Dom0Sockets,
): Promise<Domain & { readonly store: XenstoreClient }> {
  const calls = await KernelCalls.connect(kernel);
  const store = new XenstoreClient({ runtime, channel: await connectUnixSocket(xenstored) });
  const none = (what: string) => async (): Promise<never> => {
    throw unsupported(what, 'the daemon has no use for it');
  };
  const buffers = new WeakMap<LocalBuffer, Handle>();
  return {
    domid: DOM0,
    provider: 'hypervisor',
    store,
    foreign: { map: (request) => map(calls, request), export: none('export') },
    events: {
      bindInterdomain: (request) => calls.bind(request),
      allocUnbound: none('allocUnbound'),
    },
    grants: { share: none('share'), lend: (request) => lend(calls, buffers, request) },
    memory: {
      createPool: (request) => createPool(calls, buffers, request),
      allocate: none('allocate'),
      adopt: none('adopt'),
    },
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]();
      calls.close();
    },
  };
}

/** The connection to the kernel. */
class KernelCalls {
  readonly memory: MachineFile;
  readonly #stream: MessageStream;
  readonly #waiting = new Map<number, (answer: FromKernel & { id: number }) => void>();
  readonly #handlers = new Map<Handle, EventHandler>();
  /** Ports that were signalled before their handlers were known here. */
  readonly #early = new Set<Handle>();
  #lastId = 0;

  private constructor(stream: MessageStream, memory: MachineFile) {
    this.#stream = stream;
    this.memory = memory;
    stream.listen({
      onMessage: (message) => this.#take(message as FromKernel),
      onClose: (reason) => assert.equal(reason, undefined, 'the kernel is gone'),
    });
  }

  static async connect(path: string): Promise<KernelCalls> {
    const channel = await connectUnixSocket(path);
    return new Promise((resolve, reject) => {
      const stream: MessageStream = new MessageStream(channel, {
        onMessage: (message) => {
          const { memory } = message as { memory: MachineFileRef };
          resolve(new KernelCalls(stream, new MachineFile(memory)));
        },
        onClose: (reason) => reject(reason),
      });
    });
  }

  async call<Name extends Dom0Call>(
    call: Name,
    request: Parameters<Dom0Calls[Name]>[0],
  ): Promise<ReturnType<Dom0Calls[Name]>> {
    const id = ++this.#lastId;
    const answered = new Promise<FromKernel & { id: number }>((resolve) => {
      this.#waiting.set(id, resolve);
    });
    this.#say({ call, id, request });
    const answer = await answered;
    if ('error' in answer) throw new SysError({ call, ...answer.error });
    if ('badGrant' in answer) {
      const { index, status } = answer.badGrant;
      const ref = gref((request as { refs: Uint32Array }).refs[index]!);
      throw new GrantMapError({ index, ref, status });
    }
    return (answer as { result: ReturnType<Dom0Calls[Name]> }).result;
  }

  giveBack(handle: Handle): Promise<GivenBack> {
    return this.call('giveBack', { handle });
  }

  async bind({
    handler,
    remote,
    remotePort,
  }: {
    remote: DomId;
    remotePort: Port;
    handler: EventHandler;
  }): Promise<EventChannel> {
    const bound = await this.call('bind', { remote, remotePort });
    const { handle } = bound;
    this.#handlers.set(handle, handler);
    if (this.#early.delete(handle)) void this.#handle(handle, handler);
    let open = true;
    return {
      port: port(bound.port),
      notify: () => {
        if (open) this.#say({ notify: handle });
      },
      [Symbol.asyncDispose]: async () => {
        if (!open) return;
        open = false;
        this.#handlers.delete(handle);
        await this.giveBack(handle);
      },
    };
  }

  close(): void {
    this.#stream.close();
    this.memory[Symbol.dispose]();
  }

  #take(message: FromKernel): void {
    if ('pending' in message) this.#signalled(message.pending);
    else if ('id' in message) {
      this.#waiting.get(message.id)?.(message);
      this.#waiting.delete(message.id);
    }
  }

  #signalled(handle: Handle): void {
    const handler = this.#handlers.get(handle);
    if (handler === undefined) this.#early.add(handle);
    else void this.#handle(handle, handler);
  }

  async #handle(handle: Handle, handler: EventHandler): Promise<void> {
    await handler();
    this.#say({ unmask: handle });
  }

  #say(message: ToKernel): void {
    this.#stream.send(message);
  }
}

/** Frames in this process, mapped when somebody looks; revoked before the kernel hears of the end. */
class View {
  readonly #calls: KernelCalls;
  readonly #frames: Uint32Array;
  readonly #writable: boolean;
  #mapping: Mapping | undefined;
  #closed = false;

  constructor(calls: KernelCalls, frames: Uint32Array, writable: boolean) {
    this.#calls = calls;
    this.#frames = frames;
    this.#writable = writable;
  }

  get bytes(): Uint8Array {
    assert(!this.#closed, 'use of what was given back');
    this.#mapping ??= mapFrames(this.#calls.memory, this.#frames, this.#writable);
    return this.#mapping.bytes;
  }

  revoke(): void {
    this.#closed = true;
    this.#mapping?.[Symbol.dispose]();
  }
}

async function map(calls: KernelCalls, request: MapRequest): Promise<ForeignMapping> {
  const { domid, writable } = request;
  const refs = Uint32Array.from(request.refs);
  const { handle, frames } = await calls.call('map', { domid, refs, writable });
  const view = new View(calls, frames, writable);
  let unmapped: Promise<unknown> | undefined;
  return {
    domid,
    writable,
    pages: refs.length,
    areas: [...runsOf(frames)].length,
    get bytes() {
      return view.bytes;
    },
    [Symbol.asyncDispose]: async () => {
      view.revoke();
      unmapped ??= calls.giveBack(handle);
      await unmapped;
    },
  };
}

async function createPool(
  calls: KernelCalls,
  buffers: WeakMap<LocalBuffer, Handle>,
  request: { readonly domid: DomId; readonly pages: number },
): Promise<MemoryPool> {
  const pool = await calls.call('createPool', request);
  let lent = 0;
  const allocate = async (pages: number): Promise<LocalBuffer> => {
    const { handle, frames } = await calls.call('allocate', { pool: pool.handle, pages });
    lent += pages;
    const view = new View(calls, frames, true);
    let over = false;
    const buffer: LocalBuffer = {
      pages,
      contiguity: { kind: 'none', proof: 'out of a pool' },
      fd: undefined,
      get bytes() {
        return view.bytes;
      },
      free: async () => {
        view.revoke();
        if (over) return { heldPages: 0, evidence: 'grant table' };
        const back = await calls.giveBack(handle);
        over = back.heldPages === 0;
        if (over) lent -= pages;
        return back;
      },
    };
    buffers.set(buffer, handle);
    return buffer;
  };
  return {
    pages: request.pages,
    get freePages() {
      return request.pages - lent;
    },
    allocate,
    [Symbol.asyncDispose]: async () => void (await calls.giveBack(pool.handle)),
  };
}

async function lend(
  calls: KernelCalls,
  buffers: WeakMap<LocalBuffer, Handle>,
  { domid, writable, buffer }: LendRequest,
): Promise<LentPages> {
  const request = { buffer: buffers.get(buffer)!, domid, writable };
  const { handle, refs } = await calls.call('lend', request);
  let over = false;
  return {
    domid,
    writable,
    refs: refs.map(gref),
    end: async () => {
      if (over) return { heldPages: 0, evidence: 'grant table' };
      const back = await calls.giveBack(handle);
      over = back.heldPages === 0;
      return back;
    },
  };
}
