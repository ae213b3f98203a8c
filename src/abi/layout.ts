// The layout language: a struct or union of the wire is declared once, as a table of
// `field: [offset, type, doc]`, and everything else comes from that table: size, offsets, a typed
// reader and writer, accessors for hot paths, and the documentation.
// Offsets are written out, because people compare them with headers and dumps, and checked against
// C's rules for LP64 when the module loads, so a wrong table cannot be used.
// A writer writes every byte of its struct up to a tail: reserved fields and the compiler's holes
// become zero, so that nothing of an earlier message or of another guest leaks to the reader.
import { type Access, i8, i16, i32, pointer, type Scalar, u8, u16, u32, u64 } from './scalars.ts';

export { type Access, i8, i16, i32, pointer, type Scalar, u8, u16, u32, u64 };

/** What every type of the language has; `R` is what reading gives, `W` what writing takes. */
export interface Type<R, W = R> {
  readonly kind: 'scalar' | 'bytes' | 'reserved' | 'array' | 'tail' | 'struct' | 'union';
  /** Bytes, as C's sizeof. */
  readonly size: number;
  /** Bytes, as C's _Alignof. */
  readonly align: number;
  /** The accessor for a value that starts `offset` bytes after `at`. */
  readonly at: (offset: number) => Access<R, W>;
}
export type AnyType = Type<unknown, never>;
export type ReadOf<T extends AnyType> = ReturnType<ReturnType<T['at']>['get']>;
export type WriteOf<T extends AnyType> = Parameters<ReturnType<T['at']>['set']>[2];

export type FieldSpec = readonly [offset: number, type: AnyType, doc: string];
export type FieldSpecs = Readonly<Record<string, FieldSpec>>;

/** Bytes without a number in them, `char[n]`: reading copies them out. */
export interface Bytes extends Type<Uint8Array> {
  readonly kind: 'bytes';
}
/** Reserved or padding: written as zero, ignored when read, no part of the value. */
export interface Reserved extends Type<undefined> {
  readonly kind: 'reserved';
}
/** `element[length]`, read as a whole. */
export interface ArrayOf<E extends AnyType>
  extends Type<readonly ReadOf<E>[], readonly WriteOf<E>[]> {
  readonly kind: 'array';
  readonly element: E;
  readonly length: number;
}
/** The array of variable length at a struct's end: no part of the value, reached by index. */
export interface Tail<E extends AnyType> extends Type<undefined> {
  readonly kind: 'tail';
  readonly element: E;
  /** The length the C declaration gives: 1 by old habit, 0 for a flexible array member. */
  readonly declaredLength: number;
}

type Unvalued = { readonly kind: 'reserved' | 'tail' };
type StructValue<F extends FieldSpecs> = {
  readonly [K in keyof F as F[K][1] extends Unvalued ? never : K]: ReadOf<F[K][1]>;
};
/** Union fields may be left out, which writes zeros; all others are required. */
type StructInput<F extends FieldSpecs> = {
  readonly [K in keyof F as F[K][1] extends Unvalued | UnionKind ? never : K]: WriteOf<F[K][1]>;
} & { readonly [K in keyof F as F[K][1] extends UnionKind ? K : never]?: WriteOf<F[K][1]> };
type UnionKind = { readonly kind: 'union' };
/** A union is written as its raw bytes or as exactly one member (the rest of it becomes zero). */
type UnionInput<F extends FieldSpecs> =
  | Uint8Array
  | { [K in keyof F]: { readonly [P in K]: WriteOf<F[K][1]> } }[keyof F];

type Inner<T> = T extends { readonly specs: infer F extends FieldSpecs }
  ? { readonly fields: FieldsOf<F> }
  : T extends { readonly element: infer E extends AnyType }
    ? Indexed<E>
    : unknown;

/** Access to single elements of an array or tail field; the index is the caller's to check. */
interface Indexed<E extends AnyType> {
  readonly getAt: (view: DataView, at: number, index: number) => ReadOf<E>;
  readonly setAt: (view: DataView, at: number, index: number, value: WriteOf<E>) => void;
}

/** A declared field; `offset` counts from the start of the outermost struct it was reached by. */
export type Field<T extends AnyType> = {
  readonly name: string;
  readonly doc: string;
  readonly offset: number;
  readonly size: number;
  readonly type: T;
} & Access<ReadOf<T>, WriteOf<T>> &
  Inner<T>;
export type FieldsOf<F extends FieldSpecs> = { readonly [K in keyof F]: Field<F[K][1]> };

interface Aggregate<F extends FieldSpecs, R, W> extends Type<R, W> {
  /** The C tag, or ANONYMOUS. */
  readonly name: string;
  readonly doc: string;
  readonly specs: F;
  readonly fields: FieldsOf<F>;
  /** Reads the whole at `at` into a fresh value. */
  readonly read: (view: DataView, at: number) => R;
  /** Writes the whole at `at`, every byte but a tail's; throws RangeError on a value that does not fit. */
  readonly write: (view: DataView, at: number, value: W) => void;
}
export interface Struct<F extends FieldSpecs> extends Aggregate<F, StructValue<F>, StructInput<F>> {
  readonly kind: 'struct';
  /** Bytes to reserve for the struct with `count` elements in its tail; throws without a tail. */
  readonly sizeWith: (count: number) => number;
}
/** Which member is meant is said elsewhere, so reading gives raw bytes; use `fields` for a member. */
export interface Union<F extends FieldSpecs> extends Aggregate<F, Uint8Array, UnionInput<F>> {
  readonly kind: 'union';
}
/** Any declared struct or union. */
export type AnyLayout = AnyType & {
  readonly kind: 'struct' | 'union';
  readonly name: string;
  readonly doc: string;
  readonly specs: FieldSpecs;
  readonly read: (view: DataView, at: number) => unknown;
  readonly write: (view: DataView, at: number, value: never) => void;
};

/** Whether `value` is a declared struct or union. */
export function isLayout(value: unknown): value is AnyLayout {
  return typeof value === 'object' && value !== null && 'specs' in value;
}

/** The name of a struct or union that C leaves without a tag. */
export const ANONYMOUS = '';

/** `char[length]` or `uint8_t[length]`. */
export function bytes(length: number): Bytes {
  return { kind: 'bytes', size: length, align: 1, at: (offset) => bytesAccess(offset, length) };
}

/** Reserved or padding field, one element or `count` of them. */
export function reserved(element: Scalar<number> | Scalar<bigint>, count = 1): Reserved {
  const size = element.size * count;
  return {
    kind: 'reserved',
    size,
    align: element.align,
    at: (offset) => ({
      get: () => undefined,
      set: (view, at) => zero(view, at + offset, size),
    }),
  };
}

/** `element[length]`, read and written as a whole. */
export function array<E extends AnyType>(element: E, length: number): ArrayOf<E> {
  const size = element.size * length;
  return {
    kind: 'array',
    element,
    length,
    size,
    align: element.align,
    at: (offset) => {
      const parts = Array.from({ length }, (_, i) => element.at(offset + i * element.size));
      return {
        get: (view, at) => parts.map((part) => part.get(view, at) as ReadOf<E>),
        set: (view, at, values) => {
          if (values.length !== length) {
            throw new RangeError(`${values.length} elements for an array of ${length}`);
          }
          parts.forEach((part, i) => {
            part.set(view, at, values[i] as never);
          });
        },
      };
    },
  };
}

/** The array of variable length that ends a struct, declared in C with `declaredLength` elements. */
export function tail<E extends AnyType>(element: E, declaredLength: 0 | 1): Tail<E> {
  return {
    kind: 'tail',
    element,
    declaredLength,
    size: element.size * declaredLength,
    align: element.align,
    at: () => ({ get: () => undefined, set: () => undefined }),
  };
}

/** Declares a struct; throws Error when an offset is not where C puts the field. */
export function struct<const F extends FieldSpecs>(name: string, doc: string, specs: F): Struct<F> {
  const { size, align } = measure(name, specs);
  const at = (offset: number) => structAccess(specs, offset, size);
  const { get, set } = at(0);
  const last = Object.values(specs).at(-1);
  const sizeWith = (count: number) => {
    if (last === undefined || !isTail(last[1])) throw new Error(`struct ${name} has no tail`);
    return Math.max(size, roundUp(last[0] + count * last[1].element.size, align));
  };
  const fields = makeFields(specs, 0);
  return {
    kind: 'struct',
    name,
    doc,
    specs,
    fields,
    size,
    align,
    at,
    read: get,
    write: set,
    sizeWith,
  };
}

/** Declares a union; throws Error when a member is not at offset 0. */
export function union<const F extends FieldSpecs>(name: string, doc: string, specs: F): Union<F> {
  const members = Object.entries(specs);
  for (const [member, [offset]] of members) {
    if (offset !== 0) throw new Error(`union ${name}: ${member} declared at ${offset}, not 0`);
  }
  const align = Math.max(...members.map(([, [, type]]) => type.align));
  const size = roundUp(Math.max(...members.map(([, [, type]]) => type.size)), align);
  const at = (offset: number) => unionAccess(specs, offset, size);
  const { get, set } = at(0);
  return {
    kind: 'union',
    name,
    doc,
    specs,
    fields: makeFields(specs, 0),
    size,
    align,
    at,
    read: get,
    write: set,
  };
}

/**
 * Inverts a table of constants, for messages: `names({ GNTST_okay })(0)` is "GNTST_okay".
 * A number without a name is given back in decimal.
 */
export function names(constants: Readonly<Record<string, number>>): (value: number) => string {
  const byValue = new Map(Object.entries(constants).map(([name, value]) => [value, name]));
  return (value) => byValue.get(value) ?? String(value);
}

function roundUp(value: number, align: number): number {
  return Math.ceil(value / align) * align;
}

function isTail(type: AnyType): type is Tail<AnyType> {
  return type.kind === 'tail';
}

/** Size and alignment of a struct by C's rules, which also say where each field must be. */
function measure(name: string, specs: FieldSpecs): { size: number; align: number } {
  let end = 0;
  let align = 1;
  for (const [field, [offset, type]] of Object.entries(specs)) {
    const placed = roundUp(end, type.align);
    if (placed !== offset) {
      throw new Error(`struct ${name}: ${field} declared at ${offset}, C places it at ${placed}`);
    }
    end = placed + type.size;
    align = Math.max(align, type.align);
  }
  return { size: roundUp(end, align), align };
}

/** Writes `length` zero bytes at `start`, by the quickest way a DataView has: eight as one double. */
function zero(view: DataView, start: number, length: number): void {
  const end = start + length;
  let at = start;
  for (; at + 8 <= end; at += 8) view.setFloat64(at, 0);
  for (; at < end; at++) view.setUint8(at, 0);
}

function bytesAt(view: DataView, at: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}

function bytesAccess(offset: number, length: number): Access<Uint8Array> {
  return {
    get: (view, at) => bytesAt(view, at + offset, length).slice(),
    set: (view, at, value) => {
      if (value.length !== length) {
        throw new RangeError(`${value.length} bytes for a field of ${length}`);
      }
      bytesAt(view, at + offset, length).set(value);
    },
  };
}

/**
 * The bytes of a struct that no field covers, the compiler's holes, as [offset, length]. Behind a
 * tail there is none: what looks like one are the tail's further elements.
 */
function holesOf(specs: FieldSpecs, size: number): [number, number][] {
  const holes: [number, number][] = [];
  let end = 0;
  for (const [offset, type] of Object.values(specs)) {
    if (offset > end) holes.push([end, offset - end]);
    end = isTail(type) ? size : offset + type.size;
  }
  if (size > end) holes.push([end, size - end]);
  return holes;
}

function structAccess<F extends FieldSpecs>(
  specs: F,
  base: number,
  size: number,
): Access<StructValue<F>, StructInput<F>> {
  const holes = holesOf(specs, size);
  const parts = Object.entries(specs).map(([name, [offset, type]]) => ({
    name,
    valued: type.kind !== 'reserved' && type.kind !== 'tail',
    access: type.at(base + offset),
  }));
  const valued = parts.filter((part) => part.valued);
  return {
    get: (view, at) => {
      const value: Record<string, unknown> = {};
      for (const { name, access } of valued) value[name] = access.get(view, at);
      return value as StructValue<F>;
    },
    set: (view, at, value) => {
      for (const [offset, length] of holes) zero(view, at + base + offset, length);
      const given: Readonly<Record<string, unknown>> = value;
      for (const { name, access } of parts) access.set(view, at, given[name] as never);
    },
  };
}

function unionAccess<F extends FieldSpecs>(
  specs: F,
  base: number,
  size: number,
): Access<Uint8Array, UnionInput<F>> {
  const raw = bytesAccess(base, size);
  const members = new Map(
    Object.entries(specs).map(([name, [, type]]) => [name, type.at(base)] as const),
  );
  return {
    get: raw.get,
    set: (view, at, value: UnionInput<F> | undefined) => {
      if (value instanceof Uint8Array) return raw.set(view, at, value);
      zero(view, at + base, size);
      if (value === undefined) return;
      const [name, ...others] = Object.keys(value);
      const member = name === undefined ? undefined : members.get(name);
      if (name === undefined || member === undefined || others.length > 0) {
        throw new RangeError(`a union takes one of: ${[...members.keys()].join(', ')}`);
      }
      member.set(view, at, value[name] as never);
    },
  };
}

function makeFields<F extends FieldSpecs>(specs: F, base: number): FieldsOf<F> {
  const entries = Object.entries(specs).map(([name, [offset, type, doc]]) => [
    name,
    makeField({ name, doc, type, offset: base + offset }),
  ]);
  return Object.fromEntries(entries) as FieldsOf<F>;
}

interface NamedPlace {
  readonly name: string;
  readonly doc: string;
  readonly type: AnyType & { readonly specs?: FieldSpecs; readonly element?: AnyType };
  readonly offset: number;
}

function makeField(place: NamedPlace): object {
  const { type, offset } = place;
  const base = { ...place, size: type.size, ...type.at(offset) };
  if (type.specs !== undefined) return { ...base, fields: makeFields(type.specs, offset) };
  if (type.element === undefined) return base;
  const { size: stride } = type.element;
  const { get, set } = type.element.at(offset);
  return {
    ...base,
    getAt: (view: DataView, at: number, index: number) => get(view, at + index * stride),
    setAt: (view: DataView, at: number, index: number, value: never) =>
      set(view, at + index * stride, value),
  };
}
