// What a program that keeps the rules does with shares that others export to it: listens to those that share now, opens what
// they offer, takes frames in their order or the newest, holds each for a while, and looks whether it got what was sent.

import { PAGE_SIZE } from '../../src/abi/page.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import type { ReadableFrame } from '../../src/share/consumer.ts';
import type { ImportedShare } from '../../src/share/imported-share.ts';
import { Importer } from '../../src/share/importer.ts';
import type { OfferedShare } from '../../src/share/offered-share.ts';
import { type AcceptRule, DEFAULT_RULE } from '../../src/share/policy.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, oneOf } from '../chance.ts';
import { flawIn, shareMark } from './marks.ts';
import { importWrongly, listenToAnybody } from './mistakes.ts';
import type { Sharing } from './sharer.ts';
import { noteImporter } from './status.ts';

/** What one partner may offer. */
const RULE = { ...DEFAULT_RULE, maxShares: 3, maxBytes: 16 * PAGE_SIZE };
/** How long it listens to the same ones, and holds a frame or a buffer, in milliseconds. */
const LISTENING_MS = [200, 4000] as const;
const HELD_MS = [0, 60] as const;
const KEPT_MS = [1, 1000] as const;
/** A producer is waited for so long at most, in milliseconds. */
const PATIENCE_MS = 5000;
/** One stream in so many is left early; one frame in so many is held for a while. */
const LEAVE_ONE_IN = 20;
const HOLD_ONE_IN = 2;
const LATEST_ONE_IN = 3;
/** One program in so many only looks, takes no buffers, writes to nothing; and hears only the first events. */
const SILENT_ONE_IN = 10;
const STREAMS_ONLY_ONE_IN = 6;
const READ_ONLY_ONE_IN = 6;
const DEAF_ONE_IN = 100;
/** One event in so many is followed by a mistake, as one listening in so many begins with one. */
const MISTAKE_ONE_IN = 10;

/** Listens to all that share now, for a while, or until it is to leave. @throws SysError, GrantMapError */
export async function importFrom(sharing: Sharing): Promise<void> {
  const { program, domain, random, peers, judge, leaving } = sharing;
  if (happens(random, MISTAKE_ONE_IN)) await listenToAnybody(sharing);
  const accept = peers().map((from) => ruleFor(sharing, from));
  const silent = happens(random, SILENT_ONE_IN);
  const importer = await Importer.open({ runtime: program, domain, policy: { accept }, silent });
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= importer.close();
    closing.catch((error: unknown) => judge(error));
  };
  if (leaving.aborted) close();
  leaving.addEventListener('abort', close, { once: true });
  program.after(between(random, ...LISTENING_MS), close);
  for await (const { type, share } of importer.events()) {
    if (type === 'offered' && !silent) {
      const failed = (error: unknown) => judge(error, share.exporter);
      take(sharing, importer, share).catch(failed);
    }
    noteImporter(sharing, importer);
    if (!silent && happens(random, MISTAKE_ONE_IN)) await importWrongly(sharing, importer);
    if (happens(random, DEAF_ONE_IN)) break;
  }
  close();
  leaving.removeEventListener('abort', close);
  await closing;
}

function ruleFor({ random }: Sharing, from: DomId): AcceptRule {
  return {
    ...RULE,
    from,
    kinds: happens(random, STREAMS_ONLY_ONE_IN) ? ['stream'] : RULE.kinds,
    allowWritable: !happens(random, READ_ONLY_ONE_IN),
  };
}

/** One share, from its opening to its end. */
async function take(sharing: Sharing, importer: Importer, offered: OfferedShare): Promise<void> {
  const { random } = sharing;
  const writable = offered.writable && happens(random, 2);
  const dmaBuf = oneOf(random, ['none', 'if-possible'] as const);
  await using share = await importer.open(offered.id, { writable, dmaBuf });
  if (offered.kind === 'stream') await takeFrames(sharing, share, offered);
  else await keepBuffer(sharing, share, offered);
}

async function keepBuffer(
  sharing: Sharing,
  share: ImportedShare,
  offered: OfferedShare,
): Promise<void> {
  look(sharing, { share, offered, bytes: share.bytes, number: 0 });
  sharing.received(offered.exporter);
  await sleep(sharing.program, between(sharing.random, ...KEPT_MS));
}

async function takeFrames(
  sharing: Sharing,
  share: ImportedShare,
  offered: OfferedShare,
): Promise<void> {
  const { random } = sharing;
  const latest = happens(random, LATEST_ONE_IN);
  if (!latest && happens(random, 2)) return takeAll(sharing, share, offered);
  while (!happens(random, LEAVE_ONE_IN)) {
    const frame = await share.frames.acquire({ latest, timeoutMs: PATIENCE_MS });
    if (frame === undefined) return;
    try {
      await hold(sharing, { share, offered, frame });
    } finally {
      frame.release();
    }
  }
}

/** As those do who record: every frame, for as long as there are any. */
async function takeAll(
  sharing: Sharing,
  share: ImportedShare,
  offered: OfferedShare,
): Promise<void> {
  for await (const frame of share.frames) {
    sharing.world.trace.note('skipped', share.frames.skipped);
    await hold(sharing, { share, offered, frame });
    if (happens(sharing.random, LEAVE_ONE_IN)) return;
  }
}

async function hold(
  sharing: Sharing,
  { share, offered, frame }: { share: ImportedShare; offered: OfferedShare; frame: ReadableFrame },
): Promise<void> {
  const { random, program, received, world } = sharing;
  const { bytes, sequence: number } = frame;
  world.trace.note('frame taken', offered.exporter, number);
  look(sharing, { share, offered, bytes, number });
  received(offered.exporter);
  if (!happens(random, HOLD_ONE_IN)) return;
  await sleep(program, between(random, ...HELD_MS));
  look(sharing, { share, offered, bytes, number });
}

interface Looked {
  readonly share: ImportedShare;
  readonly offered: OfferedShare;
  readonly bytes: Uint8Array;
  readonly number: number;
}

/** What is there is what its exporter sent, whole, for as long as the share is open. */
function look({ world, domain }: Sharing, { share, offered, bytes, number }: Looked): void {
  const { exporter } = offered;
  if (share.end !== undefined || !world.runs(exporter)) return;
  if (!world.keepsRules(exporter)) return;
  const flaw = flawIn(bytes, shareMark(exporter, number));
  world.findings.hold(flaw === undefined, 'foreign-frame', () => {
    return `domain ${domain.domid} reads frame ${number} of domain ${exporter}: ${flaw}`;
  });
}
