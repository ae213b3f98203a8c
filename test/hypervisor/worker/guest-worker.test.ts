import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Guest } from '../../../src/hypervisor/guest.ts';
import type { XenHost } from '../../../src/hypervisor/xen-host.ts';
import { DriverPlayer } from '../ping-pong.ts';
import { eventually, onHost } from './host.ts';
import type { PlayerArguments } from './player-guest.ts';

const module = new URL('./player-guest.js', import.meta.url);
const FOR_EVER = 1_000_000_000;

function start(host: XenHost, args: PlayerArguments, name = 'player'): Promise<Guest> {
  return host.startGuestWorker({ name, module, arguments: args });
}

function hits(player: DriverPlayer, count: number): Promise<void> {
  return eventually(() => player.hits >= count, `${count} hits`);
}

test('a guest in a worker: memory both ways, events to and fro, an orderly end, empty books', () =>
  onHost(async (host) => {
    const rounds = 500;
    const guest = await start(host, { rounds, ending: 'shutdown' });
    const player = await DriverPlayer.meet(host.dom0, { domid: guest.domid, rounds });
    await hits(player, rounds);
    player.assertShared();
    await guest.requestShutdown();
    await player[Symbol.asyncDispose]();
    assert.equal(await guest.gone, 'poweroff');
  }));

test('a guest that crashes in the middle of the game disturbs no other guest', () =>
  onHost(async (host) => {
    const rounds = FOR_EVER;
    const victim = await start(host, { rounds, ending: 'shutdown' }, 'victim');
    const other = await start(host, { rounds, ending: 'shutdown' }, 'other');
    const players = await Promise.all(
      [victim, other].map(({ domid }) => DriverPlayer.meet(host.dom0, { domid, rounds })),
    );
    await Promise.all(players.map((player) => hits(player, 100)));
    victim.crash();
    const left = host.hypervisor.books().domains.find(({ domid }) => domid === victim.domid);
    assert.notEqual(left?.state, 'running');
    const seen = players[1]!.hits;
    await hits(players[1]!, seen + 100);
    players[0]!.assertShared();
    assert.equal(await victim.gone, 'crash');
    assert.equal(host.hypervisor.domain(victim.domid)?.state, 'dying');
    await players[0]![Symbol.asyncDispose]();
    assert.equal(host.hypervisor.domain(victim.domid), undefined);
    await other.destroy();
    await players[1]![Symbol.asyncDispose]();
    assert.equal(await other.gone, 'destroyed');
  }));

test('a guest whose code throws has crashed', () =>
  onHost(async (host) => {
    const guest = await start(host, { rounds: 2, ending: 'throw' });
    const player = await DriverPlayer.meet(host.dom0, { domid: guest.domid, rounds: 2 });
    assert.equal(await guest.gone, 'crash');
    await player[Symbol.asyncDispose]();
  }));

test('a guest that never returns to its event loop is destroyed all the same', () =>
  onHost(async (host) => {
    const guest = await start(host, { rounds: 2, ending: 'ignore' });
    const player = await DriverPlayer.meet(host.dom0, { domid: guest.domid, rounds: 2 });
    await hits(player, 2);
    await guest.destroy();
    assert.equal(await guest.gone, 'destroyed');
    await player[Symbol.asyncDispose]();
  }));

test('guests that come and go at any moment leave nothing behind', () =>
  onHost(async (host) => {
    const rounds = FOR_EVER;
    for (let round = 0; round < 6; round++) {
      const guest = await start(host, { rounds, ending: 'shutdown' });
      if (round % 3 > 0) {
        const player = await DriverPlayer.meet(host.dom0, { domid: guest.domid, rounds });
        if (round % 3 > 1) await hits(player, 10 * round);
        guest.crash();
        await player[Symbol.asyncDispose]();
      } else {
        guest.crash();
      }
      assert.equal(await guest.gone, 'crash');
    }
  }));
