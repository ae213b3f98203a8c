// A PV device class for tests, as plain as can be: one page and one event channel. The backend's driver
// says in the page's first byte that it is connected, and keeps what it holds where tests can see it.

import { SysError } from '../../../src/runtime/errors.ts';
import type { Scope } from '../../../src/runtime/scope.ts';
import type { EventChannel, ForeignMapping } from '../../../src/xen/domain.ts';
import type { DomId } from '../../../src/xen/ids.ts';
import { DOM0 } from '../../../src/xen/ids.ts';
import type { BackendDevice, BackendDriver } from '../../../src/xen/xenbus/driver.ts';
import { parseGref, parsePort, required } from '../../../src/xen/xenbus/parse.ts';
import type { PvDevice } from '../../../src/xen/xenbus/toolstack.ts';

export const PAGE_DEVICE = 'vpage';

export function pageDevice(domid: DomId, devid = 0): PvDevice {
  return { backendDomid: DOM0, backendType: PAGE_DEVICE, domid, frontendType: PAGE_DEVICE, devid };
}

export interface PageConnection {
  readonly device: BackendDevice;
  readonly mapping: ForeignMapping;
  readonly channel: EventChannel;
}

export class PageBackend implements BackendDriver {
  readonly type = PAGE_DEVICE;
  readonly resumable: boolean;
  /** Connections that are open now. */
  readonly open = new Set<PageConnection>();
  connects = 0;
  announces = 0;
  /** Thrown by the next attempts to connect, in order. */
  readonly sabotage: Error[] = [];

  constructor({ resumable = false }: { resumable?: boolean } = {}) {
    this.resumable = resumable;
  }

  async announce(device: BackendDevice): Promise<void> {
    this.announces += 1;
    await device.writeBackend('feature-page', '1');
  }

  async connect(device: BackendDevice, scope: Scope): Promise<void> {
    const failure = this.sabotage.shift();
    if (failure) throw failure;
    const { domain, domid } = device.guest;
    const ref = parseGref(required(await device.readFrontend('page-ref'), 'page-ref'), 'page-ref');
    const node = required(await device.readFrontend('event-channel'), 'event-channel');
    const remotePort = parsePort(node, 'event-channel');
    const request = { domid, refs: [ref], writable: true };
    const mapping = scope.own(await domain.foreign.map(request));
    const channel = scope.own(
      await domain.events.bindInterdomain({ remote: domid, remotePort, handler: () => {} }),
    );
    const connection = { device, mapping, channel };
    mapping.bytes[0] = 1;
    this.connects += 1;
    this.open.add(connection);
    scope.defer(() => {
      mapping.bytes[0] = 0;
      this.open.delete(connection);
    });
  }

  get only(): PageConnection {
    const [connection, ...others] = this.open;
    if (!connection || others.length > 0) {
      throw new SysError({
        call: 'test',
        errnoName: 'EINVAL',
        context: `${this.open.size} connections where one is expected`,
      });
    }
    return connection;
  }
}
