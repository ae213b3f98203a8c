// A program on the viewer protocol, for tests of the server.

import { WebSocket } from 'ws';
import type { ServerMessage, ViewerMessage } from '../../src/outputs/browser/protocol.ts';
import { systemRuntime, until } from '../../src/runtime/runtime.ts';
import type { ServedStatus } from '../../src/server/served-status.ts';
import { ViewerModel } from '../outputs/viewer-model.ts';

const runtime = systemRuntime();

export interface ViewClientOptions {
  readonly token?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly path?: string;
}

/** Draws what it gets at once, unless told not to. */
export class ViewClient {
  readonly socket: WebSocket;
  readonly model = new ViewerModel();
  statuses: ServedStatus[] = [];
  updates = 0;
  closed: { code: number; reason: string } | undefined;
  refused: number | undefined;
  draws = true;

  constructor(port: number, { token, headers = {}, path = '/api/view' }: ViewClientOptions) {
    const query = token === undefined ? '' : `?token=${encodeURIComponent(token)}`;
    this.socket = new WebSocket(`ws://127.0.0.1:${port}${path}${query}`, { headers });
    this.socket.on('message', (data: Buffer, isBinary) =>
      isBinary ? this.#update(data) : this.#text(data),
    );
    this.socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
    });
    this.socket.on('unexpected-response', (request, { statusCode }) => {
      this.refused = statusCode ?? 0;
      request.destroy();
    });
    this.socket.on('error', () => {});
  }

  async opened(): Promise<this> {
    await until(runtime, () => this.socket.readyState === WebSocket.OPEN, {
      what: 'an open socket',
    });
    return this;
  }

  say(message: ViewerMessage | object): void {
    this.socket.send(JSON.stringify(message));
  }

  watch(...domids: number[]): void {
    this.say({ type: 'watch', screens: domids.map((domid) => ({ domid, connector: 0 })) });
  }

  #update(data: Buffer): void {
    this.updates++;
    if (!this.draws) return;
    const { domid, connector, frame } = this.model.apply(data);
    this.say({ type: 'drawn', domid, connector, frame });
  }

  #text(data: Buffer): void {
    const message = JSON.parse(data.toString()) as ServerMessage<ServedStatus>;
    this.statuses.push(message.status);
  }
}
