// Reading what the other end publishes, from a directory that may go away at any time.

import type { XenstoreAccess } from '../xenstore.ts';
import { isErrno } from '../xenstore-access.ts';

/**
 * The node's value, or undefined when it is not there. xenstored tells a domain that may not read the
 * parent either EACCES for a node that is missing, so for a peer's directory that is the same.
 */
export async function readPeerNode(
  store: Pick<XenstoreAccess, 'read'>,
  path: string,
): Promise<string | undefined> {
  return orAbsent(store.read(path));
}

/** The names in a directory, or undefined when it is not there. */
export async function listPeerNodes(
  store: Pick<XenstoreAccess, 'directory'>,
  path: string,
): Promise<string[] | undefined> {
  return orAbsent(store.directory(path));
}

async function orAbsent<T>(asked: Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (isErrno(error, 'EACCES')) return undefined;
    throw error;
  }
}
