// All fuzzers: one for each parser of bytes that somebody else chooses, and whole guests.

import { pageDirectories, shareDirectories } from './directories.ts';
import { displayFrontend, displayRequests } from './display.ts';
import type { Fuzzer } from './fuzzer.ts';
import { hostileGuests } from './guest.ts';
import { keyboardEvents, keyboardPages } from './input.ts';
import { displayNodes, keyboardNodes, nodeValues } from './nodes.ts';
import { processWire } from './process.ts';
import { backRing, eventPages, frontRing } from './rings.ts';
import { shareEnds, shareMetadata, shareNodes, shareOffers } from './share.ts';
import { xenstoreClient, xenstoredRequests, xenstoreRing, xenstoreWire } from './store.ts';
import { accessChecks, httpRequests, viewerMessages, webSockets } from './web.ts';

export const FUZZERS: readonly Fuzzer[] = [
  displayRequests,
  displayFrontend,
  displayNodes,
  backRing,
  frontRing,
  eventPages,
  pageDirectories,
  keyboardEvents,
  keyboardPages,
  keyboardNodes,
  nodeValues,
  xenstoreWire,
  xenstoreClient,
  xenstoreRing,
  xenstoredRequests,
  shareNodes,
  shareMetadata,
  shareOffers,
  shareDirectories,
  shareEnds,
  viewerMessages,
  accessChecks,
  httpRequests,
  webSockets,
  processWire,
  hostileGuests,
];
