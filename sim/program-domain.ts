// A domain as one program of it has it: what the program acquires is kept in its kernel's books, every call
// takes two turns of the world (so that others get in between before and after its effect), and faults come
// where they come in the field.
//
// Invariants: a call that a fault makes fail has changed nothing; what a killed program had is given back
// by its kernel (program.ts).

import { type Runtime, sleep } from '../src/runtime/runtime.ts';
import type {
  Domain,
  EventChannel,
  EventHandler,
  ExportedRefs,
  Farewell,
  ForeignMapping,
  LentPages,
  MapRequest,
  SharedPages,
} from '../src/xen/domain.ts';
import type { Gref } from '../src/xen/ids.ts';
import type { GivenBack, LocalBuffer, MemoryPool } from '../src/xen/memory.ts';
import { lacking } from './errors.ts';
import type { FaultKind, Faults } from './faults.ts';
import type { KernelObject, Program } from './program.ts';
import { type ProgramStore, programStore } from './program-store.ts';

/** A reference that no grant table has. */
const NO_SUCH_REF = 0xffff_fff0 as Gref;
/** A hypercall that is slow takes so long, in milliseconds: up to beyond every deadline of the backends. */
const SLOW_MS = [1, 4000] as const;
/** When a notification that was lost is made up for, in milliseconds. */
const NOTICED_AFTER_MS = [1, 200] as const;

export interface ProgramDomainOptions extends ProgramStore {
  /** The world's. */
  readonly runtime: Runtime;
  readonly program: Program;
  /** The domain that the program runs in. */
  readonly domain: Domain;
  readonly faults: Faults;
  /** Calls take no turns of their own: for one who counts the program's own steps. */
  readonly atOnce?: boolean;
}

/** The domain for the program; disposing the result does nothing. */
export function programDomain(options: ProgramDomainOptions): Domain {
  return new ProgramDomain(options);
}

class ProgramDomain implements Domain {
  readonly domid: Domain['domid'];
  readonly provider: Domain['provider'];
  readonly store: Domain['store'];
  readonly #runtime: Runtime;
  readonly #program: Program;
  readonly #domain: Domain;
  readonly #faults: Faults;
  readonly #atOnce: boolean;
  /** The kernel's own ends of the program's channels. */
  readonly #channels = new WeakMap<EventChannel, EventChannel>();

  constructor(options: ProgramDomainOptions) {
    this.domid = options.domain.domid;
    this.provider = options.domain.provider;
    this.store = programStore(options);
    this.#runtime = options.runtime;
    this.#program = options.program;
    this.#domain = options.domain;
    this.#faults = options.faults;
    this.#atOnce = options.atOnce ?? false;
  }

  readonly grants: Domain['grants'] = {
    share: (request) =>
      this.#call('share', async () => {
        this.#lack('no-memory', 'ENOMEM', 'gntalloc');
        this.#lack('no-room', 'ENOSPC', 'gntalloc');
        return this.#shared(await this.#domain.grants.share(this.#withFarewell(request)));
      }),
    lend: (request) =>
      this.#call('lend', async () => {
        this.#lack('no-room', 'ENOSPC', 'GNTTABOP_setup_table');
        return this.#lent(await this.#domain.grants.lend(request));
      }),
  };

  readonly foreign: Domain['foreign'] = {
    map: (request) => this.#call('map', () => this.#map(request)),
    export: (request) =>
      this.#call('export', async () => {
        this.#lack('no-memory', 'ENOMEM', 'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS');
        return this.#exported(await this.#domain.foreign.export(request));
      }),
  };

  readonly memory: Domain['memory'] = {
    createPool: (request) =>
      this.#call('createPool', async () => {
        this.#lack('no-memory', 'ENOMEM', 'XENMEM_increase_reservation');
        return this.#pool(await this.#domain.memory.createPool(request));
      }),
    allocate: (request) =>
      this.#call('allocate', async () => {
        this.#lack('no-memory', 'ENOMEM', 'XENMEM_increase_reservation');
        return this.#buffer(await this.#domain.memory.allocate(request));
      }),
    adopt: (fd) => this.#domain.memory.adopt(fd),
  };

  readonly events: Domain['events'] = {
    allocUnbound: (request) =>
      this.#call('allocUnbound', async () => {
        this.#lack('no-room', 'ENOSPC', 'EVTCHNOP_alloc_unbound');
        const handler = this.#guarded(request.handler);
        return this.#channel(await this.#domain.events.allocUnbound({ ...request, handler }));
      }),
    bindInterdomain: (request) =>
      this.#call('bindInterdomain', async () => {
        this.#lack('no-room', 'ENOSPC', 'EVTCHNOP_bind_interdomain');
        const handler = this.#guarded(request.handler);
        return this.#channel(await this.#domain.events.bindInterdomain({ ...request, handler }));
      }),
  };

  async [Symbol.asyncDispose](): Promise<void> {}

  /** A call into the kernel: its effect comes in a turn of its own, and its return in another. */
  #call<T>(name: string, effect: () => Promise<T>): Promise<T> {
    return this.#program.call(name, () => this.#inTurns(name, effect));
  }

  async #inTurns<T>(name: string, effect: () => Promise<T>): Promise<T> {
    if (this.#atOnce) return effect();
    await this.#turn(name);
    try {
      return await effect();
    } finally {
      await this.#turn(name);
    }
  }

  #turn(name: string): Promise<void> {
    // Nothing waits for a notification's sake or for a release beyond what those who wait for it allow.
    if (name !== 'unmap' && this.#faults.strikes('hypercall-slow')) {
      return sleep(this.#runtime, this.#faults.measure('hypercall-slow', ...SLOW_MS));
    }
    return new Promise((resolve) => this.#runtime.defer(resolve));
  }

  #lack(kind: FaultKind, errnoName: string, call: string): void {
    if (this.#faults.strikes(kind)) throw lacking(call, errnoName);
  }

  async #map(request: MapRequest): Promise<ForeignMapping> {
    this.#lack('no-memory', 'ENOMEM', 'GNTTABOP_map_grant_ref');
    if (!this.#faults.strikes('partial-map')) {
      return this.#mapping(await this.#domain.foreign.map(this.#withFarewell(request)));
    }
    const refs = [...request.refs];
    refs[this.#faults.measure('partial-map', 0, refs.length - 1)] = NO_SUCH_REF;
    const { domid, writable } = request;
    await this.#domain.foreign.map({ domid, writable, refs }).then(
      (mapping) => mapping[Symbol.asyncDispose](),
      () => {},
    );
    throw lacking('GNTTABOP_map_grant_ref', 'ENOMEM');
  }

  /** A farewell is said by the kernel, over its own end of the channel, also for a program that is dead. */
  #withFarewell<R extends { readonly farewell?: Farewell }>(request: R): R {
    const { farewell } = request;
    if (farewell === undefined) return request;
    return {
      ...request,
      farewell: { ...farewell, channel: this.#channels.get(farewell.channel)! },
    };
  }

  #guarded(handler: EventHandler): EventHandler {
    return () => (this.#program.alive ? handler() : undefined);
  }

  #mapping(mapping: ForeignMapping): ForeignMapping {
    const release = () => mapping[Symbol.asyncDispose]();
    const object = this.#keep(async () => {
      await release();
      return true;
    });
    const unmap = async () => {
      if (this.#faults.strikes('unmap-refused')) throw lacking('munmap', 'EBUSY');
      await release();
      this.#program.drop(object);
    };
    return {
      domid: mapping.domid,
      pages: mapping.pages,
      writable: mapping.writable,
      areas: mapping.areas,
      get bytes() {
        return mapping.bytes;
      },
      [Symbol.asyncDispose]: () => this.#call('unmap', unmap),
    };
  }

  #shared(shared: SharedPages): SharedPages {
    const object = this.#keepUntilEnded(() => shared.end());
    return {
      domid: shared.domid,
      writable: shared.writable,
      refs: shared.refs,
      get bytes() {
        return shared.bytes;
      },
      end: () => this.#end(object, shared.refs.length, () => shared.end()),
      [Symbol.asyncDispose]: () =>
        this.#call('unshare', async () => {
          await shared[Symbol.asyncDispose]();
          this.#program.drop(object);
        }),
    };
  }

  #lent(lent: LentPages): LentPages {
    const object = this.#keepUntilEnded(() => lent.end());
    return {
      domid: lent.domid,
      writable: lent.writable,
      refs: lent.refs,
      end: () => this.#end(object, lent.refs.length, () => lent.end()),
    };
  }

  #end(object: KernelObject, pages: number, end: () => Promise<GivenBack>): Promise<GivenBack> {
    return this.#call('end', async () => {
      if (this.#faults.strikes('end-refused')) return { heldPages: pages, evidence: 'a fault' };
      const given = await end();
      if (given.heldPages === 0) this.#program.drop(object);
      return given;
    });
  }

  #exported(exported: ExportedRefs): ExportedRefs {
    const object = this.#keep(async () => {
      exported.close();
      return exported.released();
    });
    const released = async () => {
      if (this.#faults.strikes('end-refused')) return false;
      const over = await exported.released();
      if (over) this.#program.drop(object);
      return over;
    };
    return {
      domid: exported.domid,
      pages: exported.pages,
      contiguity: exported.contiguity,
      fd: exported.fd,
      close: () => exported.close(),
      released: () => this.#call('released', released),
    };
  }

  #pool(pool: MemoryPool): MemoryPool {
    const object = this.#keep(async () => {
      await pool[Symbol.asyncDispose]();
      return true;
    });
    return {
      pages: pool.pages,
      get freePages() {
        return pool.freePages;
      },
      allocate: (pages) =>
        this.#call('allocate', async () => {
          this.#lack('no-memory', 'ENOMEM', 'pool allocation');
          return this.#buffer(await pool.allocate(pages));
        }),
      [Symbol.asyncDispose]: () =>
        this.#call('closePool', async () => {
          await pool[Symbol.asyncDispose]();
          this.#program.drop(object);
        }),
    };
  }

  /** The buffer itself, as only that can be lent. */
  #buffer(buffer: LocalBuffer): LocalBuffer {
    const free = buffer.free.bind(buffer);
    const object = this.#keepUntilEnded(free);
    const freed = () =>
      this.#call('free', async () => {
        const given = await free();
        if (given.heldPages === 0) this.#program.drop(object);
        return given;
      });
    return Object.defineProperty(buffer, 'free', { value: freed, configurable: true });
  }

  #channel(channel: EventChannel): EventChannel {
    const close = () => channel[Symbol.asyncDispose]();
    const release = async () => {
      await close();
      return true;
    };
    const object: KernelObject = { file: true, release };
    this.#program.keep(object);
    const opened: EventChannel = {
      port: channel.port,
      notify: () => this.#notify(channel),
      [Symbol.asyncDispose]: () =>
        this.#call('closePort', async () => {
          await close();
          this.#program.drop(object);
        }),
    };
    this.#channels.set(opened, channel);
    return opened;
  }

  #notify(channel: EventChannel): void {
    if (!this.#program.calls('notify')) return;
    const lost = this.#faults.strikes('notification-lost');
    if (!lost) channel.notify();
    if (!lost && !this.#faults.strikes('notification-spurious')) return;
    const delayMs = this.#faults.measure('notification-lost', ...NOTICED_AFTER_MS);
    this.#runtime.after(delayMs, () => channel.notify());
  }

  #keep(release: () => Promise<boolean>): KernelObject {
    const object = { release };
    this.#program.keep(object);
    return object;
  }

  #keepUntilEnded(end: () => Promise<GivenBack>): KernelObject {
    return this.#keep(async () => (await end()).heldPages === 0);
  }
}
