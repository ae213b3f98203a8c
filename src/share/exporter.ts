// What a program shares with other domains: makes shares, offers them in xenstore, and hears what their
// importers answer.
//
// Invariants: of one buffer there is one share for one domain; a share's node is there from its offer to the end of
// its withdrawal; closing withdraws all of them.

import assert from 'node:assert/strict';
import { messageOf, ProtocolViolation } from '../runtime/errors.ts';
import type { Logger, Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type { Domain } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { LocalBuffer } from '../xen/memory.ts';
import { distrust } from '../xen/untrusted.ts';
import { listPeerNodes, readPeerNode } from '../xen/xenbus/peer-node.ts';
import { ExportedShare, type ExportOptions, type ShareNode } from './exported-share.ts';
import { type ShareMetadata, UNNAMED } from './metadata.ts';
import {
  answersPath,
  formatOffer,
  makeReadableBy,
  nodeOf,
  offersPath,
  parseAnswer,
  parseOffer,
} from './nodes.ts';
import type { WhenFull } from './producer.ts';
import { ShareError } from './share-error.ts';
import { newShareId, parseShareId, type ShareId } from './share-id.ts';
import type { ExistingBuffers, ShareMemory } from './slots.ts';

/** Tells the programs of one domain apart, those that died included. */
export interface ProgramIdentity {
  /** Ours: up to 128 characters without spaces, that no other program ever has. */
  readonly own: string;
  /** Whether the program of that name runs. */
  isAlive(name: string): boolean;
}

export interface ExporterOptions {
  readonly runtime: Runtime;
  /** Used, and not owned. */
  readonly domain: Domain;
  /** Where a domain has several programs: what dead ones left in xenstore is removed. */
  readonly program?: ProgramIdentity;
}

interface CommonRequest {
  /** Who may open it. */
  readonly to: DomId;
  /** Whether the importer may write, too. */
  readonly writable?: boolean;
  readonly memory: ShareMemory;
  readonly metadata?: Partial<ShareMetadata>;
}

export interface BufferRequest extends CommonRequest {
  /** Fills new pages before anybody can open them; what it throws is thrown, and nothing is offered. */
  readonly fill?: (bytes: Uint8Array) => Promise<void>;
}

export interface StreamRequest extends CommonRequest {
  /** For new pages; existing buffers are counted themselves. */
  readonly slots?: number;
  readonly whenFull?: WhenFull;
}

/** A share of a buffer that exists, from when it is asked for on. */
interface KnownShare {
  readonly request: BufferRequest;
  readonly opening: Promise<ExportedShare>;
}

/** Slots of a stream when nobody says: one being filled, one on its way, one being read, one to spare. */
const DEFAULT_SLOTS = 4;
/** How long importers may keep what is withdrawn when the exporter is closed. */
const CLOSE_DEADLINE_MS = 1000;

export class Exporter implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #domain: Domain;
  readonly #program: ProgramIdentity | undefined;
  readonly #log: Logger;
  readonly #scope = new Scope('exporter');
  readonly #shares = new Map<ShareId, ExportedShare>();
  /** Shares of buffers that exist, to be found again. */
  readonly #ofBuffer = new Map<LocalBuffer, Map<DomId, KnownShare>>();
  /** Domains that can read our offers, and whose answers we hear. */
  readonly #peers = new Map<DomId, Promise<void>>();
  readonly #refused = new Map<string, number>();

  constructor({ runtime, domain, program }: ExporterOptions) {
    this.#program = program;
    this.#runtime = runtime;
    this.#domain = domain;
    this.#log = runtime.log.child({ exporter: domain.domid });
  }

  /** Shares that are not released. */
  get shares(): readonly ExportedShare[] {
    return [...this.#shares.values()];
  }

  /** What importers were refused, by reason. */
  get refused(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#refused);
  }

  /**
   * Offers a buffer to a domain. A buffer that is offered to it already keeps its id and gets the metadata.
   * @throws SysError as `Grants.share` and `Grants.lend`: ENOSPC without grants, EOPNOTSUPP where the host has
   *   no way to share the buffer so
   * @throws ShareError `oversized-metadata`; `in-use` for a buffer of which another part is shared, or with other rights
   */
  async share(request: BufferRequest): Promise<ExportedShare> {
    const { memory, fill } = request;
    if (!('buffers' in memory)) return this.#open(request, { fill });
    const [buffer] = memory.buffers;
    assert(buffer !== undefined && memory.buffers.length === 1, 'a share of one buffer');
    const known = this.#ofBuffer.get(buffer)?.get(request.to);
    if (known !== undefined) return this.#shareAgain(known, request);
    const opening = this.#open(request, { fill });
    this.#remember(buffer, { request, opening });
    return opening;
  }

  /** Offers a stream to a domain. @throws as `share` */
  stream(request: StreamRequest): Promise<ExportedShare> {
    const { memory, slots = DEFAULT_SLOTS, whenFull = 'wait' } = request;
    const count = 'buffers' in memory ? memory.buffers.length : slots;
    return this.#open(request, { stream: { slots: count, whenFull } });
  }

  /** Withdraws everything; what importers keep goes on being asked for by itself. */
  async close(): Promise<void> {
    const deadlineMs = CLOSE_DEADLINE_MS;
    await Promise.all(this.shares.map((share) => share.withdraw({ deadlineMs })));
    await this.#scope.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(
    request: CommonRequest,
    { stream, fill }: Pick<ExportOptions, 'stream' | 'fill'>,
  ): Promise<ExportedShare> {
    const { to, writable = false, memory } = request;
    await this.#meet(to);
    const id = newShareId(this.#runtime.random);
    const share = await ExportedShare.open({
      runtime: this.#runtime,
      domain: this.#domain,
      id,
      to,
      writable,
      memory,
      metadata: { ...UNNAMED, ...request.metadata },
      stream,
      fill,
      node: this.#node(to, id),
      owner: this.#program?.own,
      onRefusal: (reason) => this.#countRefusal(reason),
    });
    this.#shares.set(id, share);
    void share.released.then(() => this.#shares.delete(id));
    return share;
  }

  /** @throws ShareError `in-use` when it is shared with other rights, or another part of it is */
  async #shareAgain(known: KnownShare, request: BufferRequest): Promise<ExportedShare> {
    const terms = termsOf(known.request);
    if (termsOf(request) !== terms) {
      const detail = `the buffer is shared with domain ${request.to} already: ${terms}`;
      throw new ShareError('in-use', detail);
    }
    const share = await known.opening;
    await share.update({ ...share.metadata, ...request.metadata });
    return share;
  }

  /** From now on, until it is withdrawn or could not be made. */
  #remember(buffer: LocalBuffer, known: KnownShare): void {
    const { to } = known.request;
    const shares = this.#ofBuffer.get(buffer) ?? new Map<DomId, KnownShare>();
    this.#ofBuffer.set(buffer, shares.set(to, known));
    const forget = () => {
      if (shares.get(to) === known) shares.delete(to);
      if (shares.size === 0) this.#ofBuffer.delete(buffer);
    };
    known.opening.then((share) => share.onWithdrawal(forget), forget);
  }

  /** Makes the directory of our offers to a domain, and listens to its answers; once. */
  #meet(importer: DomId): Promise<void> {
    const known = this.#peers.get(importer);
    if (known !== undefined) return known;
    const met = this.#listen(importer);
    this.#peers.set(importer, met);
    met.catch(() => this.#peers.delete(importer));
    return met;
  }

  async #listen(importer: DomId): Promise<void> {
    const { store, domid } = this.#domain;
    const ends = { exporter: domid, importer };
    const offers = offersPath(ends);
    await store.transaction((access) =>
      makeReadableBy(access, offers, { owner: domid, reader: importer }),
    );
    await this.#sweep(offers);
    const answers = answersPath(ends);
    this.#scope.own(
      await store.watch(answers, (path) => {
        const id = parseShareId(path.slice(answers.length + 1).split('/')[0] ?? '');
        const concerned = this.shares.filter(
          (share) => share.to === importer && (id === undefined || share.id === id),
        );
        for (const share of concerned) void this.#hear(share, nodeOf(answers, share.id));
      }),
    );
  }

  /** Removes the offers of programs that are not there any more. @throws SysError */
  async #sweep(offers: string): Promise<void> {
    const { store } = this.#domain;
    for (const name of (await store.directory(offers)) ?? []) {
      const path = `${offers}/${name}`;
      const owner = ownerOf(await store.read(path), path);
      if (owner !== undefined && this.#program?.isAlive(owner) === false) await store.remove(path);
    }
  }

  /** Reads what an importer says. */
  async #hear(share: ExportedShare, path: string): Promise<void> {
    try {
      const value = await readPeerNode(this.#domain.store, path);
      if (value !== undefined) share.answered(parseAnswer(distrust(value), path));
      else if (await this.#hasAnswers(share.to)) share.answered(undefined);
      else share.importerGone();
    } catch (error) {
      if (error instanceof ProtocolViolation) this.#countRefusal(error.reason);
      this.#log.warn({ reason: messageOf(error), share: share.id }, 'cannot read an answer');
    }
  }

  /** Whether a domain has a place for answers: it makes one before it opens anything, and dies with it. */
  async #hasAnswers(importer: DomId): Promise<boolean> {
    const path = answersPath({ exporter: this.#domain.domid, importer });
    return (await listPeerNodes(this.#domain.store, path)) !== undefined;
  }

  #node(importer: DomId, id: ShareId): ShareNode {
    const { store, domid } = this.#domain;
    const path = nodeOf(offersPath({ exporter: domid, importer }), id);
    return {
      write: (offer) => store.write(path, formatOffer(offer)),
      remove: () => store.remove(path),
    };
  }

  #countRefusal(reason: string): void {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
  }
}

/** Of an offer in our own directory, when its node says so. */
function ownerOf(value: string | undefined, path: string): string | undefined {
  if (value === undefined) return undefined;
  try {
    return parseOffer(distrust(value), path).owner;
  } catch (error) {
    if (error instanceof ProtocolViolation) return undefined;
    throw error;
  }
}

/** What of a buffer is shared, and how. */
function termsOf({ memory, writable = false }: BufferRequest): string {
  const { dataOffset = 0, byteLength } = memory as ExistingBuffers;
  const part = `${byteLength ?? 'all'} bytes from byte ${dataOffset} on`;
  return `${part}, for ${writable ? 'writing' : 'reading'}`;
}
