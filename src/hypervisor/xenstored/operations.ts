// What a caller can do with nodes, under permissions and quotas (docs/misc/xenstore.txt of the Xen tree, "Database
// read, write and permissions operations"). The same for the store itself and inside a transaction.
//
// Invariant: an operation that throws has changed nothing.

import assert from 'node:assert/strict';
import { leafOf, parentOf, pathsBetween } from './path.ts';
import { allows, type Caller, inherited, type Permissions, type Right } from './permissions.ts';
import type { Quotas } from './quotas.ts';
import type { View } from './store.ts';
import { StoreError } from './store-error.ts';
import type { StoreNode } from './tree.ts';

export interface Context {
  readonly view: View;
  readonly caller: Caller;
  /** Undefined for the control domain. */
  readonly quotas: Quotas | undefined;
}

/** What a node takes beside value, permissions and names: generation, counts (the C daemon's record). */
const NODE_HEAD_BYTES = 24;
const PERMISSION_BYTES = 8;

/**
 * The node, which the caller may use with that right.
 * @throws StoreError EACCES, or ENOENT for a node that is missing where the caller might know so
 */
export function access(context: Context, path: string, right: Right): StoreNode {
  const node = find(context, path, right);
  if (!node) throw StoreError.of('ENOENT');
  return node;
}

/** The same, or undefined for a node that is missing where the caller might know so. @throws StoreError EACCES */
function find({ view, caller }: Context, path: string, right: Right): StoreNode | undefined {
  const node = view.get(path);
  // Nobody owns what is missing: who may write above may know that it is.
  const known = node ?? view.nearest(path).node;
  const needed = node === undefined && right === 'own' ? 'write' : right;
  if (!allows(known.permissions, caller, needed)) throw StoreError.of('EACCES');
  return node;
}

/** Stores the value, making the node and its parents when they are missing. */
export function write(context: Context, path: string, value: Uint8Array): void {
  const node = find(context, path, 'write');
  if (!node) {
    create(context, path, value);
    return;
  }
  checkSize(context, { ...node, value });
  context.view.apply({ kind: 'value', path, value }, { path, removed: false });
}

/** Makes the node and its parents; one that exists stays as it is. */
export function makeDirectory(context: Context, path: string): void {
  if (!find(context, path, 'write')) create(context, path, new Uint8Array(0));
}

/** Removes the node and everything below; a missing one is fine when its parent exists. */
export function remove(context: Context, path: string): void {
  const node = find(context, path, 'write');
  const parent = parentOf(path);
  if (parent === undefined) throw StoreError.of('EINVAL');
  if (node) context.view.apply({ kind: 'remove', path }, { path, removed: true });
  else if (!context.view.get(parent)) throw StoreError.of('ENOENT');
}

/** @throws StoreError EPERM when a caller that is not privileged gives the node to another domain */
export function setPermissions(context: Context, path: string, permissions: Permissions): void {
  checkPermissionCount(context, permissions);
  const node = access(context, path, 'own');
  checkOwner(context.caller, node.permissions, permissions);
  checkSize(context, { ...node, permissions });
  context.view.apply({ kind: 'permissions', path, permissions }, { path, removed: false });
}

function checkPermissionCount({ quotas }: Context, permissions: Permissions): void {
  if (quotas && permissions.length > quotas.permissions) throw StoreError.of('ENOSPC');
}

function checkOwner(caller: Caller, before: Permissions, after: Permissions): void {
  if (after[0].domid !== before[0].domid && !caller.privileged) throw StoreError.of('EPERM');
}

function create(context: Context, path: string, value: Uint8Array): void {
  const { view, caller, quotas } = context;
  const { path: parentPath, node: parent } = view.nearest(path);
  const missing = pathsBetween(parentPath, path);
  const [topmost] = missing;
  assert(topmost !== undefined, `${path} exists`);
  if (quotas && view.owned(caller.domid) + missing.length > quotas.nodes) throw view.overQuota();
  const permissions = inherited(parent.permissions, caller);
  checkSize(context, { value, permissions, childNameBytes: 0 });
  const childNameBytes = parent.childNameBytes + leafOf(topmost).length + 1;
  checkSize(context, { ...parent, childNameBytes });
  const event = { path, removed: false };
  view.apply({ kind: 'create', path, value, permissions }, event);
}

function checkSize(
  { view, quotas }: Context,
  node: Pick<StoreNode, 'value' | 'permissions' | 'childNameBytes'>,
): void {
  if (!quotas) return;
  const lists = node.childNameBytes + node.permissions.length * PERMISSION_BYTES;
  if (NODE_HEAD_BYTES + node.value.length + lists > quotas.nodeBytes) throw view.overQuota();
}
