// The store said as simply as possible, for comparison: a flat map from path to entry, copied whole for a
// transaction, every rule a loop over all entries. Slow, and independent of the real one's trees.

export interface Entry {
  value: string;
  /** `[owner and default, ...others]` as `n3`, `r5`. */
  permissions: string[];
  /** Changes with the value, the permissions and the names of the children. */
  version: number;
}

export type Entries = Map<string, Entry>;

export interface ReferenceTransaction {
  readonly begun: Entries;
  readonly entries: Entries;
  readonly looked: Set<string>;
  readonly operations: (() => void)[];
  readonly changed: Map<string, boolean>;
}

export function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/';
}

function isBelow(path: string, directory: string): boolean {
  return path.startsWith(directory === '/' ? '/' : `${directory}/`) && path !== directory;
}

function copy(entries: Entries): Entries {
  return new Map([...entries].map(([path, entry]) => [path, { ...entry }]));
}

export function may(entry: Entry, domain: number, right: 'r' | 'w' | 'own'): boolean {
  if (domain === 0 || entry.permissions[0]?.slice(1) === String(domain)) return true;
  if (right === 'own') return false;
  const own = entry.permissions.slice(1).find((text) => text.slice(1) === String(domain));
  const letter = (own ?? entry.permissions[0]!)[0]!;
  return letter === right || letter === 'b';
}

export class Reference {
  entries: Entries = new Map([['/', { value: '', permissions: ['n0'], version: 0 }]]);
  #versions = 0;

  /** What the operation answers: a value, `OK`, or an errno name. `events` gets what watches may hear. */
  run(
    domain: number,
    operation: Operation,
    transaction: ReferenceTransaction | undefined,
  ): { answer: string; events: [path: string, removed: boolean][] } {
    const entries = transaction?.entries ?? this.entries;
    const look = (path: string) => transaction?.looked.add(path);
    const outcome = this.#perform(entries, domain, operation, look);
    if (outcome.removed === undefined) return { answer: outcome.answer, events: [] };
    if (!transaction) return { answer: 'OK', events: [[operation.path, outcome.removed]] };
    transaction.operations.push(() => this.#perform(this.entries, domain, operation, () => {}));
    const before = transaction.changed.get(operation.path) ?? false;
    transaction.changed.set(operation.path, before || outcome.removed);
    return { answer: 'OK', events: [] };
  }

  begin(): ReferenceTransaction {
    const entries = copy(this.entries);
    return {
      begun: copy(this.entries),
      entries,
      looked: new Set(),
      operations: [],
      changed: new Map(),
    };
  }

  commit(transaction: ReferenceTransaction): boolean {
    for (const path of transaction.looked) {
      const begun = transaction.begun.get(path)?.version;
      if (this.entries.get(path)?.version !== begun) return false;
    }
    for (const operation of transaction.operations) operation();
    return true;
  }

  /** Paths of which a watch of `domain` on `watched` hears, for changes from `before` to now. */
  heard(
    { domain, watched }: { domain: number; watched: string },
    before: Entries,
    events: Iterable<readonly [string, boolean]>,
  ): Set<string> {
    const heard = new Set<string>();
    const visible = (path: string) =>
      [before, this.entries].some((entries) =>
        [path, parentOf(path)].some((at) => {
          const entry = entries.get(at);
          return entry !== undefined && may(entry, domain, 'r');
        }),
      );
    for (const [path, removed] of events) {
      if (!before.has(path) && !this.entries.has(path)) continue;
      if ((path === watched || isBelow(path, watched)) && visible(path)) heard.add(path);
      const gone = before.has(watched) && !this.entries.has(watched);
      if (removed && isBelow(watched, path) && gone && visible(watched)) heard.add(watched);
    }
    return heard;
  }

  #perform(
    entries: Entries,
    domain: number,
    { kind, path, text }: Operation,
    look: (path: string) => void,
  ): { answer: string; removed?: boolean } {
    let nearest = path;
    look(path);
    while (!entries.has(nearest)) {
      nearest = parentOf(nearest);
      look(nearest);
    }
    const entry = entries.get(path);
    const reads = kind === 'read' || kind === 'list';
    const right = reads ? 'r' : kind === 'permit' && entry ? 'own' : 'w';
    if (!may(entries.get(nearest)!, domain, right)) return { answer: 'EACCES' };
    const bump = () => {
      this.#versions++;
      return this.#versions;
    };
    if (kind === 'read') return { answer: entry ? `=${entry.value}` : 'ENOENT' };
    if (kind === 'list') {
      const children = [...entries.keys()].filter((at) => at !== '/' && parentOf(at) === path);
      const names = children.map((at) => at.slice(at.lastIndexOf('/') + 1));
      return { answer: entry ? `=${names.sort().join()}` : 'ENOENT' };
    }
    if (kind === 'permit') {
      if (!entry) return { answer: 'ENOENT' };
      const permissions = text.split(',');
      if (domain !== 0 && permissions[0]!.slice(1) !== entry.permissions[0]!.slice(1)) {
        return { answer: 'EPERM' };
      }
      Object.assign(entry, { permissions, version: bump() });
      return { answer: 'OK', removed: false };
    }
    if (kind === 'remove') {
      if (path === '/') return { answer: 'EINVAL' };
      look(parentOf(path));
      if (!entry) return { answer: entries.has(parentOf(path)) ? 'OK' : 'ENOENT' };
      for (const at of [...entries.keys()]) {
        if (at !== path && !isBelow(at, path)) continue;
        look(at);
        entries.delete(at);
      }
      entries.get(parentOf(path))!.version = bump();
      return { answer: 'OK', removed: true };
    }
    if (entry) {
      if (kind === 'mkdir') return { answer: 'OK' };
      Object.assign(entry, { value: text, version: bump() });
      return { answer: 'OK', removed: false };
    }
    const inherited = entries.get(nearest)!.permissions;
    const permissions =
      domain === 0 ? inherited : [`${inherited[0]![0]}${domain}`, ...inherited.slice(1)];
    entries.get(nearest)!.version = bump();
    for (let at = path; at !== nearest; at = parentOf(at)) {
      const value = at === path && kind === 'write' ? text : '';
      entries.set(at, { value, permissions: [...permissions], version: bump() });
    }
    return { answer: 'OK', removed: false };
  }
}

export interface Operation {
  readonly kind: 'read' | 'list' | 'write' | 'mkdir' | 'remove' | 'permit';
  readonly path: string;
  /** The value, or permissions with commas. */
  readonly text: string;
}
