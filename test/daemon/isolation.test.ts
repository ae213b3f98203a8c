// What goes wrong in one guest's service stays there: outputs that break their word for one guest, and calls that fail.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConnectorInfo, OutputConnector } from '../../src/display/output.ts';
import { BrowserOutput } from '../../src/outputs/browser/browser-output.ts';
import type { ScreenOutputOptions } from '../../src/outputs/screen-output.ts';
import { SysError } from '../../src/runtime/errors.ts';
import type { Runtime } from '../../src/runtime/runtime.ts';
import { DaemonWorld, lifeOf, type WorldOptions } from './world.ts';

const KEY = 30;
const KEY_AFTER = 31;
const VICTIM = 1;
const TWO_GUESTS: WorldOptions = { seed: 1, kinds: ['ours', 'linux'], beAlloc: false };

/** Which call of an output's connector goes wrong, and how. */
type Sabotage = (screen: OutputConnector, runtime: Runtime) => Partial<OutputConnector>;

function defect(): never {
  throw new TypeError('a defect of ours');
}

const SABOTAGES: Readonly<Record<string, Sabotage>> = {
  'show throws': () => ({ show: defect }),
  'flip throws': () => ({ flip: defect }),
  'flip is completed twice': (screen) => ({
    flip: (picture, onFlipped) =>
      screen.flip(picture, () => {
        onFlipped();
        onFlipped();
      }),
  }),
  'flip is completed when nobody waits any more': (screen, runtime) => ({
    flip: (picture, onFlipped) => {
      screen.flip(picture, onFlipped);
      runtime.after(1000, onFlipped);
    },
  }),
  'retire throws': () => ({ retire: defect }),
  'retire rejects': () => ({ retire: async () => defect() }),
  'closing rejects': (screen) => ({
    [Symbol.asyncDispose]: async () => {
      await screen[Symbol.asyncDispose]();
      defect();
    },
  }),
};

/** An output that breaks its word for the victim while `broken` says so. */
class BadOutput extends BrowserOutput {
  readonly #sabotage: Sabotage;
  broken = true;

  constructor(options: ScreenOutputOptions, sabotage: Sabotage) {
    super(options);
    this.#sabotage = sabotage;
  }

  override async connect(info: ConnectorInfo, runtime?: Runtime) {
    const screen = await super.connect(info, runtime);
    if (info.domid !== VICTIM || !this.broken) return screen;
    const changes = this.#sabotage(screen, runtime!);
    return new Proxy(screen, {
      get: (target, key) => {
        const value = Reflect.get(changes, key) ?? Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }
}

for (const [what, sabotage] of Object.entries(SABOTAGES)) {
  test(`when an output’s ${what} for one guest, the other’s goes on, and the one is served when it does not any more`, async () => {
    const world = await DaemonWorld.open(TWO_GUESTS);
    let output: BadOutput | undefined;
    world.launch(KEY, (options) => {
      output = new BadOutput(options, sabotage);
      return output;
    });
    const [victim, other] = world.guests;
    await world.pause(3000);
    const before = other!.rounds;
    await world.pause(3000);
    assert(other!.rounds - before > 20, `the other one did ${other!.rounds - before} rounds`);
    const statusOf = (domid: number) =>
      world.daemon.status().guests.find((guest) => guest.domid === domid)!;
    const services = (domid: number) =>
      Object.fromEntries(statusOf(domid).services.map((service) => [service.type, service]));
    assert.deepEqual(
      statusOf(other!.domain.domid).services.map(({ restarts, lastError }) => [
        restarts,
        lastError,
      ]),
      [
        [0, null],
        [0, null],
      ],
    );
    assert.equal(services(VICTIM).vinput!.restarts, 0, 'its keyboard goes on as well');
    // Some of it is borne without an end: a reader that cannot say when it is done is one that is done.
    const { restarts, lastError } = services(VICTIM).vdispl!;
    if (restarts > 0) assert.match(lastError!, /defect|twice/);
    else assert(victim!.rounds > 20);
    assert(restarts < 20, 'not without pauses');

    output!.broken = false;
    const rounds = victim!.rounds;
    await world.until(() => victim!.rounds > rounds + 1, 'the victim is served again');
    await world.type(KEY_AFTER);
    await world.close();
  });
}

/** By turns: what the system may answer, and what only a defect of ours throws. */
const ERRORS: readonly (() => Error)[] = [
  () => {
    const context = 'a call that the test let fail';
    return new SysError({ call: 'test', errnoName: 'EIO', context });
  },
  () => new TypeError('a defect of ours'),
];

test('whichever call fails, both guests are served after a moment, or the daemon does not start', async () => {
  const options: WorldOptions = { ...TWO_GUESTS, beAlloc: true };
  const { calls } = await lifeOf(options);
  for (let call = 1; call <= calls; call++) {
    const error = ERRORS[call % ERRORS.length]!();
    await failingCall(options, { call, error }).catch((cause: unknown) => {
      throw new Error(`call ${call} failed`, { cause });
    });
  }
});

async function failingCall(
  options: WorldOptions,
  { call, error }: { call: number; error: Error },
): Promise<void> {
  const world = await DaemonWorld.open(options);
  const program = world.launch(KEY);
  program.failCall(call, error);
  const deadlineMs = world.runtime.nowMs() + 10_000;
  const served = () =>
    world.failure !== undefined ||
    (program.calls > call && world.guests.every(({ rounds }) => rounds >= 2));
  await world.until(() => {
    assert(world.runtime.nowMs() < deadlineMs, 'not served');
    return served();
  }, 'both are served');
  if (world.failure === undefined) {
    await world.type(KEY_AFTER);
    const restarted = world.daemon
      .status()
      .guests.filter(({ services }) => services.some(({ restarts }) => restarts > 0));
    assert(restarted.length <= 1, 'one call is one guest’s, or nobody’s');
  } else assert.equal(world.failure, error);
  await world.switchOff();
}
