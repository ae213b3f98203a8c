// This domain on a real Xen host, by the devices of Linux: provider 2 of xen/domain.ts.
//
// Invariant: closing it ends, in this order, events, mappings of others' pages, pages shared with
// others, and the connection to xenstored: nobody is called, nothing is mapped, nothing is left.

import { SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Scope } from '../runtime/scope.ts';
import type {
  Domain,
  Grants,
  LendRequest,
  LentPages,
  SharedPages,
  ShareRequest,
} from '../xen/domain.ts';
import { type DomId, domId } from '../xen/ids.ts';
import type { Memory } from '../xen/memory.ts';
import { unsupported } from '../xen/unsupported.ts';
import { XenstoreClient } from '../xen/xenstore-client.ts';
import { EVTCHN, GNTALLOC, GNTDEV, openXenDevice } from './device.ts';
import { Evtchn, type HandlerErrorListener } from './evtchn.ts';
import { Gntalloc } from './gntalloc.ts';
import { Gntdev } from './gntdev.ts';
import { openXenstoreChannel } from './xenstore.ts';

const noMemory: Memory = {
  async createPool() {
    throw unsupported('UDMABUF_CREATE', 'not yet');
  },
  async allocate() {
    throw unsupported('DMA_HEAP_IOCTL_ALLOC', 'not yet');
  },
};

/** Opens /dev/xen/gntalloc when something is first shared: a backend that never shares needs no driver. */
class LazyGntalloc implements Grants {
  readonly #scope: Scope;
  #gntalloc: Gntalloc | undefined;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  async share(request: ShareRequest): Promise<SharedPages> {
    this.#gntalloc ??= this.#scope.own(new Gntalloc(openXenDevice(GNTALLOC)));
    return this.#gntalloc.share(request);
  }

  async lend(_request: LendRequest): Promise<LentPages> {
    throw unsupported('DMABUF_IMP_TO_REFS', 'not yet');
  }
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
  readonly foreign: Gntdev;
  readonly memory: Memory = noMemory;
  readonly events: Evtchn;
  readonly store: XenstoreClient;
  readonly #scope: Scope;

  constructor(
    parts: Pick<LinuxDomain, 'domid' | 'grants' | 'foreign' | 'events' | 'store'>,
    scope: Scope,
  ) {
    this.domid = parts.domid;
    this.grants = parts.grants;
    this.foreign = parts.foreign;
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
    const grants = new LazyGntalloc(scope.child('gntalloc'));
    const foreign = scope.own(new Gntdev(openXenDevice(GNTDEV)));
    const onHandlerError = options.onHandlerError ?? logTo(runtime);
    const events = scope.own(new Evtchn(openXenDevice(EVTCHN), onHandlerError));
    const domid = await ownDomId(store);
    return new LinuxDomain({ domid, grants, foreign, events, store }, scope);
  } catch (error) {
    await scope.close();
    throw error;
  }
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
