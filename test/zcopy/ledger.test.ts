import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../src/runtime/errors.ts';
import { domId } from '../../src/xen/ids.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { Ledger } from '../../src/zcopy/ledger.ts';

test('a charge that does not fit is refused whole, and names what is over', () => {
  const account = new Ledger().open({
    domid: domId(1),
    name: 'guest',
    budget: { ...DEFAULT_BUDGET, pages: 10, buffers: 1 },
  });
  using first = account.charge({ pages: 8, buffers: 1 });
  assert.throws(
    () => account.charge({ refs: 1, pages: 3 }),
    (error) => error instanceof ProtocolViolation && error.reason === 'over-budget-pages',
  );
  assert.deepEqual([account.held.pages, account.held.refs], [8, 0]);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assert(account.empty);
});

test('a guest that is gone and still holds something is an assertion', () => {
  const ledger = new Ledger();
  const account = ledger.open({ domid: domId(1), name: 'guest', budget: DEFAULT_BUDGET });
  const charge = account.charge({ ports: 1 });
  assert.throws(() => ledger.close(account), /domain 1 is gone and holds/);
  // It comes back, and goes on with what it left: a leak costs it a part of its budget, not its service.
  assert.equal(ledger.open({ domid: domId(1), name: 'back', budget: DEFAULT_BUDGET }), account);
  charge[Symbol.dispose]();
  ledger.close(account);
  assert.deepEqual([...ledger.accounts], []);
});
