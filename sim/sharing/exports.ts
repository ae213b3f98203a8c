// What a program that keeps the rules does with a share that it exports: offers it, waits for its partner, sends
// frames, says now and then something else about it, and takes it back.

import { sleep } from '../../src/runtime/runtime.ts';
import type { ExportedShare } from '../../src/share/exported-share.ts';
import type { Exporter } from '../../src/share/exporter.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { between, happens, oneOf } from '../chance.ts';
import { lacking } from '../errors.ts';
import { fillWith, shareMark, slotBytes } from './marks.ts';
import type { Sharing } from './sharer.ts';

/** Shares that one partner has, at most. */
const SHARES_MAX = 2;
const SLOTS = [1, 3] as const;
const FRAMES = [1, 12] as const;
/** A partner is waited for so long at most, in milliseconds. */
const PATIENCE_MS = 3000;
/** How long a partner may keep what is taken back, and for how long a buffer is offered, in milliseconds. */
const WITHDRAW_MS = [0, 1500] as const;
const OFFERED_MS = [1, 800] as const;
/** One share in so many is one buffer; one frame in so many comes with other metadata, is given up, is late. */
const BUFFER_ONE_IN = 4;
const UPDATE_ONE_IN = 6;
const DISCARD_ONE_IN = 8;
const IMPATIENT_ONE_IN = 4;
const LATE_ONE_IN = 4;
const LATE_MS = [1, 100] as const;

/** One share, from its offer to its withdrawal; none for a partner that has not given back what it had. */
export async function exportTo(sharing: Sharing, exporter: Exporter, to: DomId): Promise<void> {
  if (exporter.shares.filter((share) => share.to === to).length >= SHARES_MAX) return;
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

function oneBuffer(sharing: Sharing, exporter: Exporter, to: DomId): Promise<ExportedShare> {
  const { random, domain } = sharing;
  const fill = async (bytes: Uint8Array) => fillWith(bytes, shareMark(domain.domid, 0));
  const memory = { byteLength: slotBytes(random) };
  return exporter.share({ to, memory, writable: happens(random, 2), fill });
}

function stream(sharing: Sharing, exporter: Exporter, to: DomId): Promise<ExportedShare> {
  const { random } = sharing;
  const memory = { byteLength: slotBytes(random) };
  const whenFull = oneOf(random, ['wait', 'drop'] as const);
  return exporter.stream({ to, memory, whenFull, slots: between(random, ...SLOTS) });
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

async function sendFrame({ random, domain, sent }: Sharing, share: ExportedShare): Promise<void> {
  const { producer } = share;
  const frame = await producer.acquire({ timeoutMs: PATIENCE_MS });
  fillWith(frame.bytes, shareMark(domain.domid, producer.published + 1));
  if (happens(random, DISCARD_ONE_IN)) return frame.discard();
  const fence = frame.publish();
  void fence.done.then((fate) => fate === 'consumed' && sent(share.to));
}
