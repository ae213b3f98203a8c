// The nodes, as values: a node never changes, a change makes new nodes along the way from the root, so a
// snapshot is a reference to a root and costs nothing.
//
// Invariants: a node's generation changes exactly when its value, its permissions or the set of its children
// do, be it only for a while inside a transaction; no two changes share a generation; `owned` counts each node for its owner, in every tree.

import assert from 'node:assert/strict';
import type { DomId } from '../../xen/ids.ts';
import { childOf, componentsOf, leafOf, parentOf, pathsBetween } from './path.ts';
import type { Permissions } from './permissions.ts';

export interface StoreNode {
  readonly value: Uint8Array;
  readonly permissions: Permissions;
  readonly children: ReadonlyMap<string, StoreNode>;
  /** Bytes of the children's names, with a NUL each. */
  readonly childNameBytes: number;
  readonly generation: number;
}

/** One step of a change. */
export type Mutation =
  | {
      /** Missing directories on the way are made too: empty, with the same permissions. */
      readonly kind: 'create';
      readonly path: string;
      readonly value: Uint8Array;
      readonly permissions: Permissions;
    }
  /** Puts a node with all that is below it where nothing is, in a directory that exists. */
  | { readonly kind: 'graft'; readonly path: string; readonly node: StoreNode }
  | { readonly kind: 'value'; readonly path: string; readonly value: Uint8Array }
  | { readonly kind: 'permissions'; readonly path: string; readonly permissions: Permissions }
  /** Its content was changed and changed back: a new generation, and nothing else. */
  | { readonly kind: 'renew'; readonly path: string }
  | { readonly kind: 'remove'; readonly path: string };

/** Numbers the changes of a tree and of all trees that were forked from it. */
interface Generations {
  last: number;
}

const NO_VALUE = new Uint8Array(0);
const NO_CHILDREN: ReadonlyMap<string, StoreNode> = new Map();

export class Tree {
  #root: StoreNode;
  readonly #owned: Map<DomId, number>;
  readonly #generations: Generations;

  private constructor(root: StoreNode, owned: Map<DomId, number>, generations: Generations) {
    this.#root = root;
    this.#owned = owned;
    this.#generations = generations;
  }

  /** A tree that has nothing but its root. */
  static empty(permissions: Permissions): Tree {
    const root = newNode({ value: NO_VALUE, permissions, generation: 1 });
    return new Tree(root, new Map([[permissions[0].domid, 1]]), { last: 1 });
  }

  get root(): StoreNode {
    return this.#root;
  }

  /** A tree of its own with the same content. */
  fork(): Tree {
    return new Tree(this.#root, copyOf(this.#owned), this.#generations);
  }

  get(path: string): StoreNode | undefined {
    return nodeAt(this.#root, path);
  }

  /** How many nodes the domain owns. */
  owned(domid: DomId): number {
    return this.#owned.get(domid) ?? 0;
  }

  /** Owners of nodes and how many each has. */
  owners(): ReadonlyMap<DomId, number> {
    return this.#owned;
  }

  /** Makes the change, which must be possible: nodes are there or missing as it needs them. */
  apply(mutation: Mutation): void {
    const { kind, path } = mutation;
    if (kind === 'create') this.#create(mutation);
    else if (kind === 'graft') this.#graft(path, mutation.node);
    else if (kind === 'remove') this.#remove(path);
    else if (kind === 'value') this.#change(path, { value: mutation.value });
    else if (kind === 'renew') this.#change(path, {});
    else this.#setPermissions(path, mutation.permissions);
  }

  #create({ path, value, permissions }: Mutation & { kind: 'create' }): void {
    const [topmost, ...below] = pathsBetween(nearestTo(this.#root, path).path, path);
    assert(topmost !== undefined, `creating ${path}, which exists`);
    let node = newNode({ value, permissions, generation: this.#nextGeneration() });
    for (const at of below.reverse()) {
      const name = leafOf(at);
      const directory = { value: NO_VALUE, permissions, generation: this.#nextGeneration() };
      node = newNode(directory, new Map([[name, node]]), name.length + 1);
    }
    this.#graft(topmost, node);
  }

  #graft(path: string, node: StoreNode): void {
    const { parent, parentPath, name } = this.#parent(path);
    assert(!parent.children.has(name), `${path} exists`);
    const children = copyOf(parent.children).set(name, node);
    const childNameBytes = parent.childNameBytes + name.length + 1;
    this.#change(parentPath, { children, childNameBytes });
    this.#countAll(node, 1);
  }

  #remove(path: string): void {
    const { parent, parentPath, name } = this.#parent(path);
    const node = parent.children.get(name);
    assert(node, `removing ${path}, which does not exist`);
    const children = copyOf(parent.children);
    children.delete(name);
    const childNameBytes = parent.childNameBytes - name.length - 1;
    this.#change(parentPath, { children, childNameBytes });
    this.#countAll(node, -1);
  }

  #setPermissions(path: string, permissions: Permissions): void {
    const before = this.#existing(path).permissions[0].domid;
    this.#change(path, { permissions });
    this.#count(before, -1);
    this.#count(permissions[0].domid, 1);
  }

  #parent(path: string): { parent: StoreNode; parentPath: string; name: string } {
    const parentPath = parentOf(path);
    assert(parentPath !== undefined, 'the root is neither made nor removed');
    return { parent: this.#existing(parentPath), parentPath, name: leafOf(path) };
  }

  #existing(path: string): StoreNode {
    const node = this.get(path);
    assert(node, `${path} does not exist`);
    return node;
  }

  #change(path: string, change: Partial<StoreNode>): void {
    const generation = this.#nextGeneration();
    const edit = (node: StoreNode): StoreNode => ({ ...node, ...change, generation });
    this.#root = replaced(this.#root, { components: componentsOf(path), depth: 0, edit });
  }

  /** The node itself and all that is below it. */
  #countAll({ permissions, children }: StoreNode, difference: number): void {
    this.#count(permissions[0].domid, difference);
    for (const child of children.values()) this.#countAll(child, difference);
  }

  #count(domid: DomId, difference: number): void {
    const count = this.owned(domid) + difference;
    assert(count >= 0, `domain ${domid} owns ${count} nodes`);
    if (count === 0) this.#owned.delete(domid);
    else this.#owned.set(domid, count);
  }

  #nextGeneration(): number {
    this.#generations.last += 1;
    return this.#generations.last;
  }
}

/** The same as `new Map(map)`, which makes two objects of each entry on its way. */
export function copyOf<K, V>(map: ReadonlyMap<K, V>): Map<K, V> {
  const copy = new Map<K, V>();
  for (const [key, value] of map) copy.set(key, value);
  return copy;
}

function newNode(
  { value, permissions, generation }: Pick<StoreNode, 'value' | 'permissions' | 'generation'>,
  children = NO_CHILDREN,
  childNameBytes = 0,
): StoreNode {
  return { value, permissions, children, childNameBytes, generation };
}

interface Edit {
  readonly components: readonly string[];
  /** How many components lead to the node at hand. */
  readonly depth: number;
  readonly edit: (node: StoreNode) => StoreNode;
}

/** The tree below `node` with the node at the end of the components edited. */
function replaced(node: StoreNode, { components, depth, edit }: Edit): StoreNode {
  const name = components[depth];
  if (name === undefined) return edit(node);
  const child = node.children.get(name);
  assert(child, `no ${name} on the way`);
  const changed = replaced(child, { components, depth: depth + 1, edit });
  return newNode(node, copyOf(node.children).set(name, changed), node.childNameBytes);
}

/** The node at `path` in the tree below `root`. */
export function nodeAt(root: StoreNode, path: string): StoreNode | undefined {
  let node: StoreNode | undefined = root;
  for (const name of componentsOf(path)) {
    node = node.children.get(name);
    if (!node) return undefined;
  }
  return node;
}

/** The deepest node on the way to `path` that exists, with its own path: the node itself when it does. */
export function nearestTo(root: StoreNode, path: string): { path: string; node: StoreNode } {
  let node = root;
  let length = 0;
  for (const name of componentsOf(path)) {
    const child = node.children.get(name);
    if (!child) break;
    node = child;
    length += name.length + 1;
  }
  return { path: length === 0 ? '/' : path.slice(0, length), node };
}

/** The node itself and what is below it, parents first; not what is below a node that is no `way`. */
export function* walk(
  path: string,
  node: StoreNode,
  way: (node: StoreNode) => boolean = () => true,
): Generator<[path: string, node: StoreNode]> {
  const waiting: [string, StoreNode][] = [[path, node]];
  for (let entry = waiting.pop(); entry; entry = waiting.pop()) {
    yield entry;
    const [at, here] = entry;
    if (!way(here)) continue;
    for (const [name, child] of here.children) waiting.push([childOf(at, name), child]);
  }
}
