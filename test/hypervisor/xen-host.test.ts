import assert from 'node:assert/strict';
import { test } from 'node:test';
import { leakReport } from '../../src/hypervisor/books.ts';
import { XenHost } from '../../src/hypervisor/xen-host.ts';
import { SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { DriverPlayer, playInGuest } from './ping-pong.ts';

interface VirtualHost {
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  /** The value of a promise that needs the virtual world to go on. */
  run<T>(promise: Promise<T>): Promise<T>;
}

/** A host in virtual time; when `body` is over its guests must be gone and its books empty. */
async function onVirtualHost(seed: number, body: (world: VirtualHost) => Promise<void>) {
  const runtime = new VirtualRuntime(seed);
  const run = async <T>(promise: Promise<T>): Promise<T> => {
    let settled = false;
    const settle = () => {
      settled = true;
    };
    promise.then(settle, settle);
    await runtime.runUntil(() => settled, { what: 'a promise of the test', maxSteps: 1_000_000 });
    return promise;
  };
  const host = await run(XenHost.start({ runtime, machineFrames: 16_384 }));
  const empty = host.hypervisor.memory.freeFrames;
  await body({ runtime, host, run });
  assert.deepEqual(host.guests, []);
  const clean = () => leakReport(host.hypervisor.books()).length === 0;
  await runtime.runUntil(clean, { what: 'dom0 got back what it had lent' });
  assert.equal(host.hypervisor.memory.freeFrames, empty);
  assert.deepEqual(await run(host.dom0.store.directory('/local/domain')), ['0']);
  await run(host[Symbol.asyncDispose]());
}

test('the game of the worker test in one thread, in every order that a seed gives', async () => {
  for (let seed = 1; seed <= 12; seed++) {
    await onVirtualHost(seed, async ({ runtime, host, run }) => {
      const rounds = 40;
      const guest = await run(host.createGuest({ name: 'player' }));
      const domain = host.enter(guest);
      const playing = playInGuest(domain, rounds);
      const player = await run(DriverPlayer.meet(host.dom0, { domid: guest.domid, rounds }));
      await run(playing);
      await runtime.runUntil(() => player.hits >= rounds, { what: 'the last hit' });
      player.assertShared();
      await run(player[Symbol.asyncDispose]());
      await run(domain[Symbol.asyncDispose]());
      await run(guest.destroy());
      assert.equal(await guest.gone, 'destroyed');
    });
  }
});

test('a guest that crashes anywhere in the game leaves nothing behind', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    await onVirtualHost(seed, async ({ runtime, host, run }) => {
      const guest = await run(host.createGuest({ name: 'player' }));
      const domain = host.enter(guest);
      playInGuest(domain, 1_000).catch((error) => assert(error instanceof SysError));
      const { domid } = guest;
      const meeting = DriverPlayer.meet(host.dom0, { domid, rounds: 1_000 }).catch(() => undefined);
      for (let steps = runtime.random.below(150); steps > 0; steps--) await runtime.step();
      guest.crash();
      assert.equal(await run(guest.gone), 'crash');
      const player = await Promise.race([meeting, Promise.resolve(undefined)]);
      if (player) await run(player[Symbol.asyncDispose]());
    });
  }
});

test('what xl create writes: home, display, keyboard, and who may do what with it', () =>
  onVirtualHost(1, async ({ host, run }) => {
    const guest = await run(
      host.createGuest({
        name: 'desk',
        displays: [
          { uniqueId: 'left', width: 1920, height: 1080 },
          { uniqueId: 'right', width: 640, height: 480 },
        ],
        keyboard: { absolute: { width: 1920, height: 1080 } },
      }),
    );
    const { store } = host.dom0;
    const { domid } = guest;
    const home = `/local/domain/${domid}`;
    const expected: Record<string, string> = {
      [`${home}/name`]: 'desk',
      [`${home}/domid`]: `${domid}`,
      [`${home}/device/vdispl/0/backend`]: `/local/domain/0/backend/vdispl/${domid}/0`,
      [`${home}/device/vdispl/0/backend-id`]: '0',
      [`${home}/device/vdispl/0/state`]: '1',
      [`${home}/device/vdispl/0/be-alloc`]: '0',
      [`${home}/device/vdispl/0/0/resolution`]: '1920x1080',
      [`${home}/device/vdispl/0/0/unique-id`]: 'left',
      [`${home}/device/vdispl/0/1/resolution`]: '640x480',
      [`${home}/device/vdispl/0/1/unique-id`]: 'right',
      [`/local/domain/0/backend/vdispl/${domid}/0/frontend`]: `${home}/device/vdispl/0`,
      [`/local/domain/0/backend/vdispl/${domid}/0/frontend-id`]: `${domid}`,
      [`/local/domain/0/backend/vdispl/${domid}/0/online`]: '1',
      [`/local/domain/0/backend/vdispl/${domid}/0/state`]: '1',
      [`${home}/device/vkbd/0/backend`]: `/local/domain/0/backend/vinput/${domid}/0`,
      [`/local/domain/0/backend/vinput/${domid}/0/frontend`]: `${home}/device/vkbd/0`,
      [`/local/domain/0/backend/vinput/${domid}/0/feature-abs-pointer`]: '1',
      [`/local/domain/0/backend/vinput/${domid}/0/width`]: '1920',
      [`/local/domain/0/backend/vinput/${domid}/0/height`]: '1080',
    };
    for (const [path, value] of Object.entries(expected)) {
      assert.equal(await run(store.read(path)), value, path);
    }
    const vm = await run(store.read(`${home}/vm`));
    assert.match(vm!, /^\/vm\/[0-9a-f-]{36}$/);
    assert.equal(await run(store.read(`${vm}/name`)), 'desk');

    const { store: mine } = host.enter(guest);
    const allowed = (path: string) => run(mine.write(`${home}/${path}`, 'x'));
    const refused = (path: string) =>
      assert.rejects(
        run(mine.write(path, 'x')),
        (error) => error instanceof SysError && error.errnoName === 'EACCES',
        path,
      );
    for (const key of ['device/vdispl/0/state', 'device/vkbd/0/page-gref', 'control/shutdown']) {
      await allowed(key);
    }
    await refused(`${home}/name`);
    await refused(`${home}/device/vdispl/0/0/resolution`);
    await refused(`${home}/device/vdispl/0/0/unique-id`);
    await refused(`${home}/device/vdispl/0/be-alloc`);
    await refused(`${home}/device/vdispl/1/state`);
    await refused(`/local/domain/0/backend/vdispl/${domid}/0/state`);
    assert.equal(await run(mine.read(`/local/domain/0/backend/vdispl/${domid}/0/state`)), '1');
    await assert.rejects(run(mine.read('/local/domain/0/backend/vdispl/7/0/state')), SysError);

    await run(guest.destroy());
    assert.equal(await run(store.read(home)), undefined);
    assert.equal(await run(store.read(vm!)), undefined);
    for (const type of ['vdispl', 'vinput']) {
      const backends = await run(store.directory(`/local/domain/0/backend/${type}`));
      assert.deepEqual(backends, [], 'nothing of the guest is left with the backend');
    }
  }));

test('those who watch hear of a guest that comes, crashes and goes', () =>
  onVirtualHost(3, async ({ host, run, runtime }) => {
    const heard: string[] = [];
    const watches = [];
    for (const path of ['@introduceDomain', '@releaseDomain']) {
      watches.push(await run(host.dom0.store.watch(path, () => heard.push(path))));
    }
    await runtime.runUntil(() => heard.length === 2, { what: 'the first calls' });
    const guest = await run(host.createGuest({ name: 'short' }));
    await runtime.runUntil(() => heard[2] === '@introduceDomain', { what: 'word of its coming' });
    guest.crash();
    await run(guest.gone);
    await runtime.runUntil(() => heard.includes('@releaseDomain', 3), { what: 'word of its end' });
    for (const watch of watches) await run(Promise.resolve(watch[Symbol.asyncDispose]()));
  }));

test('a guest without room for its xenstore page is not created, and nothing of it stays', () =>
  onVirtualHost(1, async ({ host, run }) => {
    await assert.rejects(
      run(host.createGuest({ name: 'tiny', limits: { maxFrames: 0 } })),
      (error) => error instanceof SysError && error.errnoName === 'ENOMEM',
    );
  }));

test('a guest that is destroyed while it is being made leaves no nodes behind (simulated world 1498481424)', async () => {
  await onVirtualHost(1, async ({ runtime, host, run }) => {
    const displays = [{ uniqueId: 'screen', width: 64, height: 48 }];
    for (let steps = 0; steps < 120; steps += 3) {
      const creating = host.createGuest({ name: 'guest', displays }).catch(() => undefined);
      for (let step = 0; step < steps; step++) await runtime.step();
      const [guest] = host.guests;
      await run(Promise.all([creating, guest!.destroy()]));
      const left = await run(host.dom0.store.directory('/local/domain/0/backend/vdispl'));
      assert.deepEqual(left ?? [], [], `destroyed after ${steps} steps`);
    }
  });
});
