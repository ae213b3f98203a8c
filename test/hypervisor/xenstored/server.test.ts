// Domains, quotas, transactions and watches through the protocol, as clients meet them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  XS_CONTROL,
  XS_GET_DOMAIN_PATH,
  XS_INTRODUCE,
  XS_IS_DOMAIN_INTRODUCED,
  XS_RELEASE,
  XS_RESET_WATCHES,
  XS_RESUME,
  XS_SET_TARGET,
  XS_TRANSACTION_START,
  XS_WATCH,
} from '../../../src/abi/xs-wire.ts';
import { DEFAULT_QUOTAS } from '../../../src/hypervisor/xenstored/quotas.ts';
import { type IntroduceRequest, Xenstored } from '../../../src/hypervisor/xenstored/server.ts';
import { SysError } from '../../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../../src/runtime/virtual.ts';
import { domId } from '../../../src/xen/ids.ts';
import { bytePipe } from '../../../src/xen/pipe.ts';
import type { PacedByteChannel, XenstorePermission } from '../../../src/xen/xenstore.ts';
import { parsePermission } from '../../../src/xen/xenstore-permission.ts';
import { RawClient, World } from './world.ts';

function errno(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

function permissions(...texts: string[]): XenstorePermission[] {
  return texts.map((text) => parsePermission(text)!);
}

/** A world with a guest that has its own directory, as the toolstack makes it. */
async function worldWithGuest(seed = 1, quotas = DEFAULT_QUOTAS) {
  const world = new World(seed, quotas);
  const dom0 = world.client(0);
  const guest = world.client(5);
  await world.run(dom0.mkdir('/local/domain/5'));
  await world.run(dom0.setPermissions('/local/domain/5', permissions('n5')));
  return { world, dom0, guest };
}

test('a guest writes below its own directory, reads what it is shown, and nothing else', async () => {
  const { world, dom0, guest } = await worldWithGuest();
  await world.run(guest.write('/local/domain/5/device/x', '1'));
  assert.deepEqual(
    await world.run(dom0.getPermissions('/local/domain/5/device/x')),
    permissions('n5'),
  );
  await world.run(dom0.write('/backend/5', 'b'));
  await assert.rejects(world.run(guest.read('/backend/5')), errno('EACCES'));
  await assert.rejects(world.run(guest.read('/no/such/node')), errno('EACCES'));
  await world.run(dom0.setPermissions('/backend/5', permissions('n0', 'r5')));
  assert.equal(await world.run(guest.read('/backend/5')), 'b');
  await assert.rejects(world.run(guest.write('/backend/5', 'mine')), errno('EACCES'));
  await assert.rejects(
    world.run(guest.setPermissions('/local/domain/5/device/x', permissions('n6'))),
    errno('EPERM'),
  );
  await world.run(guest.setPermissions('/local/domain/5/device/x', permissions('n5', 'b0')));
});

test('a domain that is released leaves no watch, transaction, node or permission behind', async () => {
  const { world, dom0, guest } = await worldWithGuest();
  const { server } = world;
  const heard: string[] = [];
  await world.run(guest.write('/local/domain/5/a/b', '1'));
  await world.run(dom0.write('/shared', ''));
  await world.run(dom0.setPermissions('/shared', permissions('n0', 'r5', 'r6')));
  await world.run(dom0.watch('/local/domain/5/a', (path) => heard.push(path)));
  await world.run(dom0.watch('@releaseDomain', (path) => heard.push(path)));
  await world.run(guest.watch('/local/domain/5', () => heard.push('guest')));
  const open = guest.transaction(async () => {
    server.releaseDomain(domId(5));
  });
  await assert.rejects(world.run(open), errno('ECONNRESET'));
  await world.idle();
  assert.ok(heard.includes('@releaseDomain'));
  assert.equal(heard.filter((path) => path === '/local/domain/5/a').length, 2);
  assert.equal(server.store.owned(domId(5)), 0);
  assert.deepEqual(await world.run(dom0.getPermissions('/shared')), permissions('n0', 'r6'));
  assert.deepEqual(await world.run(dom0.directory('/local/domain')), []);
  assert.equal(server.connections, 1);
  // The next domain of that number starts with nothing.
  const next = world.client(5);
  await assert.rejects(world.run(next.read('/shared')), errno('EACCES'));
});

test('XS_INTRODUCE connects the ring that the hypervisor has for the frame and the port', async () => {
  const runtime = new VirtualRuntime(10);
  const asked: IntroduceRequest[] = [];
  const guestEnds: PacedByteChannel[] = [];
  const server = new Xenstored({
    runtime,
    connectRing: (request) => {
      asked.push(request);
      const [guestEnd, serverEnd] = bytePipe(runtime);
      guestEnds.push(guestEnd);
      return serverEnd;
    },
  });
  const [channel, far] = bytePipe(runtime);
  server.accept({ channel: far, domid: domId(0) });
  const dom0 = new RawClient(channel);
  const answers: string[] = [];
  for (let i = 0; i < 2; i++) {
    void dom0.ask(XS_INTRODUCE, '6\0', '1234\0', '7\0').then((answer) => answers.push(answer));
  }
  await runtime.runUntil(() => answers.length === 2, { what: 'both are answered' });
  assert.deepEqual(answers, ['OK\0', 'OK\0']);
  assert.deepEqual(asked[0], { domid: 6, frame: '1234', port: 7 });
  const [replaced, current] = guestEnds.map((end) => new RawClient(end));
  void current!.ask(XS_GET_DOMAIN_PATH, '6\0').then((answer) => answers.push(answer));
  void replaced!.ask(XS_GET_DOMAIN_PATH, '6\0').then((answer) => answers.push(answer));
  await runtime.runUntil(() => answers.length === 4, { what: 'both ends have an answer' });
  assert.deepEqual(answers.slice(2).sort(), ['/local/domain/6\0', 'closed']);
});

test('the root stays when the domain that it was given to is released', async () => {
  const { world, dom0, guest } = await worldWithGuest();
  await world.run(dom0.setPermissions('/', permissions('n5', 'r5', 'r6')));
  await world.run(guest.write('/mine', '1'));
  await world.run(dom0.write('/mine-too', '1'));
  await world.run(dom0.setPermissions('/local', permissions('n0')));
  world.server.releaseDomain(domId(5));
  assert.deepEqual(await world.run(dom0.getPermissions('/')), permissions('n0', 'r6'));
  assert.deepEqual(await world.run(dom0.directory('/')), ['local']);
  assert.equal(await world.run(world.raw(0).ask(XS_CONTROL, 'check\0')), 'OK\0');
});

test('a node of a transaction does not outlive a release in between', async () => {
  const { world, dom0, guest } = await worldWithGuest();
  await world.run(dom0.setPermissions('/local/domain', permissions('b0', 'r5')));
  const late = dom0.transaction(async (access) => {
    await access.write('/local/domain/5/late', '1');
    if (world.server.isIntroduced(5)) world.server.releaseDomain(domId(5));
  });
  await world.run(late);
  await assert.rejects(world.run(guest.read('/local')), errno('ECONNRESET'));
  assert.equal(world.server.store.owned(domId(5)), 0);
});

test('shutdown is told once, again after a resume, and a domain hears of it when it is allowed to', async () => {
  const world = new World(3);
  const { server } = world;
  const dom0 = world.raw(0);
  const guest = world.client(5);
  const heard: string[] = [];
  await world.run(guest.watch('@releaseDomain', (path) => heard.push(path)));
  server.introduceDomain(domId(6));
  const shutdowns = async (count: number) => {
    for (let i = 0; i < count; i++) server.domainShutdown(domId(6));
    await world.idle();
    return heard.splice(0).length;
  };
  assert.equal(await shutdowns(1), 1, 'the registration alone');
  await world.run(dom0.ok(14, '@releaseDomain\0n0\0r5\0'));
  assert.equal(await shutdowns(1), 0, 'told already');
  await world.run(dom0.ok(XS_RESUME, '6\0'));
  assert.equal(await shutdowns(2), 1);
});

test('the requests about domains', async () => {
  const world = new World(4);
  const dom0 = world.raw(0);
  const guest = world.raw(5);
  assert.equal(await world.run(guest.ask(XS_GET_DOMAIN_PATH, '12\0')), '/local/domain/12\0');
  assert.equal(await world.run(guest.ask(XS_IS_DOMAIN_INTRODUCED, '5\0')), 'EACCES\0');
  assert.equal(await world.run(dom0.ask(XS_IS_DOMAIN_INTRODUCED, '5\0')), 'T\0');
  assert.equal(await world.run(dom0.ask(XS_IS_DOMAIN_INTRODUCED, '6\0')), 'F\0');
  assert.equal(await world.run(dom0.ask(XS_INTRODUCE, '6\0', '1\0', '2\0')), 'ENOSYS\0');
  assert.equal(await world.run(dom0.ask(XS_INTRODUCE, '0\0', '1\0', '2\0')), 'EINVAL\0');
  for (const type of [XS_INTRODUCE, XS_RELEASE, XS_RESUME, XS_SET_TARGET, XS_CONTROL]) {
    assert.equal(await world.run(guest.ask(type, '6\0', '5\0', '1\0')), 'EACCES\0');
  }
  assert.equal(await world.run(dom0.ask(XS_RELEASE, '7\0')), 'ENOENT\0');
  assert.equal(await world.run(dom0.ask(XS_CONTROL, 'help\0')), 'check\nhelp\nprint\0');
  assert.equal(await world.run(dom0.ask(XS_CONTROL, 'check\0')), 'OK\0');
  assert.equal(await world.run(dom0.ask(XS_CONTROL, 'live-update\0')), 'ENOSYS\0');
  assert.equal(await world.run(dom0.ask(XS_CONTROL, 'constructor\0')), 'EINVAL\0');
  assert.equal(await world.run(dom0.ask(99, '')), 'ENOSYS\0');
  assert.equal(await world.run(dom0.ask(XS_RELEASE, '5\0')), 'OK\0');
  assert.equal(await world.run(guest.ask(XS_GET_DOMAIN_PATH, '1\0')), 'closed');
});

test('a domain has the rights of its target, as a device model needs, until the target is gone', async () => {
  const { world, guest } = await worldWithGuest();
  const dom0 = world.raw(0);
  const model = world.client(9);
  await world.run(guest.write('/local/domain/5/x', '1'));
  await assert.rejects(world.run(model.read('/local/domain/5/x')), errno('EACCES'));
  await world.run(dom0.ok(XS_SET_TARGET, '9\0', '5\0'));
  assert.equal(await world.run(model.read('/local/domain/5/x')), '1');
  await world.run(model.write('/local/domain/5/x', '2'));
  world.server.releaseDomain(domId(5));
  await world.run(dom0.ok(11, '/local/domain/5\0'));
  await assert.rejects(world.run(model.read('/local/domain/5')), errno('EACCES'));
});

test('each quota refuses the next one with its errno, and the books stay right', async () => {
  const quotas = { ...DEFAULT_QUOTAS, nodes: 10, watches: 3, transactions: 2, transactionNodes: 6 };
  const { world, dom0, guest } = await worldWithGuest(6, quotas);
  const own = '/local/domain/5';
  const raw = world.raw(5);

  for (let i = 0; i < 9; i++) await world.run(guest.write(`${own}/${i}`, ''));
  await assert.rejects(world.run(guest.write(`${own}/10`, '')), errno('ENOSPC'));
  assert.equal(world.server.store.owned(domId(5)), 10);
  await world.run(guest.remove(`${own}/0`));
  await assert.rejects(world.run(guest.write(`${own}/deep/er`, '')), errno('ENOSPC'));
  await world.run(guest.write(`${own}/10`, ''));
  await world.run(dom0.write('/dom0/has/no/such/limit', ''));

  await assert.rejects(world.run(guest.write(`${own}/1`, 'x'.repeat(2048))), errno('ENOSPC'));
  await world.run(guest.write(`${own}/1`, 'x'.repeat(2000)));
  const six = permissions('n5', 'r1', 'r2', 'r3', 'r4', 'r6');
  await assert.rejects(world.run(guest.setPermissions(`${own}/1`, six)), errno('ENOSPC'));

  for (let i = 0; i < 3; i++)
    assert.equal(await world.run(raw.ask(XS_WATCH, 'x\0', `${i}\0`)), 'OK\0');
  assert.equal(await world.run(raw.ask(XS_WATCH, 'x\0', '9\0')), 'E2BIG\0');
  assert.equal(await world.run(raw.ask(XS_WATCH, 'x\0', '1\0')), 'EEXIST\0');

  for (let i = 1; i <= 2; i++)
    assert.equal(await world.run(raw.ask(XS_TRANSACTION_START, '\0')), `${i}\0`);
  assert.equal(await world.run(raw.ask(XS_TRANSACTION_START, '\0')), 'ENOSPC\0');
  assert.equal(await world.run(raw.ask(XS_RESET_WATCHES, '\0')), 'OK\0');
  assert.equal(await world.run(raw.ask(XS_TRANSACTION_START, '\0')), '3\0');
  assert.equal(await world.run(raw.ask(XS_WATCH, 'x\0', '9\0')), 'OK\0');

  const wide = guest.transaction(async (access) => {
    for (let i = 0; i < 9; i++) await access.read(`${own}/${i}`);
  });
  await assert.rejects(world.run(wide), errno('ENOSPC'));
  const stubborn = guest.transaction(async (access) => {
    for (let i = 0; i < 9; i++) await access.read(`${own}/${i}`).catch(() => {});
  });
  await assert.rejects(world.run(stubborn), errno('ENOMEM'));
  assert.equal(await world.run(world.raw(0).ask(XS_CONTROL, 'check\0')), 'OK\0');
});

test('transactions together may not own more nodes than the quota: the last one fails as a whole', async () => {
  const { world, guest } = await worldWithGuest(7, { ...DEFAULT_QUOTAS, nodes: 10 });
  const own = '/local/domain/5';
  for (const name of ['left', 'right']) await world.run(guest.mkdir(`${own}/${name}`));
  const fill = (name: string) =>
    guest.transaction(async (access) => {
      for (let i = 0; i < 5; i++) await access.write(`${own}/${name}/${i}`, '');
      await other;
    });
  let release: () => void = () => {};
  const other = new Promise<void>((resolve) => {
    release = resolve;
  });
  const both = Promise.allSettled([fill('left'), fill('right')]);
  await world.idle();
  release();
  const statuses = (await world.run(both)).map(({ status }) => status);
  assert.deepEqual(statuses.sort(), ['fulfilled', 'rejected']);
  assert.equal(world.server.store.owned(domId(5)), 8);
});

test('removing a node conflicts with a transaction that makes its sibling, and the other way round', async () => {
  const world = new World(8);
  const one = world.raw(0);
  const two = world.raw(0);
  for (const [inside, outside] of [
    [
      [13, '/p/old\0'],
      [11, '/p/new\0'],
    ],
    [
      [11, '/p/new\0'],
      [13, '/p/old\0'],
    ],
  ] as const) {
    await world.run(one.ok(13, '/p\0').catch(() => {}));
    await world.run(one.ok(11, '/p/old\0'));
    const id = Number.parseInt(await world.run(one.ask(XS_TRANSACTION_START, '\0')), 10);
    assert.equal(await world.run(one.askIn(id, inside[0], inside[1])), 'OK\0');
    await world.run(two.ok(outside[0], outside[1]));
    assert.equal(await world.run(one.askIn(id, 7, 'T\0')), 'EAGAIN\0');
  }
});

test('interleaved transactions of several clients all commit in the end, and none is lost', async () => {
  for (let seed = 0; seed < 8; seed++) {
    const world = new World(seed);
    const clients = [0, 0, 0, 0].map((domain) => world.client(domain));
    await world.run(clients[0]!.write('/counter', '0'));
    const increments = clients.flatMap((client) =>
      Array.from({ length: 6 }, () =>
        client.transaction(async (access) => {
          const count = Number(await access.read('/counter'));
          await access.write('/counter', String(count + 1));
        }),
      ),
    );
    await world.run(Promise.all(increments));
    assert.equal(await world.run(clients[0]!.read('/counter')), '24', `seed ${seed}`);
  }
});

test('a storm of conflicts ends in EAGAIN after a bounded number of attempts', async () => {
  const world = new World(9);
  const victim = world.client(0);
  const storm = world.client(0);
  let attempts = 0;
  const hopeless = victim.transaction(async (access) => {
    attempts++;
    await access.read('/contested');
    await storm.write('/contested', String(attempts));
  });
  await assert.rejects(world.run(hopeless), errno('EAGAIN'));
  assert.equal(attempts, 64);
});

test('watch events: relative paths stay relative, unreadable nodes are not told, removals reach below', async () => {
  const { world, dom0, guest } = await worldWithGuest();
  const raw = world.raw(5);
  await world.run(raw.ok(XS_WATCH, 'device\0', 'rel\0'));
  await world.run(raw.ok(XS_WATCH, '/\0', 'all\0'));
  await world.run(guest.write('/local/domain/5/device/vdispl/0/state', '1'));
  await world.run(dom0.write('/secret/of/dom0', '1'));
  await world.idle();
  assert.deepEqual(raw.events.splice(0), [
    'device\0rel\0',
    '/\0all\0',
    'device/vdispl/0/state\0rel\0',
    '/local/domain/5/device/vdispl/0/state\0all\0',
  ]);
  await world.run(raw.ok(XS_WATCH, 'device/vdispl/0\0', 'deep\0'));
  await world.run(dom0.remove('/local/domain/5/device'));
  await world.idle();
  assert.deepEqual(raw.events.splice(0).sort(), [
    '/local/domain/5/device\0all\0',
    'device\0rel\0',
    'device/vdispl/0\0deep\0',
    'device/vdispl/0\0deep\0',
  ]);
});
