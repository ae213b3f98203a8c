// How a program gets hold of a share before it maps any of its data: the offer, the port, the control page, and the
// exporter's word that it is accepted.
//
// Invariants: the port is ours alone in this domain, or there is no attachment; what is mapped of the exporter is that
// of the share that was offered; a failure leaves nothing open.

import { SHARE_ATTACHED_ACCEPTED, SHARE_VERSION } from '../abi/share.ts';
import { ProtocolViolation, SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import {
  type Domain,
  type EventChannel,
  type EventHandler,
  type ForeignMapping,
  GrantMapError,
} from '../xen/domain.ts';
import type { Gref } from '../xen/ids.ts';
import { Release, type ReleaseStep } from '../zcopy/release.ts';
import { unmapStep } from '../zcopy/shared-buffer.ts';
import { Condition } from './condition.ts';
import { ControlPage, IMPORTER_LIVE_BYTE } from './control-page.ts';
import { type Offer, OfferReader } from './offer-page.ts';
import type { OfferedShare } from './offered-share.ts';
import { paced } from './paced.ts';
import { ShareError } from './share-error.ts';

export interface AttachOptions {
  readonly runtime: Runtime;
  /** Charged to the exporter. */
  readonly domain: Pick<Domain, 'foreign' | 'events' | 'grants'>;
  readonly offered: OfferedShare;
  /** Ends the waiting for the exporter's answer. */
  readonly signal: AbortSignal;
}

/** How long an exporter may take to accept an importer. */
const ACCEPT_TIMEOUT_MS = 5000;

/** What is open before the data are. */
export interface Attachment {
  readonly offer: OfferReader;
  readonly control: ControlPage;
  readonly channel: EventChannel;
  readonly condition: Condition;
  /** What is to be given back, in this order. */
  readonly steps: readonly ReleaseStep[];
}

/** Binds, introduces us, and waits to be accepted. @throws as `ImportedShare.open`, with nothing left open */
export async function attach(options: AttachOptions, onEvent: () => void): Promise<Attachment> {
  const { runtime, offered } = options;
  const steps: ReleaseStep[] = [];
  const condition = new Condition(runtime);
  try {
    const offerPages = await mapOfExporter(options, offered.node.offerRefs, false);
    steps.unshift(unmapStep(offerPages));
    const offer = new OfferReader(offerPages.bytes);
    checkSame(offered, offer);
    const handler = paced(runtime, () => {
      condition.changed();
      onEvent();
    });
    const channel = await bind(options, offer, handler);
    steps.unshift(closeStep(channel));
    const page = await mapControl(options, channel);
    steps.unshift(unmapStep(page));
    const control = new ControlPage(page.bytes);
    await introduce({ offer, control, channel, condition, offered, signal: options.signal });
    return { offer, control, channel, condition, steps };
  } catch (error) {
    await new Release({ runtime, steps }).release();
    throw error;
  }
}

/** @throws ShareError `in-use`, `exporter-gone`; SysError without a port */
async function bind(
  options: AttachOptions,
  offer: OfferReader,
  handler: EventHandler,
): Promise<EventChannel> {
  const { domain, offered } = options;
  const request = { remote: offered.exporter, remotePort: offered.node.port, handler };
  try {
    return await domain.events.bindInterdomain(request);
  } catch (error) {
    throw await whyNotBound(options, offer, error);
  }
}

/**
 * Maps the control page, which is told that we are gone when it is unmapped. Whatever an exporter has taken back, its
 * domain may have granted us anew as something else, where that word would be damage: so the page is looked at
 * first, and stays mapped until it is mapped for good, as a grant in use cannot become another.
 * @throws ShareError `exporter-gone`
 */
async function mapControl(options: AttachOptions, channel: EventChannel): Promise<ForeignMapping> {
  const refs = [options.offered.offer.controlRef];
  await using seen = await mapOfExporter(options, refs, false);
  controlIn(options, seen);
  const farewell = { byte: IMPORTER_LIVE_BYTE, channel };
  return await mapOfExporter(options, refs, true, farewell);
}

/** The control page of what was offered. @throws ShareError `exporter-gone` when the page is anything else */
function controlIn({ offered }: AttachOptions, { bytes }: ForeignMapping): ControlPage {
  const control = new ControlPage(bytes);
  if (!control.isOf(offered.id)) throw exporterGone(offered);
  return control;
}

/** Says that we are here. @throws ShareError unless we are accepted, the signal's reason */
async function introduce(parts: {
  readonly offer: OfferReader;
  readonly control: ControlPage;
  readonly channel: EventChannel;
  readonly condition: Condition;
  readonly offered: OfferedShare;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { offer, control, channel, condition, offered, signal } = parts;
  const session = ((offer.session + 1) >>> 0 || 1) >>> 0;
  control.version = SHARE_VERSION;
  control.session = session;
  control.setLive();
  channel.notify();
  const look = () => {
    if (!offer.exporterLive) throw exporterGone(offered);
    return offer.session === session || undefined;
  };
  const what = `domain ${offered.exporter} answers who opens the share ${offered.id}`;
  await condition.until(look, what, { timeoutMs: ACCEPT_TIMEOUT_MS, signal });
  if (offer.attached === SHARE_ATTACHED_ACCEPTED) return;
  if (offered.node.withdrawMs !== undefined) {
    throw new ShareError('withdrawn', `the share ${offered.id} is withdrawn`);
  }
  const detail = `domain ${offered.exporter} does not accept us for the share ${offered.id}`;
  throw new ShareError('refused', detail);
}

/** The pages may be those of another share by now, or anything else. @throws ShareError `exporter-gone` */
function checkSame(offered: OfferedShare, reader: OfferReader): void {
  const { offer } = offered;
  const now = offerIn(reader);
  const same = (Object.keys(offer) as (keyof typeof offer)[]).every((k) => now?.[k] === offer[k]);
  if (!same) throw exporterGone(offered);
}

/** What is offered in these pages now; undefined when that is nothing. */
function offerIn(reader: OfferReader): Offer | undefined {
  try {
    return reader.offer();
  } catch (error) {
    if (error instanceof ProtocolViolation) return undefined;
    throw error;
  }
}

/** The port is bound by somebody, or is no more. */
async function whyNotBound(
  options: AttachOptions,
  offer: OfferReader,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof SysError)) return error;
  const { offered } = options;
  if (error.errnoName !== 'EINVAL') {
    return error.errnoName === 'ESRCH' ? exporterGone(offered) : error;
  }
  if (!offer.exporterLive) return exporterGone(offered);
  await using page = await mapOfExporter(options, [offered.offer.controlRef], true);
  controlIn(options, page).countTurnedAway();
  return new ShareError('in-use', `the share ${offered.id} is open in another program here`);
}

/** @throws ShareError `exporter-gone` when its grants are no more */
async function mapOfExporter(
  { domain, offered }: AttachOptions,
  refs: readonly Gref[],
  writable: boolean,
  farewell?: { readonly byte: number; readonly channel: EventChannel },
): Promise<ForeignMapping> {
  const request = { domid: offered.exporter, refs, writable };
  try {
    return await domain.foreign.map(farewell ? { ...request, farewell } : request);
  } catch (error) {
    if (error instanceof GrantMapError) throw exporterGone(offered);
    throw error;
  }
}

function closeStep(channel: EventChannel): ReleaseStep {
  return {
    holder: { who: 'our own port', pages: 0, evidence: 'is being closed' },
    attempt: async () => {
      await channel[Symbol.asyncDispose]();
      return undefined;
    },
  };
}

export function exporterGone({ id, exporter }: OfferedShare): ShareError {
  const detail = `the share ${id} is not there any more: its program in domain ${exporter} is gone`;
  return new ShareError('exporter-gone', detail);
}
