// A small game between a guest and dom0 that uses everything a domain has: the guest shares pages and
// offers a port by xenstore, dom0 lends pages back, both play a ball over events, and each side writes
// into what the other lent. The same code runs in this thread and in a worker.

import assert from 'node:assert/strict';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { Domain, EventChannel, ForeignMapping, SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type DomId, gref, port } from '../../src/xen/ids.ts';

const GUEST_PAGES = 3;
const LENT_PAGES = 2;
/** Words of the first shared page. */
const BALL = 0;
const LENT_REFS = 1;

function wordsOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, PAGE_SIZE / 4);
}

function dataPath(domid: DomId): string {
  return `/local/domain/${domid}/data/game`;
}

/** The guest's part: plays until it is stopped, or until the ball has been hit `rounds` times. */
export async function playInGuest(domain: Domain, rounds: number): Promise<void> {
  let over: () => void = () => {};
  const finished = new Promise<void>((resolve) => {
    over = resolve;
  });
  let lent: ForeignMapping | undefined;
  const shared = await domain.grants.share({ domid: DOM0, pages: GUEST_PAGES, writable: true });
  const words = wordsOf(shared.bytes);
  shared.bytes.fill(0x77, PAGE_SIZE);
  const hit = async () => {
    if (!lent) {
      const refs = [...words.subarray(LENT_REFS, LENT_REFS + LENT_PAGES)].map((ref) => gref(ref));
      if (refs[0] === 0) return;
      lent = await domain.foreign.map({ domid: DOM0, refs, writable: true });
      lent.bytes.fill(0x88);
    }
    const ball = Atomics.load(words, BALL);
    if (ball % 2 === 1) {
      Atomics.store(words, BALL, ball + 1);
      channel.notify();
    }
    if (ball >= rounds) over();
  };
  const channel = await domain.events.allocUnbound({ remote: DOM0, handler: hit });
  const value = [channel.port, ...shared.refs].join(' ');
  await domain.store.write(dataPath(domain.domid), value);
  await finished;
}

/** Dom0's part. `hits` tells how often the ball was hit; closing gives everything back. */
export class DriverPlayer implements AsyncDisposable {
  readonly #mapping: ForeignMapping;
  readonly #lent: SharedPages;
  readonly #channel: EventChannel;
  readonly #words: Int32Array;

  private constructor(mapping: ForeignMapping, lent: SharedPages, channel: EventChannel) {
    this.#mapping = mapping;
    this.#lent = lent;
    this.#channel = channel;
    this.#words = wordsOf(mapping.bytes);
  }

  /** Waits for the guest and serves the first ball. */
  static async meet(dom0: Domain, { domid, rounds }: Game): Promise<DriverPlayer> {
    const [portText, ...refs] = (await published(dom0, domid)).split(' ');
    const mapping = await dom0.foreign.map({
      domid,
      refs: refs.map((ref) => gref(Number(ref))),
      writable: true,
    });
    const lent = await dom0.grants.share({ domid, pages: LENT_PAGES, writable: true });
    const words = wordsOf(mapping.bytes);
    words.set(lent.refs, LENT_REFS);
    const hit = () => {
      const ball = Atomics.load(words, BALL);
      if (ball % 2 === 1 || ball > rounds) return;
      Atomics.store(words, BALL, ball + 1);
      channel.notify();
    };
    const channel = await dom0.events.bindInterdomain({
      remote: domid,
      remotePort: port(Number(portText)),
      handler: hit,
    });
    return new DriverPlayer(mapping, lent, channel);
  }

  get hits(): number {
    return Atomics.load(this.#words, BALL);
  }

  /** Both sides see what the other wrote. */
  assertShared(): void {
    const { bytes } = this.#mapping;
    assert(bytes.subarray(PAGE_SIZE).every((byte) => byte === 0x77));
    assert(this.#lent.bytes.every((byte) => byte === 0x88));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#channel[Symbol.asyncDispose]();
    await this.#mapping[Symbol.asyncDispose]();
    await this.#lent[Symbol.asyncDispose]();
  }
}

export interface Game {
  readonly domid: DomId;
  readonly rounds: number;
}

/** What the guest wrote, when it has. */
async function published({ store }: Domain, domid: DomId): Promise<string> {
  const path = dataPath(domid);
  let found: (value: string) => void = () => {};
  const value = new Promise<string>((resolve) => {
    found = resolve;
  });
  const look = async () => {
    const text = await store.read(path);
    if (text !== undefined) found(text);
  };
  const watch = await store.watch(path, () => void look());
  try {
    return await value;
  } finally {
    await watch[Symbol.asyncDispose]();
  }
}
