// `xen-zcopy abi`: the wire as this program declares it, for people (Markdown) or for a program that
// compares it with the C headers (JSON).

import { abiJson } from '../abi/json.ts';
import { abiMarkdown } from '../abi/markdown.ts';

export interface AbiOptions {
  readonly json?: boolean;
}

/** Prints the layouts and numbers as they are on this machine's architecture. */
export function abi({ json }: AbiOptions): void {
  process.stdout.write(json ? `${JSON.stringify(abiJson())}\n` : abiMarkdown());
}
