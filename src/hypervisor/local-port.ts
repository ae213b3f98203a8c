// The hypercalls of a domain whose code runs in this thread: dom0's backends, and guests in tests and in
// the simulation. Upcalls go through the runtime, so a virtual one decides when they come.

import assert from 'node:assert/strict';
import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { DomId, Port } from '../xen/ids.ts';
import type { HostedDomain, VirtualCpu } from './hosted-domain.ts';
import type {
  HypercallName,
  HypercallPort,
  HypercallRequest,
  HypercallResult,
  Hypercalls,
  WindowRef,
} from './hypercalls.ts';

export class LocalPort implements HypercallPort {
  readonly domid: DomId;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly #runtime: Runtime;
  readonly #domain: HostedDomain;
  readonly #calls: Hypercalls;

  constructor(runtime: Runtime, domain: HostedDomain, calls: Hypercalls) {
    this.#runtime = runtime;
    this.#domain = domain;
    this.#calls = calls;
    this.domid = domain.domid;
    this.maxGrantFrames = domain.limits.maxGrantFrames;
    this.maxExtentOrder = domain.limits.maxExtentOrder;
  }

  get grantTable(): Uint8Array {
    return this.#domain.grants.mapping.bytes;
  }

  get sharedInfo(): Uint8Array {
    return this.#domain.sharedInfo.bytes;
  }

  get store(): HypercallPort['store'] {
    const ring = this.#domain.storeRing;
    return ring && { page: this.view({ window: ring.window.id, pages: 1 }), port: ring.port };
  }

  async call<N extends HypercallName>(
    name: N,
    request: HypercallRequest<N>,
  ): Promise<HypercallResult<N>> {
    if (this.#domain.state !== 'running') throw notRunning(name, this.#domain);
    const call = this.#calls[name] as (request: HypercallRequest<N>) => HypercallResult<N>;
    return call.call(this.#calls, request);
  }

  notify(port: Port): void {
    if (this.#domain.state === 'running') this.#domain.ports.send(port);
  }

  view({ window }: WindowRef): Uint8Array {
    const open = this.#domain.space.get(window);
    assert(open?.mapping, `window ${window} is not open in this process`);
    return open.mapping.bytes;
  }

  /** Views of this thread's domains are the mapping's own, which knows of them. */
  forgoView(): void {}

  run(cpu: VirtualCpu): void {
    assert(!this.#domain.cpu, `domain ${this.domid} runs already`);
    const upcall = () => {
      if (this.#domain.state === 'running') cpu.upcall();
    };
    this.#domain.cpu = {
      upcall: () => this.#runtime.defer(upcall),
      stopped: () => cpu.stopped(),
      books: cpu.books,
    };
  }
}

/** The error of a call by a domain that does not run. */
export function notRunning(call: string, { domid, state }: HostedDomain): SysError {
  const context = `domain ${domid} does not run: it is ${state}`;
  return new SysError({ call, errnoName: 'ESRCH', context });
}
