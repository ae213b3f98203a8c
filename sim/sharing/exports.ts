// What a program that keeps the rules does with a share that it exports: offers it, waits for its partner, sends
// frames, says now and then something else about it, and takes it back.

import { sleep } from '../../src/runtime/runtime.ts';
import type { ExportedShare } from '../../src/share/exported-share.ts';
import type { Exporter } from '../../src/share/exporter.ts';
import { ShareError } from '../../src/share/share-error.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, oneOf } from '../chance.ts';
import { lacking } from '../errors.ts';
import { fillWith, shareMark, slotBytes } from './marks.ts';
import { existingMemory, freeAfter, metadataOf } from './memory.ts';
import { exportWrongly } from './mistakes.ts';
import type { Sharing } from './sharer.ts';
import { noteExporter, noteFrame } from './status.ts';

/** Shares that one partner has, at most. */
const SHARES_MAX = 2;
const SLOTS = [1, 3] as const;
const FRAMES = [1, 12] as const;
/** A partner is waited for so long at most, in milliseconds. */
const PATIENCE_MS = 3000;
/** How long a partner may keep what is taken back, and for how long a buffer is offered, in milliseconds. */
const WITHDRAW_MS = [0, 1500] as const;
const OFFERED_MS = [1, 800] as const;
/** One share in so many is one buffer, is of memory that exists; one frame in so many comes with other metadata, is given up, is late. */
const BUFFER_ONE_IN = 4;
const EXISTING_ONE_IN = 3;
const UPDATE_ONE_IN = 6;
const DISCARD_ONE_IN = 8;
const IMPATIENT_ONE_IN = 4;
const LATE_ONE_IN = 4;
const LATE_MS = [1, 100] as const;
/** One share in so many comes after a mistake. */
const MISTAKE_ONE_IN = 10;

/** One share, from its offer to its withdrawal; none for a partner that has not given back what it had. */
export async function exportTo(sharing: Sharing, exporter: Exporter, to: DomId): Promise<void> {
  if (exporter.shares.filter((share) => share.to === to).length >= SHARES_MAX) return;
  noteExporter(sharing, exporter);
  if (happens(sharing.random, MISTAKE_ONE_IN)) await exportWrongly(sharing, exporter, to);
  await offer(sharing, exporter, to).catch((error: unknown) => sharing.judge(error, to));
}

/** @throws ShareError, SysError, GrantMapError */
async function offer(sharing: Sharing, exporter: Exporter, to: DomId): Promise<void> {
  const { random } = sharing;
  const buffer = happens(random, BUFFER_ONE_IN);
  const share = buffer
    ? await oneBuffer(sharing, exporter, to)
    : await stream(sharing, exporter, to);
  try {
    await share.opened({ timeoutMs: PATIENCE_MS });
    if (buffer) await sleep(sharing.program, between(random, ...OFFERED_MS));
    else await sendFrames(sharing, share);
    if (happens(random, 2)) await share.closed({ timeoutMs: PATIENCE_MS });
  } finally {
    await withdraw(sharing, share);
  }
}

/** Waits for the end of it, or has no patience for that. */
async function withdraw({ random, program }: Sharing, share: ExportedShare): Promise<void> {
  const deadlineMs = between(random, ...WITHDRAW_MS);
  if (!happens(random, IMPATIENT_ONE_IN)) return void (await share.withdraw({ deadlineMs }));
  const { signal, abort } = new Impatience();
  program.after(between(random, ...WITHDRAW_MS), abort);
  await share.withdraw({ deadlineMs, signal });
}

/** Ends a waiting as a caller does that has something better to do. */
class Impatience {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;
  readonly abort = () => this.#controller.abort(lacking('withdrawing a share', 'ECANCELED'));
}

async function oneBuffer(sharing: Sharing, exporter: Exporter, to: DomId): Promise<ExportedShare> {
  const { random, domain } = sharing;
  const fill = async (bytes: Uint8Array) => fillWith(bytes, shareMark(domain.domid, 0));
  const byteLength = slotBytes(random);
  const request = { to, writable: happens(random, 2), fill, metadata: metadataOf(random) };
  if (!happens(random, EXISTING_ONE_IN))
    return exporter.share({ ...request, memory: { byteLength } });
  const memory = await existingMemory(sharing, { byteLength, count: 1 });
  const share = await freeAfter(sharing, memory, exporter.share({ ...request, memory }));
  if (happens(random, 2)) await offerAgain(sharing, exporter, { share, request, memory });
  return share;
}

type BufferRequest = Parameters<Exporter['share']>[0];

/** The same buffer to the same partner is the same share; on other terms it is none. */
async function offerAgain(
  { random, world }: Sharing,
  exporter: Exporter,
  {
    share,
    request,
    memory,
  }: {
    readonly share: ExportedShare;
    readonly request: Omit<BufferRequest, 'memory'>;
    readonly memory: BufferRequest['memory'];
  },
): Promise<void> {
  if (happens(random, 2)) {
    const again = await exporter.share({ ...request, memory, metadata: { name: 'again' } });
    world.findings.hold(again === share, 'defect', () => 'a buffer has two shares for one domain');
    return;
  }
  const other = exporter.share({ ...request, memory, writable: !request.writable });
  const refused = await other.then(
    () => false,
    (error: unknown) => error instanceof ShareError && error.reason === 'in-use',
  );
  world.findings.hold(refused, 'defect', () => 'a buffer is shared with other rights as well');
}

async function stream(sharing: Sharing, exporter: Exporter, to: DomId): Promise<ExportedShare> {
  const { random } = sharing;
  const byteLength = slotBytes(random);
  const slots = between(random, ...SLOTS);
  const whenFull = oneOf(random, ['wait', 'drop'] as const);
  const request = { to, whenFull, metadata: metadataOf(random) };
  if (!happens(random, EXISTING_ONE_IN)) {
    return exporter.stream({ ...request, slots, memory: { byteLength } });
  }
  const memory = await existingMemory(sharing, { byteLength, count: slots });
  return freeAfter(sharing, memory, exporter.stream({ ...request, memory }));
}

async function sendFrames(sharing: Sharing, share: ExportedShare): Promise<void> {
  const { random, program } = sharing;
  for (let left = between(random, ...FRAMES); left > 0; left--) {
    await sendFrame(sharing, share);
    if (happens(random, UPDATE_ONE_IN)) await share.update({ ...share.metadata, name: `${left}` });
    if (happens(random, LATE_ONE_IN)) await sleep(program, between(random, ...LATE_MS));
  }
  share.producer.end();
  await share.producer.drained({ timeoutMs: PATIENCE_MS });
}

async function sendFrame(sharing: Sharing, share: ExportedShare): Promise<void> {
  const { random, domain, sent } = sharing;
  const { producer } = share;
  const frame = await producer.acquire({ timeoutMs: PATIENCE_MS });
  fillWith(frame.bytes, shareMark(domain.domid, producer.published + 1));
  if (happens(random, DISCARD_ONE_IN)) return frame.discard();
  const fence = frame.publish();
  void fence.done.then((fate) => {
    noteFrame(sharing, producer, fence);
    if (fate === 'consumed') sent(share.to);
  });
}
