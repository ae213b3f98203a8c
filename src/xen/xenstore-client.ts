// A xenstore client over a byte channel to a xenstored: the process's own, a real host's socket, or a ring.
//
// Invariants: when the channel is over every promise has settled and watches hear nothing more; the
// client does not reconnect (its owner decides); at most MAX_TRANSACTIONS are open at a time.

import { XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH } from '../abi/xs-wire.ts';
import { SysError } from '../runtime/errors.ts';
import { type Runtime, sleep } from '../runtime/runtime.ts';
import type { ByteChannel, Xenstore, XenstoreAccess, XenstoreWatch } from './xenstore.ts';
import { assertPath, isErrno, RequestAccess } from './xenstore-access.ts';
import { XenstoreRequests } from './xenstore-requests.ts';
import { ClientWatches } from './xenstore-watches.ts';
import { decodeString, type PayloadPart } from './xenstore-wire.ts';

/** Open transactions; xenstored's quota for a domain is 10. */
const MAX_TRANSACTIONS = 8;
/** Transactions that may wait for their turn to open. */
const MAX_WAITING_TRANSACTIONS = 1024;
/** Numbers of transactions are 32 bits on the wire, of which 0 is for none. */
const MAX_TRANSACTION_ID = 0xffff_ffff;
/** How often a transaction is tried before its EAGAIN is given to the caller. */
const MAX_TRANSACTION_ATTEMPTS = 64;
/** Attempts that follow each other at once; later ones wait a random time first. */
const MAX_EAGER_ATTEMPTS = 3;
/** Upper bound of that wait. */
const MAX_BACKOFF_MS = 32;

export interface XenstoreClientOptions {
  readonly runtime: Runtime;
  /** The client takes it over: it listens, and closes it when it is disposed. */
  readonly channel: ByteChannel;
}

export class XenstoreClient extends RequestAccess implements Xenstore, AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #requests: XenstoreRequests;
  readonly #watches: ClientWatches;
  #openTransactions = 0;
  readonly #transactionTurns: (() => void)[] = [];

  /** Resolves when the connection is over: with the reason, or undefined when we closed it. */
  readonly closed: Promise<Error | undefined>;

  constructor({ runtime, channel }: XenstoreClientOptions) {
    const watches = new ClientWatches(runtime);
    const requests = new XenstoreRequests(channel, {
      onWatchEvent: (payload) => watches.take(payload),
      onClosed: () => watches.clear(),
    });
    super(requests, 0);
    this.#runtime = runtime;
    this.#watches = watches;
    this.#requests = requests;
    this.closed = requests.closed;
  }

  async watch(path: string, onEvent: (changedPath: string) => void): Promise<XenstoreWatch> {
    assertPath(path);
    const token = this.#watches.add(path, onEvent);
    const names = [`${path}\0`, `${token}\0`];
    try {
      await this.#request(XS_WATCH, `watching ${path}`, names);
    } catch (error) {
      this.#watches.remove(token);
      throw error;
    }
    const unwatch = async () => {
      if (!this.#watches.remove(token)) return;
      try {
        await this.#request(XS_UNWATCH, `unwatching ${path}`, names);
      } catch (error) {
        // What xenstored keeps of it is heard by nobody, and goes with the connection.
        if (!(error instanceof SysError)) throw error;
        this.#runtime.log.debug({ path, reason: error.message }, 'a watch is not taken out');
      }
    };
    return { path, [Symbol.asyncDispose]: unwatch };
  }

  async transaction<T>(body: (access: XenstoreAccess) => Promise<T>): Promise<T> {
    await this.#transactionTurn();
    try {
      for (let attempt = 0; attempt < MAX_TRANSACTION_ATTEMPTS; attempt++) {
        await this.#backOff(attempt);
        const outcome = await this.#attempt(body);
        if (outcome) return outcome.result;
      }
    } finally {
      this.#endTransactionTurn();
    }
    throw new SysError({
      call: 'XS_TRANSACTION_END',
      errnoName: 'EAGAIN',
      context: `committing a transaction, ${MAX_TRANSACTION_ATTEMPTS} times`,
      remedy: 'another client keeps changing the same nodes; find it with xenstore-watch',
    });
  }

  /** Closes the connection, and with it what the server holds for it: watches and transactions. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#requests.close();
  }

  /** The body's result when it was committed, undefined when another client got in between. */
  async #attempt<T>(
    body: (access: XenstoreAccess) => Promise<T>,
  ): Promise<{ result: T } | undefined> {
    const transactionId = await this.#begin();
    const result = await this.#run(body, transactionId);
    return (await this.#commit(transactionId)) ? { result } : undefined;
  }

  /** @throws SysError EINVAL when the server's answer is no transaction's number */
  async #begin(): Promise<number> {
    const context = 'starting a transaction';
    const text = decodeString(await this.#request(XS_TRANSACTION_START, context, ['\0']));
    const id = Number(/^(\d{1,10})\0/.exec(text)?.[1]);
    if (id > 0 && id <= MAX_TRANSACTION_ID) return id;
    throw new SysError({
      call: 'XS_TRANSACTION_START',
      errnoName: 'EINVAL',
      context: `${context}: not a transaction's number: ${JSON.stringify(text)}`,
    });
  }

  async #run<T>(body: (access: XenstoreAccess) => Promise<T>, transactionId: number): Promise<T> {
    const access = new RequestAccess(this.#requests, transactionId);
    try {
      return await body(access);
    } catch (error) {
      await this.#abort(transactionId);
      throw error;
    } finally {
      access.end();
    }
  }

  async #commit(transactionId: number): Promise<boolean> {
    try {
      await this.#request(XS_TRANSACTION_END, 'committing a transaction', ['T\0'], transactionId);
      return true;
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) return false;
      throw error;
    }
  }

  /** The error that led here is the one to report, not what the abort says. */
  async #abort(transactionId: number): Promise<void> {
    const context = 'aborting a transaction';
    await this.#request(XS_TRANSACTION_END, context, ['F\0'], transactionId).catch(() => {});
  }

  async #backOff(attempt: number): Promise<void> {
    if (attempt <= MAX_EAGER_ATTEMPTS) return;
    const boundMs = Math.min(MAX_BACKOFF_MS, 2 ** (attempt - MAX_EAGER_ATTEMPTS));
    await sleep(this.#runtime, this.#runtime.random.below(boundMs));
  }

  async #transactionTurn(): Promise<void> {
    if (this.#openTransactions < MAX_TRANSACTIONS) {
      this.#openTransactions++;
      return;
    }
    if (this.#transactionTurns.length >= MAX_WAITING_TRANSACTIONS) {
      const context = `starting a transaction, with ${MAX_WAITING_TRANSACTIONS} others waiting`;
      throw new SysError({ call: 'XS_TRANSACTION_START', errnoName: 'EBUSY', context });
    }
    await new Promise<void>((resolve) => this.#transactionTurns.push(resolve));
  }

  #endTransactionTurn(): void {
    const next = this.#transactionTurns.shift();
    if (next) next();
    else this.#openTransactions--;
  }

  #request(
    type: number,
    context: string,
    parts: readonly PayloadPart[],
    transactionId = 0,
  ): Promise<Buffer> {
    return this.#requests.request({ type, transactionId, parts, context });
  }
}
