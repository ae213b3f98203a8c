// linux/ioctl.h: how an ioctl's number is made, as on x86 and arm: direction in 2 bits, size of the
// argument in 14, type in 8, number in 8.

const WRITE = 1;
const READ = 2;
const MAX_ARGUMENT_BYTES = (1 << 14) - 1;

interface Command {
  /** One ASCII character, the driver's. */
  readonly type: string;
  /** 0 to 255. */
  readonly number: number;
  /** sizeof of the argument, in bytes. */
  readonly size: number;
}

function encode(direction: number, { type, number, size }: Command): number {
  if (type.length !== 1 || number > 0xff || size > MAX_ARGUMENT_BYTES) {
    throw new RangeError(`no ioctl has type ${type}, number ${number} and size ${size}`);
  }
  return ((direction << 30) | (size << 16) | (type.charCodeAt(0) << 8) | number) >>> 0;
}

/** `_IOC(_IOC_NONE, type, number, size)`: Xen's drivers say no direction but give a size. */
export function ioNone(type: string, number: number, size: number): number {
  return encode(0, { type, number, size });
}

/** `_IOW`: the kernel reads the argument. */
export function ioWrite(type: string, number: number, size: number): number {
  return encode(WRITE, { type, number, size });
}

/** `_IOWR`: the kernel reads the argument and writes it back. */
export function ioReadWrite(type: string, number: number, size: number): number {
  return encode(READ | WRITE, { type, number, size });
}
