// This domain on a real Xen host, by the devices of Linux: provider 2 of xen/domain.ts.
//
// Invariant: closing it ends, in this order, events, mappings and dma-bufs of others' pages, pages and
// buffers given to others, our own memory, and the connection to xenstored: nobody is called, nothing is
// mapped, nothing is left but what others still map, which the kernel keeps until they let go.

import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type {
  Domain,
  ExportedRefs,
  ExportRequest,
  ForeignMapping,
  ForeignMemory,
  Grants,
  LendRequest,
  LentPages,
  MapRequest,
  SharedPages,
  ShareRequest,
} from '../xen/domain.ts';
import { type DomId, domId } from '../xen/ids.ts';
import { XenstoreClient } from '../xen/xenstore-client.ts';
import { EVTCHN, GNTALLOC, GNTDEV, openXenDevice } from './device.ts';
import { Evtchn, type HandlerErrorListener } from './evtchn.ts';
import { GrantExporter } from './exports.ts';
import { Gntalloc } from './gntalloc.ts';
import { Gntdev } from './gntdev.ts';
import { GrantObserver } from './grant-observer.ts';
import { gntdevLimit, guestType } from './kernel-facts.ts';
import { Lender } from './lends.ts';
import { LinuxMemory } from './memory.ts';
import { openXenstoreChannel } from './xenstore.ts';

interface LinuxGrantsParts {
  /** For gntalloc; closed before the observer is. */
  readonly scope: Scope;
  readonly lender: Lender;
  readonly observer: () => GrantObserver | undefined;
}

/** What this domain gives to others: pages of gntalloc, which is opened when first needed, and buffers. */
class LinuxGrants implements Grants {
  readonly #scope: Scope;
  readonly #lender: Lender;
  readonly #observer: () => GrantObserver | undefined;
  #gntalloc: Gntalloc | undefined;

  constructor({ scope, lender, observer }: LinuxGrantsParts) {
    this.#scope = scope;
    this.#lender = lender;
    this.#observer = observer;
  }

  async share(request: ShareRequest): Promise<SharedPages> {
    this.#gntalloc ??= this.#scope.own(new Gntalloc(openXenDevice(GNTALLOC), this.#observer));
    return this.#gntalloc.share(request);
  }

  async lend(request: LendRequest): Promise<LentPages> {
    return this.#lender.lend(request);
  }
}

/** What others give to this domain: mapped for the processor, or as dma-bufs. */
class LinuxForeign implements ForeignMemory {
  readonly #gntdev: Gntdev;
  readonly #exporter: GrantExporter;

  constructor(gntdev: Gntdev, exporter: GrantExporter) {
    this.#gntdev = gntdev;
    this.#exporter = exporter;
  }

  async map(request: MapRequest): Promise<ForeignMapping> {
    return this.#gntdev.map(request);
  }

  async export(request: ExportRequest): Promise<ExportedRefs> {
    return this.#exporter.export(request);
  }
}

/** The look at our grant table, opened when it is first needed, or undefined where there is none. */
function lazyObserver(scope: Scope, { log }: Runtime): () => GrantObserver | undefined {
  let opened: { readonly observer: GrantObserver | undefined } | undefined;
  const open = (): GrantObserver | undefined => {
    try {
      return scope.own(GrantObserver.open(openXenDevice, guestType()));
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      log.info({ reason: error.message }, 'what others still map of our pages cannot be seen');
      return undefined;
    }
  };
  return () => {
    opened ??= { observer: open() };
    return opened.observer;
  };
}

export interface LinuxDomainOptions {
  readonly runtime: Runtime;
  /** Told of what event handlers throw; it is logged when left out. */
  readonly onHandlerError?: HandlerErrorListener;
  /** For XENSTORED_PATH; the process's own when left out. */
  readonly env?: NodeJS.ProcessEnv;
}

export class LinuxDomain implements Domain {
  readonly provider = 'linux';
  readonly domid: DomId;
  readonly grants: Grants;
  readonly foreign: ForeignMemory;
  readonly memory: LinuxMemory;
  readonly events: Evtchn;
  readonly store: XenstoreClient;
  readonly #scope: Scope;

  constructor(
    parts: Pick<LinuxDomain, 'domid' | 'grants' | 'foreign' | 'memory' | 'events' | 'store'>,
    scope: Scope,
  ) {
    this.domid = parts.domid;
    this.grants = parts.grants;
    this.foreign = parts.foreign;
    this.memory = parts.memory;
    this.events = parts.events;
    this.store = parts.store;
    this.#scope = scope;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope.close();
  }
}

/**
 * Opens the devices and xenstore, which keep the process alive until the domain is closed.
 * @throws SysError with what to do about it; nothing stays open then
 */
export async function openLinuxDomain(options: LinuxDomainOptions): Promise<LinuxDomain> {
  const { runtime, env = process.env } = options;
  const scope = new Scope('linux');
  try {
    const channel = await openXenstoreChannel(env);
    const store = scope.own(new XenstoreClient({ runtime, channel }));
    const open = openXenDevice;
    const memory = scope.own(new LinuxMemory({ open }));
    const observer = lazyObserver(scope.child('observer'), runtime);
    const lender = scope.own(new Lender({ open, observer }));
    const grants = new LinuxGrants({ scope: scope.child('gntalloc'), lender, observer });
    const gntdev = scope.own(new Gntdev(open(GNTDEV)));
    const foreign = new LinuxForeign(gntdev, scope.own(exporterOver(gntdev)));
    const onHandlerError = options.onHandlerError ?? logTo(runtime);
    const events = scope.own(new Evtchn(openXenDevice(EVTCHN), onHandlerError));
    const domid = await ownDomId(store);
    return new LinuxDomain({ domid, grants, foreign, memory, events, store }, scope);
  } catch (error) {
    await scope.close();
    throw error;
  }
}

function exporterOver(gntdev: Gntdev): GrantExporter {
  const map = (request: MapRequest) => gntdev.map(request);
  return new GrantExporter({
    open: openXenDevice,
    map,
    guestType: guestType(),
    limit: gntdevLimit(),
  });
}

function logTo({ log }: Runtime): HandlerErrorListener {
  return (error, { port, remote }) => {
    log.error({ err: error, port, remote }, 'an event handler failed');
  };
}

/** Our number, from the node `domid` of our own folder in xenstore. */
async function ownDomId(store: XenstoreClient): Promise<DomId> {
  const text = await store.read('domid');
  if (text !== undefined && /^\d{1,5}$/.test(text)) return domId(Number(text));
  throw new SysError({
    call: 'XS_READ domid',
    errnoName: text === undefined ? 'ENOENT' : `"${text}"`,
    context: "reading this domain's number from xenstore",
    remedy: 'dom0 gets it from xen-init-dom0, a guest from its toolstack',
  });
}
