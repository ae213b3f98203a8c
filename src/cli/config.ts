// What a service is told by its command line, its configuration file and its environment, checked as a
// whole before anything starts. The command line wins over the file.

import { z } from 'zod';
import { messageOf, UsageError } from '../runtime/errors.ts';
import type { Random } from '../runtime/random.ts';
import { type Budget, DEFAULT_BUDGET, HELD_KINDS, RATE_KINDS } from '../zcopy/budget.ts';
import { limitedTokensSchema, readText, type ServiceTokens, serviceTokens } from './tokens.ts';

/** The options of `demo` and `serve`, as they were typed. */
export interface ServiceOptions {
  readonly listen?: string;
  readonly tokenFile?: string;
  readonly config?: string;
  readonly json?: boolean;
  readonly logLevel?: LogLevel;
  readonly output?: string;
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** Where guests' pictures go, besides viewers. */
export type OutputChoice =
  | { readonly kind: 'browser' }
  | {
      readonly kind: 'kms';
      /** Of the card's device file. */
      readonly path: string;
      /** Which connector shows which display, by `unique-id`. */
      readonly connectors: ReadonlyMap<string, string>;
    };

export interface ServiceConfig extends ServiceTokens {
  readonly listen: ListenAddress;
  /** Host names under which a browser may reach us, besides the loopback ones. */
  readonly allowedHosts: readonly string[];
  readonly refreshHz: number;
  readonly output: OutputChoice;
  /** Of each guest that has none of its own. */
  readonly budget: Budget;
  /** By the guests' names. */
  readonly guestBudgets: ReadonlyMap<string, Budget>;
  readonly logLevel: LogLevel;
  readonly json: boolean;
}

export interface ServiceDefaults {
  /** For the token. */
  readonly random: Random;
  /** How much to log when nobody says. */
  readonly logLevel: LogLevel;
}

const DEFAULT_LISTEN = '127.0.0.1:8470';
const DEFAULT_REFRESH_HZ = 60;
const DEFAULT_OUTPUT = 'browser';

const amount = z.int().min(0);
/** Nothing at all would not be a slow guest, but one that is never served. */
const rate = z.int().min(1);
const budgetSchema = z.strictObject({
  ...Object.fromEntries(HELD_KINDS.map((kind) => [kind, amount.optional()])),
  ...Object.fromEntries(RATE_KINDS.map((kind) => [kind, rate.optional()])),
});
const fileSchema = z.strictObject({
  listen: z.string().optional(),
  tokens: limitedTokensSchema,
  allowedHosts: z.array(z.string().min(1)).default([]),
  refreshHz: z.number().min(1).max(1000).default(DEFAULT_REFRESH_HZ),
  output: z.string().optional(),
  kms: z.record(z.string().min(1), z.string().min(1)).default({}),
  budget: budgetSchema.default({}),
  guests: z.record(z.string().min(1), z.strictObject({ budget: budgetSchema })).default({}),
  logLevel: z.enum(LOG_LEVELS).optional(),
});

/**
 * The configuration of a service.
 * @throws UsageError in one line that says what is wrong and what would be right
 */
export function serviceConfig(
  options: ServiceOptions,
  { random, logLevel }: ServiceDefaults,
): ServiceConfig {
  const file = readConfig(options.config);
  const budget = { ...DEFAULT_BUDGET, ...file.budget };
  return {
    listen: parseListen(options.listen ?? file.listen ?? DEFAULT_LISTEN),
    ...serviceTokens({
      tokenFile: options.tokenFile,
      config: options.config,
      limited: file.tokens,
      random,
    }),
    allowedHosts: file.allowedHosts,
    refreshHz: file.refreshHz,
    output: parseOutput(options.output ?? file.output ?? DEFAULT_OUTPUT, file.kms),
    budget,
    guestBudgets: new Map(
      Object.entries(file.guests).map(([name, own]) => [name, { ...budget, ...own.budget }]),
    ),
    logLevel: options.logLevel ?? file.logLevel ?? logLevel,
    json: options.json ?? false,
  };
}

/** HOST:PORT, [IPV6]:PORT. @throws UsageError */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) {
    throw new UsageError(`--listen ${text} is not HOST:PORT, such as 127.0.0.1:8470 or [::1]:0`);
  }
  return { host: (match[1] ?? match[2])!, port };
}

/** `browser`, `kms:card0` or `kms:/dev/dri/card0`. @throws UsageError */
export function parseOutput(
  text: string,
  connectors: Readonly<Record<string, string>> = {},
): OutputChoice {
  if (text === 'browser') return { kind: 'browser' };
  const path = /^kms:(?:\/dev\/dri\/)?(card\d{1,3})$/.exec(text)?.[1];
  if (path === undefined) {
    throw new UsageError(`--output ${text} is neither browser nor a card such as kms:card0`);
  }
  const pairs = Object.entries(connectors);
  const [twice] = pairs.filter(([, name], i) => pairs.findIndex(([, n]) => n === name) < i);
  if (twice !== undefined) {
    throw new UsageError(`kms: connector ${twice[1]} is given to more than one display`);
  }
  return { kind: 'kms', path: `/dev/dri/${path}`, connectors: new Map(pairs) };
}

/** A whole number in a range. @throws UsageError naming the option */
export function wholeNumber(
  text: string,
  { option, min, max }: { option: string; min: number; max: number },
): number {
  const value = Number(text);
  if (/^\d{1,9}$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(`${option} ${text} is not a whole number from ${min} to ${max}`);
}

function readConfig(path: string | undefined): z.output<typeof fileSchema> {
  if (path === undefined) return fileSchema.parse({});
  const text = readText(path, '--config');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--config ${path} is not JSON: ${messageOf(error)}`);
  }
  const result = fileSchema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new UsageError(`--config ${path}: ${issue!.path.join('.') || 'file'}: ${issue!.message}`);
}
