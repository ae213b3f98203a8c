// Random requests of several domains, inside and outside of transactions, against the simple reference: every
// answer, every watch event, the whole content and the count of each owner's nodes have to agree.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  access,
  makeDirectory,
  remove,
  setPermissions,
  write,
} from '../../../src/hypervisor/xenstored/operations.ts';
import type { Caller, Permissions } from '../../../src/hypervisor/xenstored/permissions.ts';
import { type Change, Store, type Transaction } from '../../../src/hypervisor/xenstored/store.ts';
import { StoreError } from '../../../src/hypervisor/xenstored/store-error.ts';
import { walk } from '../../../src/hypervisor/xenstored/tree.ts';
import { Watches } from '../../../src/hypervisor/xenstored/watches.ts';
import { DOM0, domId } from '../../../src/xen/ids.ts';
import { formatPermission, parsePermission } from '../../../src/xen/xenstore-permission.ts';
import { type Operation, Reference, type ReferenceTransaction } from './reference.ts';

const DOMAINS = [0, 1, 2];

const path = fc.constantFrom(
  '/',
  '/a',
  '/a/b',
  '/a/b/c',
  '/a/d',
  '/e',
  '/e/f',
  '/e/f/g',
  '/e/f/g/h',
);
const permission = fc.tuple(fc.constantFrom('n', 'r', 'w', 'b'), fc.constantFrom(...DOMAINS));
const permissions = fc
  .array(
    permission.map(([letter, domain]) => `${letter}${domain}`),
    { minLength: 1, maxLength: 3 },
  )
  .map((texts) => texts.join());
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('read', 'list', 'mkdir', 'remove'),
    path,
    text: fc.constant(''),
  }),
  fc.record({ kind: fc.constant('write'), path, text: fc.constantFrom('1', '2') }),
  fc.record({ kind: fc.constant('permit'), path, text: permissions }),
);
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ domain: fc.constantFrom(...DOMAINS), operation }) },
  {
    weight: 2,
    arbitrary: fc.record({ domain: fc.constantFrom(...DOMAINS), begin: fc.constant(true) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ domain: fc.constantFrom(...DOMAINS), commit: fc.boolean() }),
  },
);

function callerOf(domain: number): Caller {
  return { domid: domId(domain), target: undefined, privileged: domain === 0 };
}

function parse(text: string): Permissions {
  const [owner, ...others] = text.split(',').map((one) => parsePermission(one)!);
  return [owner!, ...others];
}

/** What one domain sees and hears. */
class Actor {
  readonly caller: Caller;
  readonly domain: number;
  transaction: Transaction | undefined;
  twin: ReferenceTransaction | undefined;
  heard = new Map<string, Set<string>>();

  constructor(domain: number) {
    this.domain = domain;
    this.caller = callerOf(domain);
  }

  watchEvent(changed: string, token: string): void {
    const set = this.heard.get(token) ?? new Set();
    this.heard.set(token, set.add(changed));
  }
}

const WATCHED = ['/', '/a', '/a/b', '/e/f', '/e/f/g/h'];

/** The store and the reference side by side. */
class Pair {
  readonly watches = new Watches();
  readonly actors = DOMAINS.map((domain) => new Actor(domain));
  readonly reference = new Reference();
  readonly store = new Store([{ domid: DOM0, read: false, write: false }], (change: Change) =>
    this.watches.fire(change),
  );

  constructor() {
    for (const watcher of this.actors) {
      for (const at of WATCHED) {
        this.watches.add({ watcher, path: at, token: at, base: undefined }, WATCHED.length);
      }
    }
  }

  operate(actor: Actor, { kind, path: at, text }: Operation): string {
    const view = actor.transaction ?? this.store;
    const context = { view, caller: actor.caller, quotas: undefined };
    try {
      if (kind === 'read') return `=${Buffer.from(access(context, at, 'read').value)}`;
      if (kind === 'list')
        return `=${[...access(context, at, 'read').children.keys()].sort().join()}`;
      if (kind === 'write') write(context, at, Buffer.from(text));
      else if (kind === 'mkdir') makeDirectory(context, at);
      else if (kind === 'remove') remove(context, at);
      else setPermissions(context, at, parse(text));
      return 'OK';
    } catch (error) {
      assert(error instanceof StoreError);
      return error.errnoName;
    }
  }

  commit(actor: Actor): string {
    try {
      this.store.commit(actor.transaction!, undefined);
      return 'OK';
    } catch (error) {
      assert(error instanceof StoreError);
      return error.errnoName;
    }
  }

  checkHeard(before: Reference['entries'], events: readonly (readonly [string, boolean])[]): void {
    for (const actor of this.actors) {
      for (const watched of WATCHED) {
        const expected = this.reference.heard({ domain: actor.domain, watched }, before, events);
        assert.deepEqual(
          [...(actor.heard.get(watched) ?? [])].sort(),
          [...expected].sort(),
          `domain ${actor.domain} watching ${watched}`,
        );
      }
      actor.heard.clear();
    }
  }

  checkContent(): void {
    const content = new Map<string, string>();
    const counts = new Map<number, number>();
    for (const [at, node] of walk('/', this.store.root)) {
      const list = node.permissions.map(formatPermission).join();
      content.set(at, `${Buffer.from(node.value)} ${list}`);
      const owner = node.permissions[0].domid;
      counts.set(owner, (counts.get(owner) ?? 0) + 1);
      const nameBytes = [...node.children.keys()].reduce((sum, { length }) => sum + length + 1, 0);
      assert.equal(node.childNameBytes, nameBytes);
    }
    const expected = [...this.reference.entries].map(
      ([at, entry]) => [at, `${entry.value} ${entry.permissions.join()}`] as const,
    );
    assert.deepEqual(new Map([...content].sort()), new Map(expected.sort()));
    assert.deepEqual(new Map([...this.store.owners()].sort()), new Map([...counts].sort()));
  }
}

function copyOf(entries: Reference['entries']): Reference['entries'] {
  return new Map([...entries].map(([at, entry]) => [at, { ...entry }]));
}

interface Step {
  readonly domain: number;
  readonly operation?: Operation;
  readonly begin?: boolean;
  readonly commit?: boolean;
}

function play(pair: Pair, one: Step): void {
  const { reference, store } = pair;
  const actor = pair.actors[one.domain]!;
  const before = copyOf(reference.entries);
  if (one.operation) {
    const { answer, events } = reference.run(one.domain, one.operation, actor.twin);
    assert.equal(pair.operate(actor, one.operation), answer, JSON.stringify(one));
    pair.checkHeard(before, events);
  } else if (one.begin && !actor.transaction) {
    actor.transaction = store.begin(Number.POSITIVE_INFINITY);
    actor.twin = reference.begin();
  } else if (one.commit !== undefined && actor.transaction) {
    const twin = actor.twin!;
    const committed = one.commit && reference.commit(twin);
    if (one.commit) assert.equal(pair.commit(actor), committed ? 'OK' : 'EAGAIN');
    pair.checkHeard(before, committed ? [...twin.changed] : []);
    actor.transaction = undefined;
    actor.twin = undefined;
  }
}

/** The same beginning for all runs, the steps, and a look at everything at the end. */
function playAll(steps: readonly Step[]): void {
  const opening: Operation[] = [
    { kind: 'permit', path: '/', text: 'b0' },
    { kind: 'write', path: '/a/b', text: '0' },
    { kind: 'write', path: '/e/f/g/h', text: '0' },
    { kind: 'permit', path: '/e/f', text: 'n1,r2' },
  ];
  const pair = new Pair();
  for (const operation of opening) play(pair, { domain: 0, operation });
  for (const one of steps) play(pair, one);
  pair.checkContent();
}

test('whatever several domains do, the store answers and tells as the reference does', () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 60, size: 'max' }), playAll), { numRuns: 400 });
});

/** Domain 1's transaction changes something and changes it back, while domain 2 looks at `read` in one of its own. */
function undoneWhileRead(undone: readonly Operation[], read: string): Step[] {
  return [
    { domain: 1, begin: true },
    ...undone.map((operation) => ({ domain: 1, operation })),
    { domain: 2, begin: true },
    { domain: 2, operation: { kind: 'read', path: read, text: '' } },
    { domain: 1, commit: true },
    { domain: 2, commit: true },
  ];
}

test('seed 1334937515 path 203:11:11:14:17:30:34:37:40:38:40:43:47: a node that came and went in a transaction', () => {
  const undone: Operation[] = [
    { kind: 'write', path: '/a/b/c', text: '1' },
    { kind: 'remove', path: '/a/b/c', text: '' },
  ];
  playAll(undoneWhileRead(undone, '/a/b/c'));
});

test('seed -1801818343 path 137:3:1:13:13:18:26:26:29:30:36:39:41:43:2:36:40: a node that went and came back', () => {
  const undone: Operation[] = [
    { kind: 'remove', path: '/e/f/g', text: '' },
    { kind: 'mkdir', path: '/e/f/g/h', text: '' },
  ];
  playAll(undoneWhileRead(undone, '/e/f'));
});
