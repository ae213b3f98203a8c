// A xenstored and its clients in one process, under a virtual runtime.

import type { Quotas } from '../../../src/hypervisor/xenstored/quotas.ts';
import { Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import { type DomId, domId } from '../../../src/xen/ids.ts';
import { bytePipe } from '../../../src/xen/pipe.ts';
import { XenstoreClient } from '../../../src/xen/xenstore-client.ts';

export class World {
  readonly runtime: VirtualRuntime;
  readonly server: Xenstored;

  constructor(seed: number, quotas?: Quotas) {
    this.runtime = new VirtualRuntime(seed);
    const { runtime } = this;
    this.server = new Xenstored(quotas ? { runtime, quotas } : { runtime });
  }

  /** A new connection of a domain, which is introduced when it is not yet. */
  client(number: number): XenstoreClient {
    const domid: DomId = domId(number);
    this.server.introduceDomain(domid);
    const [channel, serverEnd] = bytePipe(this.runtime);
    this.server.accept({ channel: serverEnd, domid });
    return new XenstoreClient({ runtime: this.runtime, channel });
  }

  /** What the promise gives, running the world until it does. */
  async run<T>(promise: PromiseLike<T>): Promise<T> {
    let settled = false;
    const watched = Promise.resolve(promise).finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    await this.runtime.runUntil(() => settled, {
      what: 'the promise settles',
      maxSteps: 1_000_000,
    });
    return watched;
  }

  /** Runs until nothing is left to do. */
  async idle(): Promise<void> {
    while (await this.runtime.step());
  }
}
