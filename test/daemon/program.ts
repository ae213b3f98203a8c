// A program in domain 0 that can be killed, under virtual time: its code never runs again after that, and the
// kernel closes its files. That is, what it had mapped is unmapped, its ports are closed, its connection to
// xenstored ends, and memory that it lent comes back when the other domain lets go, and not before.
//
// A program does something to the world only by its runtime and its domain, so those two are where it ends.

import type { XenHost } from '../../src/hypervisor/xen-host.ts';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';
import type { Domain } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import type { GivenBack } from '../../src/xen/memory.ts';
import { bytePipe } from '../../src/xen/pipe.ts';
import { XenstoreClient } from '../../src/xen/xenstore-client.ts';

/** How often the kernel looks whether somebody still uses pages that a dead program had lent. */
const KERNEL_RETRY_MS = 100;

/** Calls of a resource that give nothing back to wait for. */
const SYNCHRONOUS = new Set<PropertyKey>(['notify', 'close']);

type Resource = object;
type Release = () => PromiseLike<unknown>;

export class Program {
  readonly runtime: Runtime;
  readonly domain: Domain;
  readonly #host: XenHost;
  readonly #store: XenstoreClient;
  /** What the kernel does when the program is gone, by what it holds. */
  readonly #held = new Map<Resource, Release>();
  /** The provider's own object behind each that the program has. */
  readonly #behind = new WeakMap<Resource, Resource>();
  readonly #dying: PromiseLike<unknown>[] = [];
  #calls = 0;
  #lastCall = Number.POSITIVE_INFINITY;
  #failing: { readonly call: number; readonly error: Error } | undefined;
  #alive = true;

  constructor(host: XenHost) {
    this.#host = host;
    const { runtime } = host;
    const [client, server] = bytePipe(runtime);
    host.xenstored.accept({ channel: server, domid: DOM0 });
    this.#store = new XenstoreClient({ runtime, channel: client });
    this.runtime = {
      random: runtime.random,
      log: runtime.log,
      nowMs: () => runtime.nowMs(),
      wallMs: () => runtime.wallMs(),
      after: (delayMs, task) => runtime.after(delayMs, () => this.#run(task)),
      defer: (task) => runtime.defer(() => this.#run(task)),
    };
    this.domain = this.#ownDomain();
  }

  /** How many calls it made of the hypervisor and of xenstored. */
  get calls(): number {
    return this.#calls;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Kills it as it is about to make its call number `calls`. */
  killAtCall(calls: number): void {
    this.#lastCall = calls - 1;
  }

  /**
   * Its call number `call` does nothing and throws. Closing a port is no such call: Xen refuses it for other domains'
   * ports alone.
   */
  failCall(call: number, error: Error): void {
    this.#failing = { call, error };
  }

  /** SIGKILL. */
  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#dying.push(this.#store[Symbol.asyncDispose]());
    for (const release of [...this.#held.values()].reverse()) this.#dying.push(release());
    this.#held.clear();
  }

  /** Resolves when nobody has anything of the dead program's. */
  async buried(): Promise<void> {
    while (this.#dying.length > 0) await this.#dying.pop();
  }

  #run(task: () => void): void {
    if (this.#alive) task();
  }

  /** One call into the world; a dead program makes none, and learns nothing of one that was under way. */
  async #call<T>(
    make: () => Promise<T>,
    arrived: (result: T) => T = (result) => result,
    { mayFail = true } = {},
  ): Promise<T> {
    if (!this.#counted({ mayFail })) return forever();
    let result: T;
    try {
      result = await make();
    } catch (error) {
      if (this.#alive) throw error;
      return forever();
    }
    const own = arrived(result);
    return this.#alive ? own : forever();
  }

  #counted({ mayFail = true } = {}): boolean {
    if (this.#calls >= this.#lastCall) this.kill();
    if (!this.#alive) return false;
    this.#calls += 1;
    if (mayFail && this.#calls === this.#failing?.call) throw this.#failing.error;
    return true;
  }

  /** `resource` as the program has it, and the kernel's duty to `release` it when the program is gone. */
  #own<T extends Resource>(resource: T, release: Release): T {
    if (this.#alive) this.#held.set(resource, release);
    else this.#dying.push(release());
    // What is defined on it (the charge that goes with its release) is the program's, and not the provider's.
    const own = Object.create(Object.getPrototypeOf(resource)) as T;
    const proxy = new Proxy(own, {
      has: (_own, key) => key in own || key in resource,
      get: (_own, key) => {
        if (Object.hasOwn(own, key)) return Reflect.get(own, key);
        const value: unknown = Reflect.get(resource, key, resource);
        if (typeof value !== 'function') return value;
        return this.#callable(resource, key, value.bind(resource));
      },
    });
    this.#behind.set(proxy, resource);
    return proxy;
  }

  #callable(resource: Resource, key: PropertyKey, method: (...args: unknown[]) => unknown) {
    if (SYNCHRONOUS.has(key)) {
      return (...args: unknown[]) => (this.#counted() ? method(...args) : undefined);
    }
    const release = key === Symbol.asyncDispose;
    return (...args: unknown[]) =>
      this.#call(
        async () => {
          const result = await method(...args);
          if (release || isOver(result)) this.#held.delete(resource);
          return result;
        },
        undefined,
        { mayFail: !(release && 'notify' in resource) },
      );
  }

  #disposable<T extends AsyncDisposable>(resource: T): T {
    return this.#own(resource, resource[Symbol.asyncDispose].bind(resource));
  }

  /** Memory of ours, or given to others: the kernel tries until nobody uses it. */
  #lasting<T extends Resource>(resource: T, tryOnce: () => Promise<GivenBack>): T {
    return this.#own(resource, async () => {
      while ((await tryOnce()).heldPages > 0) await sleep(this.#host.runtime, KERNEL_RETRY_MS);
    });
  }

  #ownDomain(): Domain {
    const { grants, foreign, memory, events } = this.#host.dom0;
    const store = this.#store;
    const disposable = <T extends AsyncDisposable>(one: T) => this.#disposable(one);
    return {
      domid: DOM0,
      provider: 'hypervisor',
      grants: {
        share: (request) => this.#call(() => grants.share(request), disposable),
        lend: (request) => {
          const buffer = this.#behind.get(request.buffer) as typeof request.buffer;
          return this.#call(
            () => grants.lend({ ...request, buffer }),
            (lent) => this.#own(lent, lent.end.bind(lent)),
          );
        },
      },
      foreign: {
        map: (request) => this.#call(() => foreign.map(request), disposable),
        export: () => Promise.reject(new Error('no output of these tests imports buffers')),
      },
      memory: {
        allocate: (request) =>
          this.#call(
            () => memory.allocate(request),
            (buffer) => this.#lasting(buffer, buffer.free.bind(buffer)),
          ),
        adopt: () => memory.adopt(),
        createPool: (request) =>
          this.#call(
            () => memory.createPool(request),
            (pool) => {
              const allocate = pool.allocate.bind(pool);
              pool.allocate = async (pages) => {
                const buffer = await allocate(pages);
                return this.#lasting(buffer, buffer.free.bind(buffer));
              };
              return this.#disposable(pool);
            },
          ),
      },
      events: {
        allocUnbound: (request) => this.#call(() => events.allocUnbound(request), disposable),
        bindInterdomain: (request) =>
          this.#call(
            () =>
              events.bindInterdomain({
                ...request,
                handler: () => (this.#alive ? request.handler() : undefined),
              }),
            disposable,
          ),
      },
      store: {
        read: (path) => this.#call(() => store.read(path)),
        directory: (path) => this.#call(() => store.directory(path)),
        write: (path, value) => this.#call(() => store.write(path, value)),
        mkdir: (path) => this.#call(() => store.mkdir(path)),
        remove: (path) => this.#call(() => store.remove(path)),
        getPermissions: (path) => this.#call(() => store.getPermissions(path)),
        setPermissions: (path, permissions) =>
          this.#call(() => store.setPermissions(path, permissions)),
        transaction: (body) =>
          this.#call(() =>
            store.transaction((access) =>
              body({
                read: (path) => this.#call(() => access.read(path)),
                directory: (path) => this.#call(() => access.directory(path)),
                write: (path, value) => this.#call(() => access.write(path, value)),
                mkdir: (path) => this.#call(() => access.mkdir(path)),
                remove: (path) => this.#call(() => access.remove(path)),
                getPermissions: (path) => this.#call(() => access.getPermissions(path)),
                setPermissions: (path, permissions) =>
                  this.#call(() => access.setPermissions(path, permissions)),
              }),
            ),
          ),
        watch: (path, onEvent) =>
          this.#call(
            () => store.watch(path, (changed) => this.#run(() => onEvent(changed))),
            disposable,
          ),
      },
      [Symbol.asyncDispose]: () => this.#store[Symbol.asyncDispose](),
    };
  }
}

/** What nobody is there for to learn. */
function forever(): Promise<never> {
  return new Promise(() => {});
}

/** Whether this is the word that nothing of something is held any more. */
function isOver(result: unknown): boolean {
  return (
    typeof result === 'object' && result !== null && 'heldPages' in result && result.heldPages === 0
  );
}
