// What changed on a picture: compares the guest's rows with a private copy (the comparison copy of
// law 1, counted), and remembers per tile in which generation it last changed. So viewers of different
// speeds share one copy, and each is given the tiles newer than the generation it has seen.
//
// Invariants:
// - The copy differs from what a tile's generation stands for never: a part of a row is copied only when
//   its tile is marked in the same pass. (A guest draws while we compare: what changes between our look and
//   our copy of an unmarked tile is not copied, so the next pass still sees it.)
// - Generations only grow; a new size or format is a change of every tile.
// - Comparing allocates nothing; rows are compared whole first, tiles only in rows that differ, and once
//   every tile of a band is marked the rest of the band is copied without looking.

import type { Picture } from '../display/output.ts';
import type { PixelFormat } from '../display/pixel-format.ts';
import type { Rectangles } from './rectangles.ts';

/** Width and height of a tile in pixels; a band is one row of tiles. */
export const TILE = 64;

/** The guest's bytes as a Buffer (whose range compare and copy allocate nothing), made once per picture. */
const buffers = new WeakMap<Picture, Buffer>();

function bufferOf(picture: Picture): Buffer {
  let buffer = buffers.get(picture);
  if (!buffer) {
    const { bytes } = picture;
    buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    buffers.set(picture, buffer);
  }
  return buffer;
}

/** Bytes of a row that carry pixels. */
export function rowBytesOf(width: number, format: PixelFormat): number {
  return (width * format.bitsPerPixel) >>> 3;
}

export class DamageTracker {
  width = 0;
  height = 0;
  /** Undefined while nothing is shown. */
  format: PixelFormat | undefined;
  /** The newest generation; starts above 0, so a viewer that has seen 0 lacks everything. */
  generation = 1;
  /** Bytes of frames copied so far: into the comparison copy, and out of it into updates. */
  bytesCopied = 0;
  #columns = 0;
  #rowBytes = 0;
  #tileBytes = 0;
  #copy: Buffer = Buffer.alloc(0);
  /** Per tile, row by row: the generation in which it last changed. */
  #tiles = new Float64Array(0);

  /** Looks at what is shown now; true when it differs from the last look, and `generation` has grown. */
  compare(picture: Picture | undefined): boolean {
    if (!this.#fits(picture)) {
      this.#replace(picture);
      return true;
    }
    if (!picture) return false;
    const source = bufferOf(picture);
    const bands = Math.ceil(this.height / TILE);
    let marked = 0;
    for (let band = 0; band < bands; band++) {
      marked += this.#compareBand(source, picture.stride, band);
    }
    if (marked > 0) this.generation++;
    return marked > 0;
  }

  /** Puts the tiles that are newer than `generation` into `rectangles`, clipped to the picture. */
  collect(generation: number, rectangles: Rectangles): void {
    rectangles.clear();
    const columns = this.#columns;
    for (let tile = 0; tile < this.#tiles.length; tile++) {
      if (this.#tiles[tile]! <= generation) continue;
      const column = tile % columns;
      const first = column;
      let last = column;
      while (last + 1 < columns && this.#tiles[tile + 1]! > generation) {
        last++;
        tile++;
      }
      const x = first * TILE;
      const y = ((tile - last) / columns) * TILE;
      const right = Math.min((last + 1) * TILE, this.width);
      const bottom = Math.min(y + TILE, this.height);
      rectangles.add(x, y, right - x, bottom - y);
    }
  }

  /** Bytes that the pixels of `rectangles` take when packed. */
  packedBytes(rectangles: Rectangles): number {
    if (!this.format) return 0;
    let bytes = 0;
    for (let index = 0; index < rectangles.count; index++) {
      bytes += rowBytesOf(rectangles.width(index), this.format) * rectangles.height(index);
    }
    return bytes;
  }

  /** Writes the pixels of `rectangles` one after another, rows without padding; returns the end. */
  pack(rectangles: Rectangles, target: Buffer, offset: number): number {
    if (!this.format) return offset;
    let at = offset;
    for (let index = 0; index < rectangles.count; index++) {
      const rowBytes = rowBytesOf(rectangles.width(index), this.format);
      const left = rowBytesOf(rectangles.x(index), this.format);
      const top = rectangles.y(index);
      const height = rectangles.height(index);
      if (rowBytes === this.#rowBytes) {
        at += this.#copy.copy(target, at, top * rowBytes, (top + height) * rowBytes);
        continue;
      }
      for (let y = top; y < top + height; y++) {
        const from = y * this.#rowBytes + left;
        at += this.#copy.copy(target, at, from, from + rowBytes);
      }
    }
    this.bytesCopied += at - offset;
    return at;
  }

  #fits(picture: Picture | undefined): boolean {
    if (!picture) return this.format === undefined;
    const { width, height, format } = picture;
    return width === this.width && height === this.height && format === this.format;
  }

  /** Takes over a picture of another size or format, or none. */
  #replace(picture: Picture | undefined): void {
    this.generation++;
    this.width = picture?.width ?? 0;
    this.height = picture?.height ?? 0;
    this.format = picture?.format;
    this.#columns = Math.ceil(this.width / TILE);
    this.#rowBytes = picture ? rowBytesOf(picture.width, picture.format) : 0;
    this.#tileBytes = picture ? rowBytesOf(TILE, picture.format) : 0;
    this.#copy = Buffer.allocUnsafeSlow(this.#rowBytes * this.height);
    this.#tiles = new Float64Array(this.#columns * Math.ceil(this.height / TILE));
    this.#tiles.fill(this.generation);
    if (picture) this.#copyRows(bufferOf(picture), picture.stride, 0, this.height);
  }

  /** Compares one band and copies what differs; returns how many of its tiles are marked. */
  #compareBand(source: Buffer, stride: number, band: number): number {
    const rowBytes = this.#rowBytes;
    const end = Math.min((band + 1) * TILE, this.height);
    let marked = 0;
    for (let y = band * TILE; y < end; y++) {
      if (marked === this.#columns) {
        this.#copyRows(source, stride, y, end);
        break;
      }
      const from = y * stride;
      const kept = y * rowBytes;
      if (source.compare(this.#copy, kept, kept + rowBytes, from, from + rowBytes) === 0) continue;
      marked += this.#markTiles(source, from, y);
      this.#copyMarked(source, from, y);
    }
    return marked;
  }

  /** Marks the yet unmarked tiles whose part of row `y` differs; returns how many. */
  #markTiles(source: Buffer, from: number, y: number): number {
    const tiles = Math.floor(y / TILE) * this.#columns;
    const next = this.generation + 1;
    let marked = 0;
    for (let first = 0; first < this.#columns; first++) {
      if (this.#tiles[tiles + first] === next) continue;
      let end = first + 1;
      while (end < this.#columns && this.#tiles[tiles + end] !== next) end++;
      // Most of the neighbours of a change have not changed: one look at all of them first.
      if (this.#differs(source, from, y, first, end)) {
        for (let column = first; column < end; column++) {
          if (!this.#differs(source, from, y, column, column + 1)) continue;
          this.#tiles[tiles + column] = next;
          marked++;
        }
      }
      first = end;
    }
    return marked;
  }

  /** Whether row `y` differs from the copy in the columns from `first` up to `end`. */
  #differs(source: Buffer, from: number, y: number, first: number, end: number): boolean {
    const kept = y * this.#rowBytes;
    const left = first * this.#tileBytes;
    const right = Math.min(end * this.#tileBytes, this.#rowBytes);
    return source.compare(this.#copy, kept + left, kept + right, from + left, from + right) !== 0;
  }

  /** Copies the parts of row `y` that lie in marked tiles, neighbours together. */
  #copyMarked(source: Buffer, from: number, y: number): void {
    const tiles = Math.floor(y / TILE) * this.#columns;
    const next = this.generation + 1;
    for (let column = 0; column < this.#columns; column++) {
      if (this.#tiles[tiles + column] !== next) continue;
      const start = column * this.#tileBytes;
      while (column + 1 < this.#columns && this.#tiles[tiles + column + 1] === next) column++;
      const end = Math.min((column + 1) * this.#tileBytes, this.#rowBytes);
      const target = y * this.#rowBytes + start;
      this.bytesCopied += source.copy(this.#copy, target, from + start, from + end);
    }
  }

  #copyRows(source: Buffer, stride: number, first: number, end: number): void {
    const rowBytes = this.#rowBytes;
    if (stride === rowBytes) {
      this.bytesCopied += source.copy(this.#copy, first * rowBytes, first * stride, end * stride);
      return;
    }
    for (let y = first; y < end; y++) {
      const from = y * stride;
      this.bytesCopied += source.copy(this.#copy, y * rowBytes, from, from + rowBytes);
    }
  }
}
