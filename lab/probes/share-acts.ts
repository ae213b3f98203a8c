// What a program of ours can be told to do with the sharing library in the domain that it runs in: offer buffers and
// streams, listen to others, open what they offer. What an act makes is kept by the share's id.
// Scenarios take the types of the requests and of the answers from here.
import assert from 'node:assert/strict';
import type { LinuxDomain } from '../../src/linux/domain.ts';
import { linuxProgram } from '../../src/linux/program.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import type { ReadableFrame } from '../../src/share/consumer.ts';
import type { ExportedShare, ExportState } from '../../src/share/exported-share.ts';
import { Exporter } from '../../src/share/exporter.ts';
import type { ImportEnd, ImportedShare } from '../../src/share/imported-share.ts';
import { Importer } from '../../src/share/importer.ts';
import type { ShareMetadata } from '../../src/share/metadata.ts';
import { DEFAULT_RULE } from '../../src/share/policy.ts';
import type { Fence } from '../../src/share/producer.ts';
import { parseShareId, type ShareId } from '../../src/share/share-id.ts';
import { domId } from '../../src/xen/ids.ts';
import type { LocalBuffer } from '../../src/xen/memory.ts';
import type { ReleaseOutcome } from '../../src/zcopy/release.ts';

export interface ExportRequest {
  readonly to: number;
  readonly pages: number;
  /** Of memory that is a dma-buf of this domain, lent for writing; of new pages, for reading, when left out. */
  readonly lent?: boolean;
  /** Slots of a stream; a buffer when left out. */
  readonly slots?: number;
  readonly name: string;
}

/** What happened to a share, as an importer is told. */
export interface ToldEvent {
  readonly type: string;
  readonly id: string;
  readonly name: string;
}

const FRAME_TIMEOUT_MS = 20_000;

/** The byte that fill writes at a place: no two pages are alike. */
function byteAt(index: number, seed: number): number {
  return (Math.imul(index + seed, 2654435761) >>> 24) & 0xff;
}

function fill(bytes: Uint8Array, seed: number): void {
  for (let index = 0; index < bytes.length; index++) bytes[index] = byteAt(index, seed);
}

function isFilled(bytes: Uint8Array, seed: number): boolean {
  return bytes.every((byte, index) => byte === byteAt(index, seed));
}

function idOf(text: string): ShareId {
  return parseShareId(text) ?? assert.fail(`not an id: ${text}`);
}

/** The acts, by their names. */
export class ShareActs {
  readonly #runtime: Runtime;
  readonly #domain: LinuxDomain;
  readonly #exporter: Exporter;
  readonly #exported = new Map<string, ExportedShare>();
  readonly #buffers: LocalBuffer[] = [];
  readonly #opened = new Map<string, ImportedShare>();
  readonly #frames = new Map<string, ReadableFrame>();
  readonly #fences = new Map<number, Fence>();
  readonly #events: ToldEvent[] = [];
  #importer: Importer | undefined;

  constructor(runtime: Runtime, domain: LinuxDomain) {
    this.#runtime = runtime;
    this.#domain = domain;
    this.#exporter = new Exporter({ runtime, domain, program: linuxProgram() });
  }

  /** Offers pages that are filled by `seed` 1, or a stream. @returns the id */
  async export({ to, pages, lent = false, slots, name }: ExportRequest): Promise<string> {
    const buffers = lent ? await this.#allocate(slots ?? 1, pages) : undefined;
    const memory = buffers ? { buffers } : { byteLength: pages * 4096 };
    const request = { to: domId(to), memory, writable: lent, metadata: { name } };
    const share = slots
      ? await this.#exporter.stream({ ...request, slots })
      : await this.#exporter.share({ ...request, fill: async (bytes) => fill(bytes, 1) });
    this.#exported.set(share.id, share);
    return share.id;
  }

  async refill({ id, seed }: { id: string; seed: number }): Promise<void> {
    fill(this.#exportOf(id).bytes, seed);
  }

  /** Whether the exporter's own bytes are filled by that seed. */
  async holds({ id, seed }: { id: string; seed: number }): Promise<boolean> {
    return isFilled(this.#exportOf(id).bytes, seed);
  }

  async state({ id }: { id: string }): Promise<{ state: ExportState; opens: number }> {
    const { state, opens } = this.#exportOf(id);
    return { state, opens };
  }

  async refusals({ id }: { id: string }): Promise<Readonly<Record<string, number>>> {
    return this.#exportOf(id).refused;
  }

  async rename({ id, name }: { id: string; name: string }): Promise<void> {
    const share = this.#exportOf(id);
    const metadata: ShareMetadata = { ...share.metadata, name };
    await share.update(metadata);
  }

  /** Publishes a frame that is filled by `seed`, which is also how its fence is asked for. */
  async publish({ id, seed }: { id: string; seed: number }): Promise<number> {
    const { producer } = this.#exportOf(id);
    const frame = await producer.acquire({ timeoutMs: FRAME_TIMEOUT_MS });
    fill(frame.bytes, seed);
    const fence = frame.publish();
    this.#fences.set(seed, fence);
    return fence.sequence;
  }

  /** What became of a frame; null while it is out. */
  async fate({ id, seed }: { id: string; seed: number }): Promise<string | null> {
    this.#exportOf(id).producer.collect();
    return this.#fences.get(seed)?.fate ?? null;
  }

  async withdraw({ id, deadlineMs }: { id: string; deadlineMs: number }): Promise<ReleaseOutcome> {
    return this.#exportOf(id).withdraw({ deadlineMs });
  }

  /** Listens to domains, by the default rule. */
  async listen({ from }: { from: readonly number[] }): Promise<void> {
    const accept = from.map((domid) => ({ ...DEFAULT_RULE, from: domId(domid) }));
    const importer = await Importer.open({
      runtime: this.#runtime,
      domain: this.#domain,
      policy: { accept },
    });
    this.#importer = importer;
    void this.#keepEvents(importer);
  }

  /** What has happened since it was last asked. */
  async events(): Promise<readonly ToldEvent[]> {
    return this.#events.splice(0);
  }

  /** Opens a share. @returns the bytes of its data */
  async open({ id, writable = false }: { id: string; writable?: boolean }): Promise<number> {
    assert(this.#importer !== undefined, 'nobody is listened to');
    const share = await this.#importer.open(idOf(id), { writable });
    this.#opened.set(id, share);
    return share.pages * 4096;
  }

  /** Whether what the importer sees is filled by that seed. */
  async sees({ id, seed }: { id: string; seed: number }): Promise<boolean> {
    return isFilled(this.#openOf(id).bytes, seed);
  }

  /** The importer writes. */
  async overwrite({ id, seed }: { id: string; seed: number }): Promise<void> {
    fill(this.#openOf(id).bytes, seed);
  }

  /** Takes the next frame. @returns its sequence, and whether it is filled by that seed */
  async take({
    id,
    seed,
  }: {
    id: string;
    seed: number;
  }): Promise<{ sequence: number; seen: boolean }> {
    const frame = await this.#openOf(id).frames.acquire({ timeoutMs: FRAME_TIMEOUT_MS });
    assert(frame !== undefined, 'the stream has ended');
    this.#frames.set(id, frame);
    return { sequence: frame.sequence, seen: isFilled(frame.bytes, seed) };
  }

  async giveBack({ id }: { id: string }): Promise<void> {
    this.#frames.get(id)?.release();
    this.#frames.delete(id);
  }

  /** Why an open share is over; null while it is not. */
  async over({ id }: { id: string }): Promise<ImportEnd | null> {
    return this.#openOf(id).end ?? null;
  }

  async close({ id }: { id: string }): Promise<ReleaseOutcome> {
    const share = this.#openOf(id);
    this.#opened.delete(id);
    return share.close();
  }

  /** Closes everything, in the order in which the domain wants it. */
  async closeAll(): Promise<void> {
    await this.#importer?.close();
    await this.#exporter.close();
    for (const buffer of this.#buffers) await buffer.free();
  }

  async #allocate(count: number, pages: number): Promise<LocalBuffer[]> {
    const made: LocalBuffer[] = [];
    for (let slot = 0; slot < count; slot++) {
      made.push(await this.#domain.memory.allocate({ pages, contiguity: 'none' }));
    }
    this.#buffers.push(...made);
    return made;
  }

  async #keepEvents(importer: Importer): Promise<void> {
    for await (const { type, share } of importer.events()) {
      this.#events.push({ type, id: share.id, name: share.metadata.name });
    }
  }

  #exportOf(id: string): ExportedShare {
    return this.#exported.get(id) ?? assert.fail(`nothing is exported as ${id}`);
  }

  #openOf(id: string): ImportedShare {
    return this.#opened.get(id) ?? assert.fail(`${id} is not open`);
  }
}
