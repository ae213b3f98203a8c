// The hypervisor's event channels (xen/include/public/event_channel.h): which port of which domain is
// connected to which, and what sending does.
//
// Invariants: a port in state `interdomain` has a peer that points back at it; an error leaves every
// port as it was (XSA-496); port 0 is never used; a domain has at most its limit of ports.

import assert from 'node:assert/strict';
import { EVTCHN_2L_NR_CHANNELS } from '../abi/event-channel.ts';
import { SysError } from '../runtime/errors.ts';
import type { DomId, Port } from '../xen/ids.ts';
import { SharedInfo } from './shared-info.ts';

/** max_event_channels of xl.cfg. */
export const DEFAULT_MAX_EVENT_CHANNELS = 1023;

/** The other end of an unbound port is whoever `remote` sends; of an interdomain one, `peer`. */
type Channel =
  | { readonly state: 'unbound'; readonly remote: DomId }
  | { readonly state: 'interdomain'; readonly peer: EventPorts; readonly peerPort: Port };

/** The ports of one domain. */
export class EventPorts {
  readonly #domid: DomId;
  readonly #limit: number;
  readonly #channels: (Channel | undefined)[] = [];
  readonly #sharedInfo: SharedInfo;
  readonly #wake: () => void;
  #open = 0;

  /** `sharedInfo` is the domain's page; `wake` is called when the domain has to look at it. */
  constructor({ domid, limit, sharedInfo, wake }: EventPortsOptions) {
    assert(limit < EVTCHN_2L_NR_CHANNELS, `${limit} ports do not fit the two-level ABI`);
    this.#domid = domid;
    this.#limit = limit;
    this.#sharedInfo = new SharedInfo(sharedInfo);
    this.#wake = wake;
  }

  /** Ports that are not free. */
  get open(): number {
    return this.#open;
  }

  /** EVTCHNOP_alloc_unbound. @throws SysError ENOSPC */
  allocUnbound(remote: DomId): Port {
    const port = this.#freePort('EVTCHNOP_alloc_unbound');
    this.#set(port, { state: 'unbound', remote });
    return port;
  }

  /** EVTCHNOP_bind_interdomain. @throws SysError ENOSPC, EINVAL when the port is not offered to us */
  bindInterdomain(peer: EventPorts, peerPort: Port): Port {
    const port = this.#freePort('EVTCHNOP_bind_interdomain');
    const offered = peer.#channels[peerPort];
    if (offered?.state !== 'unbound' || offered.remote !== this.#domid) {
      throw new SysError({
        call: 'EVTCHNOP_bind_interdomain',
        errnoName: 'EINVAL',
        context: `binding to port ${peerPort} of domain ${peer.#domid}, which is not offered to domain ${this.#domid}`,
      });
    }
    this.#set(port, { state: 'interdomain', peer, peerPort });
    peer.#channels[peerPort] = { state: 'interdomain', peer: this, peerPort: port };
    // What the other side sent while nobody was bound is not known: one event in its place.
    this.#raise(port);
    return port;
  }

  /** EVTCHNOP_close: the other end becomes unbound. @throws SysError EINVAL when the port is free */
  close(port: Port): void {
    const channel = this.#channels[port];
    if (!channel) throw this.#noSuchPort('EVTCHNOP_close', port);
    if (channel.state === 'interdomain') {
      channel.peer.#channels[channel.peerPort] = { state: 'unbound', remote: this.#domid };
    }
    this.#channels[port] = undefined;
    this.#open--;
    this.#sharedInfo.clearPending(port);
  }

  /** Closes every port: the domain is dying. */
  closeAll(): void {
    for (const [port, channel] of this.#channels.entries()) if (channel) this.close(port as Port);
    assert.equal(this.#open, 0);
  }

  /** EVTCHNOP_send. @returns false when the port is free; an unbound port drops the event */
  send(port: Port): boolean {
    const channel = this.#channels[port];
    if (channel?.state === 'interdomain') channel.peer.#raise(channel.peerPort);
    return channel !== undefined;
  }

  #raise(port: Port): void {
    if (this.#sharedInfo.raise(port)) this.#wake();
  }

  #set(port: Port, channel: Channel): void {
    this.#channels[port] = channel;
    this.#open++;
  }

  #freePort(call: string): Port {
    for (let port = 1; port <= this.#limit; port++) {
      if (!this.#channels[port]) return port as Port;
    }
    throw new SysError({
      call,
      errnoName: 'ENOSPC',
      context: `domain ${this.#domid} has all of its ${this.#limit} event channels open`,
      remedy: 'raise max_event_channels of the domain',
    });
  }

  #noSuchPort(call: string, port: number): SysError {
    const context = `port ${port} of domain ${this.#domid} is not open`;
    return new SysError({ call, errnoName: 'EINVAL', context });
  }
}

export interface EventPortsOptions {
  readonly domid: DomId;
  /** Most ports open at a time. */
  readonly limit: number;
  readonly sharedInfo: Uint8Array;
  readonly wake: () => void;
}
