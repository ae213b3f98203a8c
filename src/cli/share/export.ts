// `xen-zcopy share export`: offers a stream or a buffer to one domain, and stays until it is over.

import { basename } from 'node:path';
import { UsageError } from '../../runtime/errors.ts';
import type { ExportedShare } from '../../share/exported-share.ts';
import { Exporter } from '../../share/exporter.ts';
import type { ShareMetadata } from '../../share/metadata.ts';
import type { DomId } from '../../xen/ids.ts';
import { sendBytes } from './byte-sender.ts';
import { contentWords } from './describe.ts';
import { resolveDomain } from './domain-refs.ts';
import {
  type ExportArguments,
  type ExportChoice,
  exportChoice,
  type Wanted,
} from './export-options.ts';
import { InputFile } from './input-file.ts';
import { contentOf, FileFrames, sendPictures, TestCardFrames } from './picture-sender.ts';
import { Recipient } from './recipient.ts';
import { inDomain, type ShareContext } from './session.ts';

/** So many slots of this size keep both ends busy; more of either makes it no faster. */
const SLOTS = 4;
const SLOT_BYTES = 1024 ** 2;
/** How long an importer may look at what is withdrawn, when the work is done or was given up. */
const WITHDRAW_MS = 1000;
const NAME_BYTES_MAX = 80;

/** @throws UsageError; SysError, ShareError in one line; Interrupted */
export async function exportShare(path: string | undefined, typed: ExportArguments): Promise<void> {
  const choice = exportChoice(path, typed);
  using input = choice.wanted.kind === 'test-card' ? undefined : InputFile.open(choice.path);
  checkInput(choice, input);
  await inDomain(typed, async (context) => {
    const to = await resolveDomain(context, choice.to);
    const { runtime, place, scope } = context;
    const exporter = scope.own(new Exporter({ runtime, domain: place.domain }));
    // One domain was asked for.
    const parts = { context, choice, exporter, to: to as DomId };
    if (choice.wanted.kind === 'buffer') await offerBuffer(parts, choice.wanted, input!);
    else if (choice.wanted.kind === 'bytes') await offerBytes(parts, choice.wanted, input!);
    else await offerPictures(parts, choice.wanted, input);
  });
}

interface Parts {
  readonly context: ShareContext;
  readonly choice: ExportChoice;
  readonly exporter: Exporter;
  readonly to: DomId;
}

/** @throws UsageError for what cannot be sent so */
function checkInput({ wanted, path = '-' }: ExportChoice, input: InputFile | undefined): void {
  if (wanted.kind === 'buffer' && input?.bytes === undefined) {
    throw new UsageError(`--buffer: ${path} is not a file with something in it`);
  }
  if (wanted.kind === 'pictures' && wanted.loop && input?.bytes === undefined) {
    throw new UsageError(`--loop: ${path} cannot be read again`);
  }
}

async function offerBytes(
  parts: Parts,
  { slotBytes = SLOT_BYTES }: Extract<Wanted, { kind: 'bytes' }>,
  input: InputFile,
): Promise<void> {
  const { choice, exporter, to, context } = parts;
  const { whenFull } = choice;
  const { bytes } = input;
  const byteLength = Math.max(1, Math.min(slotBytes, bytes ?? slotBytes));
  const needed = bytes === undefined ? SLOTS : Math.max(1, Math.ceil(bytes / byteLength));
  const slots = choice.slots ?? Math.min(SLOTS, needed);
  const content = { type: 'bytes', ...(bytes ? { totalBytes: bytes } : {}) } as const;
  const metadata = { name: nameOf(choice, input), content };
  const share = await exporter.stream({ to, memory: { byteLength }, slots, whenFull, metadata });
  announce(parts, share);
  const recipient = await recipientOf(parts, share);
  await sendBytes(input, recipient);
  await recipient.end();
  await withdraw(context, share);
}

async function offerPictures(
  parts: Parts,
  wanted: Extract<Wanted, { kind: 'pictures' | 'test-card' }>,
  input: InputFile | undefined,
): Promise<void> {
  const { choice, exporter, to, context } = parts;
  const { slots = SLOTS, whenFull } = choice;
  const name = nameOf(choice, input);
  const frames =
    wanted.kind === 'pictures'
      ? new FileFrames(input!, wanted)
      : new TestCardFrames(context.runtime, { name, ...wanted.shape });
  const content = contentOf(frames.spec);
  const memory = { byteLength: content.stride * content.height };
  const share = await exporter.stream({ to, memory, slots, whenFull, metadata: { name, content } });
  announce(parts, share);
  for (;;) {
    const recipient = await recipientOf(parts, share);
    if (frames.endless) await sendUntilGone(context, frames, recipient);
    else {
      await sendPictures(context.runtime, frames, recipient);
      await recipient.end();
      return withdraw(context, share);
    }
  }
}

/** What has no end is there for the next importer as well. */
async function sendUntilGone(
  { runtime, signal }: ShareContext,
  frames: FileFrames | TestCardFrames,
  recipient: Recipient,
): Promise<void> {
  try {
    await sendPictures(runtime, frames, recipient);
  } catch (error) {
    if (signal.aborted || !recipient.isGone(error)) throw error;
  }
}

async function offerBuffer(
  parts: Parts,
  { once, writable }: Extract<Wanted, { kind: 'buffer' }>,
  input: InputFile,
): Promise<void> {
  const { choice, exporter, to, context } = parts;
  const { signal } = context;
  const metadata: Partial<ShareMetadata> = { name: nameOf(choice, input) };
  const byteLength = input.bytes!;
  const share = await exporter.share({ to, writable, memory: { byteLength }, metadata });
  await input.readAt(share.bytes, 0);
  announce(parts, share);
  await recipientOf(parts, share);
  if (!once) await forever(signal);
  await share.closed({ signal });
  await withdraw(context, share);
}

function recipientOf({ context, choice }: Parts, share: ExportedShare): Promise<Recipient> {
  return Recipient.await(share, { signal: context.signal, timeoutMs: choice.timeoutMs });
}

async function withdraw({ signal }: ShareContext, share: ExportedShare): Promise<void> {
  await share.withdraw({ deadlineMs: WITHDRAW_MS, signal });
}

/** Ends by the signal alone. */
function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** What the share is called: as told, or after the file, as far as there is room for it. */
function nameOf({ name }: ExportChoice, input: InputFile | undefined): string {
  if (name !== undefined) return name;
  const text = input === undefined ? 'test-card' : basename(input.name);
  const room = Buffer.from(text).subarray(0, NAME_BYTES_MAX).toString();
  return Buffer.byteLength(text) > NAME_BYTES_MAX ? room.replace(/\ufffd$/, '') : text;
}

/** Says on stdout by which id the share can be opened. */
function announce({ choice, to }: Parts, share: ExportedShare): void {
  const { id, metadata, slotBytes } = share;
  const kind = choice.wanted.kind === 'buffer' ? 'buffer' : 'stream';
  const { name, content } = metadata;
  const facts = { id, to, name, kind, slotBytes, content: contentWords(content), pid: process.pid };
  process.stdout.write(choice.json ? `${JSON.stringify(facts)}\n` : `${id}\n`);
}
