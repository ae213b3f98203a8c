// What one guest may make us hold, and how fast it may make us work: the kinds, and the limits that it has when
// nobody configures others.
//
// Beyond an amount the guest is refused (-ENOMEM, counted as `over-budget-KIND`); beyond a rate it waits, and is
// counted as throttled. The defaults have room for a person's desktop, several times over, and no more.

import { PAGE_SIZE } from '../abi/page.ts';
import type { RateKind } from '../xen/xenbus/driver.ts';

/** The kinds of things that are held, as the configuration and the status API spell them. */
export const HELD_KINDS = [
  /** Of its buffers, as it declared them. */
  'bytes',
  'pages',
  'refs',
  'mappings',
  /** Entries of this process's memory map (vm.max_map_count), which all guests share. */
  'areas',
  'ports',
  'watches',
  'connectors',
  'buffers',
  'framebuffers',
  /** In work, those included that were answered because they took too long. */
  'requests',
  /** Set aside for a guest whose buffers are allocated here. */
  'poolPages',
  'quarantinedPages',
] as const;

export type HeldKind = (typeof HELD_KINDS)[number];
export type Held = Record<HeldKind, number>;

/** The kinds of work that are paced. */
export const RATE_KINDS = [
  /** Taken from its rings. */
  'requestsPerSecond',
  /** By its event channels. */
  'wakeupsPerSecond',
  /** Changes of its xenstore nodes that we are told of. */
  'storeEventsPerSecond',
  /** Of buffers that are made, theirs or ours. */
  'mappedPagesPerSecond',
] as const satisfies readonly RateKind[];

/** How much of each kind one guest may make us hold, and how much work it may cause in a second. */
export type Budget = Record<HeldKind | RateKind, number>;

/** A buffer of 3840x2160 at 32 bits per pixel. */
const PAGES_4K = 8100;
/** Four of them with their page directories (8 pages each) and the rings. */
const PAGES = 4 * PAGES_4K + 256;

export const DEFAULT_BUDGET: Budget = {
  bytes: PAGES * PAGE_SIZE,
  pages: PAGES,
  // Each page once in our view and once in a dma-buf.
  refs: 2 * PAGES,
  mappings: 256,
  // On a Xen host a mapping takes one, wherever its pages are. In process it takes one for each run of consecutive
  // frames, of which buffers have few; a guest without manners has as many as it has pages, and fifty of those fit
  // into a process.
  areas: 1024,
  // Two for each connector; the rest for keyboards.
  ports: 40,
  watches: 32,
  connectors: 16,
  buffers: 64,
  framebuffers: 128,
  // One for each ring that makes or destroys buffers, and some that are late.
  requests: 16,
  poolPages: 2 * PAGES_4K,
  quarantinedPages: 4 * PAGES_4K,
  // Four connectors that flip 240 times a second send 960, a desktop's cursors and windows some tens. A request
  // takes some 10 µs of a core, so that a flood has 4 % of one.
  requestsPerSecond: 4000,
  // One for each of those flips when each is sent by itself, and one for each batch of input, of a mouse that
  // reports 1000 times a second.
  wakeupsPerSecond: 4000,
  // A driver that loads or reloads changes its state four times, for each of two or three devices.
  storeEventsPerSecond: 50,
  // A desktop that changes its mode makes its buffers anew: all that it may have, each second. Mapping and unmapping one
  // of 3840x2160 takes some 8 ms of a core when its pages are as scattered as they may be.
  mappedPagesPerSecond: 4 * PAGES_4K,
};
