// Backends that break the protocol, against our own frontends: whoever waits gets a typed error in bounded time,
// the connection ends, everything is given back, and nothing hangs or crashes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEYBOARD_NODES, type RawBackend, type SeenRequest } from '../../sim/guests/raw-backend.ts';
import {
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_PG_FLIP,
} from '../../src/abi/displif.ts';
import { REQUEST_TIMEOUT_MS } from '../../src/display/frontend-connector.ts';
import type { GuestFramebuffer } from '../../src/display/guest-display.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { KeyboardFrontend } from '../../src/input/frontend.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { GrantMapError } from '../../src/xen/domain.ts';
import { gref } from '../../src/xen/ids.ts';
import { fillPageDirectory } from '../../src/xen/page-directory.ts';
import { BackendWorld, DisplayVictim } from './backend-world.ts';

const SHAPE = { width: 64, height: 48, format: XRGB8888 };
const STATES = ['0', '1', '2', '3', '4', '5', '6', '7', '8'];

/** What became of a promise: the errno or the reason, or 'done'. */
function fate(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'done',
    (error: unknown) => {
      if (error instanceof SysError) return error.errnoName;
      if (error instanceof ProtocolViolation) return error.reason;
      if (error instanceof GrantMapError) return error.status;
      return `not typed: ${error}`;
    },
  );
}

/** The frontend has given its device up, because of `reason`. */
async function failedBy(victim: DisplayVictim, reason: string): Promise<void> {
  await victim.world.until(() => victim.failure !== undefined, 'the frontend gives up');
  assert(victim.failure instanceof ProtocolViolation, String(victim.failure));
  assert.equal(victim.failure.reason, reason);
}

const BAD_ANSWERS: readonly [
  what: string,
  act: (backend: RawBackend, request: SeenRequest) => void,
  reason: string,
][] = [
  [
    'answers twice',
    (backend, { id, operation }) => {
      backend.answer({ id, operation, status: 0 });
      backend.answer({ id, operation, status: 0 });
    },
    'response-prod-overflow',
  ],
  [
    'answers another operation',
    (backend, { id }) => backend.answer({ id, operation: XENDISPL_OP_PG_FLIP, status: 0 }),
    'response-operation',
  ],
  [
    'answers with a positive status',
    (backend, { id, operation }) => backend.answer({ id, operation, status: 22 }),
    'response-status',
  ],
  ['says that it answered more than was asked', (b) => b.word(2, 33), 'response-prod-overflow'],
  ['goes backwards', (backend) => backend.word(2, -1), 'response-prod-overflow'],
  ['says that it is far away', (backend) => backend.word(2, 2 ** 31), 'response-prod-overflow'],
];

for (const [what, act, reason] of BAD_ANSWERS) {
  test(`a display's backend that ${what} is given up: ${reason}`, async () => {
    const victim = await DisplayVictim.connected();
    victim.backend.onRequest = (request) => act(victim.backend, request);
    const outcome = await victim.world.run(fate(victim.display!.createBuffer(SHAPE)));
    if (what !== 'answers twice') assert.equal(outcome, 'ENOTCONN');
    await failedBy(victim, reason);
    assert.equal(victim.display, undefined, 'its display is over');
    await victim.close();
  });
}

for (const [what, status, errnoName] of [
  ['an errno that it does not know', -9999, '9999'],
  ['the least of all numbers', -(2 ** 31), String(2 ** 31)],
  ['EINVAL', -22, 'EINVAL'],
] as const) {
  test(`a display's backend that refuses with ${what}: the caller gets it`, async () => {
    const victim = await DisplayVictim.connected();
    victim.backend.onRequest = ({ id, operation }) =>
      victim.backend.answer({ id, operation, status });
    const outcome = await victim.world.run(fate(victim.display!.createBuffer(SHAPE)));
    assert.equal(outcome, errnoName);
    assert.equal(victim.failure, undefined);
    await victim.close();
  });
}

for (const [what, act] of [
  ['does not answer', () => {}],
  [
    'answers with another id',
    (backend: RawBackend, { id, operation }: SeenRequest) =>
      backend.answer({ id: (id + 1) & 0xffff, operation, status: 0 }),
  ],
] as const) {
  test(`a display's backend that ${what}: the caller waits as long as a frontend does`, async () => {
    const victim = await DisplayVictim.connected();
    const { world, backend } = victim;
    backend.onRequest = (request) => act(backend, request);
    const askedAtMs = world.runtime.nowMs();
    assert.equal(await world.run(fate(victim.display!.createBuffer(SHAPE))), 'ETIMEDOUT');
    const tookMs = world.runtime.nowMs() - askedAtMs;
    assert(tookMs >= REQUEST_TIMEOUT_MS && tookMs < REQUEST_TIMEOUT_MS + 100, `${tookMs} ms`);
    const [late] = backend.requests;
    if (what === 'does not answer') backend.answer({ ...late!, status: 0 });
    await world.pause(10);
    assert.equal(victim.failure, undefined, 'a late answer is dropped');
    victim.serve();
    assert.equal(await world.run(fate(victim.display!.createBuffer(SHAPE))), 'done');
    await victim.close();
  });
}

test("a display's backend that never answers fills the ring, and then it is full", async () => {
  const victim = await DisplayVictim.connected();
  const fates = Array.from({ length: 40 }, () => fate(victim.display!.setMode(0, undefined)));
  const outcomes = await victim.world.run(Promise.all(fates));
  assert.deepEqual(new Set(outcomes), new Set(['ETIMEDOUT', 'EBUSY']));
  assert.equal(outcomes.filter((outcome) => outcome === 'EBUSY').length, 8);
  await victim.close();
});

/** A frontend with a framebuffer on its screen, whose flips are answered and get no event. */
async function flipping(): Promise<{ victim: DisplayVictim; framebuffer: GuestFramebuffer }> {
  const victim = await DisplayVictim.connected();
  victim.serve();
  const display = victim.display!;
  const buffer = await victim.world.run(display.createBuffer(SHAPE));
  const framebuffer = await victim.world.run(display.attach(buffer));
  await victim.world.run(display.setMode(0, framebuffer));
  return { victim, framebuffer };
}

const BAD_EVENTS: readonly [what: string, act: (backend: RawBackend) => void, reason: string][] = [
  ['skips an event id', (backend) => backend.event({ id: 1 }), 'event-id'],
  [
    'repeats an event id',
    (backend) => {
      backend.event({ id: 0 });
      backend.event({ id: 0 });
    },
    'event-id',
  ],
  ['sends an event of no type', (backend) => backend.event({ id: 0, type: 7 }), 'event-type'],
  ['says that it sent more than there is room for', (b) => b.eventProd(64), 'event-prod-overflow'],
  ['takes events back', (backend) => backend.eventProd(-1), 'event-prod-overflow'],
  ['fills the page with what was never written', (backend) => backend.eventProd(63), 'event-id'],
];

for (const [what, act, reason] of BAD_EVENTS) {
  test(`a display's backend that ${what} is given up: ${reason}`, async () => {
    const { victim, framebuffer } = await flipping();
    const flipped = fate(victim.display!.flipped(0, framebuffer));
    await victim.world.until(
      () => victim.backend.requests.at(-1)?.operation === XENDISPL_OP_PG_FLIP,
      'the flip is asked for',
    );
    act(victim.backend);
    assert(['done', 'ENOTCONN'].includes(await victim.world.run(flipped)));
    await failedBy(victim, reason);
    await victim.close();
  });
}

test('an event for a framebuffer that nobody has completes the flip, as in Linux; others complete nothing', async () => {
  const { victim, framebuffer } = await flipping();
  victim.backend.event({ id: 0, cookie: 0xdead_beefn });
  await victim.world.pause(10);
  const flipped = fate(victim.display!.flipped(0, framebuffer));
  await victim.world.pause(10);
  victim.backend.event({ id: 1, cookie: 0xffff_ffff_ffff_ffffn });
  assert.equal(await victim.world.run(flipped), 'done');
  assert.equal(victim.failure, undefined);
  await victim.close();
});

test('a flip whose event does not come fails in time, and the next one can be asked for', async () => {
  const { victim, framebuffer } = await flipping();
  assert.equal(await victim.world.run(fate(victim.display!.flipped(0, framebuffer))), 'ETIMEDOUT');
  const flipped = fate(victim.display!.flipped(0, framebuffer));
  victim.backend.event({ id: 0 });
  assert.equal(await victim.world.run(flipped), 'done');
  await victim.close();
});

test('notifications without anything behind them, a thousand', async () => {
  const { victim, framebuffer } = await flipping();
  for (let i = 0; i < 1000; i++) victim.backend.notify();
  const flipped = fate(victim.display!.flipped(0, framebuffer));
  victim.backend.event({ id: 0 });
  assert.equal(await victim.world.run(flipped), 'done');
  await victim.close();
});

for (const [what, refs] of [
  ['no references', [0, 0, 0]],
  ['references of nothing', [4_000_000_000, 4_000_000_001, 4_000_000_002]],
  ['a reference that is missing', [0, 1, 2]],
] as const) {
  test(`a backend that allocates and names ${what}: no buffer, and the backend is told`, async () => {
    const victim = await DisplayVictim.connected({ beAlloc: true });
    const { world, backend } = victim;
    backend.onRequest = ({ id, operation, directory }) => {
      const answered = () => backend.answer({ id, operation, status: 0 });
      if (operation !== XENDISPL_OP_DBUF_CREATE || refs[1] === 0) {
        answered();
        return;
      }
      const { foreign } = world.host.dom0;
      const request = { domid: world.guest.domid, first: gref(directory), refs: refs.map(Number) };
      fillPageDirectory(foreign, request as never).then(answered, answered);
    };
    const outcome = await world.run(fate(victim.display!.createBuffer(SHAPE)));
    assert.equal(outcome, refs[0] === 0 ? 'directory-gref-zero' : 'GNTST_bad_gntref');
    assert.equal(backend.requests.at(-1)!.operation, XENDISPL_OP_DBUF_DESTROY);
    await victim.close();
  });
}

test('a backend that never lets go does not keep a frontend from leaving', async () => {
  const { victim } = await flipping();
  await victim.close();
});

for (const [what, versions, reason] of [
  ['only version 2', '2', 'unsupported-version'],
  ['nothing readable', '', 'malformed-node'],
  ['version 01', '01', 'malformed-node'],
  ['a thousand versions', '1,'.repeat(1000), 'malformed-node'],
] as const) {
  test(`P1: a backend that offers ${what}: the frontend does not begin`, async () => {
    const victim = await DisplayVictim.open();
    await victim.backend.node('versions', versions);
    await victim.backend.state('2');
    await failedBy(victim, reason);
    await victim.close();
  });
}

for (const versions of ['1', '1,2', '2,1,7', null]) {
  test(`P1: a backend that offers ${versions ?? 'no version at all'}: version 1 it is`, async () => {
    const victim = await DisplayVictim.open();
    await victim.backend.node('versions', versions);
    await victim.connect();
    victim.serve();
    assert.equal(await victim.world.run(fate(victim.display!.createBuffer(SHAPE))), 'done');
    await victim.close();
  });
}

test('a backend that goes through every state after every other, and then behaves', async () => {
  const victim = await DisplayVictim.connected();
  for (const from of STATES) {
    for (const to of STATES) {
      await victim.backend.state(from);
      await victim.backend.state(to);
      await victim.world.pause(2);
    }
  }
  for (const none of ['9', '99', '', 'abc', '9'.repeat(1000), null]) {
    await victim.backend.state(none);
    await victim.world.pause(2);
  }
  await victim.backend.state('6');
  await victim.world.pause(10);
  assert.equal(victim.failure, undefined);
  await victim.connect();
  victim.serve();
  assert.equal(await victim.world.run(fate(victim.display!.createBuffer(SHAPE))), 'done');
  await victim.close();
});

test('a backend that toggles without a pause', async () => {
  const victim = await DisplayVictim.connected();
  for (let toggles = 0; toggles < 300; toggles++) {
    await victim.backend.state(STATES[(toggles * 7) % STATES.length]!);
  }
  await victim.backend.state('6');
  await victim.world.pause(10);
  await victim.connect();
  await victim.close();
});

test('a backend whose directory is removed while a request waits', async () => {
  const victim = await DisplayVictim.connected();
  const waiting = fate(victim.display!.createBuffer(SHAPE));
  await victim.world.pause(5);
  await victim.world.run(victim.world.host.dom0.store.remove(victim.backend.path));
  assert.equal(await victim.world.run(waiting), 'ENOTCONN');
  await victim.close();
});

/** Our keyboard frontend under a hostile backend; what its program is told comes as lines. */
async function keyboard(nodes: Readonly<Record<string, string>> = {}) {
  const world = await BackendWorld.open({ keyboard: true });
  const backend = world.backend({ backendType: 'vinput', frontendType: 'vkbd' });
  for (const [key, value] of Object.entries(nodes)) await backend.node(key, value);
  const told: string[] = [];
  let failure: Error | undefined;
  const frontend = await world.run(
    KeyboardFrontend.open({
      runtime: world.runtime,
      domain: world.domain,
      handlers: {
        key: (code, pressed) => told.push(`${code} ${pressed ? 'down' : 'up'}`),
        motion: () => told.push('motion'),
        position: () => told.push('position'),
        touch: (contact) => told.push(`touch ${contact}`),
      },
      onFailed: (reason) => {
        failure = reason;
      },
    }),
  );
  const close = () => world.close(frontend, backend);
  return { world, backend, told, close, failure: () => failure };
}

/** Writes the slots of the in ring, then in_prod. */
function send(backend: RawBackend, slots: readonly (readonly number[])[]): void {
  slots.forEach((bytes, index) => {
    backend.control.fill(0, 1024 + 40 * index, 1064 + 40 * index);
    backend.control.set(bytes, 1024 + 40 * index);
  });
  backend.word(1, slots.length);
}

for (const inProd of [53, -1, 2 ** 31]) {
  test(`a keyboard's backend whose in_prod is ${inProd} is given up, and what is down is released`, async () => {
    const { world, backend, told, close, failure } = await keyboard();
    await backend.connect(KEYBOARD_NODES);
    send(backend, [[3, 1, 0, 0, 30, 0, 0, 0]]);
    await world.until(() => told.length === 1, 'the key');
    backend.word(1, inProd);
    await world.until(() => failure() !== undefined, 'the frontend gives up');
    assert((failure() as ProtocolViolation).reason === 'event-prod-overflow');
    assert.deepEqual(told, ['30 down', '30 up']);
    await close();
  });
}

test("a keyboard's backend that sends every type, codes and contacts beyond all", async () => {
  const { world, backend, told, close, failure } = await keyboard();
  await backend.connect(KEYBOARD_NODES);
  for (let round = 0; round < 6; round++) {
    const slots = Array.from({ length: 51 }, (_, i) => [
      (round * 51 + i) & 0xff,
      ...Array(39).fill(0xff),
    ]);
    slots.forEach((bytes, index) => {
      const slot = (round * 51 + index) % 51;
      backend.control.set(bytes, 1024 + 40 * slot);
    });
    backend.word(1, 51 * (round + 1));
    await world.pause(5);
  }
  assert.deepEqual(
    new Set(told.map((line) => line.split(' ')[0])),
    new Set(['motion', 'position']),
  );
  assert.equal(failure(), undefined);
  await close();
});

for (const [nodes, reason] of [
  [{ 'feature-abs-pointer': '1', width: 'x', height: '1' }, 'malformed-node'],
  [{ 'feature-abs-pointer': '1', width: '1', height: '4294967296' }, 'malformed-node'],
] as const) {
  test(`a keyboard's backend with an area of ${nodes.width} by ${nodes.height}: ${reason}`, async () => {
    const { world, backend, close, failure } = await keyboard(nodes);
    await backend.state('2');
    await world.until(() => failure() !== undefined, 'the frontend gives up');
    assert((failure() as ProtocolViolation).reason === reason);
    await close();
  });
}
