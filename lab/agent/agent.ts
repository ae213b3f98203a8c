// The lab's agent: the one program through which the lab does things in dom0. It is part of the boot
// image, started by init, and serves the routes of protocol.ts. It trusts whoever knows the token of
// this boot, which stands on the kernel's command line.
import { readFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { consolePath, GuestConsole } from './guest-console.ts';
import { Processes, run } from './processes.ts';
import { AGENT_PORT, TOKEN_HEADER } from './protocol.ts';

const processes = new Processes();
const consoles = new Map<number, Promise<GuestConsole>>();

/** What a route answers: an object goes out as JSON, bytes as they are, nothing as 204. */
type Answer = object | null | Buffer | undefined;
type Route = (url: URL, body: Buffer) => Promise<Answer>;

function json<T>(body: Buffer): T {
  return JSON.parse(body.toString('utf8')) as T;
}

function parameter(url: URL, name: string): string {
  const value = url.searchParams.get(name);
  if (value === null) throw new Error(`the parameter ${name} is missing`);
  return value;
}

function lastSegment(url: URL): string {
  return url.pathname.slice(url.pathname.lastIndexOf('/') + 1);
}

/** N of `/guests/N/...`. */
function domidOf(url: URL): number {
  return Number(url.pathname.split('/')[2]);
}

/** The console of a guest, opened at its first use: domids are never used twice in one boot. */
async function guestConsole(domid: number): Promise<GuestConsole> {
  let opening = consoles.get(domid);
  if (opening === undefined) {
    opening = consolePath(domid).then((path) => new GuestConsole(path));
    consoles.set(domid, opening);
    opening.catch(() => consoles.delete(domid));
  }
  return opening;
}

async function putFile(url: URL, body: Buffer): Promise<Answer> {
  const path = parameter(url, 'path');
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, body);
  return undefined;
}

const routes: readonly [method: string, path: RegExp, route: Route][] = [
  ['GET', /^\/health$/, async () => undefined],
  ['POST', /^\/run$/, (_url, body) => run(json(body))],
  ['POST', /^\/processes$/, (_url, body) => processes.start(json(body))],
  ['DELETE', /^\/processes$/, () => processes.killAll().then(() => undefined)],
  ['GET', /^\/processes\/[^/]+$/, async (url) => processes.state(lastSegment(url))],
  [
    'DELETE',
    /^\/processes\/[^/]+$/,
    (url) =>
      processes.stop(lastSegment(url), {
        signal: parameter(url, 'signal') as NodeJS.Signals,
        timeoutMs: Number(parameter(url, 'timeoutMs')),
      }),
  ],
  ['GET', /^\/files$/, (url) => readFile(parameter(url, 'path'))],
  ['PUT', /^\/files$/, putFile],
  [
    'POST',
    /^\/guests\/\d+\/console$/,
    async (url) => {
      await guestConsole(domidOf(url));
      return undefined;
    },
  ],
  [
    'POST',
    /^\/guests\/\d+\/run$/,
    async (url, body) => (await guestConsole(domidOf(url))).run(json(body)),
  ],
];

async function answer(request: IncomingMessage): Promise<Answer> {
  const url = new URL(request.url ?? '/', 'http://dom0');
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const found = routes.find(
    ([method, path]) => method === request.method && path.test(url.pathname),
  );
  if (found === undefined) throw new Error(`no such route: ${request.method} ${url.pathname}`);
  return found[2](url, Buffer.concat(chunks));
}

function send(response: ServerResponse, status: number, body: Answer): void {
  if (body === undefined) response.writeHead(204).end();
  else if (Buffer.isBuffer(body)) response.writeHead(status).end(body);
  else response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

const token = /\blab\.token=(\S+)/.exec(readFileSync('/proc/cmdline', 'utf8'))?.[1];
if (token === undefined) throw new Error('the kernel command line has no lab.token');

const server = createServer((request, response) => {
  if (request.headers[TOKEN_HEADER] !== token) {
    send(response, 401, { error: 'the token is wrong' });
    return;
  }
  answer(request).then(
    (body) => send(response, 200, body),
    (error: Error) => send(response, 500, { error: error.message }),
  );
});
// Commands may run for minutes before they answer.
server.requestTimeout = 0;
server.keepAliveTimeout = 60_000;
server.listen(AGENT_PORT, '0.0.0.0', () =>
  console.log(`lab: the agent listens on port ${AGENT_PORT}`),
);
