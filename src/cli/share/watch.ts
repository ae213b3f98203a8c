// `xen-zcopy share watch`: what happens to the offers of other domains, line by line, until it is interrupted.
// Only looks: opens nothing, answers nothing.

import { Importer } from '../../share/importer.ts';
import type { ShareEvent } from '../../share/share-events.ts';
import { Interrupted } from '../interrupted.ts';
import { factsOf } from './describe.ts';
import { eventsUntil, known, renamed } from './offers.ts';
import { type FromArguments, type FromRule, fromRules, resolvePolicy } from './policy-file.ts';
import { inDomain, type ShareContext } from './session.ts';

export interface WatchArguments extends FromArguments {
  readonly json?: boolean;
}

/** @throws UsageError, SysError */
export async function watchShares(typed: WatchArguments): Promise<void> {
  const rules = fromRules(typed);
  const text = typed.json ? asJson : asWords;
  const tell = (event: ShareEvent) => process.stdout.write(`${text(event)}\n`);
  try {
    await inDomain(typed, async (context) => {
      await Promise.all(rules.map((rule) => watchOne(context, rule, tell)));
    });
  } catch (error) {
    // There is no other end to it.
    if (!(error instanceof Interrupted)) throw error;
  }
}

/** Watches one domain, and when it is gone the next one of its name. */
async function watchOne(
  context: ShareContext,
  rule: FromRule,
  tell: (event: ShareEvent) => void,
): Promise<never> {
  const { runtime, place, signal, scope } = context;
  for (;;) {
    const policy = await resolvePolicy(context, [rule]);
    const { domain } = place;
    const listening = scope.child('watch');
    const importer = listening.own(await Importer.open({ runtime, domain, policy, silent: true }));
    const over = renamed(context, known([rule], policy));
    over.catch(() => {}).finally(() => listening.close());
    for await (const event of eventsUntil(importer, listening.signal)) tell(event);
    await over;
    signal.throwIfAborted();
  }
}

function asJson({ type, share, deadlineMs }: ShareEvent): string {
  const deadline = deadlineMs === undefined ? {} : { deadlineMs };
  return JSON.stringify({ event: type, ...factsOf(share), ...deadline });
}

function asWords({ type, share }: ShareEvent): string {
  const { id, from, kind, bytes, name, content } = factsOf(share);
  const size = bytes === null ? '' : ` of ${bytes} bytes`;
  return `${type} ${id} from domain ${from}: ${kind}${size}, ${content}${name && `, ${name}`}`;
}
