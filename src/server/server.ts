// The HTTP server: the viewer page, the API, the metrics, and the WebSocket of the viewers.
//
// Invariants: nothing but the page's own files is answered without a token, and nothing is answered of a guest
// that the token does not reach; every answer has the security headers; a body is read up to a limit and only
// after access was checked; an unexpected error becomes a 500 for this request and a line in the log.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { DaemonView } from '../daemon/view.ts';
import { messageOf, SysError } from '../runtime/errors.ts';
import type { Runtime } from '../runtime/runtime.ts';
import { Access, type LimitedToken } from './access.ts';
import { type Answer, apiRoutes, type Route } from './api.ts';
import { HttpError } from './http-error.ts';
import { MAX_HEAD_BYTES, SERVER_LIMITS, type ServerLimits } from './limits.ts';
import { Metrics } from './metrics.ts';
import { PermittedView } from './permitted-view.ts';
import { RefusalCounts } from './refusal-counts.ts';
import { RequestPace } from './request-pace.ts';
import { checkMethod, readJsonBody, urlOf } from './requests.ts';
import { refusal, respond, respondOn } from './responses.ts';
import { loadStaticFiles, type StaticFile } from './static-files.ts';
import { Viewers } from './viewers.ts';

const VIEW_PATH = '/api/view';

/** What Node's parser refuses by itself, by the code of its error. */
const PARSER_REFUSALS: Readonly<Record<string, HttpError>> = {
  ERR_HTTP_REQUEST_TIMEOUT: new HttpError(408, 'the request took too long', { reason: 'too-slow' }),
  HPE_HEADER_OVERFLOW: new HttpError(431, `the head is longer than ${MAX_HEAD_BYTES} bytes`, {
    reason: 'oversized',
  }),
};
const NOT_HTTP = new HttpError(400, 'this is not HTTP', { reason: 'not-http' });

export interface ServerOptions {
  readonly view: DaemonView;
  /** Address or name to listen on. */
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** The token that may do everything. */
  readonly token: string;
  readonly limitedTokens?: readonly LimitedToken[];
  /** Further names under which the server is reached, such as that of a reverse proxy. */
  readonly allowedHosts?: readonly string[];
  readonly limits?: ServerLimits;
}

export class ViewerServer implements AsyncDisposable {
  readonly #runtime: Runtime;
  readonly #options: ServerOptions;
  readonly #access: Access;
  readonly #files: ReadonlyMap<string, StaticFile>;
  readonly #refused = new RefusalCounts();
  readonly #pace: RequestPace;
  readonly #viewers: Viewers;
  readonly #routes: readonly Route[];
  readonly #http: Server;

  private constructor(runtime: Runtime, options: ServerOptions) {
    const { view, host: listenHost, limits = SERVER_LIMITS } = options;
    this.#runtime = runtime;
    this.#options = options;
    this.#access = new Access({ ...options, listenHost });
    this.#files = loadStaticFiles();
    this.#pace = new RequestPace(runtime, limits.requestWorkPerSecond);
    const refused = this.#refused;
    this.#viewers = new Viewers(runtime, { view, limits, refused });
    this.#routes = apiRoutes(new Metrics(view, { viewers: () => this.#viewers.count, refused }));
    this.#http = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: limits.headMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.idleMs,
      connectionsCheckingInterval: limits.checkMs,
    });
    this.#http.maxConnections = limits.connections;
    this.#http.on('request', (request, response) => void this.#serve(request, response));
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.#http.on('clientError', (error, socket) => this.#refuseConnection(error, socket));
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
      const refuse = (error: NodeJS.ErrnoException) => {
        const remedy = 'choose another address with --listen HOST:PORT (port 0 picks a free one)';
        const context = `listening on ${host}:${port}`;
        reject(new SysError({ call: 'listen', errnoName: error.code ?? 'EIO', context, remedy }));
      };
      this.#http.once('error', refuse);
      this.#http.listen({ host, port }, () => {
        this.#http.off('error', refuse);
        this.#http.on('error', ({ message }) => {
          this.#runtime.log.error({ error: message }, 'the HTTP server met an error');
        });
        resolve();
      });
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const { type, body } = await this.#answer(request);
      respond(request, response, { status: 200, headers: { 'content-type': type }, body });
    } catch (error) {
      respond(request, response, refusal(this.#asHttpError(error)));
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
    const permit = this.#access.permitOf(request, searchParams);
    this.#pace.request(permit);
    const route = this.#routeOf(request, pathname);
    if (route.method === 'POST') {
      this.#access.checkOrigin(request);
      permit.checkMayAct();
    }
    const body = route.method === 'POST' ? await readJsonBody(request) : '';
    this.#pace.body(permit, Buffer.byteLength(body));
    const view = new PermittedView(this.#options.view, permit);
    const parameters = route.path.exec(pathname)!.slice(1);
    return await route.handle({ view, parameters, body });
  }

  /** @throws HttpError 404 for a path that is none, 405 for a method that it does not have */
  #routeOf(request: IncomingMessage, pathname: string): Route {
    const route = this.#routes.find(({ path }) => path.test(pathname));
    if (route === undefined) throw new HttpError(404, `there is nothing at ${pathname}`);
    checkMethod(request, [route.method]);
    return route;
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    try {
      this.#access.checkHost(request);
      this.#access.checkOrigin(request);
      const { pathname, searchParams } = urlOf(request);
      const permit = this.#access.permitOf(request, searchParams);
      if (pathname !== VIEW_PATH) throw new HttpError(404, `no WebSocket at ${pathname}`);
      const view = new PermittedView(this.#options.view, permit);
      this.#viewers.accept({ request, socket, head, view });
    } catch (error) {
      respondOn(socket, refusal(this.#asHttpError(error)));
    }
  }

  /** The parser gave up on a connection, or its time is over. */
  #refuseConnection({ code = '' }: NodeJS.ErrnoException, duplex: Duplex): void {
    const socket = duplex as Socket;
    // Behind the beginning of another answer there is no place for this one.
    if (!socket.writable || socket.bytesWritten > 0) {
      socket.destroy();
      return;
    }
    respondOn(socket, refusal(this.#asHttpError(PARSER_REFUSALS[code] ?? NOT_HTTP)));
  }

  #asHttpError(error: unknown): HttpError {
    if (error instanceof HttpError) {
      this.#refused.count(error);
      return error;
    }
    this.#runtime.log.error({ error: messageOf(error) }, 'a request failed');
    return new HttpError(500, 'the request failed; the log says why');
  }
}
