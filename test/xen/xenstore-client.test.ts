import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SysError } from '../../src/runtime/errors.ts';
import { World } from '../hypervisor/xenstored/world.ts';

/** A check for `assert.rejects`: a SysError with that errno. */
function errno(errnoName: string) {
  return (error: unknown) => error instanceof SysError && error.errnoName === errnoName;
}

test('values, directories and removal', async () => {
  const world = new World(1);
  const store = world.client(0);
  await world.run(store.write('/a/b', 'grüße\0und mehr'));
  assert.equal(await world.run(store.read('/a/b')), 'grüße\0und mehr');
  assert.equal(await world.run(store.read('/a')), '');
  assert.equal(await world.run(store.read('/nothing/here')), undefined);
  await world.run(store.mkdir('/a/c'));
  assert.deepEqual(await world.run(store.directory('/a')), ['b', 'c']);
  assert.deepEqual(await world.run(store.directory('/a/c')), []);
  assert.equal(await world.run(store.directory('/x')), undefined);
  await world.run(store.remove('/a'));
  await world.run(store.remove('/a/b/c'));
  assert.equal(await world.run(store.directory('/a')), undefined);
});

test('a watch hears of its registration, of changes below, and nothing after it is disposed', async () => {
  const world = new World(2);
  const store = world.client(0);
  const other = world.client(0);
  const heard: string[] = [];
  const watch = await world.run(store.watch('/dev', (path) => heard.push(path)));
  await world.idle();
  assert.deepEqual(heard.splice(0), ['/dev']);
  await world.run(other.write('/dev/0/state', '1'));
  await world.run(other.write('/elsewhere', '1'));
  await world.idle();
  assert.deepEqual(heard.splice(0), ['/dev/0/state']);
  await world.run(watch[Symbol.asyncDispose]());
  await world.run(watch[Symbol.asyncDispose]());
  await world.run(other.write('/dev/0/state', '2'));
  await world.idle();
  assert.deepEqual(heard, []);
});

test('a transaction is invisible until it commits, and aborted when its body throws', async () => {
  const world = new World(3);
  const store = world.client(0);
  const other = world.client(0);
  const result = await world.run(
    store.transaction(async (access) => {
      await access.write('/t', 'inside');
      assert.equal(await access.read('/t'), 'inside');
      assert.equal(await other.read('/t'), undefined);
      return 7;
    }),
  );
  assert.equal(result, 7);
  assert.equal(await world.run(other.read('/t')), 'inside');
  const failing = store.transaction(async (access) => {
    await access.write('/t', 'never');
    throw new Error('changed my mind');
  });
  await assert.rejects(world.run(failing), /changed my mind/);
  assert.equal(await world.run(other.read('/t')), 'inside');
});

test('errors say the call, the path and the errno', async () => {
  const world = new World(4);
  const guest = world.client(3);
  await assert.rejects(world.run(guest.write('/tool/x', '1')), (error) => {
    assert(error instanceof SysError);
    assert.equal(error.call, 'XS_WRITE');
    assert.equal(error.errnoName, 'EACCES');
    assert.match(error.message, /writing \/tool\/x/);
    return true;
  });
  await assert.rejects(world.run(world.client(0).write('/x', 'v'.repeat(5000))), errno('E2BIG'));
});

test('when the connection is over everything outstanding rejects and `closed` says why', async () => {
  const world = new World(5);
  const store = world.client(4);
  const reading = store.read('/local');
  world.server.releaseDomain(4 as never);
  await assert.rejects(world.run(reading), errno('ECONNRESET'));
  assert.match((await world.run(store.closed))?.message ?? '', /the other end closed/);
  await assert.rejects(store.read('/local'), errno('ECONNRESET'));

  const own = world.client(0);
  await own[Symbol.asyncDispose]();
  assert.equal(await own.closed, undefined);
});
