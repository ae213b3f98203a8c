// Giving back many things: one that fails must not keep the others.

/** Does `action` to each of `items`, as they are now, even when some fail. @throws AggregateError */
export function attemptAll<T>(items: Iterable<T>, action: (item: T) => void, what: string): void {
  const failures: unknown[] = [];
  for (const item of [...items]) {
    try {
      action(item);
    } catch (failure) {
      failures.push(failure);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, what);
}
