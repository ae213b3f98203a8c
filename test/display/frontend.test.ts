// The frontend's connector against a backend that breaks the protocol, on plain pages.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  displEvt,
  displResp,
  displSring,
  XENDISPL_OP_DBUF_DESTROY,
  XENDISPL_OP_FB_DETACH,
  XENDISPL_OP_PG_FLIP,
} from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { DISPLAY_EVENTS } from '../../src/display/flip-events.ts';
import { FrontendConnector, REQUEST_TIMEOUT_MS } from '../../src/display/frontend-connector.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { EventProducer } from '../../src/xen/event-page.ts';
import { BackRing, initRing } from '../../src/xen/ring.ts';
import { request } from './bodies.ts';

const COOKIE = { low: 2, high: -1 };

/** A connector whose other side is the test. */
function setUp() {
  const runtime = new VirtualRuntime(1);
  const controlPage = new Uint8Array(PAGE_SIZE);
  const eventPage = new Uint8Array(PAGE_SIZE);
  initRing(controlPage, displSring);
  const failures: Error[] = [];
  const connector = new FrontendConnector({
    runtime,
    index: 0,
    width: 64,
    height: 48,
    controlPage,
    eventPage,
    notify: () => {},
    fail: (error) => failures.push(error),
  });
  const ring = new BackRing(controlPage, displSring);
  const events = new EventProducer(eventPage, DISPLAY_EVENTS, { confirmation: 'optional' });
  const respond = (fields: { id: number; operation: number; status: number }) => {
    const bytes = new Uint8Array(64);
    displResp.write(new DataView(bytes.buffer), 0, fields);
    assert(ring.take() !== undefined, 'nothing was asked');
    ring.put(bytes);
    ring.push();
    connector.onResponses();
  };
  const event = (id: number, type = 0) => {
    const bytes = new Uint8Array(64);
    displEvt.write(new DataView(bytes.buffer), 0, { id, type });
    events.put(bytes);
    events.publish();
    connector.onEvents();
  };
  return { runtime, controlPage, eventPage, connector, failures, respond, event };
}

function brokenBy(failures: Error[], reason: string): void {
  const [error] = failures;
  assert(error instanceof ProtocolViolation, String(error));
  assert.equal(error.reason, reason);
}

async function errnoOf(promise: Promise<void>): Promise<string | undefined> {
  return promise.then(
    () => undefined,
    (error: unknown) => (error instanceof SysError ? error.errnoName : String(error)),
  );
}

test('answers go to whom they concern, with their errno', async () => {
  const { connector, respond, failures } = setUp();
  const first = connector.request(request.destroy());
  const second = connector.request({ operation: XENDISPL_OP_FB_DETACH });
  respond({ id: 1, operation: XENDISPL_OP_FB_DETACH, status: -22 });
  respond({ id: 0, operation: XENDISPL_OP_DBUF_DESTROY, status: 0 });
  assert.equal(await errnoOf(first), undefined);
  assert.equal(await errnoOf(second), 'EINVAL');
  assert.deepEqual(failures, []);
});

test('a request without an answer fails after 3 s, and a late answer is dropped (trap 4)', async () => {
  const { runtime, connector, respond, failures } = setUp();
  const failed = errnoOf(connector.request(request.destroy()));
  while (await runtime.step());
  assert.equal(await failed, 'ETIMEDOUT');
  assert.equal(runtime.nowMs(), REQUEST_TIMEOUT_MS);
  respond({ id: 0, operation: XENDISPL_OP_DBUF_DESTROY, status: 0 });
  assert.deepEqual(failures, []);
});

test('a flip without an event fails; one that is refused fails at once', async () => {
  const { runtime, connector, respond } = setUp();
  const errors: (Error | undefined)[] = [];
  connector.flip(COOKIE, (error) => errors.push(error));
  respond({ id: 0, operation: XENDISPL_OP_PG_FLIP, status: -16 });
  assert(errors[0] instanceof SysError && errors[0].errnoName === 'EBUSY');
  connector.flip(COOKIE, (error) => errors.push(error));
  respond({ id: 1, operation: XENDISPL_OP_PG_FLIP, status: 0 });
  while (await runtime.step());
  assert(errors[1] instanceof SysError && errors[1].errnoName === 'ETIMEDOUT');
});

test('an answer for a flip to the first request is no answer to a flip: it is found out at once', async () => {
  const { connector, respond, failures } = setUp();
  const waiting = errnoOf(connector.request(request.destroy()));
  respond({ id: 0, operation: XENDISPL_OP_PG_FLIP, status: 0 });
  brokenBy(failures, 'response-operation');
  assert.equal(await waiting, 'ENOTCONN');
});

test('an answer for something else to a flip is found out, a second answer is dropped', () => {
  const { connector, respond, failures } = setUp();
  const errors: (Error | undefined)[] = [];
  connector.flip(COOKIE, (error) => errors.push(error));
  respond({ id: 0, operation: XENDISPL_OP_PG_FLIP, status: 0 });
  connector.request(request.destroy()).catch(() => {});
  respond({ id: 0, operation: XENDISPL_OP_PG_FLIP, status: -16 });
  assert.equal(errors.length, 0);
  assert.deepEqual(failures, []);
  const other = setUp();
  other.connector.flip(COOKIE, (error) => errors.push(error));
  other.respond({ id: 0, operation: XENDISPL_OP_DBUF_DESTROY, status: 0 });
  brokenBy(other.failures, 'response-operation');
  assert(errors[0] instanceof SysError && errors[0].errnoName === 'ENOTCONN');
});

test('an event completes the flip once, and one more completes nothing', () => {
  const { connector, event, failures } = setUp();
  let completed = 0;
  connector.flip(COOKIE, (error) => {
    assert.equal(error, undefined);
    completed += 1;
  });
  event(0);
  event(1);
  assert.equal(completed, 1);
  assert.deepEqual(failures, []);
});

test('a backend that breaks the protocol is given up, and whoever waits learns of it (trap 15)', async () => {
  const cases: [string, (rig: ReturnType<typeof setUp>) => void][] = [
    [
      'response-status',
      (rig) => rig.respond({ id: 0, operation: XENDISPL_OP_DBUF_DESTROY, status: 1 }),
    ],
    ['response-operation', (rig) => rig.respond({ id: 0, operation: 0x42, status: 0 })],
    ['event-type', (rig) => rig.event(0, 9)],
    ['event-id', (rig) => rig.event(1)],
    [
      'response-prod-overflow',
      (rig) => {
        new Uint32Array(rig.controlPage.buffer)[2] = 2 ** 31;
        rig.connector.onResponses();
      },
    ],
    [
      'event-prod-overflow',
      (rig) => {
        new Uint32Array(rig.eventPage.buffer)[1] = 64;
        rig.connector.onEvents();
      },
    ],
  ];
  for (const [reason, breakIt] of cases) {
    const rig = setUp();
    const waiting = errnoOf(rig.connector.request(request.destroy()));
    breakIt(rig);
    brokenBy(rig.failures, reason);
    assert.equal(await waiting, 'ENOTCONN', reason);
    rig.connector.onResponses();
    rig.connector.onEvents();
    assert.equal(rig.failures.length, 1, 'what was given up is not looked at any more');
    await assert.rejects(rig.connector.request(request.destroy()), SysError);
  }
});

test('a ring that is full says so', async () => {
  const { connector } = setUp();
  const waiting = Array.from({ length: 32 }, () => errnoOf(connector.request(request.destroy())));
  assert.equal(await errnoOf(connector.request(request.destroy())), 'EBUSY');
  connector.close();
  assert((await Promise.all(waiting)).every((errno) => errno === 'ENOTCONN'));
});
