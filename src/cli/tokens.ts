// The tokens of a service: the one that may do everything, from a file, XEN_ZCOPY_TOKEN or chance, and the
// limited ones of the configuration. Tokens stand in files of their own, never in the configuration itself.

import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { messageOf, UsageError } from '../runtime/errors.ts';
import type { Random } from '../runtime/random.ts';
import { type LimitedToken, newToken } from '../server/access.ts';

const MIN_TOKEN_LENGTH = 16;
/** A request's target has room for it (MAX_TARGET_CHARS in server/limits.ts). */
const MAX_TOKEN_LENGTH = 512;

/** More than anybody has written a rule for. */
const MAX_LIMITED_TOKENS = 64;

/** Text is a name, a number is a domain's number: a name of digits alone would be taken for the wrong one. */
const guest = z.union([
  z.int().min(0),
  z.string().regex(/\D/, 'a domain is a name, or a number without quotes'),
]);

/** `tokens` of the configuration file. */
export const limitedTokensSchema = z
  .array(
    z.strictObject({
      /** Relative to the configuration file. */
      tokenFile: z.string().min(1),
      guests: z.array(guest).optional(),
      viewOnly: z.boolean().default(false),
    }),
  )
  .max(MAX_LIMITED_TOKENS)
  .default([]);

export interface ServiceTokens {
  /** The one that may do everything. */
  readonly token: string;
  /** Whether a person gave it, who then knows it: it needs not be told, least of all to a log. */
  readonly tokenGiven: boolean;
  readonly limitedTokens: readonly LimitedToken[];
}

export interface TokenSources {
  /** Of the token that may do everything; otherwise XEN_ZCOPY_TOKEN or a random one. */
  readonly tokenFile: string | undefined;
  /** The configuration file, if there is one, and its `tokens`. */
  readonly config: string | undefined;
  readonly limited: z.output<typeof limitedTokensSchema>;
  readonly random: Random;
}

/** @throws UsageError when one cannot be read, is weak, or is there twice */
export function serviceTokens({ tokenFile, config, limited, random }: TokenSources): ServiceTokens {
  const given = readToken(tokenFile);
  const token = given ?? newToken(random);
  const folder = dirname(config ?? '.');
  const limitedTokens = limited.map(({ tokenFile: file, guests, viewOnly }) => ({
    token: tokenOf(readText(resolve(folder, file), 'tokenFile'), `tokenFile ${file}`),
    ...(guests === undefined ? {} : { guests }),
    viewOnly,
  }));
  const all = [token, ...limitedTokens.map((one) => one.token)];
  // Which rule would hold for it?
  const twice = all.findIndex((one, index) => all.indexOf(one) !== index);
  if (twice > 0) {
    const { tokenFile: file } = limited[twice - 1]!;
    throw new UsageError(`tokenFile ${file}: another rule has the same token`);
  }
  return { token, tokenGiven: given !== undefined, limitedTokens };
}

/** The token of the file or of XEN_ZCOPY_TOKEN, or undefined when there is neither. @throws UsageError */
export function readToken(file: string | undefined): string | undefined {
  if (file !== undefined) return tokenOf(readText(file, '--token-file'), `--token-file ${file}`);
  const text = process.env.XEN_ZCOPY_TOKEN;
  return text === undefined ? undefined : tokenOf(text, 'XEN_ZCOPY_TOKEN');
}

/** @throws UsageError naming `source`, and never the token */
function tokenOf(text: string, source: string): string {
  const token = text.trim();
  const { length } = token;
  if (/^[\x21-\x7e]+$/.test(token) && length >= MIN_TOKEN_LENGTH && length <= MAX_TOKEN_LENGTH) {
    return token;
  }
  throw new UsageError(
    `${source}: a token is at least ${MIN_TOKEN_LENGTH} printable characters, at most ${MAX_TOKEN_LENGTH}`,
  );
}

/** A file that `option` names. @throws UsageError */
export function readText(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${option} ${path} cannot be read: ${messageOf(error)}`);
  }
}
