// The guest's driver for the plain test device of page-device.ts, on our own half of the handshake.

import type { Scope } from '../../../src/runtime/scope.ts';
import type { SharedPages } from '../../../src/xen/domain.ts';
import type { FrontendDevice, FrontendDriver } from '../../../src/xen/xenbus/frontend-device.ts';
import { PAGE_DEVICE } from './page-device.ts';

export class PageFrontend implements FrontendDriver {
  readonly type = PAGE_DEVICE;
  page: SharedPages | undefined;
  connects = 0;
  failed: Error | undefined;
  /** Thrown by the next attempts to publish, in order. */
  readonly sabotage: Error[] = [];

  async publish(
    { domain, backendDomid: domid }: FrontendDevice,
    scope: Scope,
  ): Promise<Record<string, string>> {
    const failure = this.sabotage.shift();
    if (failure) throw failure;
    const page = scope.own(await domain.grants.share({ domid, pages: 1, writable: true }));
    const request = { remote: domid, handler: () => {} };
    const channel = scope.own(await domain.events.allocUnbound(request));
    this.page = page;
    scope.defer(() => {
      this.page = undefined;
    });
    return { 'page-ref': String(page.refs[0]), 'event-channel': String(channel.port) };
  }

  onConnected(): void {
    this.connects += 1;
  }

  onFailed(reason: Error): void {
    this.failed = reason;
  }

  /** Whether the backend has the page that is shared now. */
  get served(): boolean {
    return this.page?.bytes[0] === 1;
  }
}
