// Domain 0's kernel, for programs in processes of their own that can really be killed: it maps, binds and lends for
// them, and gives all of that back when their connection ends, as Linux does when it closes a dead program's files.
// What was lent and is still mapped stays, until the other domain lets go.

import assert from 'node:assert/strict';
import { GNTST_okay, gntstName } from '../../src/abi/grant-table.ts';
import type { GuestBuffer } from '../../src/hypervisor/guest-buffer.ts';
import { machineFileRef } from '../../src/hypervisor/process/machine-file.ts';
import { MessageStream } from '../../src/hypervisor/process/message-stream.ts';
import { serveUnixSocket } from '../../src/hypervisor/unix-server.ts';
import type { XenHost } from '../../src/hypervisor/xen-host.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { GrantMapError, type LentPages } from '../../src/xen/domain.ts';
import { DOM0, domId, gref, port } from '../../src/xen/ids.ts';
import type { GivenBack, MemoryPool } from '../../src/xen/memory.ts';
import type { PacedByteChannel } from '../../src/xen/xenstore.ts';
import type { Dom0Calls, FromKernel, Handle, ToKernel } from './dom0-wire.ts';

/** How often the kernel looks whether somebody still uses what a dead program had lent. */
const RETRY_MS = 20;
const GONE: GivenBack = { heldPages: 0, evidence: 'closed' };

/** What a program has. */
interface Held {
  /** Gives back what goes. */
  giveBack(): Promise<GivenBack>;
  readonly pool?: MemoryPool;
  readonly buffer?: GuestBuffer;
  readonly notify?: () => void;
  readonly unmask?: () => void;
}

/** Programs that are there, or of which something is still to be given back. */
export class Dom0Kernel {
  programs = 0;
  readonly #host: XenHost;

  constructor(host: XenHost) {
    this.#host = host;
  }

  listen(path: string): Promise<AsyncDisposable> {
    const accept = (channel: PacedByteChannel) => {
      this.programs += 1;
      new Files(this.#host, channel, () => {
        this.programs -= 1;
      });
    };
    return serveUnixSocket({ path, what: 'the kernel', maxConnections: 4, accept });
  }
}

/** The open files of one program. */
class Files implements Dom0CallsAsync {
  readonly #host: XenHost;
  readonly #stream: MessageStream;
  readonly #onClosed: () => void;
  readonly #held = new Map<Handle, Held>();
  #lastHandle = 0;
  #open = true;

  constructor(host: XenHost, channel: PacedByteChannel, onClosed: () => void) {
    this.#host = host;
    this.#onClosed = onClosed;
    this.#stream = new MessageStream(channel, {
      onMessage: (message) => this.#take(message as ToKernel),
      onClose: () => void this.#close(),
    });
    this.#say({ memory: machineFileRef(host.hypervisor.memory) });
  }

  /** Without a view of our own: the program makes one out of the frames. */
  async map({ domid, refs, writable }: Parameters<Dom0Calls['map']>[0]) {
    const xen = this.#host.hypervisor.enter(DOM0);
    const request = { domid: domId(domid), refs, writable, device: true, maxAreas: refs.length };
    const { window, statuses, frames } = await xen.call('mapGrants', request);
    const unmap = async () => {
      await xen.call('unmapGrants', { window });
      return GONE;
    };
    const index = statuses.findIndex((status) => status !== GNTST_okay);
    if (index < 0) return { handle: this.#hold({ giveBack: unmap }), frames };
    await unmap();
    const status = gntstName(statuses[index]!);
    throw new GrantMapError({ index, ref: gref(refs[index]!), status });
  }

  async bind({ remote, remotePort }: Parameters<Dom0Calls['bind']>[0]) {
    let unmask = () => {};
    const channel = await this.#host.dom0.events.bindInterdomain({
      remote: domId(remote),
      remotePort: port(remotePort),
      handler: () => {
        this.#say({ pending: handle });
        return new Promise<void>((resolve) => {
          unmask = resolve;
        });
      },
    });
    const giveBack = async () => {
      unmask();
      await channel[Symbol.asyncDispose]();
      return GONE;
    };
    const handle = this.#hold({
      giveBack,
      notify: () => channel.notify(),
      unmask: () => unmask(),
    });
    return { handle, port: channel.port };
  }

  async createPool({ domid, pages }: Parameters<Dom0Calls['createPool']>[0]) {
    const pool = await this.#host.dom0.memory.createPool({ domid: domId(domid), pages });
    const giveBack = async () => {
      await pool[Symbol.asyncDispose]();
      return GONE;
    };
    return { handle: this.#hold({ giveBack, pool }) };
  }

  async allocate({ pool, pages }: Parameters<Dom0Calls['allocate']>[0]) {
    const buffer = (await this.#held.get(pool)!.pool!.allocate(pages)) as GuestBuffer;
    const handle = this.#hold({ giveBack: () => buffer.free(), buffer });
    return { handle, frames: buffer.frames };
  }

  async lend({ buffer, domid, writable }: Parameters<Dom0Calls['lend']>[0]) {
    const lent: LentPages = await this.#host.dom0.grants.lend({
      buffer: this.#held.get(buffer)!.buffer!,
      domid: domId(domid),
      writable,
    });
    return { handle: this.#hold({ giveBack: () => lent.end() }), refs: lent.refs };
  }

  async giveBack({ handle }: Parameters<Dom0Calls['giveBack']>[0]) {
    const held = this.#held.get(handle);
    assert(held, `the program has no ${handle}`);
    const back = await held.giveBack();
    if (back.heldPages === 0) this.#held.delete(handle);
    return back;
  }

  #hold(held: Held): Handle {
    const handle = ++this.#lastHandle;
    this.#held.set(handle, held);
    // The program died while it asked for it.
    if (!this.#open) void this.#release(handle);
    return handle;
  }

  #take(message: ToKernel): void {
    if ('notify' in message) this.#held.get(message.notify)?.notify?.();
    else if ('unmask' in message) this.#held.get(message.unmask)?.unmask?.();
    else void this.#answer(message);
  }

  async #answer({ call, id, request }: Extract<ToKernel, { call: unknown }>): Promise<void> {
    try {
      this.#say({ id, result: await this[call](request as never) });
    } catch (error) {
      if (error instanceof GrantMapError) {
        const { index, status } = error;
        this.#say({ id, badGrant: { index, status } });
      } else {
        assert(error instanceof SysError, `${call}: ${error}`);
        const { errnoName, context } = error;
        this.#say({ id, error: { errnoName, context } });
      }
    }
  }

  #say(message: FromKernel): void {
    this.#stream.send(message);
  }

  /** The program is gone: last things first, as scopes do. */
  async #close(): Promise<void> {
    this.#open = false;
    const handles = [...this.#held.keys()].reverse();
    await Promise.all(handles.map((handle) => this.#release(handle)));
    this.#onClosed();
  }

  async #release(handle: Handle): Promise<void> {
    const { giveBack } = this.#held.get(handle)!;
    while ((await giveBack()).heldPages > 0) await sleep(this.#host.runtime, RETRY_MS);
    this.#held.delete(handle);
  }
}

type Dom0CallsAsync = {
  [Name in keyof Dom0Calls]: (
    request: Parameters<Dom0Calls[Name]>[0],
  ) => Promise<ReturnType<Dom0Calls[Name]>>;
};
