// The hypervisor's side of a guest in a thread of its own: starts the thread, serves its hypercalls,
// wakes it, and ends it with the domain.
//
// Invariants: a guest's notifications and calls take effect in the order in which it made them; a message
// that is no hypercall crashes the domain; when the thread ends, by whatever cause, the domain does not
// run any more; the addresses of its memory are given back only after the thread has ended.

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { messageOf, ProtocolViolation, SysError } from '../../runtime/errors.ts';
import type { Logger } from '../../runtime/runtime.ts';
import type { HostedDomain } from '../hosted-domain.ts';
import { type HypercallName, HypercallTable, type HypercallWorld } from '../hypercalls.ts';
import { notRunning } from '../local-port.ts';
import { checkMessage, checkRequest } from './check-request.ts';
import { Doorbell } from './doorbell.ts';
import { type CallMessage, type StartInfo, type ToGuest, WAKE_UP } from './messages.ts';

export interface GuestThreadOptions {
  readonly world: HypercallWorld;
  /** Made for another thread, with its xenstore ring. */
  readonly domain: HostedDomain;
  /** The guest's code; it begins with `enterGuest()`. */
  readonly module: URL;
  /** Handed to the guest's code; must be cloneable. */
  readonly arguments: unknown;
  readonly log: Logger;
}

export class GuestThread {
  readonly #world: HypercallWorld;
  readonly #domain: HostedDomain;
  readonly #calls: HypercallTable;
  readonly #log: Logger;
  readonly #doorbell = new Doorbell();
  readonly #port: MessagePort;
  readonly #worker: Worker;
  /** Resolves when the thread has ended. */
  readonly ended: Promise<void>;

  constructor({ world, domain, module, arguments: args, log }: GuestThreadOptions) {
    this.#world = world;
    this.#domain = domain;
    this.#calls = new HypercallTable(world, domain);
    this.#log = log;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.#worker = this.#start(module, { port: port2, args });
    port1.on('message', (message: unknown) => this.#receive(message));
    port1.on('messageerror', (error) => this.#crash(error));
    this.ended = new Promise((resolve) => {
      this.#worker.on('error', (error) => this.#crash(error));
      this.#worker.on('exit', () => {
        this.#onExit();
        resolve();
      });
    });
    domain.cpu = {
      upcall: () => this.#post(WAKE_UP),
      stopped: () => void this.#worker.terminate(),
    };
  }

  /** @throws DataCloneError when the arguments cannot be cloned */
  #start(module: URL, { port, args }: { port: MessagePort; args: unknown }): Worker {
    const { name } = this.#domain;
    try {
      const workerData = this.#startInfo(port, args);
      return new Worker(module, { workerData, transferList: [port], name });
    } catch (error) {
      // An open port would keep the process alive.
      this.#port.close();
      throw error;
    }
  }

  #startInfo(hypervisor: MessagePort, args: unknown): StartInfo {
    const { domid, name, limits, grants, sharedInfo, storeRing } = this.#domain;
    if (!storeRing) throw new Error(`domain ${domid} has no xenstore ring`);
    const { id, mapping } = storeRing.window;
    const page = { window: id, address: mapping.address, pages: mapping.pages };
    return {
      domid,
      name,
      maxGrantFrames: limits.maxGrantFrames,
      maxExtentOrder: limits.maxExtentOrder,
      grantTable: { address: grants.mapping.address, pages: grants.mapping.pages },
      sharedInfo: { address: sharedInfo.address, pages: sharedInfo.pages },
      store: { page, port: storeRing.port },
      doorbell: this.#doorbell.memory,
      hypervisor,
      logLevel: this.#log.level,
      arguments: args,
    };
  }

  #receive(message: unknown): void {
    if (this.#domain.state === 'running') this.#doorbell.take(this.#send);
    if (message === WAKE_UP) return;
    try {
      const checked = checkMessage(message);
      if ('dropped' in checked) this.#dropped(checked.dropped);
      else this.#answer(checked);
    } catch (error) {
      this.#crash(error);
    }
  }

  readonly #send = (port: Parameters<HostedDomain['ports']['send']>[0]) => {
    this.#domain.ports.send(port);
  };

  #dropped(windows: readonly number[]): void {
    for (const window of windows) this.#domain.space.viewDropped(window);
  }

  #answer({ call, id, request }: CallMessage): void {
    try {
      if (this.#domain.state !== 'running') throw notRunning(call, this.#domain);
      this.#post({ id, result: this.#execute(call, request) });
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      const { call: failed, errnoName, context, remedy } = error;
      const details = { call: failed, errnoName, context };
      this.#post({ id, error: remedy === undefined ? details : { ...details, remedy } });
    }
  }

  #execute<N extends HypercallName>(name: N, request: unknown): unknown {
    const call = this.#calls[name] as (checked: unknown) => unknown;
    return call.call(this.#calls, checkRequest(name, request));
  }

  #post(message: ToGuest): void {
    this.#port.postMessage(message);
  }

  #crash(error: unknown): void {
    const { domid, name, state } = this.#domain;
    if (state !== 'running') return;
    const violation = error instanceof ProtocolViolation;
    const reason = violation ? error.message : `its thread failed: ${messageOf(error)}`;
    this.#log.warn({ domid, name, reason }, 'a guest crashed');
    this.#world.shutdown(domid, 'crash');
  }

  /** A thread that ended without having said so crashed. */
  #onExit(): void {
    this.#crash(new Error('it ended without shutting down'));
    this.#port.close();
    this.#domain.space.allViewsDropped();
  }
}
