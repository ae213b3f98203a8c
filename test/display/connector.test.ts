// One connector on plain pages, with the test as its frontend: what only shows from close by.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  displReq,
  displSring,
  XENDISPL_OP_GET_EDID,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { Connector, type ConnectorParts } from '../../src/display/connector.ts';
import type { Framebuffer } from '../../src/display/framebuffers.ts';
import type { RequestBody } from '../../src/display/frontend-connector.ts';
import { XRGB8888 } from '../../src/display/pixel-format.ts';
import { Refusals } from '../../src/display/refusals.ts';
import { NullOutput } from '../../src/outputs/null.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { domId } from '../../src/xen/ids.ts';
import { FrontRing, initRing } from '../../src/xen/ring.ts';
import type { BackendDevice } from '../../src/xen/xenbus/driver.ts';
import { HEIGHT, request, WIDTH } from './bodies.ts';

const INFO = { domid: domId(1), index: 0, uniqueId: 'x', width: WIDTH, height: HEIGHT };

async function setUp(changes: Partial<ConnectorParts> = {}) {
  const runtime = new VirtualRuntime(1);
  const controlPage = new Uint8Array(PAGE_SIZE);
  initRing(controlPage, displSring);
  const notified: string[] = [];
  const picture = {
    width: 64,
    height: 48,
    stride: 256,
    format: XRGB8888,
    bytes: new Uint8Array(1),
  };
  const framebuffer = {
    ...picture,
    cookie: { low: 2, high: 0 },
    buffer: { readBy: () => {} },
    picture: () => picture,
  } as unknown as Framebuffer;
  const device = {
    guest: { countRefusal: () => {} },
    log: runtime.log,
  } as unknown as BackendDevice;
  const unused = () => assert.fail('not asked for');
  const connector = new Connector({
    runtime,
    ringIndex: 0,
    info: INFO,
    objects: {
      create: unused,
      destroy: unused,
      attach: unused,
      detach: unused,
      framebuffer: () => framebuffer,
    },
    output: await new NullOutput({ runtime }).connect(INFO),
    confined: (work) => work,
    refusals: new Refusals(runtime, device),
    guest: { spend: () => {}, rest: () => undefined },
    controlPage,
    eventPage: new Uint8Array(PAGE_SIZE),
    notifyControl: () => notified.push('responses'),
    notifyEvents: () => notified.push('event'),
    fail: (error) => assert.fail(error),
    ...changes,
  });
  const ring = new FrontRing(controlPage, displSring);
  const put = (body: RequestBody) => {
    const bytes = new Uint8Array(64);
    displReq.write(new DataView(bytes.buffer), 0, { id: 0, ...body });
    assert(ring.put(bytes));
    ring.push();
  };
  return { runtime, connector, ring, put, notified };
}

test('the answer to a flip is visible before its event', async () => {
  const { connector, put, notified } = await setUp();
  put(request.config());
  put(request.flip());
  assert.equal(connector.serve(), undefined, 'served at once');
  assert.deepEqual(notified, ['responses', 'event']);
});

test('the event of a flip that a mode cuts short is visible before the answer to the mode', async () => {
  const { connector, ring, put, notified } = await setUp({
    output: {
      bytesCopied: 0,
      path: 'test',
      show: () => complete(),
      flip: (_, onFlipped) => {
        complete = onFlipped;
      },
      retire: async () => {},
      [Symbol.asyncDispose]: async () => {},
    },
  });
  let complete = () => {};
  put(request.config());
  put(request.flip());
  void connector.serve();
  while (ring.take() !== undefined);
  ring.finalCheck();
  notified.length = 0;
  put({ operation: XENDISPL_OP_SET_CONFIG });
  void connector.serve();
  assert.deepEqual(notified, ['event', 'responses']);
});

test('after a batch of requests the others get a turn, and the port stays masked meanwhile (R8)', async () => {
  // A guest that refills its ring at every notification, as another processor would while we serve.
  const { runtime, connector, ring, put } = await setUp({ notifyControl: () => refill() });
  let refills = 0;
  const refill = () => {
    while (ring.take() !== undefined);
    ring.finalCheck();
    if (refills++ >= 20) return;
    while (ring.unanswered < ring.size) put({ operation: XENDISPL_OP_GET_EDID });
  };
  refill();
  const pending = connector.serve();
  assert(pending instanceof Promise, 'the port stays masked');
  assert.equal(connector.serve(), pending, 'a second call serves nothing twice');
  let unansweredAtMyTurn = 0;
  runtime.defer(() => {
    unansweredAtMyTurn = ring.unanswered;
  });
  while (await runtime.step());
  await pending;
  assert(unansweredAtMyTurn > 0, 'the turn came before the flood was over');
  assert.equal(ring.unanswered, 0);
});
