// R6, and R2 where it is about directories: how a guest names its pages, in every way that it should not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { XENDISPL_DBUF_FLG_REQ_ALLOC } from '../../src/abi/displif.ts';
import { XEN_ERRNO } from '../../src/abi/errno.ts';
import type { SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type DomId } from '../../src/xen/ids.ts';
import { BYTES } from '../display/bodies.ts';
import { Attack, survives } from './world.ts';

const { XEN_EINVAL, XEN_ENOMEM } = XEN_ERRNO;
const PAGE = 4096;
const PAGE_WORDS = PAGE / 4;
/** References of one directory page. */
const REFS = 1023;
/** How often one domain can map a page for reading, as Xen counts. */
const PINS = 128;

/** A buffer of so many pages, whatever is in them. */
const pagesOf = (count: number) => ({ width: 0, height: 0, bpp: 0, buffer_sz: count * PAGE });

function share(t: Attack, domid: DomId, pages = 1): Promise<SharedPages> {
  return t.world.run(t.domain.grants.share({ domid, pages, writable: false }));
}

interface Chain {
  /** Reference of the first directory page. */
  readonly first: number;
  /** The words of all directory pages. */
  readonly words: Uint32Array;
}

/** Directory pages of these words each; they may name each other. */
async function chain(
  t: Attack,
  count: number,
  words: (own: readonly number[]) => readonly (readonly number[])[],
): Promise<Chain> {
  const { refs, bytes } = await share(t, DOM0, count);
  const view = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  words(refs).forEach((page, index) => {
    view.set(page, index * PAGE_WORDS);
  });
  return { first: refs[0]!, words: view };
}

/** As many references to one page. */
const times = (count: number, ref: number) => Array.from({ length: count }, () => ref);

interface Expectation {
  readonly what: string;
  readonly pages: number;
  readonly first: number;
  readonly status: number;
}

/** Creates buffer 1, expects the answer, and takes the buffer away when there is one. */
async function expectCreate(t: Attack, { what, pages, first, status }: Expectation): Promise<void> {
  const answer = await t.create({ ...pagesOf(pages), gref_directory: first });
  assert.equal(answer, status, what);
  if (answer === 0) assert.equal(await t.destroy(1n), 0, what);
  const { buffers, pages: held } = t.account.held;
  assert.deepEqual([buffers, held], [0, 2], `${what}: the rings alone are left`);
}

test('R6: references that are 0, unknown, or of pages for somebody else', () =>
  survives(async (t) => {
    const other = (await share(t, t.world.honest.guest.domid)).refs[0]!;
    const good = (await share(t, DOM0)).refs[0]!;
    const directory = async (...refs: number[]) => (await chain(t, 1, () => [[0, ...refs]])).first;
    const cases: [string, number][] = [
      ['no directory', 0],
      ['a directory that was never granted', 500],
      ['a reference beyond the table', 0xffff_ffff],
      ['a directory for another domain', other],
      ['a page that was never granted', await directory(500, good, good)],
      ['a page for another domain', await directory(good, other, good)],
      ['the largest reference', await directory(good, good, 0xffff_ffff)],
      ['reference 0 at the beginning', await directory(0, good, good)],
      ['reference 0 in the middle', await directory(good, 0, good)],
      ['reference 0 at the end', await directory(good, good, 0)],
    ];
    for (const [what, first] of cases) {
      await expectCreate(t, { what, pages: 3, first, status: -XEN_EINVAL });
    }
    assert.deepEqual(t.refused, {
      'malformed-request': 1,
      'bad-grant': 6,
      'directory-gref-zero': 3,
    });
  }));

test("R6: another guest's references are numbers without meaning", () =>
  survives(async (t) => {
    const refs: number[] = [];
    for (let ref = 8; ref < 64; ref++) refs.push(ref);
    for (const ref of refs) {
      const status = await t.create({ ...pagesOf(1), gref_directory: ref });
      assert(status <= 0);
      if (status === 0) assert.equal(await t.destroy(1n), 0);
    }
    assert.equal(t.account.held.buffers, 0);
  }));

test('R6: chains that are short, long, round, or lead into themselves', () =>
  survives(async (t) => {
    const page = (await share(t, DOM0)).refs[0]!;
    const full = times(REFS, page);
    const cases: [string, number, Chain][] = [
      ['goes on into itself', 1, await chain(t, 1, ([own]) => [[own!, page]])],
      ['goes on to another', 1, await chain(t, 2, ([, next]) => [[next!, page], [0]])],
      ['ends a page early', REFS + 1, await chain(t, 1, () => [[0, ...full]])],
      ['is longer by a page', REFS, await chain(t, 2, ([, next]) => [[next!, ...full]])],
      ['a self-link', 2 * REFS, await chain(t, 1, ([own]) => [[own!, ...full]])],
      [
        'a cycle of two',
        4 * REFS,
        await chain(t, 2, ([one, two]) => [
          [two!, ...full],
          [one!, ...full],
        ]),
      ],
    ];
    for (const [what, pages, { first }] of cases) {
      await expectCreate(t, { what, pages, first, status: -XEN_EINVAL });
    }
    assert.deepEqual(t.refused, { 'directory-long': 5, 'directory-short': 1 });
  }));

test('R6: the rings themselves as directory and as pixels', () =>
  survives(async (t) => {
    const ring = Number(await t.world.run(t.domain.store.read(`${t.path}/0/req-ring-ref`)));
    const events = Number(await t.world.run(t.domain.store.read(`${t.path}/0/evt-ring-ref`)));
    for (const first of [ring, events]) {
      await expectCreate(t, { what: 'directory', pages: 3, first, status: -XEN_EINVAL });
    }
    const { first } = await chain(t, 1, () => [[0, ring, events, ring]]);
    assert.equal(await t.create({ gref_directory: first, buffer_sz: BYTES }), 0);
    assert.equal(await t.attach({}), 0);
    assert.equal(await t.config({}), 0, 'what it shows is its own affair');
    for (let flips = 1; flips <= 70; flips++) {
      assert.equal(await t.flip(2n), 0);
      await t.world.until(() => t.connector.eventIds.length === flips, 'the event');
    }
    assert.equal(await t.destroy(1n), 0);
  }));

test('R6: one page as often as it can be pinned, and once more', () =>
  survives(async (t) => {
    const page = (await share(t, DOM0)).refs[0]!;
    const { first } = await chain(t, 1, () => [[0, ...times(REFS, page)]]);
    await expectCreate(t, { what: 'all pins', pages: PINS, first, status: 0 });
    await expectCreate(t, { what: 'one more', pages: PINS + 1, first, status: -XEN_EINVAL });
    await expectCreate(t, { what: 'far more', pages: REFS, first, status: -XEN_EINVAL });
    await expectCreate(t, { what: 'all pins again', pages: PINS, first, status: 0 });
  }));

test('R6: what lies behind the last reference is not looked at', () =>
  survives(async (t) => {
    const page = (await share(t, DOM0)).refs[0]!;
    const rest = times(REFS - 3, 0xffff_ffff);
    const { first } = await chain(t, 1, () => [[0, page, page, page, ...rest]]);
    await expectCreate(t, { what: 'three pages', pages: 3, first, status: 0 });
    const two = await chain(t, 2, ([, next]) => [
      [next!, ...times(REFS, page)],
      [0, page, ...times(REFS - 1, 0)],
    ]);
    const most = { pages: REFS + 1, first: two.first };
    await expectCreate(t, { what: 'too many pins', ...most, status: -XEN_EINVAL });
  }));

test('R6: buffers at the boundary of 64 full directory pages, and beyond the budget', () =>
  survives(
    async (t) => {
      const { refs } = await share(t, DOM0, 1024);
      const all = 64 * REFS + 1;
      const nth = (index: number) => refs[index % refs.length]!;
      const { first, words } = await chain(t, 65, (own) =>
        own.map((_, page) => [
          own[page + 1] ?? 0,
          ...Array.from({ length: REFS }, (_, i) => nth(page * REFS + i)),
        ]),
      );
      const endAfter = (pages: number) => {
        const last = Math.ceil(pages / REFS) - 1;
        const saved = words[last * PAGE_WORDS]!;
        words[last * PAGE_WORDS] = 0;
        return () => {
          words[last * PAGE_WORDS] = saved;
        };
      };
      for (const pages of [all - 2, all - 1, all]) {
        const mend = endAfter(pages);
        await expectCreate(t, { what: `${pages} pages`, pages, first, status: 0 });
        mend();
      }
      const beyond = { pages: all + 1000, first, status: -XEN_ENOMEM };
      await expectCreate(t, { what: 'beyond the budget', ...beyond });
      assert.deepEqual(t.refused, { 'over-budget-pages': 1 });
    },
    { budget: { bytes: 67_000 * PAGE_WORDS * 4, pages: 66_000, refs: 132_000 } },
  ));

test('R2: a directory that changes while it is read names the pages that were copied', async () => {
  let onMap = () => {};
  await survives(
    async (t) => {
      const { refs, bytes } = await share(t, DOM0, 9);
      new Uint32Array(bytes.buffer, bytes.byteOffset, PAGE_WORDS).fill(Attack.PIXEL);
      const [drawn, ...blank] = refs;
      const rest = Array.from({ length: REFS - 1 }, (_, index) => blank[index % blank.length]!);
      const { first, words } = await chain(t, 2, ([, next]) => [
        [next!, drawn!, ...rest],
        [0, drawn!],
      ]);
      let maps = 0;
      onMap = () => {
        maps += 1;
        // The first page is copied when the second is mapped, and both when the pixels are.
        if (maps === 2) words.fill(0xffff_ffff, 0, PAGE_WORDS);
        if (maps === 3) words.fill(0xffff_ffff);
      };
      assert.equal(await t.create({ ...pagesOf(REFS + 1), gref_directory: first }), 0);
      onMap = () => {};
      assert.equal(maps, 3);
      assert.equal(await t.attach({ width: 1, height: 1 }), 0);
      assert.equal(await t.config({ width: 1, height: 1 }), 0);
      const { shown } = t.world.daemon.screen(t.domid, 0)!;
      assert.deepEqual([...shown!.bytes], [0xef, 0xbe, 0xad, 0xde]);
    },
    { before: (call) => (call === 'map' ? onMap() : undefined) },
  );
});

test('R2: a directory whose chain is turned round while it is walked ends where it must', async () => {
  let onMap = () => {};
  await survives(
    async (t) => {
      const { refs } = await share(t, DOM0, 1024);
      const walk = await chain(t, 3, (own) =>
        own.map((_, page) => [own[page + 1] ?? 0, ...refs.slice(0, REFS)]),
      );
      let maps = 0;
      onMap = () => {
        maps += 1;
        // Every page that is still to be read leads back to the first one.
        for (let page = 1; page < 3; page++) walk.words[page * PAGE_WORDS] = walk.first;
      };
      assert.equal(
        await t.create({ ...pagesOf(3 * REFS), gref_directory: walk.first }),
        -XEN_EINVAL,
      );
      assert.equal(maps, 3, 'three pages were walked, and no pixels mapped');
      assert.deepEqual(t.refused, { 'directory-long': 1 });
      onMap = () => {};
    },
    { before: (call) => (call === 'map' ? onMap() : undefined) },
  );
});

test('R6: directories for pages of ours that cannot be filled: read-only, short, long, of others', () =>
  survives(
    async (t) => {
      const flags = XENDISPL_DBUF_FLG_REQ_ALLOC;
      const readOnly = await chain(t, 1, () => [[0]]);
      const writable = async (count: number, words: (own: readonly number[]) => number[]) => {
        const request = { domid: DOM0, pages: count, writable: true };
        const { refs, bytes } = await t.world.run(t.domain.grants.share(request));
        const view = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
        words(refs).forEach((next, page) => {
          view[page * PAGE_WORDS] = next;
        });
        return refs[0]!;
      };
      const other = (await share(t, t.world.honest.guest.domid)).refs[0]!;
      const cases: [string, number][] = [
        ['read-only', readOnly.first],
        ['goes on', await writable(2, ([, next]) => [next!, 0])],
        ['leads into itself', await writable(1, ([own]) => [own!])],
        ['for another domain', other],
        ['never granted', 500],
      ];
      for (const [what, gref_directory] of cases) {
        assert.equal(await t.create({ flags, gref_directory }), -XEN_EINVAL, what);
        await t.world.until(() => t.account.held.poolPages === 0, 'the pool has its pages back');
      }
      const good = await writable(1, () => [0]);
      assert.equal(await t.create({ flags, gref_directory: good }), 0);
      assert.equal(await t.destroy(1n), 0);
    },
    { devices: { beAlloc: true } },
  ));
