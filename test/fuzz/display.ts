// Requests of displays, their geometry, and what a frontend gets from a backend.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  displEvt,
  displResp,
  displSring,
  XENDISPL_OP_DBUF_CREATE,
  XENDISPL_OP_FB_ATTACH,
  XENDISPL_OP_SET_CONFIG,
} from '../../src/abi/displif.ts';
import { PAGE_SIZE } from '../../src/abi/page.ts';
import { FrontendConnector } from '../../src/display/frontend-connector.ts';
import {
  checkBuffer,
  checkFramebuffer,
  clipViewport,
  inferStride,
} from '../../src/display/geometry.ts';
import { type PixelFormat, pixelFormat, XRGB8888 } from '../../src/display/pixel-format.ts';
import { type DisplayRequest, RequestParser } from '../../src/display/requests.ts';
import { ProtocolViolation, SysError } from '../../src/runtime/errors.ts';
import { VirtualRuntime } from '../../src/runtime/virtual.ts';
import { initRing } from '../../src/xen/ring.ts';
import { type Edits, edit, edits, fuzzer, orRefused, u8, u32 } from './fuzzer.ts';

const REQUEST_BYTES = 64;
const CONNECTOR = { width: 640, height: 480 };
const RING_SLOTS = 32;
/** The operation of every request of the frontend. */
const ASKED = 0x16;

interface RawRequest {
  readonly operation: number;
  /** The payload's words, from byte 8 on. */
  readonly words: readonly number[];
  readonly edits: Edits;
}

const FORMATS = ['XR24', 'AR24', 'RG24', 'RG16', 'XR15', 'AR15', 'XR12', 'AR12', 'YUYV', 'NV12'];
const fourcc = fc.constantFrom(...FORMATS).map((code) => Buffer.from(code).readUInt32LE(0));
/** Words that make sense together now and then: a buffer of a small picture. */
const sensible = fc
  .record({
    cookie: fc.nat(3),
    width: fc.nat(80),
    height: fc.nat(60),
    bpp: fc.constantFrom(0, 1, 15, 16, 24, 32, 33),
    slack: fc.constantFrom(-1, 0, 0, 0, 1, 4, 4096),
    wholePages: fc.nat(3).map((roll) => roll === 0),
    flags: fc.nat(3),
    offset: fc.constantFrom(0, 0, 0, 1, 4, 4096),
    format: fourcc,
  })
  .map(({ cookie, width, height, bpp, slack, wholePages, flags, offset, format }) => ({
    create: [
      cookie,
      0,
      width,
      height,
      bpp,
      sizeOf(Math.ceil((width * bpp) / 8) * height, { offset, slack, wholePages }),
      flags,
      7,
      offset,
    ],
    attach: [cookie, 0, cookie, 0, width, height, format],
    config: [cookie, 0, width % 7, height % 5, width, height, bpp],
  }));
/** The size that a frontend asks for, nearly: exact, or in whole pages. */
function sizeOf(
  bytes: number,
  { offset, slack, wholePages }: { offset: number; slack: number; wholePages: boolean },
): number {
  const size = wholePages ? Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE : bytes + slack;
  return Math.max(0, size + offset);
}

const rawRequest: fc.Arbitrary<RawRequest> = fc.oneof(
  fc.record({
    operation: fc.oneof(fc.integer({ min: 0x10, max: 0x16 }), u8),
    words: fc.array(u32, { minLength: 14, maxLength: 14 }),
    edits: edits(REQUEST_BYTES),
  }),
  fc
    .tuple(sensible, fc.constantFrom('create', 'attach', 'config' as const), edits(64, 1))
    .map(([requests, which, changes]) => ({
      operation: {
        create: XENDISPL_OP_DBUF_CREATE,
        attach: XENDISPL_OP_FB_ATTACH,
        config: XENDISPL_OP_SET_CONFIG,
      }[which],
      words: requests[which],
      edits: changes,
    })),
);

function bytesOf({ operation, words, edits: changes }: RawRequest): Uint8Array {
  const bytes = new Uint8Array(REQUEST_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(2, operation);
  words.forEach((word, index) => {
    view.setUint32(8 + 4 * index, word, true);
  });
  return edit(bytes, changes);
}

/** What is done with the requests' numbers, as the backend does it. */
function useNumbers(create: DisplayRequest, attach: DisplayRequest, config: DisplayRequest): void {
  if (create.operation !== XENDISPL_OP_DBUF_CREATE) return;
  const checked = orRefused(() => {
    checkBuffer(create, create.dataOffset);
    return true;
  });
  if (!checked || attach.operation !== XENDISPL_OP_FB_ATTACH) return;
  const available = create.bufferBytes - create.dataOffset;
  assert(available > 0);
  const { width, height } = attach;
  const format: PixelFormat = pixelFormat(attach.pixelFormat) ?? XRGB8888;
  const stride = inferStride({
    width,
    height,
    bitsPerPixel: format.bitsPerPixel,
    bufferBytes: available,
  });
  const bytes = orRefused(() => checkFramebuffer({ width, height, stride, format }, available));
  if (bytes === undefined) return;
  assert(bytes <= available && bytes > 0, 'a framebuffer beyond its buffer');
  if (config.operation !== XENDISPL_OP_SET_CONFIG || config.mode === undefined) return;
  const { viewport } = config.mode;
  const framebuffer = { width, height, format };
  const clipped = orRefused(() => clipViewport(viewport, { framebuffer, connector: CONNECTOR }));
  if (clipped === undefined) return;
  assert(clipped.width > 0 && clipped.x + clipped.width <= width, 'a viewport beyond its side');
  assert(clipped.height > 0 && clipped.y + clipped.height <= height, 'or below');
  assert(clipped.width <= CONNECTOR.width && clipped.height <= CONNECTOR.height);
}

/** Requests are parsed to a value that a change of the ring cannot reach, or refused. */
export const displayRequests = fuzzer({
  name: 'display-requests',
  parsers: ['display/requests.ts', 'display/geometry.ts', 'display/cookie.ts'],
  runs: 2000,
  input: fc.array(rawRequest, { minLength: 1, maxLength: 4 }),
  check: (requests) => {
    const parsed = requests.flatMap((request) => {
      const bytes = bytesOf(request);
      const parser = new RequestParser();
      const value = orRefused(() => parser.parse(new DataView(bytes.buffer)));
      const before = JSON.stringify(value);
      bytes.fill(0xff);
      assert.equal(JSON.stringify(value), before, 'it looks into the message after it was parsed');
      return value ?? [];
    });
    const of = (operation: number) => parsed.find((request) => request.operation === operation);
    const [create, attach, config] = [
      of(XENDISPL_OP_DBUF_CREATE),
      of(XENDISPL_OP_FB_ATTACH),
      of(XENDISPL_OP_SET_CONFIG),
    ];
    if (create) useNumbers(create, attach ?? create, config ?? create);
  },
});

type BackendAction =
  | { readonly do: 'request' | 'fill' | 'flip' | 'responses' | 'events' | 'step' }
  | { readonly do: 'time'; readonly steps: number }
  | {
      readonly do: 'answer';
      readonly id: number;
      readonly operation: number;
      readonly status: number;
    }
  | { readonly do: 'event'; readonly id: number; readonly type: number }
  | { readonly do: 'word'; readonly page: number; readonly index: number; readonly value: number }
  | { readonly do: 'scribble'; readonly page: number; readonly at: number; readonly value: number };

const backendAction: fc.Arbitrary<BackendAction> = fc.oneof(
  fc.record({
    do: fc.constantFrom(
      'request',
      'request',
      'fill',
      'flip',
      'flip',
      'responses',
      'events',
      'step',
    ),
  }) as fc.Arbitrary<BackendAction>,
  fc.record({ do: fc.constant('time' as const), steps: fc.nat(3) }),
  fc.record({
    do: fc.constant('answer' as const),
    id: fc.oneof(fc.nat(6), u32),
    operation: fc.oneof(fc.constantFrom(ASKED, 0x15), fc.integer({ min: 0x10, max: 0x16 }), u8),
    status: fc.oneof(fc.constantFrom(0, 0, 0, -22, -9999, 1), fc.integer()),
  }),
  fc.record({
    do: fc.constant('event' as const),
    id: fc.oneof(fc.nat(4), u32),
    type: fc.oneof(fc.constant(0), u8),
  }),
  fc.record({ do: fc.constant('word' as const), page: fc.nat(1), index: fc.nat(3), value: u32 }),
  fc.record({
    do: fc.constant('scribble' as const),
    page: fc.nat(1),
    at: fc.nat(PAGE_SIZE - 1),
    value: u8,
  }),
);

/** A frontend's connector on plain pages, whose other side is the input. */
class FrontendRig {
  readonly runtime = new VirtualRuntime(1);
  readonly pages = [new Uint8Array(PAGE_SIZE), new Uint8Array(PAGE_SIZE)] as const;
  readonly connector: FrontendConnector;
  readonly failures: Error[] = [];
  asked = 0;
  settled = 0;
  #flipping = false;
  #answers = 0;
  #events = 0;

  constructor() {
    initRing(this.pages[0], displSring);
    this.connector = new FrontendConnector({
      runtime: this.runtime,
      index: 0,
      ...CONNECTOR,
      controlPage: this.pages[0],
      eventPage: this.pages[1],
      notify: () => {},
      fail: (error) => this.failures.push(error),
    });
  }

  async act(action: BackendAction): Promise<void> {
    switch (action.do) {
      case 'request':
        this.#ask();
        break;
      case 'fill':
        for (let times = 0; times < RING_SLOTS; times++) this.#ask();
        break;
      case 'flip':
        this.#flip();
        break;
      case 'responses':
        this.connector.onResponses();
        break;
      case 'events':
        this.connector.onEvents();
        break;
      case 'step':
        await this.runtime.step();
        break;
      case 'time':
        for (let step = 0; step < action.steps; step++) await this.runtime.step();
        break;
      case 'answer':
        this.#answer(action);
        break;
      case 'event':
        this.#event(action);
        break;
      case 'word':
        this.#view(action.page).setUint32(4 * action.index, action.value, true);
        break;
      case 'scribble':
        this.pages[action.page]![action.at] = action.value;
    }
  }

  readonly #settle = (error?: unknown): void => {
    assert(error === undefined || error instanceof SysError, error as Error);
    this.settled += 1;
  };

  #ask(): void {
    this.asked += 1;
    void this.connector.request({ operation: ASKED }).then(this.#settle, this.#settle);
  }

  #flip(): void {
    if (this.#flipping) return;
    try {
      this.connector.flip({ low: 1, high: 0 }, (error) => {
        this.#flipping = false;
        this.#settle(error);
      });
      this.#flipping = true;
      this.asked += 1;
    } catch (error) {
      assert(error instanceof SysError, error as Error);
    }
  }

  #answer({ id, operation, status }: Extract<BackendAction, { do: 'answer' }>): void {
    const view = this.#view(0);
    const slot = 64 + (this.#answers++ % 32) * 64;
    displResp.write(view, slot, { id: id & 0xffff, operation, status });
    view.setUint32(8, this.#answers, true);
    this.connector.onResponses();
  }

  #event({ id, type }: Extract<BackendAction, { do: 'event' }>): void {
    const view = this.#view(1);
    displEvt.write(view, 64 + (this.#events++ % 63) * 64, { id: id & 0xffff, type });
    view.setUint32(4, this.#events, true);
    this.connector.onEvents();
  }

  #view(page: number): DataView {
    return new DataView(this.pages[page]!.buffer);
  }
}

/** Whatever a backend sends, each request and each flip is settled once, and a failure is a violation. */
export const displayFrontend = fuzzer({
  name: 'display-frontend',
  parsers: ['display/frontend-connector.ts'],
  runs: 400,
  input: fc.array(backendAction, { maxLength: 40 }),
  check: async (actions) => {
    const rig = new FrontendRig();
    for (const action of actions) await rig.act(action);
    rig.connector.close();
    while (await rig.runtime.step());
    assert.equal(rig.settled, rig.asked, 'somebody waits for ever, or was told twice');
    assert(rig.failures.length <= 1 && rig.failures.every((e) => e instanceof ProtocolViolation));
  },
});
