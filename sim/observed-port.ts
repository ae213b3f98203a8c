// A domain's way to the hypervisor, with somebody who looks on: what is asked, what comes of it, and what is
// left of views when their windows are closed.

import type { VirtualCpu } from '../src/hypervisor/hosted-domain.ts';
import type {
  HypercallName,
  HypercallPort,
  HypercallRequest,
  HypercallResult,
  WindowRef,
} from '../src/hypervisor/hypercalls.ts';
import { isResident } from '../src/posix/libc.ts';
import { PAGE_SIZE } from '../src/posix/mapping.ts';
import type { DomId, Port } from '../src/xen/ids.ts';
import type { Findings } from './findings.ts';

/** Who looks on. */
export interface HypercallObserver {
  /** A domain is about to map. @returns for each reference whether the other domain's table permits it now */
  permitted(by: DomId, request: HypercallRequest<'mapGrants'>): readonly boolean[];
  /** A hypercall is over: what it was, whose, and whether it was done. */
  called(by: DomId, name: HypercallName, done: boolean): void;
}

export class ObservedPort implements HypercallPort {
  readonly domid: DomId;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly #port: HypercallPort;
  readonly #observer: HypercallObserver;
  readonly #findings: Findings;
  /** Of open windows that somebody looks at. */
  readonly #views = new Map<number, Uint8Array>();

  constructor(
    port: HypercallPort,
    { observer, findings }: { observer: HypercallObserver; findings: Findings },
  ) {
    this.domid = port.domid;
    this.maxGrantFrames = port.maxGrantFrames;
    this.maxExtentOrder = port.maxExtentOrder;
    this.#port = port;
    this.#observer = observer;
    this.#findings = findings;
  }

  get grantTable(): Uint8Array {
    return this.#port.grantTable;
  }

  get sharedInfo(): Uint8Array {
    return this.#port.sharedInfo;
  }

  get store(): HypercallPort['store'] {
    return this.#port.store;
  }

  async call<N extends HypercallName>(
    name: N,
    request: HypercallRequest<N>,
  ): Promise<HypercallResult<N>> {
    const permitted =
      name === 'mapGrants'
        ? this.#observer.permitted(this.domid, request as HypercallRequest<'mapGrants'>)
        : [];
    let done = false;
    try {
      const result = await this.#port.call(name, request);
      done = true;
      if (name === 'mapGrants') {
        this.#checkMapped(permitted, result as HypercallResult<'mapGrants'>);
      }
      if (name === 'unmapGrants' || name === 'closeWindow') {
        this.#checkRevoked((request as HypercallRequest<'closeWindow'>).window);
      }
      return result;
    } finally {
      this.#observer.called(this.domid, name, done);
    }
  }

  notify(port: Port): void {
    this.#port.notify(port);
  }

  view(window: WindowRef): Uint8Array {
    const bytes = this.#port.view(window);
    this.#views.set(window.window, bytes);
    return bytes;
  }

  forgoView(window: WindowRef): void {
    this.#port.forgoView(window);
  }

  run(cpu: VirtualCpu): void {
    this.#port.run(cpu);
  }

  #checkMapped(permitted: readonly boolean[], { statuses }: HypercallResult<'mapGrants'>): void {
    for (const [index, status] of statuses.entries()) {
      if (status !== 0 || permitted[index]) continue;
      const detail = () => `domain ${this.domid} mapped grant number ${index} of its request`;
      this.#findings.hold(false, 'page-readable-without-grant', detail);
    }
  }

  /**
   * Who still holds a view of a closed window must see zeros: private memory that nobody has touched. The kernel is
   * asked for that, as looking would touch it, and the kernel would flush every processor's TLB when the view is gone.
   */
  #checkRevoked(window: number): void {
    const bytes = this.#views.get(window);
    this.#views.delete(window);
    if (bytes === undefined) return;
    for (const at of new Set([0, bytes.length - PAGE_SIZE])) {
      const page = bytes.subarray(at, at + PAGE_SIZE);
      const revoked = !isResident(page, { context: 'looking for what a closed window shows' });
      const detail = () => `window ${window} of domain ${this.domid}, page ${at / PAGE_SIZE}`;
      this.#findings.hold(revoked, 'view-of-closed-window', detail);
    }
  }
}
