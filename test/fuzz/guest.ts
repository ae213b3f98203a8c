// Whole guests without manners on the real daemon: lists of what a guest can do, in any order and at any moment,
// beside an honest guest to whom nothing may happen. The oracle is the catalogue's.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { SharedPages } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { type Attack, attackOn, World } from '../catalogue/world.ts';
import { fuzzer, u8, u32 } from './fuzzer.ts';

const COOKIES = 4;
const cookie = fc.nat(COOKIES - 1);
const KEYS = [
  'state',
  'version',
  'be-alloc',
  '0/resolution',
  '0/unique-id',
  '0/req-ring-ref',
  '0/req-event-channel',
  '0/evt-ring-ref',
  '0/evt-event-channel',
  '1/req-ring-ref',
];

const action = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom('create', 'attach', 'config', 'flip', 'detach', 'destroy' as const),
      cookie,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('request' as const),
      operation: fc.oneof(fc.integer({ min: 0x10, max: 0x16 }), u8),
      words: fc.array(u32, { maxLength: 14 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('index' as const),
      word: fc.nat(3),
      value: u32,
      add: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('scribble' as const),
      events: fc.boolean(),
      at: fc.nat(PAGE_SIZE - 1),
      value: u8,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('node' as const),
      key: fc.constantFrom(...KEYS),
      value: fc.option(
        fc.oneof(fc.nat(9).map(String), u32.map(String), fc.string({ maxLength: 6 })),
        {
          nil: undefined,
        },
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('directory' as const),
      words: fc.array(u32, { maxLength: 6 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom('revoke', 'borrow' as const), index: fc.nat(5) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('step', 'pause', 'notify' as const),
      count: fc.nat(12),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('leave', 'come' as const) }) },
);

type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;

/** A guest that does what it is told, and never waits for an answer. */
class Puppet {
  readonly #t: Attack;
  readonly #pages: SharedPages[] = [];

  constructor(t: Attack) {
    this.#t = t;
  }

  async act(each: Action): Promise<void> {
    const { world, connector } = this.#t;
    switch (each.do) {
      case 'request':
        this.#send(each.operation, each.words);
        break;
      case 'index': {
        if (!connector) break;
        const { words } = connector;
        words[each.word] = each.add ? words[each.word]! + each.value : each.value;
        connector.notify();
        break;
      }
      case 'scribble':
        if (connector) (each.events ? connector.events : connector.control)[each.at] = each.value;
        break;
      case 'node':
        await this.#t.node(each.key, each.value ?? null).catch(() => {});
        break;
      case 'directory':
        await this.#directory(each.words);
        break;
      case 'revoke':
        await this.#revoke(each.index);
        break;
      case 'borrow':
        await this.#borrow(each.index);
        break;
      case 'step':
        for (let step = 0; step < each.count; step++) await world.runtime.step();
        break;
      case 'pause':
        await world.pause(each.count * 20);
        break;
      case 'notify':
        for (let times = 0; times <= each.count; times++) connector?.notify();
        break;
      case 'leave':
        await this.#t.raw.close().catch(() => {});
        break;
      case 'come':
        await this.#t.raw.start().catch(() => {});
        break;
      default:
        await this.#good(each.do, each.cookie);
    }
  }

  /** A request that may well succeed. */
  async #good(what: string, number: number): Promise<void> {
    const [name, size] = [
      [number, 0],
      [64, 48],
    ];
    const FOURCC = 0x3432_5258;
    if (what === 'create') {
      const directory = await this.#t.pages(3);
      this.#send(0x10, [...name, ...size, 32, 64 * 48 * 4, 0, directory]);
    } else if (what === 'attach') this.#send(0x12, [...name, ...name, ...size, FOURCC]);
    else if (what === 'config') this.#send(0x14, [...name, 0, 0, ...size, 32]);
    else if (what === 'flip') this.#send(0x15, name);
    else if (what === 'detach') this.#send(0x13, name);
    else this.#send(0x11, name);
  }

  #send(operation: number, words: readonly number[]): void {
    const { connector } = this.#t;
    if (!connector || connector.ring.unanswered >= connector.ring.size) return;
    connector.put({ operation }, (bytes) => {
      const view = new DataView(bytes.buffer);
      words.slice(0, 14).forEach((word, index) => {
        view.setUint32(8 + 4 * index, word, true);
      });
    });
    connector.push();
  }

  async #directory(words: readonly number[]): Promise<void> {
    const request = { domid: DOM0, pages: 1, writable: true };
    const page = await this.#t.world.run(this.#t.domain.grants.share(request));
    new Uint32Array(page.bytes.buffer, page.bytes.byteOffset, words.length).set(words);
    this.#pages.push(page);
    this.#send(0x10, [9, 0, 0, 0, 0, 3 * PAGE_SIZE, 0, page.refs[0]!]);
  }

  async #revoke(index: number): Promise<void> {
    const page = this.#pages[index];
    if (page) await this.#t.world.run(page.end()).catch(() => {});
  }

  async #borrow(index: number): Promise<void> {
    const directory = await this.#t.offer(3);
    const flags = XENDISPL_DBUF_FLG_REQ_ALLOC;
    this.#send(0x10, [100 + index, 0, 64, 48, 32, 64 * 48 * 4, flags, directory.refs[0]!]);
    await this.#t.world.pause(30);
    const words = new Uint32Array(directory.bytes.buffer, directory.bytes.byteOffset, 4);
    const refs = [...words.subarray(1)].filter((ref) => ref > 0) as never[];
    if (refs.length === 0) return;
    const request = { domid: DOM0, refs, writable: true };
    const mapped = this.#t.domain.foreign.map(request).catch(() => undefined);
    const mapping = await this.#t.world.run(mapped);
    mapping?.bytes.fill(0xee);
  }
}

/** The daemon lives, the honest guest goes on in time with its own picture and keys, and nothing is left. */
export const hostileGuests = fuzzer<{ seed: number; beAlloc: boolean; actions: Action[] }>({
  name: 'guest',
  parsers: [],
  runs: 25,
  input: fc.record({
    seed: fc.nat(10_000),
    beAlloc: fc.boolean(),
    actions: fc.array(action, { maxLength: 40 }) as fc.Arbitrary<Action[]>,
  }),
  check: async ({ seed, beAlloc, actions }) => {
    const world = await World.open({ seed });
    const t = await attackOn(world, { connectors: 2, devices: { beAlloc, keyboard: true } });
    const puppet = new Puppet(t);
    for (const each of actions) await puppet.act(each);
    await world.verdict([t.guest]);
    await world.close();
    assert.equal(world.daemon.status().guests.length, 0);
  },
});
