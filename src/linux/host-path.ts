// One way that a host may give, as it was found: what `doctor` and the status of the daemon print.

import { SysError } from '../runtime/errors.ts';

export interface HostPath {
  readonly available: boolean;
  /** How that was found out, or why it cannot be used. */
  readonly reason: string;
  /** What a person can do about it, where there is something. */
  readonly remedy?: string;
}

/** A look at one way, by really trying it; leaves nothing behind. */
export interface HostProbe<Name extends string = string> {
  readonly name: Name;
  /** @returns how it worked, in words, or the finding @throws SysError where it does not work */
  readonly look: () => string | HostPath | Promise<string | HostPath>;
}

/** Runs a probe. What it throws besides `SysError` is our bug. */
export async function lookAt({ look }: HostProbe): Promise<HostPath> {
  try {
    const found = await look();
    return typeof found === 'string' ? { available: true, reason: found } : found;
  } catch (error) {
    if (error instanceof SysError) return unavailable(error);
    throw error;
  }
}

/** A failure as a finding. */
export function unavailable({ call, errnoName, context, remedy }: SysError): HostPath {
  const reason = reasonOf({ call, errnoName, context });
  return { available: false, reason, ...(remedy === undefined ? {} : { remedy }) };
}

/** As short as it is clear: an explained refusal speaks for itself, and so does a file that cannot be opened. */
function reasonOf({ call, errnoName, context }: Pick<SysError, 'call' | 'errnoName' | 'context'>) {
  if (errnoName === 'EOPNOTSUPP') return context;
  if (call.startsWith('open ')) return `${call.slice('open '.length)}: ${errnoName}`;
  return `${context}: ${call} failed with ${errnoName}`;
}

/** A finding in one line. */
export function inOneLine({ reason, remedy }: HostPath): string {
  return remedy === undefined ? reason : `${reason}; ${remedy}`;
}
