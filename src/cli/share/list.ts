// `xen-zcopy share list`: what is offered to this domain now. Only looks: opens nothing, answers nothing.

import { sleep } from '../../runtime/runtime.ts';
import { Importer } from '../../share/importer.ts';
import { parseSeconds } from './arguments.ts';
import { factsOf, table } from './describe.ts';
import { type FromArguments, fromRules, resolvePolicy } from './policy-file.ts';
import { inDomain } from './session.ts';

export interface ListArguments extends FromArguments {
  readonly wait?: string;
  readonly json?: boolean;
}

/** A domain that has just come is offered something when the others have heard of it. */
const NEWCOMER_WAIT_MS = 1000;

/** @throws UsageError, SysError */
export async function listShares(typed: ListArguments): Promise<void> {
  const rules = fromRules(typed);
  const newcomerMs = typed.machine === undefined ? 0 : NEWCOMER_WAIT_MS;
  const waitMs = typed.wait === undefined ? newcomerMs : parseSeconds(typed.wait, '--wait');
  await inDomain(typed, async (context) => {
    const policy = await resolvePolicy(context, rules);
    const { runtime, place, scope } = context;
    const { domain } = place;
    const importer = scope.own(await Importer.open({ runtime, domain, policy, silent: true }));
    await sleep(runtime, waitMs, context.signal);
    const { offers } = importer;
    process.stdout.write(typed.json ? `${JSON.stringify(offers.map(factsOf))}\n` : table(offers));
  });
}
