// A domain's own side of event channels, as a kernel has it: upcalls are turned into calls of handlers.
//
// Invariants: a port is masked from its allocation until its handler is in place, and while the handler
// runs (a promise included); what came meanwhile gives one more call, in a turn of its own, so that a
// storm never keeps the domain from its other work. A closed channel's handler is never called.

import { EVTCHN_2L_NR_CHANNELS } from '../abi/event-channel.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { EventChannel, EventChannels, EventHandler } from '../xen/domain.ts';
import type { DomId, Port } from '../xen/ids.ts';
import type { HypercallPort } from './hypercalls.ts';
import { SharedInfo } from './shared-info.ts';

export class GuestEvents implements EventChannels {
  readonly #port: HypercallPort;
  readonly #runtime: Runtime;
  readonly #sharedInfo: SharedInfo;
  readonly #channels: (GuestEventChannel | undefined)[] = new Array(EVTCHN_2L_NR_CHANNELS);
  readonly #deliver = (port: Port) => this.#channels[port]?.deliver();
  readonly upcall = () => this.#sharedInfo.take(this.#deliver);
  #stopped = false;

  constructor(port: HypercallPort, runtime: Runtime) {
    this.#port = port;
    this.#runtime = runtime;
    this.#sharedInfo = new SharedInfo(port.sharedInfo);
    this.#sharedInfo.maskAll();
  }

  async allocUnbound(request: { remote: DomId; handler: EventHandler }): Promise<EventChannel> {
    const { remote, handler } = request;
    return this.adopt(await this.#port.call('allocUnbound', { remote }), handler);
  }

  async bindInterdomain(request: {
    remote: DomId;
    remotePort: Port;
    handler: EventHandler;
  }): Promise<EventChannel> {
    const { remote, remotePort, handler } = request;
    return this.adopt(await this.#port.call('bindInterdomain', { remote, remotePort }), handler);
  }

  /** A channel over a port that is ours already, as the one to xenstored that the toolstack made. */
  adopt(port: Port, handler: EventHandler): EventChannel {
    const channel = new GuestEventChannel(port, {
      handler,
      notify: () => this.#port.notify(port),
      mask: () => this.#sharedInfo.mask(port),
      unmask: () => this.#unmask(port),
      close: () => this.#close(port),
      log: (error) => this.#runtime.log.error({ err: error, port }, 'an event handler failed'),
    });
    this.#channels[port] = channel;
    this.#unmask(port);
    return channel;
  }

  async close(): Promise<void> {
    for (const channel of this.#channels) if (channel) await channel[Symbol.asyncDispose]();
  }

  /** The domain is over: no handler is called any more, and closing needs no hypervisor. */
  stop(): void {
    this.#stopped = true;
    this.#channels.fill(undefined);
  }

  #unmask(port: Port): void {
    if (this.#sharedInfo.unmask(port)) this.#runtime.defer(this.upcall);
  }

  async #close(port: Port): Promise<void> {
    if (this.#stopped) return;
    this.#channels[port] = undefined;
    await this.#port.call('closePort', { port });
  }
}

interface ChannelParts {
  readonly handler: EventHandler;
  readonly notify: () => void;
  readonly mask: () => void;
  readonly unmask: () => void;
  readonly close: () => Promise<void>;
  readonly log: (error: unknown) => void;
}

class GuestEventChannel implements EventChannel {
  readonly port: Port;
  readonly #parts: ChannelParts;
  readonly #done = () => this.#rearm();
  readonly #failed = (error: unknown) => {
    this.#parts.log(error);
    this.#rearm();
  };
  #closed: Promise<void> | undefined;

  constructor(port: Port, parts: ChannelParts) {
    this.port = port;
    this.#parts = parts;
  }

  notify(): void {
    if (!this.#closed) this.#parts.notify();
  }

  /** Called with the port masked and its pending bit cleared. */
  deliver(): void {
    try {
      const pause = this.#parts.handler();
      if (pause) pause.then(this.#done, this.#failed);
      else this.#rearm();
    } catch (error) {
      this.#failed(error);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed) {
      this.#parts.mask();
      this.#closed = this.#parts.close();
    }
    return this.#closed;
  }

  /** A channel that was closed meanwhile stays masked: its port may be somebody else's by now. */
  #rearm(): void {
    if (!this.#closed) this.#parts.unmask();
  }
}
