// The hypervisor's side of a guest in a thread of its own: starts the thread, serves its hypercalls,
// wakes it, and ends it with the domain.
//
// Invariants: a guest's notifications and calls take effect in the order in which it made them; a message
// that is no hypercall crashes the domain; when the thread ends, by whatever cause, the domain does not
// run any more; the addresses of its memory are given back only after the thread has ended.

import assert from 'node:assert/strict';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { Logger } from '../../runtime/runtime.ts';
import type { GuestPlace } from '../guest.ts';
import type { HostedDomain } from '../hosted-domain.ts';
import type { HypercallWorld } from '../hypercalls.ts';
import { CallServer } from '../remote/call-server.ts';
import { Doorbell } from '../remote/doorbell.ts';
import { WAKE_UP } from '../remote/messages.ts';
import { checkMessage } from './check-message.ts';
import type { StartInfo, ToGuest } from './messages.ts';

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

export class GuestThread implements GuestPlace {
  /** They are addresses of this process, and the hypervisor revokes them. */
  readonly hasOwnViews = false;
  readonly #domain: HostedDomain;
  readonly #log: Logger;
  readonly #doorbell = Doorbell.memory();
  readonly #server: CallServer;
  readonly #port: MessagePort;
  readonly #worker: Worker;
  /** Resolves when the thread has ended. */
  readonly ended: Promise<void>;

  constructor({ world, domain, module, arguments: args, log }: GuestThreadOptions) {
    this.#domain = domain;
    this.#log = log;
    this.#server = new CallServer({ world, domain, log, doorbell: new Doorbell(this.#doorbell) });
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
    const mapping = storeRing?.window.mapping;
    assert(storeRing && mapping, `domain ${domid} has no xenstore ring`);
    const page = { address: mapping.address, pages: mapping.pages };
    return {
      domid,
      name,
      maxGrantFrames: limits.maxGrantFrames,
      maxExtentOrder: limits.maxExtentOrder,
      grantTable: { address: grants.mapping.address, pages: grants.mapping.pages },
      sharedInfo: { address: sharedInfo.address, pages: sharedInfo.pages },
      store: { page, port: storeRing.port },
      doorbell: this.#doorbell,
      hypervisor,
      logLevel: this.#log.level,
      arguments: args,
    };
  }

  /** The domain stops its processor, which ends the thread. */
  cutOff(): void {}

  #receive(message: unknown): void {
    try {
      this.#server.takeNotifications();
      if (message === WAKE_UP) return;
      const checked = checkMessage(message);
      if ('dropped' in checked) this.#dropped(checked.dropped);
      else this.#post(this.#server.answer(checked));
    } catch (error) {
      this.#crash(error);
    }
  }

  #dropped(windows: readonly number[]): void {
    for (const window of windows) this.#domain.space.viewDropped(window);
  }

  #post(message: ToGuest): void {
    this.#port.postMessage(message);
  }

  #crash(error: unknown): void {
    this.#server.crash(error, 'thread');
  }

  /** A thread that ended without having said so crashed. */
  #onExit(): void {
    this.#crash(new Error('it ended without shutting down'));
    this.#port.close();
    this.#domain.space.allViewsDropped();
  }
}
