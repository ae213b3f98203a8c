// Names of nodes (docs/misc/xenstore.txt of the Xen tree, introduction): absolute, no empty component, no slash at
// the end, letters, digits and -/_@ only. Beyond this file every path is absolute and valid.

import { XENSTORE_ABS_PATH_MAX, XENSTORE_REL_PATH_MAX } from '../../abi/xs-wire.ts';
import type { DomId } from '../../xen/ids.ts';
import { StoreError } from './store-error.ts';

const VALID_PATH = /^(\/|(\/[A-Za-z0-9\-_@]+)+)$/;
const VALID_SPECIAL = /^@[A-Za-z0-9\-_@/]+$/;
/** The part of a path that a domain's own relative limit does not count. */
const DOMAIN_PREFIX = /^\/local\/domain\/\d{1,5}\//;
/** Paths whose components are kept: at most some 3 MB of them. */
const SPLIT_MAX = 1024;
const split = new Map<string, readonly string[]>();

/** A domain's own directory: what its relative paths start from. */
export function domainPath(domid: DomId | number): string {
  return `/local/domain/${domid}`;
}

/** Whether the name is one of those that xenstored makes up for events, as `@releaseDomain`. */
export function isSpecial(name: string): boolean {
  return name.startsWith('@');
}

/** What a caller's name means: special names and those from the root as they are, others below `base`. */
export function absoluteName(name: string, base: string): string {
  return name.startsWith('/') || isSpecial(name) ? name : `${base}/${name}`;
}

/**
 * The absolute path for what a caller sent; relative names start at `base`.
 * @throws StoreError EINVAL when it is no valid path
 */
export function canonicalPath(name: string, base: string): string {
  const path = absoluteName(name, base);
  if (split.has(path)) return path;
  const relativeLength = path.length - (DOMAIN_PREFIX.exec(path)?.[0].length ?? path.length);
  const fits = path.length <= XENSTORE_ABS_PATH_MAX && relativeLength <= XENSTORE_REL_PATH_MAX;
  if (!fits || !VALID_PATH.test(path)) throw StoreError.of('EINVAL');
  return path;
}

/** @throws StoreError EINVAL when a special name has letters that no name may have */
export function checkSpecial(name: string): string {
  if (name.length > XENSTORE_REL_PATH_MAX || !VALID_SPECIAL.test(name)) {
    throw StoreError.of('EINVAL');
  }
  return name;
}

/**
 * The names on the way from the root to the node; none for the root itself. The same few hundred paths come again and
 * again, so the last ones are kept.
 */
export function componentsOf(path: string): readonly string[] {
  const known = split.get(path);
  if (known) return known;
  const components = path === '/' ? [] : path.slice(1).split('/');
  if (split.size >= SPLIT_MAX) split.clear();
  split.set(path, components);
  return components;
}

/** The path of the directory that has the node, undefined for the root. */
export function parentOf(path: string): string | undefined {
  if (path === '/') return undefined;
  return path.slice(0, path.lastIndexOf('/')) || '/';
}

/** The last component of a path that is not the root. */
export function leafOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

export function childOf(parent: string, name: string): string {
  return parent === '/' ? `/${name}` : `${parent}/${name}`;
}

/** The path itself, then each directory above it, the root last. */
export function* upwards(path: string): Generator<string> {
  for (let at: string | undefined = path; at !== undefined; at = parentOf(at)) yield at;
}

/** The paths below `ancestor` on the way to `path`, `path` itself the last. */
export function pathsBetween(ancestor: string, path: string): string[] {
  const between: string[] = [];
  for (let end = ancestor === '/' ? 0 : ancestor.length; end < path.length; ) {
    const slash = path.indexOf('/', end + 1);
    end = slash < 0 ? path.length : slash;
    between.push(path.slice(0, end));
  }
  return between;
}
