// From whom offers are taken, and how much: `--from` by the default rule, or a policy file.

import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { messageOf, UsageError } from '../../runtime/errors.ts';
import { type AcceptRule, DEFAULT_RULE, type SharePolicy } from '../../share/policy.ts';
import { type DomainRef, parseDomainRef, resolveDomain } from './domain-refs.ts';
import { checkPlace } from './place.ts';
import type { SessionOptions, ShareContext } from './session.ts';

/** Of every command that looks at offers. */
export interface FromArguments extends SessionOptions {
  readonly from?: readonly string[];
  readonly policy?: string;
}

/** A rule for a domain that has yet to be looked up. */
export interface FromRule {
  readonly from: DomainRef;
  readonly rule: Omit<AcceptRule, 'from'>;
}

const MIB = 1024 ** 2;

const fileSchema = z.strictObject({
  accept: z
    .array(
      z.strictObject({
        from: z.union([z.int().min(0), z.string().min(1)]),
        maxShares: z.int().min(1).max(65_536).default(DEFAULT_RULE.maxShares),
        maxMiB: z
          .number()
          .positive()
          .max(2 ** 20)
          .default(DEFAULT_RULE.maxBytes / MIB),
        kinds: z.array(z.enum(['buffer', 'stream'])).default([...DEFAULT_RULE.kinds]),
        allowWritable: z.boolean().default(DEFAULT_RULE.allowWritable),
      }),
    )
    .min(1),
});

/** Whom to listen to, and by what rules. @throws UsageError in one line */
export function fromRules(typed: FromArguments): readonly FromRule[] {
  checkPlace(typed);
  const refs = (typed.from ?? []).map((text) => parseDomainRef(text, '--from'));
  if (typed.policy === undefined) {
    if (refs.length === 0) throw new UsageError('--from DOMAIN is needed: a number or a name');
    return refs.map((from) => ({ from, rule: DEFAULT_RULE }));
  }
  const rules = readPolicy(typed.policy);
  if (refs.length === 0) return rules;
  return refs.map((ref) => ({ from: ref, rule: ruleOf(rules, ref, typed.policy!) }));
}

/** The policy, with every name looked up; names that nobody has yet are waited for. */
export async function resolvePolicy(
  context: Pick<ShareContext, 'place' | 'signal'>,
  rules: readonly FromRule[],
): Promise<SharePolicy> {
  const accept: AcceptRule[] = [];
  for (const { from, rule } of rules) {
    accept.push({ ...rule, from: await resolveDomain(context, from) });
  }
  return { accept };
}

function ruleOf(rules: readonly FromRule[], ref: DomainRef, path: string): FromRule['rule'] {
  const found =
    rules.find(({ from }) => sameDomain(from, ref)) ??
    rules.find(({ from }) => from.kind === 'any');
  if (found !== undefined) return found.rule;
  throw new UsageError(`--policy ${path} accepts nothing from ${ref.text}`);
}

function sameDomain(one: DomainRef, other: DomainRef): boolean {
  if (one.kind === 'number' && other.kind === 'number') return one.domid === other.domid;
  return one.kind === other.kind && one.text === other.text;
}

function readPolicy(path: string): FromRule[] {
  const result = fileSchema.safeParse(readJson(path));
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new UsageError(`--policy ${path}: ${issue!.path.join('.') || 'file'}: ${issue!.message}`);
  }
  return result.data.accept.map(({ from, maxMiB, ...rest }) => ({
    from: parseDomainRef(`${from}`, `--policy ${path}: from`),
    rule: { ...rest, maxBytes: Math.floor(maxMiB * MIB) },
  }));
}

function readJson(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--policy ${path} cannot be read: ${messageOf(error)}`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--policy ${path} is not JSON: ${messageOf(error)}`);
  }
}
