// What a world is made of: drawn from its seed, so that worlds differ in more than in their order of events.

import type { KeyboardConfig } from '../src/hypervisor/toolstack.ts';
import { type Budget, DEFAULT_BUDGET } from '../src/zcopy/budget.ts';
import { between, happens, oneOf, streamOf } from './chance.ts';
import type { OutputMemory } from './output.ts';

/** The machine is small, so that all of it can be looked at after every step, and so that memory runs short. */
export const MACHINE_FRAMES = 1024;

/** Enough for what an honest guest does, and soon spent by one that is not. */
const BUDGET: Budget = {
  ...DEFAULT_BUDGET,
  pages: 48,
  refs: 96,
  mappings: 24,
  ports: 12,
  watches: 3,
  buffers: 8,
  framebuffers: 8,
  poolPages: 24,
  quarantinedPages: 3,
  requestsPerSecond: 1000,
  wakeupsPerSecond: 1000,
  storeEventsPerSecond: 20,
  mappedPagesPerSecond: 2000,
};

/** How fast a guest may be served, in requests and wake-ups a second: so that honest ones meet it, or only others. */
const RATES = [60, 1000] as const;

/** The keyboards of a guest: none, one, or two that share what there is. */
const KEYBOARDS: readonly (readonly KeyboardConfig[])[] = [
  [],
  [{}],
  [{}],
  [{ absolute: { width: 1920, height: 1080 } }],
  [{ without: 'keyboard' }],
  [{}, {}],
  [{ without: 'pointer' }, { without: 'keyboard', absolute: { width: 64, height: 64 } }],
];

const SIZES = [
  { width: 16, height: 8 },
  { width: 32, height: 24 },
  { width: 33, height: 40 },
  { width: 64, height: 32 },
] as const;

/** Worlds in which guests share with each other: one in so many. */
const SHARING_ONE_IN = 3;

/** Worlds in which a driver domain that breaks rules serves the devices of a guest that keeps them: one in so many. */
const DRIVEN_ONE_IN = 3;

/** What a guest is in its world; a driver is the backend of what the driven ones have. */
export type GuestRole = 'honest' | 'hostile' | 'driver' | 'driven';

export interface GuestPlan {
  readonly name: string;
  readonly role: GuestRole;
  readonly connectors: readonly { readonly width: number; readonly height: number }[];
  readonly beAlloc: boolean;
  readonly keyboards: readonly KeyboardConfig[];
  /** Whether a program of it shares with those of others. */
  readonly shares: boolean;
}

export interface Plan {
  /** Of each guest. */
  readonly budget: Budget;
  readonly guests: readonly GuestPlan[];
  /** Whether the output hands pictures to drivers, so that dma-bufs are made. */
  readonly importsBuffers: boolean;
  readonly outputMemory: OutputMemory;
  /** Refreshes of the screens in a second: the more, the more of a world's steps are flips. */
  readonly refreshHz: number;
  /** Mean time between two blows of fate, in milliseconds. */
  readonly fateEveryMs: number;
}

const DEVICELESS = { connectors: [], beAlloc: false, keyboards: [], shares: false } as const;
const DRIVEN: readonly GuestPlan[] = [
  { ...DEVICELESS, name: 'driver', role: 'driver' },
  { ...DEVICELESS, name: 'driven', role: 'driven' },
];

export function planOf(seed: number): Plan {
  const random = streamOf(seed, 'plan');
  const honest = between(random, 1, 3);
  const hostile = between(random, happens(random, 4) ? 0 : 1, 2);
  const sharing = happens(streamOf(seed, 'sharing'), SHARING_ONE_IN);
  const guest = (name: string, role: GuestRole): GuestPlan => ({
    name,
    role,
    connectors: Array.from({ length: between(random, 1, 2) }, () => oneOf(random, SIZES)),
    beAlloc: happens(random, 3),
    keyboards: oneOf(random, KEYBOARDS),
    shares: sharing,
  });
  return {
    budget: {
      ...BUDGET,
      requestsPerSecond: oneOf(random, RATES),
      wakeupsPerSecond: oneOf(random, RATES),
    },
    guests: [
      ...Array.from({ length: honest }, (_, index) => guest(`honest-${index}`, 'honest')),
      ...Array.from({ length: hostile }, (_, index) => guest(`hostile-${index}`, 'hostile')),
      ...(happens(streamOf(seed, 'driven'), DRIVEN_ONE_IN) ? DRIVEN : []),
    ],
    importsBuffers: happens(random, 3),
    outputMemory: oneOf(random, ['none', 'any', 'consecutive']),
    refreshHz: oneOf(random, [240, 1000, 4000]),
    fateEveryMs: oneOf(random, [300, 1000, 4000]),
  };
}
