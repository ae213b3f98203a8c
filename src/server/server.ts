// The HTTP server: the viewer page, the API, the metrics, and the WebSocket of the viewers.
//
// Invariants: nothing but the page's own files is answered without the token; every answer has the security
// headers; a body is read up to a limit and only after access was checked; an unexpected error becomes a
// 500 for this request and a line in the log.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { DaemonView } from '../daemon/view.ts';
import { messageOf, SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Access } from './access.ts';
import { type Answer, apiRoutes, jsonAnswer, type Route } from './api.ts';
import { HttpError } from './http-error.ts';
import { Metrics } from './metrics.ts';
import { loadStaticFiles, type StaticFile } from './static-files.ts';
import { Viewers } from './viewers.ts';

/** Largest request body: a full array of input events. */
const MAX_BODY_BYTES = 128 * 1024;

/** Connections at a time, WebSockets included. */
const MAX_CONNECTIONS = 256;

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;

const VIEW_PATH = '/api/view';

const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
};

export interface ServerOptions {
  readonly view: DaemonView;
  /** Address or name to listen on. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly token: string;
  /** Further names under which the server is reached, such as that of a reverse proxy. */
  readonly allowedHosts?: readonly string[];
}

export class ViewerServer implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #options: ServerOptions;
  readonly #access: Access;
  readonly #files: ReadonlyMap<string, StaticFile>;
  readonly #viewers: Viewers;
  readonly #routes: readonly Route[];
  readonly #http: Server;

  private constructor(runtime: Runtime, options: ServerOptions) {
    this.#runtime = runtime;
    this.#options = options;
    const { token, host, allowedHosts = [] } = options;
    this.#access = new Access({ token, listenHost: host, allowedHosts });
    this.#files = loadStaticFiles();
    this.#viewers = new Viewers(runtime, options.view);
    this.#routes = apiRoutes(options.view, new Metrics(options.view, () => this.#viewers.count));
    this.#http = createServer({
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
    });
    this.#http.maxConnections = MAX_CONNECTIONS;
    this.#http.on('request', (request, response) => void this.#serve(request, response));
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  /**
   * Listens, and answers from then on.
   * @throws SysError when the address cannot be listened on or the page was not built
   */
  static async start(runtime: Runtime, options: ServerOptions): Promise<ViewerServer> {
    const server = new ViewerServer(runtime, options);
    await server.#listen();
    return server;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  /** Where a person opens the viewer, token included. */
  get url(): string {
    const { host, token } = this.#options;
    const name = host.includes(':') ? `[${host}]` : host;
    return `http://${name}:${this.port}/?token=${encodeURIComponent(token)}`;
  }

  /** Stops listening, says goodbye to the viewers, closes every connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    await this.#viewers.close();
    this.#http.closeAllConnections();
    await closed;
  }

  #listen(): Promise<void> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      this.#http.on('error', (error: NodeJS.ErrnoException) => {
        this.#runtime.log.error({ error: error.message }, 'the HTTP server met an error');
        const remedy = 'choose another address with --listen HOST:PORT (port 0 picks a free one)';
        const context = `listening on ${host}:${port}`;
        reject(new SysError({ call: 'listen', errnoName: error.code ?? 'EIO', context, remedy }));
      });
      this.#http.listen({ host, port }, resolve);
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const { type, body } = await this.#answer(request);
      respond(request, response, { status: 200, headers: { 'content-type': type }, body });
    } catch (error) {
      const { status, headers, message } = this.#asHttpError(error);
      const { type, body } = jsonAnswer({ error: message });
      // What is left of the request's body is not read: the connection ends with the answer.
      if (!request.complete) response.setHeader('connection', 'close');
      respond(request, response, { status, headers: { ...headers, 'content-type': type }, body });
    }
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    this.#access.checkHost(request);
    const { pathname, searchParams } = urlOf(request);
    const file = this.#files.get(pathname);
    if (file) {
      checkMethod(request, ['GET']);
      return file;
    }
    this.#access.checkToken(request, searchParams);
    const matching = this.#routes.filter(({ path }) => path.test(pathname));
    if (matching.length === 0) throw new HttpError(404, `there is nothing at ${pathname}`);
    checkMethod(
      request,
      matching.map(({ method }) => method),
    );
    const [route] = matching;
    if (route!.method === 'POST') this.#access.checkOrigin(request);
    const body = route!.method === 'POST' ? await readJsonBody(request) : '';
    return await route!.handle(route!.path.exec(pathname)!.slice(1), body);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    try {
      this.#access.checkHost(request);
      this.#access.checkOrigin(request);
      const { pathname, searchParams } = urlOf(request);
      this.#access.checkToken(request, searchParams);
      if (pathname !== VIEW_PATH) throw new HttpError(404, `no WebSocket at ${pathname}`);
      this.#viewers.accept(request, socket, head);
    } catch (error) {
      const { status, message } = this.#asHttpError(error);
      const body = `${JSON.stringify({ error: message })}\n`;
      socket.once('finish', () => socket.destroy());
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-type: application/json\r\n` +
          `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    }
  }

  #asHttpError(error: unknown): HttpError {
    if (error instanceof HttpError) return error;
    this.#runtime.log.error({ error: messageOf(error) }, 'a request failed');
    return new HttpError(500, 'the request failed; the log says why');
  }
}

interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | string;
}

function respond(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: Response,
): void {
  response.writeHead(status, {
    ...SECURITY_HEADERS,
    ...headers,
    'content-length': Buffer.byteLength(body),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** @throws HttpError 400 when the request's target is not a path */
function urlOf(request: IncomingMessage): URL {
  const target = `http://server${request.url}`;
  if (!request.url?.startsWith('/') || !URL.canParse(target)) {
    throw new HttpError(400, 'the request is not for a path');
  }
  return new URL(target);
}

/** @throws HttpError 405 naming what is allowed; HEAD is allowed where GET is */
function checkMethod(request: IncomingMessage, allowed: readonly string[]): void {
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  if (allowed.includes(method)) return;
  const allow = allowed.join(', ');
  throw new HttpError(405, `${request.method} is not allowed here, only ${allow}`, { allow });
}

/** @throws HttpError 415 when it is not JSON, 413 when it is longer than MAX_BODY_BYTES */
async function readJsonBody(request: IncomingMessage): Promise<string> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
    throw new HttpError(415, 'the body must be JSON, and its Content-Type application/json');
  }
  const tooLong = new HttpError(413, `the body is longer than ${MAX_BODY_BYTES} bytes`);
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) throw tooLong;
  const parts: Buffer[] = [];
  let bytes = 0;
  // Leaving the loop early must not take the connection away: the refusal still goes out on it.
  const chunks: AsyncIterable<Buffer> = request.iterator({ destroyOnReturn: false });
  for await (const part of chunks) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) throw tooLong;
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}
