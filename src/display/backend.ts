// The display backend: displif version 1 for any number of guests (xen/include/public/io/displif.h).
// The xenbus machinery says when a frontend comes and goes; here it gets a connection, whose connectors
// show on the given output.

import { XENDISPL_DRIVER_NAME, XENDISPL_FIELD_BE_VERSIONS } from '../abi/displif.ts';
import { SysError } from '../runtime/errors.ts';
import type { Scope } from '../runtime/scope.ts';
import type { DomId } from '../xen/ids.ts';
import type { BackendDevice, BackendDriver } from '../xen/xenbus/driver.ts';
import { Connection } from './connection.ts';
import type { Connector } from './connector.ts';
import type { ConnectorStatus } from './connector-status.ts';
import type { DisplayOutput } from './output.ts';
import { backendAllocates, VERSIONS } from './published.ts';

export interface DisplayBackendOptions {
  readonly output: DisplayOutput;
}

export class DisplayBackend implements BackendDriver {
  readonly type = XENDISPL_DRIVER_NAME;
  readonly #output: DisplayOutput;
  readonly #connections = new Map<Connection, BackendDevice>();

  constructor({ output }: DisplayBackendOptions) {
    this.#output = output;
  }

  async announce(device: BackendDevice): Promise<void> {
    if (await backendAllocates(device)) await this.#setAside(device);
    await device.writeBackend(XENDISPL_FIELD_BE_VERSIONS, VERSIONS.join(','));
  }

  async connect(device: BackendDevice, scope: Scope): Promise<void> {
    const connection = await Connection.open({ output: this.#output, device, scope });
    this.#connections.set(connection, device);
    scope.defer(() => {
      this.#connections.delete(connection);
    });
  }

  /** Makes the guest's pool before it connects (law 3). An output with memory of its own needs none. */
  async #setAside({ guest, log }: BackendDevice): Promise<void> {
    try {
      await guest.pool();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      log.warn({ reason: error.message }, 'no memory is set aside for buffers of this guest');
    }
  }

  /** The guest's connectors that are connected now, in order. */
  connectorsOf(domid: DomId): ConnectorStatus[] {
    const statuses: ConnectorStatus[] = [];
    for (const [connection, device] of this.#connections) {
      if (device.guest.domid !== domid) continue;
      for (const connector of connection.connectors) {
        statuses.push(statusOf(device.devid, connector));
      }
    }
    return statuses.sort((a, b) => a.devid - b.devid || a.connector - b.connector);
  }
}

function statusOf(devid: number, connector: Connector): ConnectorStatus {
  const { info, meter, output, scanout } = connector;
  const { picture } = scanout;
  return {
    devid,
    connector: info.index,
    uniqueId: info.uniqueId,
    width: picture?.width ?? info.width,
    height: picture?.height ?? info.height,
    format: picture?.format.name ?? null,
    flips: meter.flips,
    flipsPerSecond: meter.flipsPerSecond,
    flipLatencyMs: meter.latencyMs ?? null,
    bytesCopied: output.bytesCopied,
    path: output.path,
  };
}
