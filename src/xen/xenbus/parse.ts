// Strict parsers for what a guest writes into its xenstore directory (law 2, XSA-142 and XSA-175).
//
// Invariants: a number is plain decimal without sign, leading zero, space, exponent or trailing text, so
// that what was checked is exactly what any other reader sees; every parser either returns a value inside
// its bounds or throws a ProtocolViolation that names the node.

import { DOMID_FIRST_RESERVED } from '../../abi/xen.ts';
import { ProtocolViolation } from '../../runtime/errors.ts';
import { type DomId, domId, type Gref, gref, type Port, port } from '../ids.ts';
import { check, type Untrusted } from '../untrusted.ts';

const DECIMAL = /^(?:0|[1-9][0-9]{0,9})$/;
const U32_MAX = 0xffff_ffff;
/** Characters of a guest's value that a message quotes. */
const QUOTED_CHARS_MAX = 40;
/** Entries of a version list that are looked at: the protocols have had two versions in ten years. */
const VERSIONS_MAX = 16;

/** The value as a message may show it: bounded, and without control characters. */
function quoted(content: string): string {
  const { length } = content;
  const start = JSON.stringify(content.slice(0, QUOTED_CHARS_MAX));
  return length > QUOTED_CHARS_MAX ? `${start} and ${length - QUOTED_CHARS_MAX} more` : start;
}

function malformed(node: string, content: string, expected: string): ProtocolViolation {
  return new ProtocolViolation(
    'malformed-node',
    'XEN_EINVAL',
    `${node} is ${quoted(content)}, not ${expected}`,
  );
}

function decimal(content: string): number | undefined {
  const value = DECIMAL.test(content) ? Number(content) : undefined;
  return value !== undefined && value <= U32_MAX ? value : undefined;
}

/**
 * The value of a node that must exist.
 * @throws ProtocolViolation `missing-node` (XEN_ENOENT)
 */
export function required<T>(value: T | undefined, node: string): T {
  if (value !== undefined) return value;
  throw new ProtocolViolation('missing-node', 'XEN_ENOENT', `${node} is not there`);
}

export interface Range {
  readonly min: number;
  readonly max: number;
}

/**
 * An unsigned 32-bit number inside `range` (everything that fits, when left out).
 * @throws ProtocolViolation `malformed-node` or `out-of-range-node` (XEN_EINVAL)
 */
export function parseU32(value: Untrusted<string>, node: string, range?: Range): number {
  return check(value, (content) => {
    const number = decimal(content);
    if (number === undefined) throw malformed(node, content, 'a decimal number below 2^32');
    if (range && (number < range.min || number > range.max)) {
      const detail = `${node} is ${number}, outside of ${range.min} to ${range.max}`;
      throw new ProtocolViolation('out-of-range-node', 'XEN_EINVAL', detail);
    }
    return number;
  });
}

const DOMIDS: Range = { min: 0, max: DOMID_FIRST_RESERVED - 1 };

/** The number of an ordinary domain. @throws ProtocolViolation as `parseU32` */
export function parseDomId(value: Untrusted<string>, node: string): DomId {
  return domId(parseU32(value, node, DOMIDS));
}

const NONZERO: Range = { min: 1, max: U32_MAX };

/** A grant reference; 0 is reserved and refused. @throws ProtocolViolation as `parseU32` */
export function parseGref(value: Untrusted<string>, node: string): Gref {
  return gref(parseU32(value, node, NONZERO));
}

/** An event channel port; 0 is never valid. @throws ProtocolViolation as `parseU32` */
export function parsePort(value: Untrusted<string>, node: string): Port {
  return port(parseU32(value, node, NONZERO));
}

/** "1" is on; anything else, or no node at all, is off (displif.h, kbdif.h). */
export function parseFlag(value: Untrusted<string> | undefined): boolean {
  return value !== undefined && check(value, (content) => content === '1');
}

export interface Resolution {
  readonly width: number;
  readonly height: number;
}

/**
 * "WIDTHxHEIGHT" in pixels, both at least 1 and at most `max` (XENDISPL_RESOLUTION_SEPARATOR).
 * @throws ProtocolViolation `malformed-node` or `out-of-range-node` (XEN_EINVAL)
 */
export function parseResolution(value: Untrusted<string>, node: string, max: number): Resolution {
  return check(value, (content) => {
    const parts = content.split('x', 3);
    const width = decimal(parts[0] ?? '');
    const height = decimal(parts[1] ?? '');
    if (parts.length !== 2 || width === undefined || height === undefined) {
      throw malformed(node, content, 'WIDTHxHEIGHT');
    }
    if (Math.min(width, height) < 1 || Math.max(width, height) > max) {
      const detail = `${node} is ${width}x${height}; each must be 1 to ${max}`;
      throw new ProtocolViolation('out-of-range-node', 'XEN_EINVAL', detail);
    }
    return { width, height };
  });
}

/**
 * A list of protocol versions, such as "1,2", in the order given (XENDISPL_LIST_SEPARATOR).
 * @throws ProtocolViolation `malformed-node` (XEN_EINVAL)
 */
export function parseVersions(value: Untrusted<string>, node: string): readonly number[] {
  return check(value, (content) => {
    const versions = content.split(',', VERSIONS_MAX + 1).map(decimal);
    if (versions.length > VERSIONS_MAX || !versions.every((version) => version !== undefined)) {
      throw malformed(node, content, `up to ${VERSIONS_MAX} numbers with commas between`);
    }
    return versions;
  });
}

/**
 * The version that the peer picked out of `offered`; without a node, `whenAbsent` (trap 12: Linux writes none).
 * @throws ProtocolViolation `malformed-node` (XEN_EINVAL) or `unsupported-version` (XEN_EOPNOTSUPP)
 */
export function parseVersion(
  value: Untrusted<string> | undefined,
  node: string,
  { offered, whenAbsent }: { offered: readonly number[]; whenAbsent: number },
): number {
  if (value === undefined) return whenAbsent;
  const version = parseU32(value, node);
  if (offered.includes(version)) return version;
  const detail = `${node} is ${version}; offered are ${offered.join(', ')}`;
  throw new ProtocolViolation('unsupported-version', 'XEN_EOPNOTSUPP', detail);
}
