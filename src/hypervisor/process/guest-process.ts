// The machine's side of a domain whose code runs in another process: serves its hypercalls and look-ups,
// wakes it, and ends with it.
//
// Invariants: when the connection ends, by whatever cause, the domain does not run any more; a message that
// breaks the rules crashes the domain, and no other; when the domain is over the process is told, and
// what it may still look at is not given to anybody before it has closed the connection, or died. What waits
// for a process that does not read is bounded: further requests of it are not taken meanwhile.

import assert from 'node:assert/strict';
import { DOMID_XEN } from '../../abi/xen.ts';
import type { Mapping } from '../../posix/mapping.ts';
import { SysError } from '../../runtime/errors.ts';
import type { Runtime, Timer } from '../../runtime/runtime.ts';
import type { DomainNames } from '../domain-names.ts';
import type { GuestPlace } from '../guest.ts';
import type { HostedDomain } from '../hosted-domain.ts';
import type { HypercallWorld } from '../hypercalls.ts';
import { mapFrames } from '../machine-memory.ts';
import { CallServer } from '../remote/call-server.ts';
import { Doorbell } from '../remote/doorbell.ts';
import { WAKE_UP } from '../remote/messages.ts';
import { machineFileRef } from './machine-file.ts';
import type { MessageStream } from './message-stream.ts';
import { checkFromProcess, type FromProcess, type ToProcess, type Welcome } from './messages.ts';
import { NameServer } from './name-server.ts';

/** What may wait for the process before its next request is taken. */
const MAX_PENDING_BYTES = 64 * 1024;
/** How long a process may look at a domain that is over before somebody is told. */
const LET_GO_PATIENCE_MS = 5_000;

export interface GuestProcessOptions {
  readonly world: HypercallWorld;
  /** Made for another process, with its xenstore ring. */
  readonly domain: HostedDomain;
  readonly names: DomainNames;
  readonly stream: MessageStream;
  readonly runtime: Runtime;
}

export class GuestProcess implements GuestPlace {
  readonly hasOwnViews = true;
  readonly ended: Promise<void>;
  readonly #world: HypercallWorld;
  readonly #domain: HostedDomain;
  readonly #stream: MessageStream;
  readonly #runtime: Runtime;
  readonly #server: CallServer;
  readonly #names: NameServer;
  readonly #doorbell: { readonly frames: Uint32Array; readonly mapping: Mapping };
  #tellEnded!: () => void;
  /** A wake-up waits on our side: another one would say no more. */
  #wakeUpWaits = false;
  #patience: Timer | undefined;

  /** Takes the stream over and welcomes the process. @throws SysError ENOMEM */
  constructor({ world, domain, names, stream, runtime }: GuestProcessOptions) {
    this.#world = world;
    this.#domain = domain;
    this.#stream = stream;
    this.#runtime = runtime;
    this.#doorbell = makeDoorbell(world);
    const doorbell = new Doorbell(this.#doorbell.mapping.bytes.buffer);
    this.#server = new CallServer({ world, domain, doorbell, log: runtime.log });
    this.#names = new NameServer({ names, send: (answer) => this.#send(answer) });
    this.ended = new Promise((resolve) => {
      this.#tellEnded = resolve;
    });
    domain.cpu = { upcall: () => this.#wake(), stopped: () => this.#over() };
    stream.listen({
      onMessage: (message) => this.#receive(message),
      onClose: (reason) => this.#onClose(reason),
      onDrain: () => this.#onDrain(),
    });
    this.#send({ welcome: this.#welcome() });
  }

  cutOff(): void {
    this.#stream.close();
  }

  #welcome(): Welcome {
    const { domid, limits, grants, sharedInfoFrame, storeRing } = this.#domain;
    assert(storeRing, `domain ${domid} has no xenstore ring`);
    return {
      domid,
      maxGrantFrames: limits.maxGrantFrames,
      maxExtentOrder: limits.maxExtentOrder,
      memory: machineFileRef(this.#world.memory),
      sharedInfoFrame: sharedInfoFrame[0]!,
      doorbellFrame: this.#doorbell.frames[0]!,
      grantFrames: grants.frames,
      store: { frame: storeRing.window.frames[0]!, port: storeRing.port },
    };
  }

  #receive(message: unknown): void {
    try {
      this.#server.takeNotifications();
      if (message !== WAKE_UP) this.#take(checkFromProcess(message));
    } catch (error) {
      this.#server.crash(error, 'process');
    }
    if (this.#stream.pendingBytes > MAX_PENDING_BYTES) this.#stream.pause();
  }

  /** @throws ProtocolViolation */
  #take(message: FromProcess): void {
    if ('call' in message) this.#send(this.#server.answer(message));
    else if ('forget' in message) this.#names.forget(message.forget);
    else this.#names.lookUp(message);
  }

  #wake(): void {
    if (this.#wakeUpWaits) return;
    this.#send(WAKE_UP);
    this.#wakeUpWaits = this.#stream.pendingBytes > 0;
  }

  #onDrain(): void {
    this.#wakeUpWaits = false;
    this.#stream.resume();
  }

  #send(message: ToProcess): void {
    this.#stream.send(message);
  }

  /** The domain does not run any more: the process has to let go of its memory. */
  #over(): void {
    const { domid, name, shutdownReason: reason = 'destroyed' } = this.#domain;
    this.#names.close();
    this.#send({ over: reason });
    this.#patience = this.#runtime.after(LET_GO_PATIENCE_MS, () => {
      const { log } = this.#runtime;
      log.warn({ domid, name }, 'a process keeps the memory of a domain that is over');
    });
  }

  /** A process that left without having said so crashed. */
  #onClose(reason: Error | undefined): void {
    this.#server.crash(reason ?? new SysError(CUT_OFF), 'connection');
    this.#patience?.cancel();
    this.#names.close();
    this.#doorbell.mapping[Symbol.dispose]();
    this.#world.memory.relinquish(DOMID_XEN, this.#doorbell.frames);
    this.#tellEnded();
  }
}

const CUT_OFF = { call: 'close', errnoName: 'ECONNABORTED', context: 'the machine closed it' };

/** A page of the hypervisor's own that the process rings in. @throws SysError ENOMEM */
function makeDoorbell({ memory }: HypercallWorld): { frames: Uint32Array; mapping: Mapping } {
  const frames = memory.allocate(DOMID_XEN, 1);
  if (!frames) {
    const context = 'a doorbell for a process, where the machine has no page free';
    throw new SysError({ call: 'domctl createdomain', errnoName: 'ENOMEM', context });
  }
  try {
    return { frames, mapping: mapFrames(memory, frames, true) };
  } catch (error) {
    memory.relinquish(DOMID_XEN, frames);
    throw error;
  }
}
