// `xen-zcopy share list`: what is offered to this domain now. Only looks: opens nothing, answers nothing.

import { Importer } from '../../share/importer.ts';
import { factsOf, table } from './describe.ts';
import { type FromArguments, fromRules, resolvePolicy } from './policy-file.ts';
import { inDomain } from './session.ts';

export interface ListArguments extends FromArguments {
  readonly json?: boolean;
}

/** @throws UsageError, SysError */
export async function listShares(typed: ListArguments): Promise<void> {
  const rules = fromRules(typed);
  await inDomain(typed, async (context) => {
    const policy = await resolvePolicy(context, rules);
    const { runtime, place, scope } = context;
    const { domain } = place;
    const importer = scope.own(await Importer.open({ runtime, domain, policy, silent: true }));
    const { offers } = importer;
    process.stdout.write(typed.json ? `${JSON.stringify(offers.map(factsOf))}\n` : table(offers));
  });
}
