// The declared ABI as JSON, in C's own terms, so that a compiler can be asked about each entry: a key
// of `structs` is the tag of a struct or union, a field is what offsetof() takes.
// A member of a type without a tag is spelled by its path (`op`, `op.dbuf_create`, `u.pos.abs_x`).
// A flexible array member (`list[]`) has no sizeof, so it has no entry; one declared with a length
// of 1 has, with the size of that one element.
import { type Arch, HOST_ARCH, headers } from './index.ts';
import { ANONYMOUS, type AnyLayout, type FieldSpecs, isLayout } from './layout.ts';

export interface AbiJson {
  readonly structs: Readonly<Record<string, StructJson>>;
  readonly constants: Readonly<Record<string, number>>;
}
interface StructJson {
  /** Bytes. */
  readonly size: number;
  readonly fields: Readonly<Record<string, FieldJson>>;
}
interface FieldJson {
  /** Bytes from the start of the struct. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** All structs, unions and numeric constants as they are on `arch`, by header. */
export function abiJson(arch: Arch = HOST_ARCH): AbiJson {
  const declared = headers(arch);
  return {
    structs: Object.fromEntries(
      declared.flatMap(({ layouts }) => layouts).map((layout) => [layout.name, structJson(layout)]),
    ),
    constants: Object.fromEntries(declared.flatMap(({ constants }) => [...constants])),
  };
}

function structJson(layout: AnyLayout): StructJson {
  return { size: layout.size, fields: Object.fromEntries(fieldsJson(layout.specs, '', 0)) };
}

function fieldsJson(specs: FieldSpecs, path: string, base: number): [string, FieldJson][] {
  return Object.entries(specs).flatMap(([name, [at, type]]): [string, FieldJson][] => {
    const [field, offset] = [path + name, base + at];
    if (type.kind === 'tail' && type.size === 0) return [];
    const own: [string, FieldJson] = [field, { offset, size: type.size }];
    const inner = isLayout(type) && type.name === ANONYMOUS;
    return inner ? [own, ...fieldsJson(type.specs, `${field}.`, offset)] : [own];
  });
}
