// Cookies: how a frontend names its buffers and framebuffers (displif.h). 64 bits without meaning to us
// (kernel pointers, in Linux), of which only 0 is invalid.
//
// A cookie is kept as its two 32-bit words: a bigint costs an allocation per page flip, and a number
// cannot hold it. Tables are searched one by one: they are as small as the guest's budget, and a hash
// over what a guest chooses would let it choose collisions.

/** A cookie's words, as signed 32-bit integers (so that the engine never boxes them). */
export interface Cookie {
  readonly low: number;
  readonly high: number;
}

/** The cookie at a byte offset of a message. */
export function cookieAt(view: DataView, offset: number): Cookie {
  return { low: view.getInt32(offset, true), high: view.getInt32(offset + 4, true) };
}

/** The cookie as the 64-bit number that it is on the wire. */
export function cookieValue({ low, high }: Cookie): bigint {
  return BigInt.asUintN(64, (BigInt(high) << 32n) | BigInt(low >>> 0));
}

/** Puts a cookie into a message. */
export function setCookie(view: DataView, offset: number, { low, high }: Cookie): void {
  view.setInt32(offset, low, true);
  view.setInt32(offset + 4, high, true);
}

export function isZero({ low, high }: Cookie): boolean {
  return (low | high) === 0;
}

/** The cookie as people write pointers, for messages. */
export function cookieText({ low, high }: Cookie): string {
  const word = (value: number) => (value >>> 0).toString(16).padStart(8, '0');
  return `0x${word(high)}${word(low)}`;
}

/** What a guest has named, by cookie. */
export class CookieTable<T extends { readonly cookie: Cookie }> {
  readonly #values: T[] = [];

  /** The caller has made sure that the cookie is not in use. */
  add(value: T): void {
    this.#values.push(value);
  }

  find({ low, high }: Cookie): T | undefined {
    for (let index = 0; index < this.#values.length; index++) {
      const value = this.#values[index]!;
      if (value.cookie.low === low && value.cookie.high === high) return value;
    }
    return undefined;
  }

  delete(value: T): void {
    const index = this.#values.indexOf(value);
    if (index >= 0) this.#values.splice(index, 1);
  }

  /** All of them now; the table may be changed meanwhile. */
  values(): T[] {
    return [...this.#values];
  }
}
