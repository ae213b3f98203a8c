// `xen-zcopy share export`: offers a stream or a buffer to one domain, and stays until it is over.

import { basename } from 'node:path';
import { UsageError } from '../../runtime/errors.ts';
import { Exporter } from '../../share/exporter.ts';
import { sendBytes } from './byte-sender.ts';
import {
  type ExportArguments,
  type ExportChoice,
  exportChoice,
  type Wanted,
} from './export-options.ts';
import { InputFile } from './input-file.ts';
import { contentOf, FileFrames, sendPictures, TestCardFrames } from './picture-sender.ts';
import type { Recipient } from './recipient.ts';
import { inDomain, type ShareContext } from './session.ts';
import { type OfferParts, StandingOffer } from './standing-offer.ts';

/** So many slots keep both ends busy; more make it no faster. */
const SLOTS = 4;
/**
 * Of each, unless somebody says. Large ones cost fewer wake-ups for a byte; Linux's gntalloc gives 1024 pages
 * to all programs together unless it is told otherwise, of which this leaves half.
 */
const SLOT_BYTES = { hypervisor: 4 * 1024 ** 2, linux: 512 * 1024 } as const;
const NAME_BYTES_MAX = 80;

/** @throws UsageError; SysError, ShareError in one line; Interrupted */
export async function exportShare(path: string | undefined, typed: ExportArguments): Promise<void> {
  const choice = exportChoice(path, typed);
  using input = choice.wanted.kind === 'test-card' ? undefined : InputFile.open(choice.path);
  checkInput(choice, input);
  await inDomain(typed, async (context) => {
    const { runtime, place, scope } = context;
    const exporter = scope.own(new Exporter({ runtime, ...place }));
    const parts = { context, choice, exporter };
    if (choice.wanted.kind === 'buffer') await offerBuffer(parts, choice.wanted, input!);
    else if (choice.wanted.kind === 'bytes') await offerBytes(parts, choice.wanted, input!);
    else await offerPictures(parts, choice.wanted, input);
  });
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
  parts: OfferParts,
  wanted: Extract<Wanted, { kind: 'bytes' }>,
  input: InputFile,
): Promise<void> {
  const { choice, exporter, context } = parts;
  const slotBytes = wanted.slotBytes ?? SLOT_BYTES[context.place.domain.provider];
  const { whenFull } = choice;
  const { bytes } = input;
  const byteLength = Math.max(1, Math.min(slotBytes, bytes ?? slotBytes));
  const needed = bytes === undefined ? SLOTS : Math.max(1, Math.ceil(bytes / byteLength));
  const slots = choice.slots ?? Math.min(SLOTS, needed);
  const content = { type: 'bytes', ...(bytes ? { totalBytes: bytes } : {}) } as const;
  const metadata = { name: nameOf(choice, input), content };
  const offer = new StandingOffer(parts, (to) =>
    exporter.stream({ to, memory: { byteLength }, slots, whenFull, metadata }),
  );
  const recipient = await offer.opened();
  await sendBytes(input, recipient);
  await recipient.end();
  await offer.withdraw();
}

async function offerPictures(
  parts: OfferParts,
  wanted: Extract<Wanted, { kind: 'pictures' | 'test-card' }>,
  input: InputFile | undefined,
): Promise<void> {
  const { choice, exporter, context } = parts;
  const { whenFull } = choice;
  const name = nameOf(choice, input);
  const frames =
    wanted.kind === 'pictures'
      ? new FileFrames(input!, wanted)
      : new TestCardFrames(context.runtime, { name, ...wanted.shape });
  const content = contentOf(frames.spec);
  const memory = { byteLength: content.stride * content.height };
  const slots = choice.slots ?? SLOTS;
  const offer = new StandingOffer(parts, (to) =>
    exporter.stream({ to, memory, slots, whenFull, metadata: { name, content } }),
  );
  while (frames.endless) await sendUntilGone(context, frames, await offer.opened());
  const recipient = await offer.opened();
  await sendPictures(context.runtime, frames, recipient);
  await recipient.end();
  await offer.withdraw();
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
  parts: OfferParts,
  { once, writable }: Extract<Wanted, { kind: 'buffer' }>,
  input: InputFile,
): Promise<void> {
  const { choice, exporter } = parts;
  const metadata = { name: nameOf(choice, input) };
  const memory = { byteLength: input.bytes! };
  const fill = (bytes: Uint8Array) => input.readAt(bytes, 0);
  const offer = new StandingOffer(parts, (to) =>
    exporter.share({ to, writable, memory, metadata, fill }),
  );
  do await (await offer.opened()).gone();
  while (!once);
  await offer.withdraw();
}

/** What the share is called: as told, or after the file, as far as there is room for it. */
function nameOf({ name }: ExportChoice, input: InputFile | undefined): string {
  if (name !== undefined) return name;
  const text = input === undefined ? 'test-card' : basename(input.name);
  const room = Buffer.from(text).subarray(0, NAME_BYTES_MAX).toString();
  return Buffer.byteLength(text) > NAME_BYTES_MAX ? room.replace(/\ufffd$/, '') : text;
}
