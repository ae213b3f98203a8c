// Programs that hand each other buffers by the core alone (zcopy/), as those do that have a protocol of their own: one lends
// memory and says so in a letter in xenstore, the other maps what the letter names.
//
// What must hold: who has mapped a buffer while its letter was there, and found it whole, sees all of it for as long as it has it mapped,
// whatever its lender does meanwhile; and when both are done, neither account has anything left.

import { PAGE_SIZE } from '../../src/abi/page.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { sleep } from '../../src/runtime/runtime.ts';
import { makeReadableBy } from '../../src/share/nodes.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import type { DomId, Gref } from '../../src/xen/ids.ts';
import { readPeerNode } from '../../src/xen/xenbus/peer-node.ts';
import type { Xenstore } from '../../src/xen/xenstore.ts';
import { accountedDomain } from '../../src/zcopy/accounted-domain.ts';
import { allocateFor, type MemorySource } from '../../src/zcopy/allocator.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { Account } from '../../src/zcopy/ledger.ts';
import { patientDomain } from '../../src/zcopy/patient-domain.ts';
import { Release } from '../../src/zcopy/release.ts';
import { endSharedStep, type SharedBuffer } from '../../src/zcopy/shared-buffer.ts';
import { type FromRefsRequest, pagesOf, Zcopy } from '../../src/zcopy/zcopy.ts';
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
/** One buffer in so many is of new pages. */
const NEW_PAGES_ONE_IN = 3;

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

/** Gives a buffer to a domain for a while. @throws SysError, ProtocolViolation beyond the budget */
export async function lendTo(sharing: Sharing, to: DomId): Promise<void> {
  const { random } = sharing;
  const dealing = dealWith(sharing, to);
  if (happens(random, MISTAKE_ONE_IN)) await lendWrongly(sharing, dealing, to);
  if (happens(random, NEW_PAGES_ONE_IN)) await giveNewPages(sharing, dealing, to);
  else await giveMemory(sharing, dealing, to);
  await dealing.domain[Symbol.asyncDispose]();
}

/** Something that a domain is given, and how it is had back. */
interface Given {
  readonly to: DomId;
  readonly letter: Letter;
  readonly bytes: Uint8Array;
  readonly back: Pick<Release, 'release' | 'holders' | 'hurry'>;
}

/** Pages that are there for that domain alone. */
async function giveNewPages(sharing: Sharing, dealing: Dealing, to: DomId): Promise<void> {
  const { program: runtime, random } = sharing;
  const byteLength = slotBytes(random);
  const request = { domid: to, pages: pagesOf(byteLength), writable: false };
  const shared = await dealing.domain.grants.share(request);
  const letter = { refs: shared.refs, dataOffset: 0, byteLength };
  const back = new Release({ runtime, steps: [endSharedStep(shared)] });
  await give(sharing, dealing, { to, letter, bytes: shared.bytes.subarray(0, byteLength), back });
}

/** Memory that is set aside for the domain, or just there. */
async function giveMemory(sharing: Sharing, { domain, zcopy }: Dealing, to: DomId): Promise<void> {
  const { random } = sharing;
  const dataOffset = happens(random, 2) ? 64 : 0;
  const byteLength = slotBytes(random);
  const pages = pagesOf(dataOffset + byteLength);
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
  const letter = { refs: buffer.refs, dataOffset, byteLength };
  await give(sharing, { domain, zcopy }, { to, letter, bytes: buffer.bytes, back: buffer });
}

/** Draws, lets the letter lie for a while, and has everything back. */
async function give(
  sharing: Sharing,
  { domain: { store } }: Dealing,
  { to, letter, bytes, back }: Given,
): Promise<void> {
  const { program, domain: own, random } = sharing;
  fillWith(bytes, shareMark(own.domid, letter.refs[0]!));
  const path = letterPath(own.domid, to);
  try {
    const rights = { owner: own.domid, reader: to };
    if (happens(random, 2)) await store.transaction((all) => makeReadableBy(all, path, rights));
    else await makeReadableBy(store, path, rights);
    await store.write(path, JSON.stringify(letter));
    const permissions = await store.getPermissions(path);
    sharing.world.trace.note('letter', own.domid, to, permissions.length);
    await sleep(program, between(random, ...OFFERED_MS));
  } finally {
    // Before anything is taken back: who still finds the letter has the buffer.
    await unsay(sharing, store, path);
    await takeBack(sharing, back);
  }
}

/** Until it is done: a letter that is still there would be a lie. */
async function unsay({ program }: Sharing, store: Xenstore, path: string): Promise<void> {
  for (;;) {
    const failure = await store.remove(path).catch((error: unknown) => error);
    if (failure === undefined) return;
    if (!(failure instanceof SysError)) throw failure;
    await sleep(program, PATIENCE_MS);
  }
}

async function takeBack({ random, world }: Sharing, buffer: Given['back']): Promise<void> {
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
  const flaw = () => flawIn(buffer.bytes, shareMark(from, refs[0]!));
  try {
    // A letter that is gone, or was left by a program that died, may name what is something else by now.
    if ((await readPeerNode(domain.store, path)) !== text || flaw() !== undefined) return;
    await sleep(program, between(random, ...KEPT_MS));
    world.findings.hold(flaw() === undefined, 'foreign-frame', () => {
      return `domain ${own.domid} reads a buffer of domain ${from}: ${flaw()}`;
    });
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
