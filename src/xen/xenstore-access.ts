// Reading and writing nodes, inside or outside of a transaction, as messages to a xenstored
// (docs/misc/xenstore.txt of the Xen tree, "Database read, write and permissions operations").

import assert from 'node:assert/strict';
import {
  XENSTORE_PAYLOAD_MAX,
  XS_DIRECTORY,
  XS_DIRECTORY_PART,
  XS_GET_PERMS,
  XS_MKDIR,
  XS_READ,
  XS_RM,
  XS_SET_PERMS,
  XS_WRITE,
} from '../abi/xs-wire.ts';
import { SysError } from '../runtime/errors.ts';
import type { XenstoreAccess, XenstorePermission } from './xenstore.ts';
import { formatPermission, parsePermission } from './xenstore-permission.ts';
import type { XenstoreRequest, XenstoreRequests } from './xenstore-requests.ts';
import { decodeStrings, type PayloadPart } from './xenstore-wire.ts';

/** How often a long listing starts again because the directory changed between its parts. */
const MAX_LISTING_ATTEMPTS = 16;
/** Parts of one listing: more than any quota allows, with parts at least half full. */
const MAX_LISTING_PARTS = 4096;

/** What is asked, in words as well, of which node, and what follows the path. */
type AboutNode = [type: number, what: string, path: string, ...rest: PayloadPart[]];

export class RequestAccess implements XenstoreAccess {
  readonly #requests: XenstoreRequests;
  readonly #transactionId: number;
  #ended = false;

  constructor(requests: XenstoreRequests, transactionId: number) {
    this.#requests = requests;
    this.#transactionId = transactionId;
  }

  /** From now on every use is a bug: the server may give the transaction's number to another one. */
  end(): void {
    this.#ended = true;
  }

  async read(path: string): Promise<string | undefined> {
    const payload = await this.#look(XS_READ, 'reading', path);
    return payload?.toString();
  }

  async directory(path: string): Promise<string[] | undefined> {
    try {
      const payload = await this.#look(XS_DIRECTORY, 'listing', path);
      return payload && decodeStrings(payload);
    } catch (error) {
      if (!isErrno(error, 'E2BIG')) throw error;
      return orUndefined(this.#longDirectory(path));
    }
  }

  async write(path: string, value: string): Promise<void> {
    await this.#request(XS_WRITE, 'writing', path, Buffer.from(value));
  }

  async mkdir(path: string): Promise<void> {
    await this.#request(XS_MKDIR, 'making', path);
  }

  async remove(path: string): Promise<void> {
    await this.#look(XS_RM, 'removing', path);
  }

  async getPermissions(path: string): Promise<XenstorePermission[]> {
    const what = 'reading the permissions of';
    return decodeStrings(await this.#request(XS_GET_PERMS, what, path)).map((text) => {
      const permission = parsePermission(text);
      if (permission) return permission;
      const context = `${what} ${path}: not a permission: ${JSON.stringify(text)}`;
      throw new SysError({ call: 'XS_GET_PERMS', errnoName: 'EINVAL', context });
    });
  }

  async setPermissions(path: string, permissions: readonly XenstorePermission[]): Promise<void> {
    const texts = permissions.map((permission) => `${formatPermission(permission)}\0`);
    await this.#request(XS_SET_PERMS, 'setting the permissions of', path, ...texts);
  }

  /** A listing that does not fit into one message: part after part, again when it changed between. */
  async #longDirectory(path: string): Promise<string[]> {
    for (let attempt = 0; attempt < MAX_LISTING_ATTEMPTS; attempt++) {
      const names = await this.#listByParts(path);
      if (names) return names;
    }
    const context = `listing ${path}: it changed during each of ${MAX_LISTING_ATTEMPTS} attempts`;
    throw new SysError({ call: 'XS_DIRECTORY_PART', errnoName: 'EAGAIN', context });
  }

  /** The names, or undefined when the directory's generation changed on the way. */
  async #listByParts(path: string): Promise<string[] | undefined> {
    let generation: string | undefined;
    let names = '';
    for (let part = 0; part < MAX_LISTING_PARTS; part++) {
      const offset = `${names.length}\0`;
      const payload = await this.#request(XS_DIRECTORY_PART, 'listing', path, offset);
      const text = Buffer.from(payload).toString('latin1');
      const head = text.indexOf('\0');
      generation ??= text.slice(0, head);
      if (head < 0 || text.slice(0, head) !== generation) return undefined;
      names += text.slice(head + 1);
      // An empty name ends the list: one NUL more than the names have.
      if (names === '\0' || names.endsWith('\0\0')) return names.split('\0').slice(0, -2);
      if (text.length === head + 1) return undefined;
    }
    const limit = `${MAX_LISTING_PARTS} parts of ${XENSTORE_PAYLOAD_MAX} bytes`;
    const context = `listing ${path}: longer than ${limit}`;
    throw new SysError({ call: 'XS_DIRECTORY_PART', errnoName: 'E2BIG', context });
  }

  #request(...parts: AboutNode): Promise<Buffer> {
    return this.#requests.request(this.#about(...parts));
  }

  /** Of a node that need not be there. */
  #look(...parts: AboutNode): Promise<Buffer | undefined> {
    return this.#requests.look(this.#about(...parts));
  }

  #about(...[type, what, path, ...rest]: AboutNode): XenstoreRequest {
    assert(!this.#ended, `${what} ${path} by a transaction that is over`);
    assertPath(path);
    return {
      type,
      transactionId: this.#transactionId,
      parts: [`${path}\0`, ...rest],
      context: `${what} ${path}`,
    };
  }
}

const PATH = /^[\x20-\x7e]+$/;

/** Paths are made by us: one with a NUL or a foreign letter would name another node on the wire. */
export function assertPath(path: string): void {
  if (!PATH.test(path)) assert.fail(`not a xenstore path: ${JSON.stringify(path)}`);
}

/** Whether `error` is the system's refusal with that errno. */
export function isErrno(error: unknown, errnoName: string): error is SysError {
  return error instanceof SysError && error.errnoName === errnoName;
}

/** The value, or undefined when there is no such node. */
async function orUndefined<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
