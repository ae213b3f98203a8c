// Event channels by /dev/xen/evtchn (xen/evtchn.h of Linux): read gives the ports that are pending,
// which the kernel keeps masked until they are written back.
//
// Invariants:
// - One open file for all channels. A wake-up is one read of at most MAX_PORTS_AT_ONCE ports and one
//   write for all the ports whose handlers are done, and notify is one ioctl; none of them allocates
//   per event.
// - A port stays masked while its handler runs, which includes the promise it may return. A handler that
//   fails is reported, its port unmasked, and no other channel notices.
// - A port number read before its channel was closed may name a newer channel: that one's handler is
//   called for nothing, which handlers must bear with anyhow.

import {
  IOCTL_EVTCHN_BIND_INTERDOMAIN,
  IOCTL_EVTCHN_BIND_UNBOUND_PORT,
  IOCTL_EVTCHN_NOTIFY,
  IOCTL_EVTCHN_RESET,
  IOCTL_EVTCHN_UNBIND,
  ioctlEvtchnBindInterdomain,
  ioctlEvtchnBindUnboundPort,
  ioctlEvtchnNotify,
  ioctlEvtchnUnbind,
} from '../abi/evtchn.ts';
import { FdWatcher } from '../posix/fd-watcher.ts';
import type { CallContext } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';
import type { EventChannel, EventChannels, EventHandler } from '../xen/domain.ts';
import { type DomId, type Port, port } from '../xen/ids.ts';
import type { DeviceFile } from './device.ts';

/** One page of ports, the most that the driver gives or takes at once. */
const MAX_PORTS_AT_ONCE = 1024;
const PORT_BYTES = Uint32Array.BYTES_PER_ELEMENT;

const NOTIFYING: CallContext = { context: 'notifying an event channel' };
const READING: CallContext = { context: 'reading pending event channels' };
const UNMASKING: CallContext = { context: 'unmasking event channels' };

/** Told of what a handler threw: a bug of ours in the service of whoever is at the other end. */
export type HandlerErrorListener = (
  error: unknown,
  channel: { readonly port: Port; readonly remote: DomId },
) => void;

export class Evtchn implements EventChannels, Disposable {
  readonly #device: DeviceFile;
  readonly #watcher: FdWatcher;
  readonly #onHandlerError: HandlerErrorListener;
  readonly #channels = new Map<number, LinuxEventChannel>();
  readonly #pending = new Uint32Array(MAX_PORTS_AT_ONCE);
  readonly #pendingBytes = new Uint8Array(this.#pending.buffer);
  readonly #handled = new Uint32Array(MAX_PORTS_AT_ONCE);
  readonly #handledBytes = new Uint8Array(this.#handled.buffer);
  #handledCount = 0;
  #open = true;

  /** Owns `device`, an open /dev/xen/evtchn. */
  constructor(device: DeviceFile, onHandlerError: HandlerErrorListener) {
    this.#device = device;
    this.#onHandlerError = onHandlerError;
    this.#watcher = new FdWatcher(device.fd, () => this.#onReadable());
  }

  async allocUnbound({
    remote,
    handler,
  }: {
    remote: DomId;
    handler: EventHandler;
  }): Promise<EventChannel> {
    const argument = new Uint8Array(ioctlEvtchnBindUnboundPort.size);
    ioctlEvtchnBindUnboundPort.write(new DataView(argument.buffer), 0, { remote_domain: remote });
    const local = this.#device.ioctl(
      { name: 'IOCTL_EVTCHN_BIND_UNBOUND_PORT', number: IOCTL_EVTCHN_BIND_UNBOUND_PORT, argument },
      { context: `allocating an event channel for domain ${remote}` },
    );
    return this.#bound(port(local), remote, handler);
  }

  async bindInterdomain({
    remote,
    remotePort,
    handler,
  }: {
    remote: DomId;
    remotePort: Port;
    handler: EventHandler;
  }): Promise<EventChannel> {
    const argument = new Uint8Array(ioctlEvtchnBindInterdomain.size);
    ioctlEvtchnBindInterdomain.write(new DataView(argument.buffer), 0, {
      remote_domain: remote,
      remote_port: remotePort,
    });
    const local = this.#device.ioctl(
      { name: 'IOCTL_EVTCHN_BIND_INTERDOMAIN', number: IOCTL_EVTCHN_BIND_INTERDOMAIN, argument },
      { context: `binding to event channel ${remotePort} of domain ${remote}` },
    );
    return this.#bound(port(local), remote, handler);
  }

  /** Closes the device, and with it every channel. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    for (const channel of this.#channels.values()) channel.closed = true;
    this.#channels.clear();
    this.#watcher[Symbol.dispose]();
    this.#device[Symbol.dispose]();
  }

  #bound(local: Port, remote: DomId, handler: EventHandler): EventChannel {
    const channel = new LinuxEventChannel({
      device: this.#device,
      port: local,
      remote,
      handler,
      onClose: () => this.#unbind(local),
    });
    this.#channels.set(local, channel);
    return channel;
  }

  #unbind(local: Port): void {
    this.#channels.delete(local);
    const argument = new Uint8Array(ioctlEvtchnUnbind.size);
    ioctlEvtchnUnbind.write(new DataView(argument.buffer), 0, { port: local });
    this.#device.ioctl(
      { name: 'IOCTL_EVTCHN_UNBIND', number: IOCTL_EVTCHN_UNBIND, argument },
      { context: `closing event channel ${local}` },
    );
  }

  #onReadable(): void {
    const count = this.#readPending();
    if (count === undefined) this.#recover();
    else for (let i = 0; i < count; i++) this.#dispatch(this.#channels.get(this.#pending[i]!));
    this.#unmaskHandled();
  }

  /** Fills `#pending`. @returns how many ports are in it; undefined when the kernel lost count */
  #readPending(): number | undefined {
    try {
      return (this.#device.read(this.#pendingBytes, READING) ?? 0) / PORT_BYTES;
    } catch (error) {
      if (error instanceof SysError && error.errnoName === 'EFBIG') return undefined;
      throw error;
    }
  }

  /**
   * The kernel's list of pending ports overflowed, so it is emptied and every channel taken for pending.
   * Unmasking a port that was not masked is nothing.
   */
  #recover(): void {
    const argument = new Uint8Array(0);
    const request = { name: 'IOCTL_EVTCHN_RESET', number: IOCTL_EVTCHN_RESET, argument };
    this.#device.ioctl(request, { context: 'recovering from too many pending event channels' });
    for (const channel of [...this.#channels.values()]) this.#dispatch(channel);
  }

  #dispatch(channel: LinuxEventChannel | undefined): void {
    if (channel === undefined || channel.closed || channel.busy) return;
    if (!this.#handle(channel)) return;
    this.#handled[this.#handledCount++] = channel.port;
    if (this.#handledCount === MAX_PORTS_AT_ONCE) this.#unmaskHandled();
  }

  /** Unmasks the ports whose handlers returned since the last time. */
  #unmaskHandled(): void {
    const bytes = this.#handledBytes.subarray(0, this.#handledCount * PORT_BYTES);
    this.#handledCount = 0;
    if (bytes.length > 0 && this.#open) this.#device.write(bytes, UNMASKING);
  }

  /** Calls the handler. @returns whether it is done; otherwise the port is unmasked when it is */
  #handle(channel: LinuxEventChannel): boolean {
    try {
      const done = channel.handler();
      if (!(done instanceof Promise)) return true;
      channel.busy = true;
      void done
        .catch((error: unknown) => this.#onHandlerError(error, channel))
        .finally(() => this.#unmask(channel));
      return false;
    } catch (error) {
      this.#onHandlerError(error, channel);
      return true;
    }
  }

  #unmask(channel: LinuxEventChannel): void {
    channel.busy = false;
    if (!channel.closed) this.#device.write(channel.portBytes, UNMASKING);
  }
}

interface ChannelParts {
  readonly device: DeviceFile;
  readonly port: Port;
  readonly remote: DomId;
  readonly handler: EventHandler;
  readonly onClose: () => void;
}

class LinuxEventChannel implements EventChannel {
  readonly port: Port;
  readonly remote: DomId;
  readonly handler: EventHandler;
  /** The port as NOTIFY and write(2) take it. */
  readonly portBytes: Uint8Array;
  /** Whether a promise of the handler is pending. */
  busy = false;
  closed = false;
  readonly #device: DeviceFile;
  readonly #onClose: () => void;
  readonly #notification: { name: string; number: number; argument: Uint8Array };

  constructor({ device, port, remote, handler, onClose }: ChannelParts) {
    this.port = port;
    this.remote = remote;
    this.handler = handler;
    this.#device = device;
    this.#onClose = onClose;
    this.portBytes = new Uint8Array(ioctlEvtchnNotify.size);
    ioctlEvtchnNotify.write(new DataView(this.portBytes.buffer), 0, { port });
    this.#notification = {
      name: 'IOCTL_EVTCHN_NOTIFY',
      number: IOCTL_EVTCHN_NOTIFY,
      argument: this.portBytes,
    };
  }

  notify(): void {
    if (!this.closed) this.#device.ioctl(this.#notification, NOTIFYING);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.#onClose();
  }
}
