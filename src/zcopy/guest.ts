// A guest as the backends get it: its domain with everything charged, its row in the ledger, and its pool.
// Its scope closes the pool and the row last, when nothing of the guest is served any more.

import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { MemoryPool } from '../xen/memory.ts';
import type { GuestContext } from '../xen/xenbus/driver.ts';
import { accountedDomain } from './accounted-domain.ts';
import type { Budget } from './budget.ts';
import type { Account, Ledger } from './ledger.ts';
import { Pace } from './pace.ts';

export interface GuestOptions {
  readonly runtime: Runtime;
  /** Our own domain, not accounted. */
  readonly domain: Domain;
  readonly ledger: Ledger;
  readonly budget: Budget;
  readonly domid: DomId;
  readonly name: string;
}

/** What a guest is for who opened it: the context for the backends, and its row. */
export interface OpenGuest {
  readonly context: GuestContext;
  readonly account: Account;
}

/** Opens the guest's row; closing the context's scope closes it. */
export function openGuest(options: GuestOptions): OpenGuest {
  const { runtime, ledger, budget, domid, name } = options;
  const account = ledger.open({ domid, name, budget });
  const domain = accountedDomain(options.domain, account);
  const scope = new Scope(`guest-${domid}`);
  scope.defer(() => ledger.close(account));
  const pace = new Pace(runtime, account);
  let pool: Promise<MemoryPool> | undefined;
  const openPool = async () => {
    const pages = budget.poolPages;
    return scope.own(await domain.memory.createPool({ domid, pages }));
  };
  const context: GuestContext = {
    domid,
    domain,
    scope,
    log: runtime.log.child({ guest: name, domid }),
    countRefusal: (reason) => account.countRefusal(reason),
    charge: (amounts) => account.charge(amounts),
    spend: (kind, amount) => pace.spend(kind, amount),
    rest: (kind, signal) => pace.rest(kind, signal),
    track: (buffer) => account.track(buffer),
    pool: () => {
      pool ??= openPool();
      // A host that had no room may have it the next time.
      pool.catch(() => {
        pool = undefined;
      });
      return pool;
    },
  };
  return { context, account };
}
