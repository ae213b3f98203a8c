// What came off shared memory or out of a guest's xenstore directory (law 2). An `Untrusted` value can
// be carried around but not looked into: the only way to its content is `check`, which takes the one
// parser that turns it into a value or throws a ProtocolViolation.
//
// Invariant: the content was copied into private memory before it was wrapped; it cannot change any more.

declare const untrusted: unique symbol;

export interface Untrusted<T> {
  readonly [untrusted]: T;
}

/** Marks a private copy of something that a guest wrote. */
export function distrust<T>(copy: T): Untrusted<T> {
  return copy as unknown as Untrusted<T>;
}

/** Hands the content to its parser and returns what the parser made of it. */
export function check<T, R>(value: Untrusted<T>, parser: (content: T) => R): R {
  return parser(value as unknown as T);
}
