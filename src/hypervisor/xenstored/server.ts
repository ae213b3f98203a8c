// xenstored in this process: connections of domains and tools, and the domains' coming and going
// (docs/misc/xenstore.txt of the Xen tree, "Domain management").
//
// Invariants: a connection that misbehaves loses itself and nothing else; a domain that is released leaves no
// watch, no transaction, no node of its own and no entry in another node's permissions; there are no timers but that of
// a client that has to rest: everything else happens in answer to a message, a call, or a task deferred by the runtime.

import assert from 'node:assert/strict';
import { ProtocolViolation, SysError } from '../../runtime/errors.ts';
import type { Logger, Runtime } from '../../runtime/runtime.ts';
import { DOM0, type DomId } from '../../xen/ids.ts';
import type { PacedByteChannel } from '../../xen/xenstore.ts';
import { Connection } from './connection.ts';
import { allows, type Caller, type Permissions } from './permissions.ts';
import { DEFAULT_QUOTAS, type Quotas } from './quotas.ts';
import { handleRequest } from './requests.ts';
import { Store } from './store.ts';
import { StoreError } from './store-error.ts';
import { Watches } from './watches.ts';

const INTRODUCE_DOMAIN = '@introduceDomain';
const RELEASE_DOMAIN = '@releaseDomain';

/** What XS_INTRODUCE carries: the domain's ring page and event channel, as the toolstack names them. */
export interface IntroduceRequest {
  readonly domid: DomId;
  /** Decimal, as sent. */
  readonly frame: string;
  readonly port: number;
}

export interface XenstoredOptions {
  readonly runtime: Runtime;
  readonly quotas?: Quotas;
  /** Makes the channel for an XS_INTRODUCE that comes as a message; without it those are refused (ENOSYS). */
  readonly connectRing?: (request: IntroduceRequest) => PacedByteChannel;
}

interface IntroducedDomain {
  /** Whether @releaseDomain has been told for its shutdown. */
  shutdownTold: boolean;
  target: DomId | undefined;
}

export class Xenstored {
  readonly store: Store;
  readonly watches = new Watches();
  readonly log: Logger;
  readonly #runtime: Runtime;
  readonly #quotas: Quotas;
  readonly #connectRing: XenstoredOptions['connectRing'];
  readonly #connections = new Set<Connection>();
  readonly #domains = new Map<number, IntroducedDomain>();
  readonly #specialPermissions = new Map<string, Permissions>();

  constructor({ runtime, quotas = DEFAULT_QUOTAS, connectRing }: XenstoredOptions) {
    this.#runtime = runtime;
    this.log = runtime.log;
    this.#quotas = quotas;
    this.#connectRing = connectRing;
    const dom0Only: Permissions = [{ domid: DOM0, read: false, write: false }];
    this.store = new Store(dom0Only, (change) => this.watches.fire(change));
    for (const special of [INTRODUCE_DOMAIN, RELEASE_DOMAIN]) {
      this.#specialPermissions.set(special, dom0Only);
    }
    this.#domains.set(DOM0, { shutdownTold: false, target: undefined });
  }

  /** How many connections there are. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Serves a client that speaks for `domid`, which must be introduced (the control domain always is). */
  accept({ channel, domid }: { channel: PacedByteChannel; domid: DomId }): Connection {
    const domain = this.#domains.get(domid);
    assert(domain, `domain ${domid} is not introduced`);
    const connection = new Connection({
      runtime: this.#runtime,
      channel,
      caller: { domid, target: domain.target, privileged: domid === DOM0 },
      maxOutstanding: this.#quotas.outstanding,
      handle: (from, message) => handleRequest({ server: this, connection: from, message }),
      onClosed: (closed, reason) => this.#forget(closed, reason),
    });
    this.#connections.add(connection);
    connection.start();
    return connection;
  }

  isIntroduced(domid: number): boolean {
    return this.#domains.has(domid);
  }

  /** A domain is there; it may connect from now on. Does nothing for one that is introduced already. */
  introduceDomain(domid: DomId): void {
    if (this.#domains.has(domid)) return;
    this.#domains.set(domid, { shutdownTold: false, target: undefined });
    this.#fireSpecial(INTRODUCE_DOMAIN);
  }

  /** XS_INTRODUCE. @throws StoreError ENOSYS when the hypervisor has no rings to offer */
  introduceByFrame(request: IntroduceRequest): void {
    if (!this.#connectRing) throw StoreError.of('ENOSYS');
    const channel = this.#connectRing(request);
    this.#closeConnectionsOf(request.domid);
    this.introduceDomain(request.domid);
    this.accept({ channel, domid: request.domid });
  }

  /** A domain has shut down or crashed and is still there: told once. */
  domainShutdown(domid: DomId): void {
    const domain = this.#domains.get(domid);
    if (!domain || domain.shutdownTold) return;
    domain.shutdownTold = true;
    this.#fireSpecial(RELEASE_DOMAIN);
  }

  /** The next shutdown of the domain is to be told again. */
  resumeDomain(domid: DomId): void {
    const domain = this.#domains.get(domid);
    if (domain) domain.shutdownTold = false;
  }

  /** A domain is gone: its connections, watches, transactions and nodes go, and everyone is told. */
  releaseDomain(domid: DomId): void {
    assert(domid !== DOM0, 'the control domain is never released');
    if (!this.#domains.delete(domid)) return;
    this.#closeConnectionsOf(domid);
    for (const [other, { target }] of this.#domains) {
      if (target === domid) this.#retarget(other, undefined);
    }
    this.store.forgetDomain(domid);
    this.#fireSpecial(RELEASE_DOMAIN);
  }

  /** Gives `domid` the rights that `target` has. Both are introduced. */
  setTarget({ domid, target }: { domid: DomId; target: DomId }): void {
    this.#retarget(domid, target);
  }

  /** Undefined for a caller whom quotas do not bind. */
  quotasOf(caller: Caller): Quotas | undefined {
    return caller.privileged ? undefined : this.#quotas;
  }

  /** @throws StoreError EINVAL for a name that xenstored does not have */
  specialPermissions(name: string): Permissions {
    const permissions = this.#specialPermissions.get(name);
    if (!permissions) throw StoreError.of('EINVAL');
    return permissions;
  }

  /** Says which domains hear of a special event. @throws StoreError EINVAL for a name that is none */
  setSpecialPermissions(name: string, permissions: Permissions): void {
    this.specialPermissions(name);
    this.#specialPermissions.set(name, permissions);
  }

  /** Ends every connection. */
  close(): void {
    for (const connection of [...this.#connections]) connection.close();
  }

  #retarget(domid: number, target: DomId | undefined): void {
    const domain = this.#domains.get(domid);
    assert(domain, `domain ${domid} is not introduced`);
    domain.target = target;
    for (const connection of this.#connections) {
      if (connection.caller.domid !== domid) continue;
      connection.caller = { ...connection.caller, target };
    }
  }

  #closeConnectionsOf(domid: DomId): void {
    for (const connection of [...this.#connections]) {
      if (connection.caller.domid === domid) connection.close();
    }
  }

  #forget(connection: Connection, reason: Error | undefined): void {
    this.#connections.delete(connection);
    this.watches.removeAll(connection);
    const { domid } = connection.caller;
    if (reason instanceof ProtocolViolation) {
      this.log.warn({ domid, reason: reason.message }, 'xenstore client broke the protocol');
    } else if (reason instanceof SysError) {
      this.log.debug({ domid, reason: reason.message }, 'xenstore client left');
    } else if (reason) {
      this.log.error({ domid, err: reason }, 'xenstore client lost to a bug');
    }
  }

  #fireSpecial(name: string): void {
    const permissions = this.specialPermissions(name);
    this.watches.fireSpecial(name, (caller) => allows(permissions, caller, 'read'));
  }
}
