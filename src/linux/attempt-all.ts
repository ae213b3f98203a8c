// Giving back many things: one that fails must not keep the others.

/** Does `action` to each of `items`, as they are now, even when some fail. @throws what failed, or AggregateError for several */
export function attemptAll<T>(items: Iterable<T>, action: (item: T) => void, what: string): void {
  const failures: unknown[] = [];
  for (const item of [...items]) {
    try {
      action(item);
    } catch (failure) {
      failures.push(failure);
    }
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new AggregateError(failures, what);
}
