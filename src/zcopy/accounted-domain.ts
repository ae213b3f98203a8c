// Our domain, as one guest's backends use it: everything acquired through it is charged to that guest's
// account before it is acquired, and given back when it is released. The only place that charges pages,
// refs, mappings, ports and watches, so nothing can be held without being counted.

import assert from 'node:assert/strict';
import type {
  Domain,
  EventChannel,
  EventChannels,
  ForeignMapping,
  ForeignMemory,
  Grants,
  SharedPages,
} from '../xen/domain.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import type { Account, Charge, Held } from './ledger.ts';

/** Charges, acquires, and undoes the charge when acquiring fails. */
async function acquire<T extends AsyncDisposable>(
  account: Account,
  amounts: Partial<Held>,
  make: () => Promise<T>,
): Promise<T> {
  const charge = account.charge(amounts);
  try {
    return returningCharge(await make(), charge);
  } catch (error) {
    charge[Symbol.dispose]();
    throw error;
  }
}

/** The resource itself, with the charge given back once its release has succeeded. */
function returningCharge<T extends AsyncDisposable>(resource: T, charge: Charge): T {
  const release = resource[Symbol.asyncDispose].bind(resource);
  const released = async () => {
    await release();
    charge[Symbol.dispose]();
  };
  return Object.defineProperty(resource, Symbol.asyncDispose, { value: released });
}

/**
 * `domain` with everything acquired through it charged to `account`.
 * The result does not own `domain`: disposing it asserts that the account is empty and closes nothing.
 */
export function accountedDomain(domain: Domain, account: Account): Domain {
  const grants: Grants = {
    share: (request) =>
      acquire<SharedPages>(account, { pages: request.pages, refs: request.pages }, () =>
        domain.grants.share(request),
      ),
    lend: (request) => domain.grants.lend(request),
  };
  const foreign: ForeignMemory = {
    map: (request) => {
      const { length } = request.refs;
      return acquire<ForeignMapping>(account, { pages: length, refs: length, mappings: 1 }, () =>
        domain.foreign.map(request),
      );
    },
    export: (request) => domain.foreign.export(request),
  };
  const events: EventChannels = {
    allocUnbound: (request) =>
      acquire<EventChannel>(account, { ports: 1 }, () => domain.events.allocUnbound(request)),
    bindInterdomain: (request) =>
      acquire<EventChannel>(account, { ports: 1 }, () => domain.events.bindInterdomain(request)),
  };
  const store: Xenstore = {
    read: (path) => domain.store.read(path),
    directory: (path) => domain.store.directory(path),
    write: (path, value) => domain.store.write(path, value),
    mkdir: (path) => domain.store.mkdir(path),
    remove: (path) => domain.store.remove(path),
    getPermissions: (path) => domain.store.getPermissions(path),
    setPermissions: (path, permissions) => domain.store.setPermissions(path, permissions),
    transaction: (body) => domain.store.transaction(body),
    watch: (path, onEvent) =>
      acquire(account, { watches: 1 }, () => domain.store.watch(path, onEvent)),
  };
  return {
    domid: domain.domid,
    provider: domain.provider,
    grants,
    foreign,
    memory: domain.memory,
    events,
    store,
    async [Symbol.asyncDispose]() {
      assert(account.empty, `closed while holding ${JSON.stringify(account.held)}`);
    },
  };
}
