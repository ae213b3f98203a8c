// Who may do what with a node (docs/misc/xenstore.txt of the Xen tree, GET_PERMS): the first entry of a list names the
// owner, who may do everything, and what everyone may who is not listed; the others are for one domain each.

import { DOM0, type DomId } from '../../xen/ids.ts';
import type { XenstorePermission } from '../../xen/xenstore.ts';

/** Never empty. */
export type Permissions = readonly [XenstorePermission, ...XenstorePermission[]];

/** On whose behalf something is done. */
export interface Caller {
  readonly domid: DomId;
  /** The domain whose rights this one has as well (SET_TARGET: a device model's guest). */
  readonly target: DomId | undefined;
  /** Whether it is the control domain, whom permissions and quotas do not bind. */
  readonly privileged: boolean;
}

export type Right = 'read' | 'write' | 'own';

/** Whether a node with these permissions lets the caller do that. */
export function allows(permissions: Permissions, caller: Caller, right: Right): boolean {
  if (caller.privileged) return true;
  const [owner] = permissions;
  if (isFor(owner, caller)) return true;
  if (right === 'own') return false;
  // The owner's entry is not for the caller.
  const entry = permissions.find((listed) => isFor(listed, caller)) ?? owner;
  return entry[right];
}

function isFor({ domid }: XenstorePermission, caller: Caller): boolean {
  return domid === caller.domid || domid === caller.target;
}

/** What a new node gets: its parent's list, with the maker as owner unless that is the control domain. */
export function inherited(parent: Permissions, caller: Caller): Permissions {
  if (caller.privileged) return parent;
  const [owner, ...others] = parent;
  return [{ ...owner, domid: caller.domid }, ...others];
}

/** The list without a domain that is gone: what it owned is the control domain's, its entries are dropped. */
export function withoutDomain(permissions: Permissions, domid: DomId): Permissions {
  if (!permissions.some((entry) => entry.domid === domid)) return permissions;
  const [owner, ...others] = permissions;
  const heir = owner.domid === domid ? { ...owner, domid: DOM0 } : owner;
  return [heir, ...others.filter((entry) => entry.domid !== domid)];
}
