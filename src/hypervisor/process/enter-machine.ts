// How a program becomes a domain of a machine that runs in another process of the same user (`xen-zcopy demo
// --machine PATH`, or `listenForGuests` in a program of one's own):
//
//   const alice = await enterMachine({ runtime, path: '/tmp/xen.sock', name: 'alice' });
//   const domid = await alice.resolve('bob', { wait: true });
//   const shared = await alice.domain.grants.share({ domid, pages: 4, writable: false });
//   ...
//   await alice[Symbol.asyncDispose]();
//
// `alice.domain` is a `Domain` like any other: pages are really shared (each process maps the machine's memory
// file), events and hypercalls go over the socket. `alice.domain.stopped` aborts when the domain is over or the
// machine cannot be reached any more; then every view reads zeros, and every call fails with a SysError.
//
// Invariants: a process that dies or is stopped has left; an open domain keeps the process alive until it leaves.

import { SysError, type SysErrorDetails } from '../../runtime/errors.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { DomId } from '../../xen/ids.ts';
import { connectUnixSocket } from '../../xen/socket-channel.ts';
import type { PacedByteChannel } from '../../xen/xenstore.ts';
import { GuestDomain } from '../guest-domain.ts';
import { connectToStore } from '../store-ring.ts';
import type { ResolveOptions } from './lookups.ts';
import { MachineFile } from './machine-file.ts';
import { MessageStream } from './message-stream.ts';
import { PROTOCOL_VERSION, type Welcome } from './messages.ts';
import { ProcessPort } from './process-port.ts';

/** How long the machine may take to make a domain of us. */
const WELCOME_PATIENCE_MS = 10_000;

const NO_MACHINE_REMEDY = 'start the machine first: xen-zcopy demo --machine PATH';

export interface EnterOptions {
  readonly runtime: Runtime;
  /** Of the machine's socket. */
  readonly path: string;
  /** Of the domain: no running domain may have it. */
  readonly name: string;
}

/** A domain of the machine that this process is. */
export class EnteredMachine implements AsyncDisposable {
  readonly name: string;
  readonly domain: GuestDomain;
  readonly #port: ProcessPort;
  #left: Promise<void> | undefined;

  constructor({ name, domain, port }: { name: string; domain: GuestDomain; port: ProcessPort }) {
    this.name = name;
    this.domain = domain;
    this.#port = port;
  }

  /**
   * The number of the running domain that has a name; `Domain-0` is one.
   * @throws SysError ESRCH when there is none, or when our own domain is over; the signal's reason when it aborts
   */
  resolve(name: string, options: ResolveOptions = {}): Promise<DomId> {
    return this.#port.lookups.resolve(name, options);
  }

  /** Gives back everything, and leaves the machine. What others still map of ours stays until they let go. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#left ??= this.#leave();
    return this.#left;
  }

  async #leave(): Promise<void> {
    try {
      await this.domain[Symbol.asyncDispose]();
      await this.#port.call('shutdown', { reason: 'poweroff' });
    } catch (error) {
      // A domain that is over has nothing left to give back.
      if (!this.#port.over) throw error;
    }
    await this.#port.ended;
  }
}

/**
 * Enters a machine as a domain of its own.
 * @throws SysError as connect(2); EEXIST when the name is taken, EINVAL when it cannot be one, EUSERS when too many
 *   are in, EPROTO when the other side is no machine that we understand; ETIMEDOUT, ECONNRESET
 */
export async function enterMachine({ runtime, path, name }: EnterOptions): Promise<EnteredMachine> {
  const channel = await connect(path);
  try {
    const { stream, welcome } = await enter(runtime, channel, { path, name });
    const memory = new MachineFile(welcome.memory);
    const port = new ProcessPort({ runtime, stream, memory, welcome });
    const domain = new GuestDomain({
      port,
      runtime,
      connectStore: (events) => connectToStore(port, { runtime, events }),
    });
    stream.resume();
    return new EnteredMachine({ name, domain, port });
  } catch (error) {
    channel.close();
    throw error;
  }
}

async function connect(path: string): Promise<PacedByteChannel> {
  try {
    return await connectUnixSocket(path);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const { call, errnoName, context } = error;
    throw new SysError({ call, errnoName, context, remedy: NO_MACHINE_REMEDY });
  }
}

/** Says who we are. @returns the stream, paused behind the machine's welcome */
function enter(
  runtime: Runtime,
  channel: PacedByteChannel,
  { path, name }: { path: string; name: string },
): Promise<{ stream: MessageStream; welcome: Welcome }> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) => {
      tooLate.cancel();
      reject(error);
    };
    const tooLate = runtime.after(WELCOME_PATIENCE_MS, () => {
      fail(notEntered('ETIMEDOUT', `${path} does not answer`));
    });
    const stream = new MessageStream(channel, {
      onMessage: (message) => {
        stream.pause();
        tooLate.cancel();
        const answer = message as Partial<Record<string, unknown>>;
        if (answer.welcome) resolve({ stream, welcome: answer.welcome as Welcome });
        else if (answer.refused) fail(new SysError(answer.refused as SysErrorDetails));
        else fail(notEntered('EPROTO', `${path} is no machine`));
      },
      onClose: (reason) => {
        const why = reason ? `: ${reason.message}` : '';
        fail(notEntered('ECONNRESET', `${path} closed the connection${why}`));
      },
    });
    stream.send({ enter: name, version: PROTOCOL_VERSION });
  });
}

function notEntered(errnoName: string, detail: string): SysError {
  const context = `entering a machine: ${detail}`;
  return new SysError({ call: 'enter', errnoName, context, remedy: NO_MACHINE_REMEDY });
}
