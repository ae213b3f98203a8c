// What comes over the network: messages of viewers, HTTP requests and WebSocket frames, over real sockets.

import assert from 'node:assert/strict';
import { connect } from 'node:net';
import fc from 'fast-check';
import { WebSocket } from 'ws';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { Access } from '../../src/server/access.ts';
import { HttpError } from '../../src/server/http-error.ts';
import {
  MAX_INPUT_EVENTS,
  parseControlRequest,
  parseInputEvents,
  parseViewerMessage,
} from '../../src/server/messages.ts';
import { ViewerServer } from '../../src/server/server.ts';
import { noisyPicture } from '../outputs/pictures.ts';
import { http } from '../server/http-client.ts';
import { ScriptedView } from '../server/scripted-view.ts';
import { fuzzer } from './fuzzer.ts';

const TOKEN = 'a-token-that-is-known';
const BEARER = { authorization: `Bearer ${TOKEN}` };
/** Longest wait for an answer that does not come, in milliseconds. */
const PATIENCE_MS = 2000;
/** How long a request that is not whole is left standing. */
const PAUSE_MS = 20;

const number = fc.oneof(
  fc.nat(40),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-1, 0x2ff, 0x300, 0x7fef, 0x7ff0, 65535, 65536, 32767, 2 ** 32),
);
const anything = fc.oneof(number, fc.string({ maxLength: 10 }), fc.boolean(), fc.constant(null));
const inputEvent = fc.oneof(
  fc.record({ type: fc.constant('key'), code: number, pressed: fc.oneof(fc.boolean(), anything) }),
  fc.record({ type: fc.constant('motion'), dx: number, dy: number }),
  fc.record({ type: fc.constant('position'), x: number, y: number }),
  fc.record({ type: fc.constant('wheel'), delta: number }),
  fc.record({
    type: fc.constant('touch'),
    contact: number,
    phase: fc.constantFrom('down', 'move', 'up', 'over'),
    x: number,
    y: number,
  }),
  fc.record({ type: anything, extra: anything }, { requiredKeys: [] }),
);
const events = fc.oneof(
  { weight: 9, arbitrary: fc.array(inputEvent, { maxLength: 5 }) },
  { weight: 1, arbitrary: inputEvent },
);
const screens = fc.array(fc.record({ domid: number, connector: number }), { maxLength: 70 });
const viewerMessage = fc.oneof(
  fc.record({ type: fc.constant('watch'), screens }),
  fc.record({ type: fc.constant('drawn'), domid: number, connector: number, frame: number }),
  fc.record({ type: fc.constant('input'), domid: fc.oneof(fc.constant(1), number), events }),
  fc.record({ type: fc.constant('release'), domid: number }),
  fc.record({ action: fc.oneof(fc.constantFrom('stop', 'crash', 'restart'), anything) }),
  events,
  anything,
  fc.json({ maxDepth: 3 }).map((text) => JSON.parse(text) as never),
);
/** A message as it is sent: as JSON, cut, or not JSON at all. */
const text = fc.oneof(
  { weight: 8, arbitrary: viewerMessage.map((message) => JSON.stringify(message)) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(viewerMessage, fc.nat(30))
      .map(([message, length]) => JSON.stringify(message).slice(0, length)),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 30 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('[', '['.repeat(50_000), '{"__proto__":1}', '\ud800', ''),
  },
);

function orHttpError<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    assert(error instanceof HttpError && error.status === 400, error as Error);
    return undefined;
  }
}

/** Any text is a message with numbers in their ranges, or a 400 that says what is wrong. */
export const viewerMessages = fuzzer({
  name: 'viewer-messages',
  parsers: ['server/messages.ts'],
  runs: 2000,
  input: text,
  check: (message) => {
    const parsed = orHttpError(() => parseViewerMessage(message));
    const input = orHttpError(() => parseInputEvents(message));
    orHttpError(() => parseControlRequest(message));
    const all = [...(input ?? []), ...(parsed?.type === 'input' ? parsed.events : [])];
    assert(all.length <= 2 * MAX_INPUT_EVENTS);
    for (const event of all) {
      for (const value of Object.values(event)) {
        if (typeof value === 'number') assert(Number.isInteger(value) && Math.abs(value) <= 0xffff);
      }
    }
  },
});

/** The server that all inputs meet, and that must go on whatever they were. */
class Site {
  readonly view: ScriptedView;
  readonly server: ViewerServer;

  private constructor(view: ScriptedView, server: ViewerServer) {
    this.view = view;
    this.server = server;
  }

  static async open(): Promise<Site> {
    const runtime = systemRuntime();
    const view = new ScriptedView(runtime);
    view.addGuest(1, 'guest');
    const screen = await view.connect(1);
    screen.show(noisyPicture(1, { width: 40, height: 30 }));
    view.offerControls();
    const options = { view, host: '127.0.0.1', port: 0, token: TOKEN };
    return new Site(view, await ViewerServer.start(runtime, options));
  }

  async checkAlive(): Promise<void> {
    const { port } = this.server;
    const { status } = await http({ port, path: '/api/status', headers: BEARER });
    assert.equal(status, 200, 'the server does not answer any more');
  }
}

let site: Promise<Site> | undefined;

function theSite(): Promise<Site> {
  site ??= Site.open();
  return site;
}

async function closeSite(): Promise<void> {
  const open = site;
  site = undefined;
  await (await open)?.server[Symbol.asyncDispose]();
}

const METHODS = ['GET', 'POST', 'HEAD', 'PUT', 'OPTIONS', 'DELETE', 'CONNECT', 'BREW', 'get', ''];
const TARGETS = [
  '/',
  '/main.js',
  '/api/status',
  '/metrics',
  '/api/guests/1/displays/0.png',
  '/api/guests/1/input',
  '/api/guests/1/control',
  '/api/guests/99999/input',
  '/api/guests/32752/displays/0.png',
  '/api/guests/1/displays/999.png',
  '/../etc/passwd',
  '/%2e%2e/x',
  '//x',
  '/%',
  '*',
  'http://other/',
  '/api/view',
  '/\u00ff',
  'x',
];
const header = fc.oneof(
  fc.constantFrom(
    'host: localhost',
    'host: evil.example',
    'host: [::1]:80',
    'host:',
    `authorization: Bearer ${TOKEN}`,
    'authorization: Bearer wrong',
    'content-type: application/json',
    'content-type: text/plain',
    'content-length: 5',
    'content-length: 99999999',
    'content-length: -1',
    'transfer-encoding: chunked',
    'origin: http://localhost',
    'origin: null',
    'origin: %',
    'upgrade: websocket',
    'connection: upgrade',
    'sec-websocket-version: 13',
    'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
    'expect: 100-continue',
  ),
  fc.string({ maxLength: 30 }),
);

interface RawRequest {
  readonly method: string;
  readonly target: string;
  readonly known: boolean;
  readonly headers: readonly string[];
  readonly body: string;
  readonly cut: number;
  /** One of the good requests instead of method, target and body. */
  readonly good: number | undefined;
  readonly type: string;
}

/** One connection, on which these bytes are sent. @returns what came back until it ended, or until the pause */
function exchange(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let got = '';
    const done = () => {
      socket.destroy();
      resolve(got);
    };
    socket.on('data', (part: Buffer) => {
      got += part.toString('latin1');
      if (got.includes('\r\n\r\n')) done();
    });
    socket.on('error', done);
    socket.on('close', done);
    socket.setTimeout(PAUSE_MS, done);
    socket.write(bytes);
  });
}

/** Requests that are as they should be, so that what comes after the checks is reached. */
const GOOD: readonly (readonly [method: string, target: string, body: string])[] = [
  ['GET', '/api/status', ''],
  ['HEAD', '/api/status', ''],
  ['GET', '/metrics', ''],
  ['GET', '/api/guests/1/displays/0.png', ''],
  ['POST', '/api/guests/1/input', '[{"type":"key","code":30,"pressed":true}]'],
  ['POST', '/api/guests/1/input', '[{"type":"position","x":65535,"y":1}]'],
  ['POST', '/api/guests/2/input', '[]'],
  ['POST', '/api/guests/1/control', '{"action":"stop"}'],
  ['POST', '/api/guests/1/control', '{"action":"restart"}'],
  ['POST', '/api/guests/9/control', '{"action":"crash"}'],
  ['POST', '/api/guests/1/input', `[${' '.repeat(140_000)}]`],
  ['GET', '/api/guests/1/displays/7.png', ''],
  ['GET', '/api/nothing', ''],
  ['PUT', '/api/status', ''],
];
const TYPES = ['application/json', 'application/json; charset=utf-8', 'text/plain', ''];

/** Whatever is sent, what comes back is an answer of HTTP and no defect, and the server goes on. */
export const httpRequests = fuzzer({
  name: 'http',
  parsers: ['server/server.ts', 'server/api.ts', 'server/access.ts'],
  runs: 150,
  input: fc.record({
    method: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom('GET', 'POST') },
      fc.constantFrom(...METHODS),
    ),
    target: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(...TARGETS) },
      fc.string({ maxLength: 20 }).map((path) => `/${path}`),
    ),
    known: fc.nat(3).map((roll) => roll > 0),
    headers: fc.array(header, { maxLength: 5 }),
    body: text,
    cut: fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, fc.nat(100)),
    good: fc.option(fc.nat(GOOD.length - 1), { nil: undefined }),
    type: fc.oneof({ weight: 6, arbitrary: fc.constant(TYPES[0]!) }, fc.constantFrom(...TYPES)),
  }) as fc.Arbitrary<RawRequest>,
  close: closeSite,
  check: async ({ known, headers, cut, good, type, ...asked }) => {
    const { method, target, body } = asked;
    const [verb, path, content] = good === undefined ? [method, target, body] : GOOD[good]!;
    const { server } = await theSite();
    const asWeKnow = [
      'host: localhost',
      `authorization: Bearer ${TOKEN}`,
      `content-type: ${type}`,
      `content-length: ${Buffer.byteLength(content)}`,
    ];
    const head = [`${verb} ${path} HTTP/1.1`, ...(known ? asWeKnow : []), ...headers];
    const whole = Buffer.from(`${head.join('\r\n')}\r\n\r\n${content}`);
    const got = await exchange(server.port, whole.subarray(0, whole.length - cut));
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(got)?.[1];
    assert(got === '' || status !== undefined, `not HTTP: ${got.slice(0, 60)}`);
    assert(status === undefined || Number(status) < 500, `a defect: ${got.slice(0, 300)}`);
  },
});

const frame = fc.oneof(
  { weight: 6, arbitrary: fc.record({ text }) },
  { weight: 1, arbitrary: fc.record({ binary: fc.array(fc.nat(255), { maxLength: 20 }) }) },
  { weight: 1, arbitrary: fc.record({ ping: fc.nat(120) }) },
);

/** Whatever a viewer says, it is listened to or told why not, and the server goes on. */
export const webSockets = fuzzer({
  name: 'websocket',
  parsers: ['server/viewer-connection.ts'],
  runs: 60,
  input: fc.record({
    frames: fc.array(frame, { minLength: 1, maxLength: 8 }),
    good: fc.boolean(),
  }),
  close: closeSite,
  check: async ({ frames, good }) => {
    const { server, view } = await theSite();
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/api/view?token=${TOKEN}`);
    let closed: number | undefined;
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      if (!isBinary || socket.readyState !== WebSocket.OPEN) return;
      const drawn = { type: 'drawn', domid: 1, connector: 0, frame: data.readUInt32LE(12) };
      socket.send(JSON.stringify(drawn));
    });
    const over = new Promise<void>((resolve) => {
      socket.on('close', (code) => {
        closed = code;
        resolve();
      });
      socket.on('error', () => resolve());
    });
    await new Promise<void>((resolve) => {
      socket.on('open', resolve);
      socket.on('error', () => resolve());
    });
    if (good) {
      socket.ping();
      const watch = { type: 'watch', screens: [{ domid: 1, connector: 0 }] };
      socket.send(JSON.stringify(watch));
      const press = { type: 'key', code: 30, pressed: true };
      socket.send(JSON.stringify({ type: 'input', domid: 1, events: [press] }));
    }
    for (const each of frames) {
      if ('text' in each) socket.send(each.text);
      else if ('binary' in each) socket.send(Uint8Array.from(each.binary));
      else socket.ping(Buffer.alloc(each.ping));
    }
    if (good) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    socket.close();
    const timer = setTimeout(() => socket.terminate(), PATIENCE_MS);
    await over;
    clearTimeout(timer);
    assert(
      closed === undefined || [1000, 1003, 1005, 1008, 1009].includes(closed),
      `code ${closed}`,
    );
    const { events: told } = view.guests.values().next().value!.input;
    told.length = 0;
    await (await theSite()).checkAlive();
  },
});

const asText = fc.oneof(fc.string({ maxLength: 30 }), fc.constantFrom(undefined));

/** Names, origins and tokens are right or refused with 4xx. */
export const accessChecks = fuzzer({
  name: 'access',
  parsers: ['server/access.ts'],
  runs: 1000,
  input: fc.record({
    listenHost: fc.constantFrom('127.0.0.1', '0.0.0.0', '::', 'name.example'),
    host: fc.oneof(
      asText,
      fc.constantFrom(
        'localhost',
        'LOCALHOST:80',
        '[::1]:80',
        '[::1',
        '10.0.0.1',
        'evil',
        ':80',
        'a:b:c',
      ),
    ),
    origin: fc.oneof(asText, fc.constantFrom('http://localhost', 'null', 'http://', '%')),
    authorization: fc.oneof(
      asText,
      fc.constantFrom(`Bearer ${TOKEN}`, `bearer  ${TOKEN}`, 'Bearer ', `Basic ${TOKEN}`),
    ),
    query: fc.oneof(asText, fc.constant(TOKEN)),
  }),
  check: ({ listenHost, host, origin, authorization, query }) => {
    const access = new Access({ token: TOKEN, listenHost });
    const headers = { host, origin, authorization };
    const request = { headers } as unknown as Parameters<Access['checkHost']>[0];
    const allowed = (check: () => unknown): boolean => {
      try {
        check();
        return true;
      } catch (error) {
        assert(error instanceof HttpError && error.status >= 400 && error.status < 500);
        return false;
      }
    };
    if (allowed(() => access.checkHost(request))) assert(host !== undefined && host !== 'evil');
    if (allowed(() => access.checkOrigin(request))) {
      assert(origin === undefined || new URL(origin).host === host?.toLowerCase());
    }
    const values = new URLSearchParams(query === undefined ? {} : { token: query });
    if (allowed(() => access.permitOf(request, values))) {
      assert(query === TOKEN || authorization?.endsWith(TOKEN));
    }
  },
});
