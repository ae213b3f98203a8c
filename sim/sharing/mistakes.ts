// What programs ask of `share/` that cannot be: each mistake is refused by its own word, and nothing comes of it.

import { PAGE_SIZE } from '../../src/abi/page.ts';
import { SysError } from '../../src/runtime/errors.ts';
import type { Exporter } from '../../src/share/exporter.ts';
import { Importer } from '../../src/share/importer.ts';
import { USER_BYTES_MAX } from '../../src/share/metadata.ts';
import { DEFAULT_RULE } from '../../src/share/policy.ts';
import { ShareError } from '../../src/share/share-error.ts';
import { newShareId } from '../../src/share/share-id.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import type { DomId } from '../../src/xen/ids.ts';
import { oneOf } from '../chance.ts';
import type { Sharing } from './sharer.ts';

const ONE_PAGE = { byteLength: PAGE_SIZE };

/** Of one who exports; what it shares has no end, no beginning, or too much to say. */
export async function exportWrongly(
  sharing: Sharing,
  exporter: Exporter,
  to: DomId,
): Promise<void> {
  const wrong: readonly (() => Promise<unknown>)[] = [
    () => exporter.share({ to, memory: { byteLength: 0 } }),
    () => exporter.share({ to, memory: { byteLength: 2 ** 40 } }),
    () => exporter.stream({ to, memory: ONE_PAGE, slots: 65 }),
    () => exporter.stream({ to, memory: { buffers: [] } }),
    () => exporter.share({ to, memory: ONE_PAGE, metadata: { name: 'ü'.repeat(41) } }),
    () => {
      const userBytes = new Uint8Array(USER_BYTES_MAX + 1);
      return exporter.share({ to, memory: ONE_PAGE, metadata: { userBytes } });
    },
    () => exportUnlike(sharing, exporter, to),
  ];
  await refused(sharing, oneOf(sharing.random, wrong)(), ['oversized-metadata']);
}

/** Buffers of two sizes are no stream, and none has more than its pages. */
async function exportUnlike(
  { domain, random }: Sharing,
  exporter: Exporter,
  to: DomId,
): Promise<unknown> {
  const one = await domain.memory.allocate({ pages: 1, contiguity: 'none' });
  try {
    const two = await domain.memory.allocate({ pages: 2, contiguity: 'none' });
    try {
      const unlike = { buffers: [one, two] };
      const tooShort = { buffers: [one], byteLength: 2 * PAGE_SIZE };
      return await exporter.stream({ to, memory: oneOf(random, [unlike, tooShort]) });
    } finally {
      await two.free();
    }
  } finally {
    await one.free();
  }
}

/** To listen to whoever there is, in a domain that may not know. */
export async function listenToAnybody(sharing: Sharing): Promise<void> {
  const { program: runtime, domain } = sharing;
  const policy = { accept: [{ ...DEFAULT_RULE, from: 'any' as const }] };
  await refused(sharing, Importer.open({ runtime, domain, policy }), []);
}

/** Of one who imports: what is not offered, not like that, or open already. */
export async function importWrongly(sharing: Sharing, importer: Importer): Promise<void> {
  const { random } = sharing;
  const unknown = () => importer.open(newShareId(random));
  const readOnly = importer.offers.find((share) => !share.writable);
  const [open] = importer.shares;
  const wrong: (() => Promise<unknown>)[] = [unknown];
  if (readOnly) {
    const { id } = readOnly;
    wrong.push(() => importer.open(id, { writable: true }));
    wrong.push(() => importer.open(id, { dmaBuf: 'required' }));
  }
  if (open) wrong.push(() => importer.open(open.id));
  const isBuffer = importer.offers.some(({ id, kind }) => id === open?.id && kind === 'buffer');
  if (open && isBuffer) wrong.push(async () => void open.frames);
  await refused(sharing, oneOf(random, wrong)(), [
    'unknown-id',
    'withdrawn',
    'not-writable',
    'in-use',
    'over-budget',
    'not-a-stream',
    'refused',
    'closed',
  ]);
}

/** It fails by one of these reasons, or because the system does. */
async function refused(
  { world, domain }: Sharing,
  attempt: Promise<unknown>,
  reasons: readonly ShareError['reason'][],
): Promise<void> {
  const refusal = await attempt.then(
    () => undefined,
    (error: unknown) => error,
  );
  const system = refusal instanceof SysError || refusal instanceof GrantMapError;
  const known = refusal instanceof ShareError && reasons.includes(refusal.reason);
  world.findings.hold(system || known, 'defect', () => {
    return `a mistake of the sharing program of domain ${domain.domid}: ${String(refusal)}`;
  });
}
