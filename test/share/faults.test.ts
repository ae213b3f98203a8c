// Every call that sharing makes of its domain fails once: the caller gets the failure, nothing is left granted,
// mapped or bound, and the next attempt succeeds.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SysError } from '../../src/runtime/errors.ts';
import { Exporter } from '../../src/share/exporter.ts';
import { Importer } from '../../src/share/importer.ts';
import { DEFAULT_RULE } from '../../src/share/policy.ts';
import type { Domain } from '../../src/xen/domain.ts';
import { type ShareWorld, sharing } from './world.ts';

/** More calls than opening or exporting makes. */
const MAX_CALLS = 40;

/** Counts the calls that may fail, and lets one of them. */
class Fault {
  failAt = 0;
  calls = 0;

  check(call: string): void {
    this.calls += 1;
    if (this.calls !== this.failAt) return;
    throw new SysError({ call, errnoName: 'ENOMEM', context: `call ${this.calls} of a test` });
  }
}

/** `domain`, of whose calls one fails. */
function failing(domain: Domain, fault: Fault): Domain {
  const guarded = <T extends object>(target: T, names: readonly (keyof T & string)[]): T =>
    new Proxy(target, {
      get: (object, name) => {
        const value = Reflect.get(object, name, object) as unknown;
        if (typeof value !== 'function') return value;
        const call = (value as (...args: unknown[]) => unknown).bind(object);
        if (!names.includes(name as never)) return call;
        return async (...args: unknown[]) => {
          fault.check(String(name));
          return call(...args);
        };
      },
    });
  return {
    domid: domain.domid,
    provider: domain.provider,
    memory: domain.memory,
    grants: guarded(domain.grants, ['share', 'lend']),
    foreign: guarded(domain.foreign, ['map', 'export']),
    events: guarded(domain.events, ['allocUnbound', 'bindInterdomain']),
    store: guarded(domain.store, ['write', 'watch', 'transaction']),
    [Symbol.asyncDispose]: async () => {},
  };
}

/** Lets `attempt` fail at its first call, its second, and so on until it succeeds. @returns how often it failed */
async function failEverywhere(
  fault: Fault,
  attempt: () => Promise<void>,
  afterFailure: () => Promise<void> | void,
): Promise<number> {
  for (let failAt = 1; failAt <= MAX_CALLS; failAt++) {
    fault.calls = 0;
    fault.failAt = failAt;
    try {
      await attempt();
      if (fault.calls < failAt) return failAt - 1;
    } catch (error) {
      assert(error instanceof SysError, String(error));
      assert.match(error.message, /of a test/);
    }
    fault.failAt = 0;
    await afterFailure();
  }
  assert.fail('it never succeeded');
}

const accepting = (world: ShareWorld, domain: Domain) => ({
  runtime: world.runtime,
  domain,
  policy: { accept: [{ ...DEFAULT_RULE, from: world.alice.domain.domid }] },
});

test('exporting fails at each of its calls, and leaves nothing', () =>
  sharing(async (world) => {
    const { alice, bob, run, runtime } = world;
    const fault = new Fault();
    const request = { to: bob.domain.domid, memory: { byteLength: 5_000_000 }, slots: 2 };
    const path = `/local/domain/${alice.domain.domid}/data/xen-zcopy/offers/${bob.domain.domid}`;
    const failures = await failEverywhere(
      fault,
      async () => {
        const exporter = new Exporter({ runtime, domain: failing(alice.domain, fault) });
        try {
          const share = await run(exporter.stream(request));
          fault.failAt = 0;
          await run(share.withdraw());
        } finally {
          assert.deepEqual(exporter.shares, []);
          await run(exporter.close());
        }
      },
      async () => {
        assert.equal(world.granted(alice), 0);
        assert.deepEqual((await run(alice.domain.store.directory(path))) ?? [], []);
      },
    );
    // The directory of offers and its watch; data, directory, port, control page, offer; the node.
    assert.equal(failures, 8);
  }));

test('opening fails at each of its calls, and leaves nothing', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    const share = await run(
      world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 5_000_000 } }),
    );
    const fault = new Fault();
    const importer = await run(Importer.open(accepting(world, failing(bob.domain, fault))));
    const mapped = world.mapped(bob);
    const failures = await failEverywhere(
      fault,
      async () => {
        const open = await run(importer.open(share.id));
        fault.failAt = 0;
        await run(open.close());
      },
      async () => {
        assert.equal(world.mapped(bob), mapped);
        await world.until(() => share.state === 'offered', 'the exporter hears of the end');
      },
    );
    assert(failures >= 6, `it failed ${failures} times`);
    await run(importer.close());
  }));

test('listening fails at each of its calls, and leaves nothing', () =>
  sharing(async (world) => {
    const { alice, bob, run } = world;
    await run(world.exporter(alice).share({ to: bob.domain.domid, memory: { byteLength: 1 } }));
    const fault = new Fault();
    const failures = await failEverywhere(
      fault,
      async () => {
        const importer = await run(Importer.open(accepting(world, failing(bob.domain, fault))));
        fault.failAt = 0;
        await run(importer.close());
      },
      () => assert.equal(world.mapped(bob), 0),
    );
    assert(failures >= 2, `it failed ${failures} times`);
  }));

test('offers that could not be looked at are looked at a moment later, whichever request xenstored refused', () =>
  sharing(async (world) => {
    const { alice, bob, run, until } = world;
    const exporter = world.exporter(alice);
    const to = bob.domain.domid;
    for (const refused of ['directory', 'read'] as const) {
      const share = await run(exporter.share({ to, memory: { byteLength: 64 } }));
      let left = 1;
      const store = new Proxy(bob.domain.store, {
        get: (object, name) => {
          const value = Reflect.get(object, name, object) as unknown;
          if (typeof value !== 'function') return value;
          const call = value.bind(object) as (...args: unknown[]) => unknown;
          return async (...args: unknown[]) => {
            if (name === refused && String(args[0]).includes('/offers/') && left-- > 0) {
              throw new SysError({ call: 'XS', errnoName: 'ENOMEM', context: 'of a test' });
            }
            return call(...args);
          };
        },
      });
      const domain = { ...failing(bob.domain, new Fault()), store };
      const importer = await run(Importer.open(accepting(world, domain)));
      assert.equal(importer.offers.length, 0, 'the first look failed');
      await until(() => importer.offers.length === 1, 'the offer is seen');
      assert.equal(importer.offers[0]!.id, share.id);
      await run(importer.close());
      await run(share.withdraw());
    }
  }));
