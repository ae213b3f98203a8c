// `xen-zcopy share import`: opens what another domain offers, and writes it out from where it lies.
//
// Invariant: success means that everything came: the end of a stream was seen and its length is the one that was
// announced, and memory that was given back, or lost, meanwhile was not read.

import { UsageError } from '../../runtime/errors.ts';
import type { ImportedShare } from '../../share/imported-share.ts';
import type { OfferedShare } from '../../share/offered-share.ts';
import { ShareError } from '../../share/share-error.ts';
import { wholeNumber } from '../config.ts';
import { parseId, parseSeconds } from './arguments.ts';
import { bytesOf } from './describe.ts';
import { awaitOffer } from './offers.ts';
import { OutputFile } from './output-file.ts';
import { type FromArguments, fromRules } from './policy-file.ts';
import { Progress } from './progress.ts';
import { inDomain, type ShareContext } from './session.ts';

/** As typed. */
export interface ImportArguments extends FromArguments {
  readonly output?: string;
  readonly frames?: string;
  readonly timeout?: string;
  readonly quiet?: boolean;
}

const FRAMES_MAX = 999_999_999;

/** @throws UsageError; SysError, ShareError in one line; Interrupted */
export async function importShare(id: string | undefined, typed: ImportArguments): Promise<void> {
  const { frames, timeout, quiet = false } = typed;
  const wish = {
    id: parseId(id),
    rules: fromRules(typed),
    timeoutMs: timeout === undefined ? undefined : parseSeconds(timeout, '--timeout'),
  };
  const maxFrames =
    frames === undefined
      ? undefined
      : wholeNumber(frames, { option: '--frames', min: 1, max: FRAMES_MAX });
  using output = OutputFile.open(typed.output);
  await inDomain(typed, async (context) => {
    const { importer, offered } = await awaitOffer(context, wish);
    context.scope.own(importer);
    checkFrames(offered, maxFrames);
    const share = await importer.open(offered.id);
    output.clear();
    using progress = new Progress(context.runtime, {
      terminal: process.stderr,
      totalBytes: maxFrames === undefined ? bytesOf(offered) : undefined,
      quiet,
    });
    const job = { context, share, offered, output, progress };
    if (offered.kind === 'buffer') await write(job, share.bytes);
    else await writeFrames(job, maxFrames);
  });
}

/** @throws UsageError */
function checkFrames({ kind, id }: OfferedShare, maxFrames: number | undefined): void {
  if (maxFrames === undefined || kind === 'stream') return;
  throw new UsageError(`--frames: the share ${id} is one buffer`);
}

interface Job {
  readonly context: ShareContext;
  readonly share: ImportedShare;
  readonly offered: OfferedShare;
  readonly output: OutputFile;
  readonly progress: Progress;
}

async function writeFrames(job: Job, maxFrames = Number.POSITIVE_INFINITY): Promise<void> {
  const { share, context, offered, progress } = job;
  const { signal } = context;
  for (let count = 0; count < maxFrames; count++) {
    const frame = share.frames.tryAcquire() ?? (await nextFrame(job, signal));
    if (frame === undefined) {
      const totalBytes = bytesOf(offered);
      if (totalBytes === undefined || totalBytes === progress.bytes) return;
      const detail = `it ended after ${progress.bytes} bytes, where ${totalBytes} were announced`;
      throw new ShareError('malformed', `the share ${share.id} is not complete: ${detail}`);
    }
    try {
      await write(job, frame.bytes);
    } finally {
      frame.release();
    }
  }
}

async function nextFrame({ share, progress }: Job, signal: AbortSignal) {
  try {
    return await share.frames.acquire({ signal });
  } catch (error) {
    if (!(error instanceof ShareError)) throw error;
    throw new ShareError(error.reason, `${error.message}; ${progress.bytes} bytes were got`);
  }
}

/** Writes bytes of the share, which are its as long as it is open. @throws ShareError `withdrawn` */
async function write({ share, context, output, progress }: Job, bytes: Uint8Array): Promise<void> {
  await output.write(bytes, context.signal);
  context.signal.throwIfAborted();
  if (share.releaseState !== 'live') {
    const detail = `the share ${share.id} was withdrawn while it was read`;
    throw new ShareError('withdrawn', `${detail}; ${progress.bytes} bytes were got`);
  }
  progress.bytes += bytes.length;
}
