// P3, and R1, R8 and X4 where they are about input: keyboards without manners, beside one whose keys must go on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import type { EventChannel, SharedPages } from '../../src/xen/domain.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { type Attack, type AttackOptions, survives } from './world.ts';

const OPTIONS: AttackOptions = { connect: false, devices: { keyboard: true } };
const IN_CONS = 0;
const IN_PROD = 1;
const OUT_CONS = 2;
const OUT_PROD = 3;
const IN_SLOTS = 51;
const KEY_B = 48;

/** The hostile guest's keyboard by hand: a page, a port, and nothing that a driver would do by itself. */
class RawKeyboard {
  readonly page: SharedPages;
  readonly channel: EventChannel;
  /** in_cons, in_prod, out_cons, out_prod. */
  readonly words: Uint32Array;
  readonly #t: Attack;

  private constructor(t: Attack, page: SharedPages, channel: EventChannel) {
    this.#t = t;
    this.page = page;
    this.channel = channel;
    this.words = new Uint32Array(page.bytes.buffer, page.bytes.byteOffset, 4);
  }

  static async open(t: Attack): Promise<RawKeyboard> {
    const { grants, events } = t.domain;
    const page = await t.world.run(grants.share({ domid: DOM0, pages: 1, writable: true }));
    const channel = await t.world.run(events.allocUnbound({ remote: DOM0, handler: () => {} }));
    const keyboard = new RawKeyboard(t, page, channel);
    await keyboard.node('page-gref', `${page.refs[0]}`);
    await keyboard.node('event-channel', `${channel.port}`);
    await keyboard.node('state', '3');
    await keyboard.connected();
    return keyboard;
  }

  async node(key: string, value: string): Promise<void> {
    const path = `/local/domain/${this.#t.domid}/device/vkbd/0/${key}`;
    await this.#t.world.run(this.#t.domain.store.write(path, value));
  }

  connected(): Promise<void> {
    const { world, domid } = this.#t;
    return world.until(() => world.daemon.input(domid)?.state === 'connected', 'it is connected');
  }

  /** The connection ends because the ring broke a rule. */
  async disconnected(reason: string): Promise<void> {
    const t = this.#t;
    await t.world.until(() => t.refusedFor(reason) > 0, reason);
    await t.world.until(() => t.world.daemon.input(t.domid)?.state !== 'connected', 'it ends');
  }

  type(presses: number): void {
    const { world, domid } = this.#t;
    for (let press = 0; press < presses; press++) {
      world.daemon.input(domid)?.key(KEY_B, true);
      world.daemon.input(domid)?.key(KEY_B, false);
    }
  }
}

test('P3: a guest that takes no event loses what is beyond its queue, and nobody else does', () =>
  survives(async (t) => {
    const keyboard = await RawKeyboard.open(t);
    keyboard.type(2000);
    await t.world.pause(50);
    const [cons, prod] = keyboard.words;
    assert.deepEqual([cons, prod], [0, IN_SLOTS], 'a full ring, and not one more');
    keyboard.type(2000);
    await t.world.flipsGoOn(10);
  }, OPTIONS));

for (const [what, word, value, reason] of [
  ['in_cons ahead of in_prod', IN_CONS, 7, 'event-cons-overflow'],
  ['in_cons far away', IN_CONS, 2 ** 31, 'event-cons-overflow'],
  ['out_prod beyond its ring', OUT_PROD, 26, 'event-prod-overflow'],
  ['out_prod far away', OUT_PROD, 2 ** 31, 'event-prod-overflow'],
] as const) {
  test(`P3: ${what} ends the keyboard's connection with the reason`, () =>
    survives(async (t) => {
      const keyboard = await RawKeyboard.open(t);
      keyboard.words[word] = value;
      keyboard.channel.notify();
      keyboard.type(1);
      await keyboard.disconnected(reason);
      keyboard.page.bytes.fill(0);
      await keyboard.node('state', '3');
      await t.world.pause(10_000);
      await keyboard.connected();
    }, OPTIONS));
}

test('P3: in_prod and out_cons, which are ours, are whatever the guest makes of them: nothing to us', () =>
  survives(async (t) => {
    const keyboard = await RawKeyboard.open(t);
    for (let round = 0; round < 20; round++) {
      keyboard.words[IN_PROD] = Math.imul(round, 0x1234_5678) >>> 0;
      keyboard.words[OUT_CONS] = Math.imul(round, 0x8765_4321) >>> 0;
      keyboard.type(1);
      await t.world.pause(2);
      assert.equal(keyboard.words[IN_PROD], 2 * (round + 1));
      keyboard.words[IN_CONS] = keyboard.words[IN_PROD]!;
    }
    assert.deepEqual(t.refused, {});
  }, OPTIONS));

test('P3: out events, of which there are none, without end', () =>
  survives(async (t) => {
    const keyboard = await RawKeyboard.open(t);
    const { runtime } = t.world;
    let pouring = true;
    const pour = () => {
      if (!pouring) return;
      keyboard.page.bytes.fill(0xff, 3 * 1024);
      keyboard.words[OUT_PROD] = keyboard.words[OUT_CONS]! + 25;
      for (let i = 0; i < 20; i++) keyboard.channel.notify();
      runtime.after(0.2, pour);
    };
    pour();
    await t.world.flipsGoOn(20);
    pouring = false;
    assert(t.refusedFor('unknown-out-event') >= 25 * 50);
  }, OPTIONS));

test('P3: a page that is scribbled over while keys are typed', () =>
  survives(async (t) => {
    const keyboard = await RawKeyboard.open(t);
    const { random } = t.world.runtime;
    for (let round = 0; round < 300; round++) {
      for (let bytes = 0; bytes < 8; bytes++) {
        keyboard.page.bytes[random.below(PAGE_SIZE)] = random.below(256);
      }
      keyboard.channel.notify();
      keyboard.type(1);
      await t.world.runtime.step();
    }
  }, OPTIONS));

for (const [key, value] of [
  ['page-gref', 'x'],
  ['page-gref', '500'],
  ['page-gref', '0'],
  ['event-channel', '-1'],
  ['event-channel', '3000'],
] as const) {
  test(`X1: a keyboard whose ${key} is ${value}`, () =>
    survives(async (t) => {
      const keyboard = await RawKeyboard.open(t);
      await keyboard.node(key, value);
      await keyboard.node('state', '1');
      await keyboard.node('state', '3');
      await t.world.pause(300);
      assert.notEqual(t.world.daemon.input(t.domid)?.state, 'connected');
    }, OPTIONS));
}

test('X1: every state of a keyboard after every other', () =>
  survives(async (t) => {
    const keyboard = await RawKeyboard.open(t);
    for (const from of '012345678') {
      for (const to of '012345678') {
        await keyboard.node('state', from);
        await keyboard.node('state', to);
        keyboard.type(1);
        await t.world.pause(2);
      }
    }
    await keyboard.node('state', '1');
    await keyboard.node('state', '3');
    await keyboard.connected();
  }, OPTIONS));
