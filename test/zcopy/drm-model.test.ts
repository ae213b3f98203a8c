// Whatever is called on a device of drm-xen-zcopy.ts, in whatever order and at the same time, with right and
// wrong arguments: every answer is one that is documented, handles name what they should, nothing is left.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { GuestDomain } from '../../src/hypervisor/guest-domain.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { type Runtime, sleep } from '../../src/runtime/runtime.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import type { GemRelease } from '../../src/zcopy/drm-xen-zcopy.ts';
import type { SharingDomain } from '../../src/zcopy/zcopy.ts';
import { type DrmWorld, onDevice } from './drm-world.ts';
import { TestDevice } from './world.ts';

const RUNS = 60;
const DUMB = { width: 64, height: 16, bpp: 32 };
/** Handles of the device: few, so that they run out. */
const MAX_HANDLES = 5;
/** How long the longest hypercall takes. */
const SLOW_MS = 20;
const ERRNOS = ['EINVAL', 'EBUSY', 'ENOMEM', 'ENOENT', 'ETIMEDOUT', 'EBADF', 'EOPNOTSUPP'];

const CALLS = ['from', 'import', 'to', 'close', 'wait', 'attach', 'detach', 'pause'] as const;
const call = fc.record({ what: fc.constantFrom(...CALLS), handle: fc.nat(MAX_HANDLES + 1) });
type Call = { readonly what: (typeof CALLS)[number]; readonly handle: number };

/** Calls that take their time, so that others come in between. */
function slow(domain: SharingDomain, runtime: Runtime): SharingDomain {
  const delay = () => sleep(runtime, runtime.random.below(SLOW_MS));
  const { grants, foreign } = domain;
  return {
    grants: {
      share: (request) => grants.share(request),
      lend: (request) => delay().then(() => grants.lend(request)),
    },
    foreign: {
      map: (request) => delay().then(() => foreign.map(request)),
      export: (request) => delay().then(() => foreign.export(request)),
    },
  };
}

class Driver {
  readonly #world: DrmWorld;
  readonly #guest: GuestDomain;
  readonly #attached: Disposable[] = [];
  readonly #endings: GemRelease[] = [];
  readonly #named = new Set<number>();
  readonly #waitHandles = new Set<number>();
  readonly #calls: Promise<void>[] = [];

  constructor(world: DrmWorld) {
    this.#world = world;
    this.#guest = world.guest('alice');
  }

  /** Calls, and does not wait for the answer. */
  async call({ what, handle }: Call): Promise<void> {
    const { run, pause, device } = this.#world;
    if (what === 'pause') return pause(10);
    if (what === 'detach') return this.#attached.pop()?.[Symbol.dispose]();
    const shared = await this.#guest.grants.share({ domid: DOM0, pages: 1, writable: true });
    const memory = await this.#world.dom0.memory.allocate({ pages: 1, contiguity: 'none' });
    const otherend_id = this.#guest.domid;
    const calls = {
      from: async () => {
        const { refs } = shared;
        const request = { num_grefs: 1, grefs: refs, otherend_id, dumb: DUMB };
        const { dumb, wait_handle } = await device.dumbFromRefs(request);
        this.#name(dumb.handle);
        assert(!this.#waitHandles.has(wait_handle), 'a wait handle is never used again');
        this.#waitHandles.add(wait_handle);
      },
      import: async () => this.#name(device.primeBufferToHandle(memory)),
      to: async () => {
        const { grefs } = await device.dumbToRefs({ num_grefs: 1, otherend_id, handle });
        assert.equal(grefs.length, 1);
      },
      close: async () => {
        const ending = device.gemClose(handle);
        assert(this.#named.delete(handle), 'what named nothing cannot be closed');
        this.#endings.push(ending);
      },
      wait: () => device.dumbWaitFree({ wait_handle: handle, wait_to_ms: 15 }),
      attach: async () => {
        this.#attached.push(new TestDevice().attach(device.primeHandleToBuffer(handle)));
      },
    };
    const answered = calls[what]().catch((error: unknown) => {
      assert(error instanceof SysError && ERRNOS.includes(error.errnoName), String(error));
      return what === 'import' ? memory.free().then(() => {}) : undefined;
    });
    if (what !== 'import') await memory.free();
    this.#calls.push(answered);
    // Not later than now, when it fails: nobody waits for it yet.
    answered.catch(() => {});
    if (handle === 0) await run(answered);
  }

  #name(handle: number): void {
    assert(!this.#named.has(handle), `handle ${handle} names two buffers`);
    this.#named.add(handle);
  }

  async finish(): Promise<void> {
    const { run, device, frames, mapped } = this.#world;
    for (const attached of this.#attached) attached[Symbol.dispose]();
    await run(Promise.all(this.#calls));
    for (const attached of this.#attached) attached[Symbol.dispose]();
    await run(device[Symbol.asyncDispose]());
    await run(Promise.all(this.#endings.map(({ released }) => released)));
    assert.deepEqual([frames(), mapped()], [0, 0]);
  }
}

test('whatever is called in whatever order, handles name one buffer and nothing is left', async () => {
  const calls = fc.array(call, { minLength: 5, maxLength: 40, size: 'max' });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1 }), calls, (seed, made) =>
      onDevice(
        async (world) => {
          const driver = new Driver(world);
          for (const one of made) await driver.call(one);
          await driver.finish();
        },
        { seed, maxHandles: MAX_HANDLES, domain: slow },
      ),
    ),
    { numRuns: RUNS },
  );
});
