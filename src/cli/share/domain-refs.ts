// Domains as people write them: a number, a name, `any`.

import { UsageError } from '../../runtime/errors.ts';
import { DOM0, type DomId, domId } from '../../xen/ids.ts';
import type { ShareContext } from './session.ts';

export type DomainRef =
  | { readonly kind: 'number'; readonly domid: DomId; readonly text: string }
  | { readonly kind: 'name'; readonly text: string }
  | { readonly kind: 'any'; readonly text: string };

const DOMAIN_0 = ['dom0', 'domain-0'];

/** @throws UsageError naming the option */
export function parseDomainRef(text: string, option: string): DomainRef {
  if (DOMAIN_0.includes(text.toLowerCase())) return { kind: 'number', domid: DOM0, text };
  if (text === 'any') return { kind: 'any', text };
  if (!/^\d+$/.test(text)) {
    if (/^[\x21-\x7e]{1,64}$/.test(text)) return { kind: 'name', text };
    throw new UsageError(`${option} ${JSON.stringify(text)} is no domain: a number or a name`);
  }
  try {
    return { kind: 'number', domid: domId(Number(text)), text };
  } catch {
    throw new UsageError(`${option} ${text} is not the number of a domain`);
  }
}

/** One domain, and not any. @throws UsageError naming the option */
export function parseOneDomain(text: string, option: string): DomainRef {
  const ref = parseDomainRef(text, option);
  if (ref.kind !== 'any') return ref;
  throw new UsageError(`${option} any: one domain is wanted, by its number or its name`);
}

/** The domain that is meant; a name that nobody has yet is waited for. @throws SysError, the signal's reason */
export async function resolveDomain(
  { place, signal }: Pick<ShareContext, 'place' | 'signal'>,
  ref: DomainRef,
): Promise<DomId | 'any'> {
  if (ref.kind === 'any') return 'any';
  if (ref.kind === 'number') return ref.domid;
  const found = await place.find(ref.text);
  if (found !== undefined) return found;
  process.stderr.write(`xen-zcopy: waiting for a domain named ${ref.text}\n`);
  return place.appears(ref.text, signal);
}
