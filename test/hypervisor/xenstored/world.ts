// A xenstored and its clients in one process, under a virtual runtime.

import { XS_WATCH_EVENT } from '../../../src/abi/xs-wire.ts';
import type { Quotas } from '../../../src/hypervisor/xenstored/quotas.ts';
import { Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import { type DomId, domId } from '../../../src/xen/ids.ts';
import { bytePipe } from '../../../src/xen/pipe.ts';
import type { PacedByteChannel } from '../../../src/xen/xenstore.ts';
import { XenstoreClient } from '../../../src/xen/xenstore-client.ts';
import {
  decodeString,
  encodeMessage,
  MessageParser,
  type XenstoreMessage,
} from '../../../src/xen/xenstore-wire.ts';

export class World {
  readonly runtime: VirtualRuntime;
  readonly server: Xenstored;

  constructor(seed: number, quotas?: Quotas) {
    this.runtime = new VirtualRuntime(seed);
    const { runtime } = this;
    this.server = new Xenstored(quotas ? { runtime, quotas } : { runtime });
  }

  /** A client of a domain, which is introduced when it is not yet. */
  client(number: number): XenstoreClient {
    return new XenstoreClient({ runtime: this.runtime, channel: this.connect(number) });
  }

  raw(number: number): RawClient {
    return new RawClient(this.connect(number));
  }

  connect(number: number): PacedByteChannel {
    const domid: DomId = domId(number);
    this.server.introduceDomain(domid);
    const [channel, serverEnd] = bytePipe(this.runtime);
    this.server.accept({ channel: serverEnd, domid });
    return channel;
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

/** A client that says exactly what it is told to, and keeps the watch events that come. */
export class RawClient {
  readonly events: string[] = [];
  readonly channel: PacedByteChannel;
  readonly #waiting: ((payload: string) => void)[] = [];
  #closed = false;

  constructor(channel: PacedByteChannel) {
    this.channel = channel;
    const parser = new MessageParser();
    channel.listen({
      onBytes: (bytes) => parser.push(bytes, (message) => this.#take(message)),
      onClose: () => {
        this.#closed = true;
        for (const answer of this.#waiting.splice(0)) answer('closed');
      },
    });
  }

  /** The answer's payload, the errno's name included; `closed` when there is no answer any more. */
  ask(type: number, ...parts: readonly string[]): Promise<string> {
    return this.askIn(0, type, ...parts);
  }

  askIn(transactionId: number, type: number, ...parts: readonly string[]): Promise<string> {
    if (this.#closed) return Promise.resolve('closed');
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.channel.send(encodeMessage({ type, requestId: 0, transactionId }, ...parts));
    });
  }

  /** Like `ask`, for what must succeed. */
  async ok(type: number, ...parts: readonly string[]): Promise<void> {
    const answer = await this.ask(type, ...parts);
    if (answer !== 'OK\0') throw new Error(`request ${type} ${parts.join(' ')}: ${answer}`);
  }

  #take({ type, payload }: XenstoreMessage): void {
    if (type === XS_WATCH_EVENT) this.events.push(decodeString(payload));
    else this.#waiting.shift()?.(decodeString(payload));
  }
}
