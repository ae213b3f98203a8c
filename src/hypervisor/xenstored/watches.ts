// Watches and who hears of a change (docs/misc/xenstore.txt of the Xen tree, "Watches").
//
// Invariants: a watch hears of a change only when its domain could have noticed it otherwise: it may read the
// node, as it was or as it is, or list its parent (XSA-115); a removal tells watches further down their own
// path; a path watched relative is told relative; special names match themselves only.

import { parentOf, upwards } from './path.ts';
import { allows, type Caller } from './permissions.ts';
import type { Change, StoreEvent } from './store.ts';
import { StoreError } from './store-error.ts';
import { nodeAt, type StoreNode, walk } from './tree.ts';

export interface Watcher {
  readonly caller: Caller;
  watchEvent(path: string, token: string): void;
}

export interface Watch {
  readonly watcher: Watcher;
  /** Absolute, or special. */
  readonly path: string;
  readonly token: string;
  /** The directory whose name events leave out, for a path that was given relative to it. */
  readonly base: string | undefined;
}

export class Watches {
  readonly #byPath = new Map<string, Set<Watch>>();
  readonly #byWatcher = new Map<Watcher, Set<Watch>>();

  /** @throws StoreError EEXIST when the watcher has this path and token, E2BIG when it has `maxWatches` */
  add(watch: Watch, maxWatches: number): void {
    const { watcher, path, token } = watch;
    if (this.#find(watcher, path, token)) throw StoreError.of('EEXIST');
    if ((this.#byWatcher.get(watcher)?.size ?? 0) >= maxWatches) throw StoreError.of('E2BIG');
    addTo(this.#byPath, path, watch);
    addTo(this.#byWatcher, watcher, watch);
  }

  /** @throws StoreError ENOENT when the watcher has no such watch */
  remove(watcher: Watcher, path: string, token: string): void {
    const watch = this.#find(watcher, path, token);
    if (!watch) throw StoreError.of('ENOENT');
    this.#delete(watch);
  }

  removeAll(watcher: Watcher): void {
    for (const watch of [...(this.#byWatcher.get(watcher) ?? [])]) this.#delete(watch);
  }

  /** Tells the watches that match. */
  fire(change: Change): void {
    if (this.#byPath.size === 0) return;
    for (const event of change.events) this.#fireEvent(change, event);
  }

  /** Tells the watches of a special name; `maySee` says whose. */
  fireSpecial(name: string, maySee: (caller: Caller) => boolean): void {
    for (const watch of [...(this.#byPath.get(name) ?? [])]) {
      if (maySee(watch.watcher.caller)) tell(watch, name);
    }
  }

  #fireEvent(change: Change, { path, removed }: StoreEvent): void {
    const before = nodeAt(change.before, path);
    const after = nodeAt(change.after, path);
    if (!before && !after) return;
    for (const at of upwards(path)) {
      for (const watch of [...(this.#byPath.get(at) ?? [])]) {
        if (maySee(watch.watcher.caller, change, path)) tell(watch, path);
      }
    }
    if (removed && before) this.#fireBelow(change, path, before);
  }

  /** Watches on what was below a removed node and is gone with it. */
  #fireBelow(change: Change, path: string, node: StoreNode): void {
    for (const [below] of walk(path, node)) {
      const watches = this.#byPath.get(below);
      if (!watches || below === path || nodeAt(change.after, below)) continue;
      for (const watch of [...watches]) {
        if (maySee(watch.watcher.caller, change, below)) tell(watch, below);
      }
    }
  }

  #find(watcher: Watcher, path: string, token: string): Watch | undefined {
    for (const watch of this.#byPath.get(path) ?? []) {
      if (watch.watcher === watcher && watch.token === token) return watch;
    }
    return undefined;
  }

  #delete(watch: Watch): void {
    deleteFrom(this.#byPath, watch.path, watch);
    deleteFrom(this.#byWatcher, watch.watcher, watch);
  }
}

/** Whether the caller may read the node, before or after, or list the directory that has or had it. */
function maySee(caller: Caller, change: Change, path: string): boolean {
  if (caller.privileged) return true;
  const parent = parentOf(path);
  for (const root of [change.before, change.after]) {
    for (const at of parent === undefined ? [path] : [path, parent]) {
      const node = nodeAt(root, at);
      if (node && allows(node.permissions, caller, 'read')) return true;
    }
  }
  return false;
}

function tell({ watcher, token, base }: Watch, path: string): void {
  watcher.watchEvent(base === undefined ? path : path.slice(base.length + 1), token);
}

function addTo<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const set = sets.get(key);
  if (set) set.add(watch);
  else sets.set(key, new Set([watch]));
}

function deleteFrom<K>(sets: Map<K, Set<Watch>>, key: K, watch: Watch): void {
  const set = sets.get(key);
  set?.delete(watch);
  if (set?.size === 0) sets.delete(key);
}
