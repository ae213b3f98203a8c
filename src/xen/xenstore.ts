// What xenstore offers to the code above, whoever carries the messages: requests, watches and
// transactions (docs/misc/xenstore.txt of the Xen tree).

import type { DomId } from './ids.ts';

/** Who may do what with a node; the first entry of a node's list names its owner and the rest's default. */
export interface XenstorePermission {
  readonly domid: DomId;
  readonly read: boolean;
  readonly write: boolean;
}

/** The requests that make sense inside and outside of a transaction. Paths are absolute. */
export interface XenstoreAccess {
  /** The node's value, or undefined when there is no such node. @throws SysError (EACCES, ...) */
  read(path: string): Promise<string | undefined>;
  /** Names of the children, or undefined when there is no such node. */
  directory(path: string): Promise<string[] | undefined>;
  /** Writes the value, making the node and its parents when they are missing. */
  write(path: string, value: string): Promise<void>;
  mkdir(path: string): Promise<void>;
  /** Removes the node and everything below; removing what is not there is not an error. */
  remove(path: string): Promise<void>;
  getPermissions(path: string): Promise<XenstorePermission[]>;
  setPermissions(path: string, permissions: readonly XenstorePermission[]): Promise<void>;
}

/** A registered watch; disposing it unregisters. No event is delivered after that. */
export interface XenstoreWatch extends AsyncDisposable {
  readonly path: string;
}

export interface Xenstore extends XenstoreAccess {
  /**
   * Calls `onEvent` once at registration and whenever the node or something below it may have changed.
   * Events that were not delivered yet are merged per changed path, and their number is bounded: past the
   * bound a single event for the watched path itself stands for all of them. Special paths
   * `@introduceDomain` and `@releaseDomain` are allowed.
   */
  watch(path: string, onEvent: (changedPath: string) => void): Promise<XenstoreWatch>;
  /**
   * Runs `body` in a transaction and commits it; runs it again when another client got in between
   * (EAGAIN), a bounded number of times. The transaction is aborted when `body` throws.
   */
  transaction<T>(body: (access: XenstoreAccess) => Promise<T>): Promise<T>;
}

/** A two-way stream of bytes to a xenstored: a socket, a ring page, or a pipe inside this process. */
export interface ByteChannel {
  /** Sends the bytes, in order; they may be reused as soon as the call returns. */
  send(bytes: Uint8Array): void;
  /** Sets who gets what arrives (in pieces of any size) and who learns that the channel is over. */
  listen(listener: ByteListener): void;
  close(): void;
}

export interface ByteListener {
  onBytes(bytes: Uint8Array): void;
  /** Called once; `reason` is absent when we closed it ourselves. */
  onClose(reason?: Error): void;
  /** Nothing waits on our side any more, after something did (paced channels only). */
  onDrain?(): void;
}

/** A byte stream that can be slowed down: what a server needs against a peer that does not read. */
export interface PacedByteChannel extends ByteChannel {
  /** Bytes that were sent and still wait on our side for the other to make room. */
  readonly pendingBytes: number;
  /** Holds back what arrives until `resume`; it waits with the other side or in a bounded buffer. */
  pause(): void;
  resume(): void;
}
