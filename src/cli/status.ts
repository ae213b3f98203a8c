// `xen-zcopy status`: what a running daemon serves and holds, for people or as JSON.

import { rateText, spentText } from '../daemon/limit-words.ts';
import type { BufferStatus, DaemonStatus, GuestStatus, ServiceStatus } from '../daemon/status.ts';
import { SysError, UsageError } from '../runtime/errors.ts';
import { readToken } from './tokens.ts';

export interface StatusOptions {
  readonly url?: string;
  readonly tokenFile?: string;
  readonly json?: boolean;
}

const DEFAULT_URL = 'http://127.0.0.1:8470/';
const TIMEOUT_MS = 10_000;

/** @throws UsageError for a bad URL, SysError when the daemon does not answer */
export async function status({ url, tokenFile, json }: StatusOptions): Promise<void> {
  const answer = await ask(url ?? DEFAULT_URL, tokenFile);
  if (json) {
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    return;
  }
  process.stdout.write(render(answer));
}

async function ask(url: string, tokenFile: string | undefined): Promise<DaemonStatus> {
  if (!URL.canParse(url)) throw new UsageError(`--url ${url} is not a URL, such as ${DEFAULT_URL}`);
  const base = new URL(url);
  const token = base.searchParams.get('token') ?? readToken(tokenFile);
  if (!token) {
    throw new UsageError('a token is needed: in --url, --token-file or XEN_ZCOPY_TOKEN');
  }
  const target = new URL('/api/status', base.origin);
  try {
    const response = await fetch(target, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (response.ok) return (await response.json()) as DaemonStatus;
    const { error } = (await response.json()) as { error?: string };
    throw new Error(error ?? `status ${response.status}`);
  } catch (error) {
    throw new SysError({
      call: 'GET /api/status',
      errnoName: error instanceof Error ? String(error.cause ?? error.message) : 'no answer',
      context: `asking ${base.origin}`,
      remedy: 'is xen-zcopy running there? start it with `xen-zcopy serve` or `xen-zcopy demo`',
    });
  }
}

function render({ guests, host }: DaemonStatus): string {
  const lines = [`host: ${host.provider}, ${guests.length} guest(s)`];
  for (const guest of guests) {
    lines.push(
      `\n${guest.name} (domain ${guest.domid}): ${guest.state}, input ${guest.input.state}`,
    );
    for (const display of guest.displays) {
      const { connector, uniqueId, width, height, format, flips, flipsPerSecond } = display;
      lines.push(
        `  display ${connector} ${uniqueId}: ${width}x${height} ${format ?? 'off'}, ${flips} flips ` +
          `(${flipsPerSecond.toFixed(1)}/s), ${display.bytesCopied} bytes copied, by ${display.path}`,
      );
    }
    lines.push(...guest.services.filter(({ restarts }) => restarts > 0).map(serviceLine));
    lines.push(`  holds ${shares(guest)}`);
    lines.push(...guest.buffers.filter(isLeaving).map(bufferLine));
    if (Object.keys(guest.refused).length > 0) lines.push(`  refused ${counts(guest.refused)}`);
    lines.push(...limitLines(guest));
  }
  return `${lines.join('\n')}\n`;
}

/** What it met of its limits, in words. */
function limitLines({ refused, throttled, budget }: GuestStatus): string[] {
  const spent = Object.keys(refused).flatMap((reason) => spentText(reason, budget) ?? []);
  return [
    ...spent.map((limit) => `  was refused more than ${limit}`),
    ...Object.entries(throttled).map(
      ([kind, times]) => `  was slowed down (${times}×), beyond ${rateText(kind, budget)}`,
    ),
  ];
}

function serviceLine({ type, devid, backendState, restarts, lastError }: ServiceStatus): string {
  return `  ${type} ${devid}: ${backendState}, started anew ${restarts} times, the last time because: ${lastError}`;
}

/** Buffers in use need no line of their own: those that are on their way out and not gone do. */
function isLeaving({ state }: BufferStatus): boolean {
  return state === 'releasing' || state === 'quarantined';
}

function bufferLine({ name, pages, state, holders }: BufferStatus): string {
  const held = holders.map(
    ({ who, pages: part, evidence }) => `${who}, ${part} pages (${evidence})`,
  );
  return `  buffer ${name} of ${pages} pages is ${state}: ${held.join('; ')}`;
}

/** What is held of what may be. */
function shares({ held, budget }: GuestStatus): string {
  return Object.entries(held)
    .map(([kind, number]) => `${kind} ${number}/${budget[kind]}`)
    .join(', ');
}

function counts(numbers: Readonly<Record<string, number>>): string {
  return Object.entries(numbers)
    .map(([name, number]) => `${name} ${number}`)
    .join(', ');
}
