// What a share is made of at its exporter: the data, the directory that names them, the event channel, the control
// page, and the offer.
//
// Invariant: what was made when a later part cannot be is known, and given back in reverse order.

import type { Runtime } from '../runtime/runtime.ts';
import type { Domain, EventChannel, SharedPages } from '../xen/domain.ts';
import type { DomId } from '../xen/ids.ts';
import type { ReleaseStep } from '../zcopy/release.ts';
import { endSharedStep } from '../zcopy/shared-buffer.ts';
import { writeDirectory } from './grant-directory.ts';
import { EXPORTER_LIVE_BYTE } from './offer-page.ts';
import { paced } from './paced.ts';
import { openSlots, type ShareMemory, type Slots } from './slots.ts';

/** In the order in which they are made. */
export interface ShareParts {
  readonly slots: Slots;
  readonly directory: SharedPages;
  readonly channel: EventChannel;
  readonly control: SharedPages;
  readonly offer: SharedPages;
}

export interface PartsRequest {
  readonly runtime: Runtime;
  readonly domain: Pick<Domain, 'grants' | 'events'>;
  readonly to: DomId;
  readonly writable: boolean;
  readonly memory: ShareMemory;
  /** How many slots new pages are for. */
  readonly slots: number;
  /** Collects what is to be given back when a later part cannot be made. */
  readonly undo: ReleaseStep[];
  readonly onEvent: () => void;
}

/** Gives up something of ours that nobody else can hold. */
export function ourStep(who: string, give: () => PromiseLike<void>): ReleaseStep {
  const holder = { who, pages: 0, evidence: 'is being given up' };
  return {
    holder,
    attempt: async () => {
      await give();
      return undefined;
    },
  };
}

/** Makes all of them. @throws SysError, with what was made in `undo` */
export async function makeParts(request: PartsRequest): Promise<ShareParts> {
  const { runtime, domain, to, writable, memory, undo, onEvent } = request;
  const { grants, events } = domain;
  const slots = await openSlots(grants, { domid: to, writable, memory, count: request.slots });
  undo.push(...slots.steps);
  const directory = await writeDirectory(grants, { domid: to, refs: slots.refs });
  undo.push(endSharedStep(directory));
  const channel = await events.allocUnbound({ remote: to, handler: paced(runtime, onEvent) });
  undo.push(ourStep('the event channel', () => channel[Symbol.asyncDispose]()));
  const control = await grants.share({ domid: to, pages: 1, writable: true });
  undo.push(endSharedStep(control));
  const farewell = { byte: EXPORTER_LIVE_BYTE, channel };
  const offer = await grants.share({ domid: to, pages: 2, writable: false, farewell });
  undo.push(endSharedStep(offer));
  return { slots, directory, channel, control, offer };
}
