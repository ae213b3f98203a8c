// The store: the tree that everyone sees, transactions on snapshots of it, and word of every change.
//
// Invariants: a transaction reads the tree as it was when it began, with its own writes; it commits
// whole, and only when no node that it looked at or changed has changed since (EAGAIN otherwise); it
// holds nothing but its tree and the paths it touched, however often it writes;
// every change is reported once, with the trees before and after it, when it is visible to all.

import assert from 'node:assert/strict';
import type { DomId } from '../../xen/ids.ts';
import { parentOf, pathsBetween } from './path.ts';
import { type Permissions, withoutDomain } from './permissions.ts';
import type { Quotas } from './quotas.ts';
import { StoreError } from './store-error.ts';
import { copyOf, type Mutation, nearestTo, nodeAt, type StoreNode, Tree, walk } from './tree.ts';

/** Something that happened to one path, as watches hear of it. */
export interface StoreEvent {
  readonly path: string;
  /** The node and everything below it went away. */
  readonly removed: boolean;
}

/** A visible change: roots before and after, and what watches are told. */
export interface Change {
  readonly before: StoreNode;
  readonly after: StoreNode;
  readonly events: readonly StoreEvent[];
}

/** What an operation works on: the store itself, or a transaction. */
export interface View {
  get(path: string): StoreNode | undefined;
  /** The node, or the closest one above it that exists. */
  nearest(path: string): { readonly path: string; readonly node: StoreNode };
  /** Nodes that the domain owns, as far as this view can see. */
  owned(domid: DomId): number;
  /** The refusal for something that a quota does not allow. */
  overQuota(): StoreError;
  /** Makes the mutation and reports the event, now or at the commit. */
  apply(mutation: Mutation, event: StoreEvent): void;
}

export class Store implements View {
  readonly #tree: Tree;
  readonly #onChange: (change: Change) => void;

  constructor(rootPermissions: Permissions, onChange: (change: Change) => void) {
    this.#tree = Tree.empty(rootPermissions);
    this.#onChange = onChange;
  }

  get root(): StoreNode {
    return this.#tree.root;
  }

  get(path: string): StoreNode | undefined {
    return this.#tree.get(path);
  }

  nearest(path: string): { path: string; node: StoreNode } {
    return nearestTo(this.root, path);
  }

  owned(domid: DomId): number {
    return this.#tree.owned(domid);
  }

  owners(): ReadonlyMap<DomId, number> {
    return this.#tree.owners();
  }

  overQuota(): StoreError {
    return StoreError.of('ENOSPC');
  }

  apply(mutation: Mutation, event: StoreEvent): void {
    this.#applyAll([mutation], [event]);
  }

  /** A transaction; `maxNodes` is how many nodes it may look at or change. */
  begin(maxNodes: number): Transaction {
    return new Transaction(this.#tree.fork(), maxNodes);
  }

  /**
   * Makes the transaction's changes visible, all of them.
   * @throws StoreError EAGAIN when it conflicts, ENOSPC when a domain would own more than `quotas` allow,
   *   ENOMEM when something in it was refused for a quota
   */
  commit(transaction: Transaction, quotas: Quotas | undefined): void {
    if (transaction.doomed) throw StoreError.of('ENOMEM');
    for (const path of transaction.touched) {
      const seen = nodeAt(transaction.base, path)?.generation;
      if (this.get(path)?.generation !== seen) throw StoreError.of('EAGAIN');
    }
    if (quotas) this.#checkOwned(transaction, quotas.nodes);
    this.#applyAll(transaction.mutations(), transaction.events);
  }

  /**
   * Removes the nodes that a domain owns (XSA-419), and its entries in the permissions of others, so that the next
   * domain of that number does not inherit them (XSA-322). Watches hear of the removals alone. The root
   * stays: the control domain owns it then.
   */
  forgetDomain(domid: DomId): void {
    const mutations: Mutation[] = [];
    const { root } = this;
    const goes = (node: StoreNode) => node !== root && node.permissions[0].domid === domid;
    for (const [path, node] of walk('/', root, (node) => !goes(node))) {
      const permissions = withoutDomain(node.permissions, domid);
      if (goes(node)) mutations.push({ kind: 'remove', path });
      else if (permissions !== node.permissions) {
        mutations.push({ kind: 'permissions', path, permissions });
      }
    }
    const removals = mutations.filter(({ kind }) => kind === 'remove');
    this.#applyAll(
      mutations,
      removals.map(({ path }) => ({ path, removed: true })),
    );
  }

  #checkOwned(transaction: Transaction, maxNodes: number): void {
    for (const [domid, added] of transaction.ownedDifference()) {
      if (added > 0 && this.owned(domid) + added > maxNodes) throw StoreError.of('ENOSPC');
    }
  }

  #applyAll(mutations: readonly Mutation[], events: readonly StoreEvent[]): void {
    if (mutations.length === 0) return;
    const before = this.root;
    for (const mutation of mutations) this.#tree.apply(mutation);
    this.#onChange({ before, after: this.root, events });
  }
}

export class Transaction implements View {
  /** The root of the snapshot. */
  readonly base: StoreNode;
  readonly #tree: Tree;
  readonly #ownedAtStart: ReadonlyMap<DomId, number>;
  readonly #maxNodes: number;
  readonly #touched = new Set<string>();
  #doomed = false;
  readonly #events = new Map<string, StoreEvent>();

  constructor(tree: Tree, maxNodes: number) {
    this.base = tree.root;
    this.#tree = tree;
    this.#ownedAtStart = copyOf(tree.owners());
    this.#maxNodes = maxNodes;
  }

  /** Paths that the outcome depends on. */
  get touched(): ReadonlySet<string> {
    return this.#touched;
  }

  /** Something in it was refused for a quota, so it is not whole and never commits. */
  get doomed(): boolean {
    return this.#doomed;
  }

  overQuota(): StoreError {
    this.#doomed = true;
    return StoreError.of('ENOSPC');
  }

  /** What leads from the snapshot to its outcome, parents first: at most two steps a node it touched. */
  mutations(): Mutation[] {
    const paths = [...this.#touched].sort((a, b) => a.length - b.length);
    return paths.flatMap((path) => this.#mutationsAt(path));
  }

  /** One event for each path, however often it changed. */
  get events(): StoreEvent[] {
    return [...this.#events.values()];
  }

  /** @throws StoreError ENOSPC when the transaction looks at too many nodes */
  get(path: string): StoreNode | undefined {
    this.#touch(path);
    return this.#tree.get(path);
  }

  nearest(path: string): { path: string; node: StoreNode } {
    const nearest = nearestTo(this.#tree.root, path);
    this.#touch(nearest.path);
    return nearest;
  }

  owned(domid: DomId): number {
    return this.#tree.owned(domid);
  }

  apply(mutation: Mutation, event: StoreEvent): void {
    this.#touchChanged(mutation);
    this.#tree.apply(mutation);
    const removed = event.removed || this.#events.get(event.path)?.removed === true;
    this.#events.set(event.path, { path: event.path, removed });
  }

  /** How many more (or fewer) nodes each domain owns than when the transaction began. */
  ownedDifference(): Map<DomId, number> {
    const difference = new Map<DomId, number>();
    for (const [domid, count] of this.#tree.owners()) {
      difference.set(domid, count - (this.#ownedAtStart.get(domid) ?? 0));
    }
    return difference;
  }

  #mutationsAt(path: string): Mutation[] {
    const before = nodeAt(this.base, path);
    const after = this.#tree.get(path);
    if (!after) return this.#isGoneItself(path) ? [{ kind: 'remove', path }] : [];
    const { value, permissions } = after;
    if (!before) return this.#isNewItself(path) ? [{ kind: 'graft', path, node: after }] : [];
    const mutations: Mutation[] = [];
    // By identity: a value that was written again counts as a change, for whoever else read it.
    if (value !== before.value) mutations.push({ kind: 'value', path, value });
    if (permissions !== before.permissions)
      mutations.push({ kind: 'permissions', path, permissions });
    // And so do children that came and went, or went and came back.
    const changed = after.generation !== before.generation;
    if (changed && mutations.length === 0) mutations.push({ kind: 'renew', path });
    return mutations;
  }

  /** Whether the node, which was not there, is in a directory that was. */
  #isNewItself(path: string): boolean {
    const parent = parentOf(path);
    return parent !== undefined && nodeAt(this.base, parent) !== undefined;
  }

  /** Whether the node was there, is not any more, and did not go with a directory above it. */
  #isGoneItself(path: string): boolean {
    const parent = parentOf(path);
    return (
      parent !== undefined &&
      nodeAt(this.base, path) !== undefined &&
      this.#tree.get(parent) !== undefined
    );
  }

  #touchChanged({ kind, path }: Mutation): void {
    this.#touch(path);
    if (kind === 'create') {
      const nearest = this.nearest(path);
      for (const missing of pathsBetween(nearest.path, path)) this.#touch(missing);
    } else if (kind === 'remove') {
      this.#touch(parentOf(path) ?? path);
      const node = this.#tree.get(path);
      assert(node, `removing ${path}, which does not exist`);
      for (const [below] of walk(path, node)) this.#touch(below);
    }
  }

  #touch(path: string): void {
    if (this.#touched.has(path)) return;
    if (this.#touched.size >= this.#maxNodes) throw this.overQuota();
    this.#touched.add(path);
  }
}
