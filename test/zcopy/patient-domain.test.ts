// Mappings that the system does not let go of at once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SysError } from '../../src/runtime/errors.ts';
import { DOM0, type Gref } from '../../src/xen/ids.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { openGuest } from '../../src/zcopy/guest.ts';
import { Ledger } from '../../src/zcopy/ledger.ts';
import { onMachine } from '../hypervisor/world.ts';

test('G3: a page whose unmapping is refused is unmapped in the end, charged until then, and its guest’s row closes (seed 2)', async () => {
  await onMachine(async ({ runtime, dom0, guest }) => {
    const lender = guest('lender');
    const shared = await lender.grants.share({ domid: DOM0, pages: 1, writable: true });
    let refusals = 3;
    const domain: typeof dom0.foreign.map = async (request) => {
      const mapping = await dom0.foreign.map(request);
      const unmap = mapping[Symbol.asyncDispose].bind(mapping);
      const refusing = async () => {
        if (refusals-- > 0) {
          throw new SysError({ call: 'mmap', errnoName: 'ENOMEM', context: 'revoking a view' });
        }
        await unmap();
      };
      return Object.defineProperty(mapping, Symbol.asyncDispose, { value: refusing });
    };
    const { grants, memory, events, store } = dom0;
    const ledger = new Ledger();
    const { context, account } = openGuest({
      runtime,
      domain: {
        domid: DOM0,
        provider: 'hypervisor',
        grants,
        memory,
        events,
        store,
        foreign: { map: domain, export: (request) => dom0.foreign.export(request) },
        [Symbol.asyncDispose]: async () => {},
      },
      ledger,
      budget: DEFAULT_BUDGET,
      domid: lender.domid,
      name: 'lender',
    });
    const refs: Gref[] = [...shared.refs];
    const request = { domid: lender.domid, refs, writable: true };
    context.scope.own(await context.domain.foreign.map(request));
    let closed = false;
    const closing = context.scope.close().then(() => {
      closed = true;
    });
    await runtime.runUntil(() => refusals < 2, { what: 'it was refused twice' });
    assert.equal(account.held.mappings, 1);
    assert(!closed, 'the guest is not forgotten while a page of its is mapped');
    await runtime.runUntil(() => closed, { what: 'everything is given back' });
    await closing;
    assert.deepEqual([...ledger.accounts], []);
    await shared[Symbol.asyncDispose]();
  });
});
