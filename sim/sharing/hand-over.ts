// Programs that hand each other buffers by the core alone (zcopy/), as those do that have a protocol of their own: one lends
// memory and says so in a letter in xenstore, the other maps what the letter names.
//
// What must hold: who has mapped a buffer while its letter was there sees all of it for as long as it has it mapped,
// whatever its lender does meanwhile; and when both are done, neither account has anything left.

import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { makeReadableBy } from '../../src/share/nodes.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { readPeerNode } from '../../src/xen/xenbus/peer-node.ts';
import { accountedDomain } from '../../src/zcopy/accounted-domain.ts';
import { allocateFor, type MemorySource } from '../../src/zcopy/allocator.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { Account } from '../../src/zcopy/ledger.ts';
import { patientDomain } from '../../src/zcopy/patient-domain.ts';
import type { SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { type FromRefsRequest, Zcopy } from '../../src/zcopy/zcopy.ts';
import { between, happens, oneOf } from '../chance.ts';
import { fillWith, flawIn, shareMark, slotBytes } from './marks.ts';
import type { Sharing } from './sharer.ts';

/** How long a letter lies, and a buffer is looked at, in milliseconds. */
const OFFERED_MS = [1, 400] as const;
const KEPT_MS = [1, 600] as const;
/** Who waits for the other one to let go looks this often, in milliseconds. */
const PATIENCE_MS = 200;
/** Some buffers are more than that. */
const BUDGET = { ...DEFAULT_BUDGET, pages: 2, refs: 4 };
const MISTAKE_ONE_IN = 6;

interface Letter {
  readonly refs: readonly Gref[];
  readonly dataOffset: number;
  readonly byteLength: number;
}

/** What a program has to do with one other domain, counted. */
interface Dealing {
  readonly domain: Domain;
  readonly zcopy: Zcopy;
}

function dealWith({ program, domain }: Sharing, domid: DomId): Dealing {
  const account = new Account({ domid, name: `domain ${domid}`, budget: BUDGET });
  const accounted = accountedDomain(patientDomain(program, domain), account);
  return { domain: accounted, zcopy: new Zcopy({ runtime: program, domain: accounted }) };
}

function letterPath(from: DomId, to: DomId): string {
  return `/local/domain/${from}/data/buffer-for-${to}`;
}

/** Lends a buffer to a domain for a while. @throws SysError, ProtocolViolation beyond the budget */
export async function lendTo(sharing: Sharing, to: DomId): Promise<void> {
  const { program, domain: own, random } = sharing;
  const { domain, zcopy } = dealWith(sharing, to);
  if (happens(random, MISTAKE_ONE_IN)) await lendWrongly(sharing, { domain, zcopy }, to);
  const dataOffset = happens(random, 2) ? 64 : 0;
  const byteLength = slotBytes(random);
  const pages = Math.ceil((dataOffset + byteLength) / PAGE_SIZE);
  await using pool = await domain.memory.createPool({ domid: to, pages });
  sharing.world.trace.note('pool', pool.freePages);
  const sources: MemorySource[] = [
    { name: 'the program', allocate: async () => undefined },
    { name: 'the pool', allocate: () => pool.allocate(pages) },
    { name: 'the domain', allocate: (need) => domain.memory.allocate(need) },
  ];
  const contiguity = oneOf(random, ['none', 'none', 'host'] as const);
  const memory = await allocateFor({ pages, contiguity }, sources);
  const buffer = await zcopy.toRefs({ domid: to, memory, dataOffset, byteLength });
  fillWith(buffer.bytes, shareMark(own.domid, buffer.refs[0]!));
  const path = letterPath(own.domid, to);
  const { store } = domain;
  try {
    const rights = { owner: own.domid, reader: to };
    await store.transaction((access) => makeReadableBy(access, path, rights));
    await store.write(path, JSON.stringify({ refs: buffer.refs, dataOffset, byteLength }));
    await sleep(program, between(random, ...OFFERED_MS));
  } finally {
    // Before anything is taken back: who still finds the letter has the buffer.
    await unsay(sharing, path);
    await takeBack(sharing, buffer);
  }
  await domain[Symbol.asyncDispose]();
}

/** Until it is done: a letter that is still there would be a lie. */
async function unsay({ program, domain }: Sharing, path: string): Promise<void> {
  for (;;) {
    const failure = await domain.store.remove(path).catch((error: unknown) => error);
    if (failure === undefined) return;
    if (!(failure instanceof SysError)) throw failure;
    await sleep(program, PATIENCE_MS);
  }
}

async function takeBack({ random, world }: Sharing, buffer: SharedBuffer): Promise<void> {
  for (;;) {
    const { state } = await buffer.release({ timeoutMs: PATIENCE_MS });
    world.trace.note(`buffer ${state}`, buffer.holders.length);
    if (state === 'released') return;
    if (happens(random, 2)) buffer.hurry();
  }
}

/** Looks at what a domain lends to us, if it does. @throws SysError, GrantMapError, ProtocolViolation */
export async function borrowFrom(sharing: Sharing, from: DomId): Promise<void> {
  const { program, domain: own, random, world } = sharing;
  const { domain, zcopy } = dealWith(sharing, from);
  if (happens(random, MISTAKE_ONE_IN)) await borrowWrongly(sharing, zcopy, from);
  const path = letterPath(from, own.domid);
  const text = await readPeerNode(domain.store, path);
  if (!text || !world.keepsRules(from)) return;
  const { refs, dataOffset, byteLength } = JSON.parse(text) as Letter;
  const dmaBuf = oneOf(random, ['none', 'if-possible', 'required'] as const);
  const buffer = await zcopy.fromRefs({ domid: from, refs, dataOffset, byteLength, dmaBuf });
  const look = () => {
    const flaw = flawIn(buffer.bytes, shareMark(from, refs[0]!));
    const detail = () => `domain ${own.domid} reads a buffer of domain ${from}: ${flaw}`;
    world.findings.hold(flaw === undefined, 'foreign-frame', detail);
  };
  try {
    // Else the references may have been others' by the time they were mapped.
    if ((await readPeerNode(domain.store, path)) !== text) return;
    look();
    await sleep(program, between(random, ...KEPT_MS));
    look();
  } finally {
    await takeBack(sharing, buffer);
  }
  await domain[Symbol.asyncDispose]();
}

/** A buffer that is longer than its memory, or has none. */
async function lendWrongly(sharing: Sharing, { domain, zcopy }: Dealing, domid: DomId) {
  const memory = await domain.memory.allocate({ pages: 1, contiguity: 'none' });
  const extent = oneOf(sharing.random, [
    { byteLength: PAGE_SIZE + 1 },
    { byteLength: 0 },
    { dataOffset: -1 },
    { dataOffset: 0.5 },
  ]);
  await refused(sharing, zcopy.toRefs({ domid, memory, ...extent }));
}

/** Grants that are none, too many, or too few. */
async function borrowWrongly(sharing: Sharing, zcopy: Zcopy, domid: DomId): Promise<void> {
  const refs = [8, 9] as Gref[];
  const asked = oneOf<Omit<FromRefsRequest, 'domid'>>(sharing.random, [
    { refs: [] },
    { refs: [8 as Gref, 0 as Gref] },
    { refs, byteLength: PAGE_SIZE },
    { refs, byteLength: 3 * PAGE_SIZE },
    { refs, dataOffset: -1 },
  ]);
  await refused(sharing, zcopy.fromRefs({ ...asked, domid }));
}

async function refused({ world, domain }: Sharing, attempt: Promise<SharedBuffer>): Promise<void> {
  const error = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  const known =
    error instanceof SysError ||
    error instanceof GrantMapError ||
    error instanceof ProtocolViolation;
  world.findings.hold(known, 'defect', () => {
    return `a mistake of the sharing program of domain ${domain.domid}: ${String(error)}`;
  });
}
