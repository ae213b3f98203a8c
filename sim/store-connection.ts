// A program's own connection to xenstored: closed by its kernel when it dies, and broken by fate.

import type { XenHost } from '../src/hypervisor/xen-host.ts';
import type { Runtime } from '../src/runtime/runtime.ts';
import type { DomId } from '../src/xen/ids.ts';
import { bytePipe } from '../src/xen/pipe.ts';
import { XenstoreClient } from '../src/xen/xenstore-client.ts';
import type { Program } from './program.ts';

export interface StoreConnection {
  readonly store: XenstoreClient;
  /** Xenstored is gone, as far as this connection can tell. */
  sever(): void;
}

/** Connects `program`, which runs in `domid`, in the world's time. */
export function connectStore(
  { runtime, host }: { readonly runtime: Runtime; readonly host: XenHost },
  { program, domid }: { readonly program: Program; readonly domid: DomId },
): StoreConnection {
  const [client, server] = bytePipe(runtime);
  host.xenstored.accept({ channel: server, domid });
  const store = new XenstoreClient({ runtime: program, channel: client });
  const release = async () => {
    await store[Symbol.asyncDispose]();
    return true;
  };
  program.keep({ file: true, release });
  return { store, sever: () => server.close() };
}
