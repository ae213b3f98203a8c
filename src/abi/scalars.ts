// The scalar types of the wire: C's fixed-width integers, little-endian (Xen's public ABI is native
// endian, and both of its architectures, x86 and arm64, are little-endian), naturally aligned as on
// LP64. Reading never fails inside the view; writing throws on what the type cannot hold, because a
// DataView would silently wrap it. 64-bit values are bigint, so that opaque cookies stay exact.

/** Reads and writes one value at a fixed distance from `at`, the start of its outermost struct. */
export interface Access<R, W = R> {
  /** Reads the value; throws RangeError when it lies outside the view. */
  readonly get: (view: DataView, at: number) => R;
  /** Writes the value; throws RangeError when it does not fit the type or lies outside the view. */
  readonly set: (view: DataView, at: number, value: W) => void;
}

/** A C integer type. `min` and `max` are its inclusive limits. */
export interface Scalar<V extends number | bigint> {
  readonly kind: 'scalar';
  readonly cName: string;
  readonly size: number;
  readonly align: number;
  readonly min: V;
  readonly max: V;
  readonly at: (offset: number) => Access<V>;
}

function refuse(cName: string, value: number | bigint): never {
  throw new RangeError(`${value} is not a value of ${cName}`);
}

// Each type has its own pair of function literals, so that every accessor stays monomorphic.

export const u8: Scalar<number> = {
  kind: 'scalar',
  cName: 'uint8_t',
  size: 1,
  align: 1,
  min: 0,
  max: 0xff,
  at: (offset) => ({
    get: (view, at) => view.getUint8(at + offset),
    set: (view, at, value) => {
      if ((value & 0xff) !== value) refuse('uint8_t', value);
      view.setUint8(at + offset, value);
    },
  }),
};

export const i8: Scalar<number> = {
  kind: 'scalar',
  cName: 'int8_t',
  size: 1,
  align: 1,
  min: -0x80,
  max: 0x7f,
  at: (offset) => ({
    get: (view, at) => view.getInt8(at + offset),
    set: (view, at, value) => {
      if ((value << 24) >> 24 !== value) refuse('int8_t', value);
      view.setInt8(at + offset, value);
    },
  }),
};

export const u16: Scalar<number> = {
  kind: 'scalar',
  cName: 'uint16_t',
  size: 2,
  align: 2,
  min: 0,
  max: 0xffff,
  at: (offset) => ({
    get: (view, at) => view.getUint16(at + offset, true),
    set: (view, at, value) => {
      if ((value & 0xffff) !== value) refuse('uint16_t', value);
      view.setUint16(at + offset, value, true);
    },
  }),
};

export const i16: Scalar<number> = {
  kind: 'scalar',
  cName: 'int16_t',
  size: 2,
  align: 2,
  min: -0x8000,
  max: 0x7fff,
  at: (offset) => ({
    get: (view, at) => view.getInt16(at + offset, true),
    set: (view, at, value) => {
      if ((value << 16) >> 16 !== value) refuse('int16_t', value);
      view.setInt16(at + offset, value, true);
    },
  }),
};

export const u32: Scalar<number> = {
  kind: 'scalar',
  cName: 'uint32_t',
  size: 4,
  align: 4,
  min: 0,
  max: 0xffff_ffff,
  at: (offset) => ({
    get: (view, at) => view.getUint32(at + offset, true),
    set: (view, at, value) => {
      if (value >>> 0 !== value) refuse('uint32_t', value);
      view.setUint32(at + offset, value, true);
    },
  }),
};

export const i32: Scalar<number> = {
  kind: 'scalar',
  cName: 'int32_t',
  size: 4,
  align: 4,
  min: -0x8000_0000,
  max: 0x7fff_ffff,
  at: (offset) => ({
    get: (view, at) => view.getInt32(at + offset, true),
    set: (view, at, value) => {
      if ((value | 0) !== value) refuse('int32_t', value);
      view.setInt32(at + offset, value, true);
    },
  }),
};

function wide(cName: string): Scalar<bigint> {
  return {
    kind: 'scalar',
    cName,
    size: 8,
    align: 8,
    min: 0n,
    max: 0xffff_ffff_ffff_ffffn,
    at: (offset) => ({
      get: (view, at) => view.getBigUint64(at + offset, true),
      set: (view, at, value) => {
        if (BigInt.asUintN(64, value) !== value) refuse(cName, value);
        view.setBigUint64(at + offset, value, true);
      },
    }),
  };
}

export const u64: Scalar<bigint> = wide('uint64_t');

/** A C pointer on LP64, as a number of this process's address space. */
export const pointer: Scalar<bigint> = wide('void *');
