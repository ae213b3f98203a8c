// The store on a Unix socket, for Debian's xenstore-utils and whatever else links libxenstore: they find it by the
// environment variable XENSTORED_PATH. Whoever may connect is the control domain, as with the real xenstored.

import { DOM0 } from '../../xen/ids.ts';
import { serveUnixSocket, type UnixServer } from '../unix-server.ts';
import type { Xenstored } from './server.ts';

/** Connections at a time; further ones are refused at once. */
const MAX_CONNECTIONS = 256;

export interface UnixListenerOptions {
  readonly server: Xenstored;
  readonly path: string;
}

/**
 * Serves the store on a Unix socket until the result is disposed.
 * @throws SysError EADDRINUSE when somebody serves that socket, EEXIST when the file is no socket
 */
export function listenOnUnixSocket({ server, path }: UnixListenerOptions): Promise<UnixServer> {
  return serveUnixSocket({
    path,
    what: 'xenstore',
    maxConnections: MAX_CONNECTIONS,
    accept: (channel) => server.accept({ channel, domid: DOM0 }),
  });
}
