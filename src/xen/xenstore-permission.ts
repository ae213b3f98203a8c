// How a permission is spelled on the wire: a letter and a domid, as `r5` (docs/misc/xenstore.txt, GET_PERMS).

import type { DomId } from './ids.ts';
import type { XenstorePermission } from './xenstore.ts';

/** Largest number that names a domain; special ones (DOMID_SELF, ...) included. */
const MAX_DOMID = 0xffff;

/** `n`, `r`, `w` or `b` and the domid. */
export function formatPermission({ domid, read, write }: XenstorePermission): string {
  const letter = read ? (write ? 'b' : 'r') : write ? 'w' : 'n';
  return `${letter}${domid}`;
}

/** The permission, or undefined when the text is none. */
export function parsePermission(text: string): XenstorePermission | undefined {
  const match = /^([nrwb])(\d{1,5})$/.exec(text);
  if (!match) return undefined;
  const [, letter, digits] = match;
  const domid = Number(digits);
  if (domid > MAX_DOMID) return undefined;
  const read = letter === 'r' || letter === 'b';
  const write = letter === 'w' || letter === 'b';
  return { domid: domid as DomId, read, write };
}
