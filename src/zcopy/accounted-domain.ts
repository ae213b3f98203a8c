// Our domain, as one guest's backends use it: everything acquired through it is charged to that guest's
// account before it is acquired, and given back when it is released. The only place that charges pages,
// refs, mappings, ports, watches and pages of the pool, so nothing can be held without being counted.
//
// Memory of ours is charged when it is lent, and what came out of the pool also as the pool's; what others
// still use of it stays charged until they do not.

import assert from 'node:assert/strict';
import type {
  Domain,
  EventChannel,
  EventChannels,
  ExportedRefs,
  ExportRequest,
  ForeignMapping,
  ForeignMemory,
  Grants,
  LendRequest,
  LentPages,
  MapRequest,
  SharedPages,
  ShareRequest,
} from '../xen/domain.ts';
import type { GivenBack, LocalBuffer, Memory, MemoryPool } from '../xen/memory.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { isErrno } from '../xen/xenstore-access.ts';
import type { Held } from './budget.ts';
import type { Account, Charge } from './ledger.ts';

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

/** The resource itself, with the charges given back once its release has succeeded. */
function returningCharge<T extends AsyncDisposable>(resource: T, ...charges: Charge[]): T {
  const release = resource[Symbol.asyncDispose].bind(resource);
  const released = async () => {
    await release();
    for (const charge of charges) charge[Symbol.dispose]();
  };
  return Object.defineProperty(resource, Symbol.asyncDispose, { value: released });
}

/** Shares new pages, and charges them until the other domain has let go of the last one. */
async function share(
  domain: Domain,
  account: Account,
  request: ShareRequest,
): Promise<SharedPages> {
  const { pages } = request;
  const charge = account.charge({ pages, refs: pages });
  const shared = await domain.grants.share(request).catch(undoing(charge));
  return returningAtEnd(returningCharge(shared, charge), charge);
}

/** Lends, and charges the pages until the other domain has let go of the last one. */
async function lend(domain: Domain, account: Account, request: LendRequest): Promise<LentPages> {
  const { pages } = request.buffer;
  const charge = account.charge({ pages, refs: pages });
  return returningAtEnd(await domain.grants.lend(request).catch(undoing(charge)), charge);
}

/** Pages given to another domain, with the charge given back once it has let go of the last one. */
function returningAtEnd<T extends { end(): Promise<GivenBack> }>(given: T, charge: Charge): T {
  const end = given.end.bind(given);
  const ended = async () => {
    const result = await end();
    if (result.heldPages === 0) charge[Symbol.dispose]();
    return result;
  };
  return Object.defineProperty(given, 'end', { value: ended });
}

/**
 * Maps. How many areas that takes is known to whoever maps: it is told how many are left before it begins, and what
 * it took is charged.
 */
async function mapRefs(
  domain: Domain,
  account: Account,
  request: MapRequest,
): Promise<ForeignMapping> {
  const { length } = request.refs;
  const charge = account.charge({ pages: length, refs: length, mappings: 1 });
  const mapping = await mapWithin(domain, account, request).catch(undoing(charge));
  try {
    return returningCharge(mapping, charge, account.charge({ areas: mapping.areas }));
  } catch (error) {
    await mapping[Symbol.asyncDispose]();
    charge[Symbol.dispose]();
    throw error;
  }
}

/** @throws ProtocolViolation `over-budget-areas`, and what mapping throws */
async function mapWithin(
  domain: Domain,
  account: Account,
  request: MapRequest,
): Promise<ForeignMapping> {
  try {
    return await domain.foreign.map({ ...request, maxAreas: account.left('areas') });
  } catch (error) {
    throw isErrno(error, 'E2BIG') ? account.overBudget('areas', error.context) : error;
  }
}

/** Makes a dma-buf, whose mapping is charged until it is released; its pages are those of the view. */
async function exportRefs(
  domain: Domain,
  account: Account,
  request: ExportRequest,
): Promise<ExportedRefs> {
  const charge = account.charge({ refs: request.refs.length, mappings: 1 });
  const exported = await domain.foreign.export(request).catch(undoing(charge));
  const ask = exported.released.bind(exported);
  const released = async () => {
    const over = await ask();
    if (over) charge[Symbol.dispose]();
    return over;
  };
  return Object.defineProperty(exported, 'released', { value: released });
}

/** Takes memory out of the pool, charged until the last page of it is back. */
async function takeFrom(pool: MemoryPool, account: Account, pages: number): Promise<LocalBuffer> {
  const charge = account.charge({ poolPages: pages });
  const memory = await pool.allocate(pages).catch(undoing(charge));
  const free = memory.free.bind(memory);
  const freed = async () => {
    const given = await free();
    if (given.heldPages === 0) charge[Symbol.dispose]();
    return given;
  };
  return Object.defineProperty(memory, 'free', { value: freed });
}

function undoing(charge: Charge): (error: unknown) => never {
  return (error) => {
    charge[Symbol.dispose]();
    throw error;
  };
}

function accountedMemory(domain: Domain, account: Account): Memory {
  return {
    allocate: (request) => domain.memory.allocate(request),
    adopt: (fd) => domain.memory.adopt(fd),
    createPool: async (request) => {
      const pool = await domain.memory.createPool(request);
      return {
        pages: pool.pages,
        get freePages() {
          return pool.freePages;
        },
        allocate: (pages) => takeFrom(pool, account, pages),
        [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
      };
    },
  };
}

/**
 * `domain` with everything acquired through it charged to `account`.
 * The result does not own `domain`: disposing it asserts that the account is empty and closes nothing.
 */
export function accountedDomain(domain: Domain, account: Account): Domain {
  const grants: Grants = {
    share: (request) => share(domain, account, request),
    lend: (request) => lend(domain, account, request),
  };
  const foreign: ForeignMemory = {
    map: (request) => mapRefs(domain, account, request),
    export: (request) => exportRefs(domain, account, request),
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
    memory: accountedMemory(domain, account),
    events,
    store,
    async [Symbol.asyncDispose]() {
      assert(account.empty, `closed while holding ${JSON.stringify(account.held)}`);
    },
  };
}
