// A bounded list of rectangles in one typed array, filled anew for every update without allocating.

/** Numbers per rectangle: x, y, width, height; pixels. */
export const RECTANGLE_WORDS = 4;

/** More than this many rectangles of one update are not worth telling apart: one around all is sent. */
export const MAX_RECTANGLES = 256;

export class Rectangles {
  readonly #words = new Uint32Array(MAX_RECTANGLES * RECTANGLE_WORDS);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** The rectangles one after another; valid until the list changes. */
  get words(): Uint32Array {
    return this.#words.subarray(0, this.#count * RECTANGLE_WORDS);
  }

  clear(): void {
    this.#count = 0;
  }

  x(index: number): number {
    return this.#words[index * RECTANGLE_WORDS]!;
  }

  y(index: number): number {
    return this.#words[index * RECTANGLE_WORDS + 1]!;
  }

  width(index: number): number {
    return this.#words[index * RECTANGLE_WORDS + 2]!;
  }

  height(index: number): number {
    return this.#words[index * RECTANGLE_WORDS + 3]!;
  }

  /** Adds a rectangle; when the list is full, everything becomes the one rectangle around all. */
  add(x: number, y: number, width: number, height: number): void {
    if (this.#extendAbove(x, y, width, height)) return;
    if (this.#count === MAX_RECTANGLES) {
      this.#mergeAll(x, y, width, height);
      return;
    }
    this.#set(this.#count++, x, y, width, height);
  }

  /** Grows the rectangle that ends where this one begins and has the same columns, if there is one. */
  #extendAbove(x: number, y: number, width: number, height: number): boolean {
    for (let index = this.#count - 1; index >= 0; index--) {
      if (this.x(index) !== x || this.width(index) !== width) continue;
      if (this.y(index) + this.height(index) !== y) continue;
      this.#words[index * RECTANGLE_WORDS + 3] = this.height(index) + height;
      return true;
    }
    return false;
  }

  #mergeAll(x: number, y: number, width: number, height: number): void {
    let left = x;
    let top = y;
    let right = x + width;
    let bottom = y + height;
    for (let index = 0; index < this.#count; index++) {
      left = Math.min(left, this.x(index));
      top = Math.min(top, this.y(index));
      right = Math.max(right, this.x(index) + this.width(index));
      bottom = Math.max(bottom, this.y(index) + this.height(index));
    }
    this.#count = 1;
    this.#set(0, left, top, right - left, bottom - top);
  }

  #set(index: number, x: number, y: number, width: number, height: number): void {
    const at = index * RECTANGLE_WORDS;
    this.#words[at] = x;
    this.#words[at + 1] = y;
    this.#words[at + 2] = width;
    this.#words[at + 3] = height;
  }
}
