// Guests that share with each other on a Xen host in this process, under virtual time. At the end everything is
// closed, the guests are destroyed, and nothing may be left of anything, on the hypervisor's books and in xenstore.

import assert from 'node:assert/strict';
import { leakReport } from '../../src/hypervisor/books.ts';
import type { Guest } from '../../src/hypervisor/guest.ts';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { Exporter } from '../../src/share/exporter.ts';
import { Importer } from '../../src/share/importer.ts';
import { type AcceptRule, DEFAULT_RULE } from '../../src/share/policy.ts';
import { ShareError, type ShareErrorReason } from '../../src/share/share-error.ts';
import type { ShareEvent } from '../../src/share/share-events.ts';
import type { DomId } from '../../src/xen/ids.ts';

const MACHINE_FRAMES = 16_384;
const STEPS_MAX = 300_000;

/** A guest with its program in this thread. */
export interface TestDomain {
  readonly guest: Guest;
  readonly domain: GuestDomain;
}

export interface ShareWorld {
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  readonly alice: TestDomain;
  readonly bob: TestDomain;
  readonly carol: TestDomain;
  /** What the promise gives, with the world going on until it does. */
  run<T>(promise: Promise<T>): Promise<T>;
  until(condition: () => boolean, what: string): Promise<void>;
  pause(delayMs: number): Promise<void>;
  exporter(of: TestDomain | XenHost): Exporter;
  /** Accepts from `from` by default rules. */
  importer(
    of: TestDomain | XenHost,
    ...from: (TestDomain | Partial<AcceptRule>)[]
  ): Promise<Importer>;
  /** The next events that the importer tells. */
  next(importer: Importer, count?: number): Promise<ShareEvent[]>;
  /** Grants of others that a domain maps. */
  mapped(of: TestDomain): number;
  /** Grants that a domain gives. */
  granted(of: TestDomain): number;
  /** The program of a domain ends without a word: its kernel cleans up, xenstore keeps what it wrote. */
  kill(of: TestDomain): Promise<void>;
  /** The domain is destroyed with its program. */
  destroy(of: TestDomain): Promise<void>;
}

export async function sharing(body: (world: ShareWorld) => Promise<void>, seed = 1): Promise<void> {
  const runtime = new VirtualRuntime(seed);
  const run = <T>(promise: Promise<T>) => running(runtime, promise);
  const host = await run(XenHost.start({ runtime, machineFrames: MACHINE_FRAMES }));
  const enter = async (name: string): Promise<TestDomain> => {
    const guest = await run(host.createGuest({ name }));
    return { guest, domain: host.enter(guest) };
  };
  const before = await run(nodeCount(host));
  const [alice, bob, carol] = [await enter('alice'), await enter('bob'), await enter('carol')];
  /** What is to be closed, unless its domain has died. */
  const programs: { readonly domid: DomId; readonly close: () => Promise<void> }[] = [];
  const dead = new Set<DomId>();
  const books = (domid: DomId) => host.hypervisor.books().domains.find((b) => b.domid === domid);
  const domainOf = (of: TestDomain | XenHost) => ('dom0' in of ? of.dom0 : of.domain);
  await body({
    runtime,
    host,
    alice,
    bob,
    carol,
    run,
    until: (condition, what) => runtime.runUntil(condition, { what, maxSteps: STEPS_MAX }),
    pause: (delayMs) => run(sleep(runtime, delayMs)),
    exporter: (of) => {
      const domain = domainOf(of);
      const exporter = new Exporter({ runtime, domain });
      programs.push({ domid: domain.domid, close: () => exporter.close() });
      return exporter;
    },
    importer: async (of, ...from) => {
      const accept = from.map((rule) => ({
        ...DEFAULT_RULE,
        ...('domain' in rule ? { from: rule.domain.domid } : { from: 'any' as const, ...rule }),
      }));
      const domain = domainOf(of);
      const importer = await run(Importer.open({ runtime, domain, policy: { accept } }));
      programs.unshift({ domid: domain.domid, close: () => importer.close() });
      return importer;
    },
    next: async (importer, count = 1) => {
      const found: ShareEvent[] = [];
      while (found.length < count) {
        const { value } = await run(importer.events().next());
        found.push(value);
      }
      return found;
    },
    mapped: ({ domain }) => books(domain.domid)?.maptrackUsed ?? 0,
    granted: ({ domain }) => books(domain.domid)?.grantsGiven ?? 0,
    kill: async ({ domain }) => {
      dead.add(domain.domid);
      await run(Promise.resolve(domain[Symbol.asyncDispose]()));
    },
    destroy: async ({ guest, domain }) => {
      dead.add(domain.domid);
      await run(guest.destroy());
    },
  });
  for (const { domid, close } of programs) if (!dead.has(domid)) await run(close());
  for (const { guest } of [alice, bob, carol]) await run(guest.destroy());
  assert.deepEqual(leakReport(host.hypervisor.books()), []);
  assert.equal(await run(nodeCount(host)), before, 'nodes are left in xenstore');
  await run(Promise.resolve(host[Symbol.asyncDispose]()));
}

/** Nodes below `/local/domain`, but for the two empty directories that domain 0's own shares leave. */
async function nodeCount({ dom0 }: XenHost): Promise<number> {
  const count = async (path: string): Promise<number> => {
    const names = (await dom0.store.directory(path)) ?? [];
    let sum = names.length;
    for (const name of names) sum += await count(`${path}/${name}`);
    return sum;
  };
  await dom0.store.remove('/local/domain/0/data');
  return count('/local/domain');
}

async function running<T>(runtime: VirtualRuntime, promise: Promise<T>): Promise<T> {
  let settled = false;
  const settle = () => {
    settled = true;
  };
  promise.then(settle, settle);
  const what = 'the promise settles';
  await runtime.runUntil(() => settled, { what, maxSteps: STEPS_MAX });
  return promise;
}

/** Whether it is a ShareError of that reason. */
export function shareError(reason: ShareErrorReason, words = /./): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof ShareError, `not a ShareError: ${String(error)}`);
    assert.equal(error.reason, reason, error.message);
    assert.match(error.message, words);
    return true;
  };
}
