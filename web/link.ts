// The connection to the server: one WebSocket, opened again by itself with growing pauses when it is lost.
//
// Invariants: what the page wants to watch is said again after every reconnection; the state is always one
// of `LinkState`; when the server refuses the token there is no point in trying again, and none is made.

import type { ControlAction } from '../src/daemon/status.ts';
import {
  type InputEvent,
  readUpdate,
  type ScreenKey,
  type ServerMessage,
  type Update,
  type ViewerMessage,
} from '../src/outputs/browser/protocol.ts';
import type { ServedStatus } from '../src/server/served-status.ts';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;

/** The server says something twice a second; this much silence is a connection that died unnoticed. */
const LONGEST_SILENCE_MS = 8000;

export type LinkState =
  | { readonly kind: 'connecting' }
  | { readonly kind: 'live' }
  | { readonly kind: 'waiting'; readonly pauseMs: number }
  | { readonly kind: 'refused'; readonly reason: string };

export interface LinkEvents {
  onState(state: LinkState): void;
  onStatus(status: ServedStatus): void;
  onUpdate(update: Update): void;
}

export class Link {
  readonly #token: string;
  readonly #events: LinkEvents;
  #socket: WebSocket | undefined;
  #pauseMs = FIRST_PAUSE_MS;
  #retry: number | undefined;
  #silence: number | undefined;
  #watched = '[]';

  constructor(token: string, events: LinkEvents) {
    this.#token = token;
    this.#events = events;
    addEventListener('online', () => this.#retryNow());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.#retryNow();
    });
    this.#connect();
  }

  /** All screens that the page wants to see from now on. */
  watch(screens: readonly ScreenKey[]): void {
    const watched = JSON.stringify(screens);
    if (watched === this.#watched) return;
    this.#watched = watched;
    this.#say({ type: 'watch', screens });
  }

  /** The update is on the canvas: the next may come. */
  drawn({ domid, connector, frame }: Update): void {
    this.#say({ type: 'drawn', domid, connector, frame });
  }

  input(domid: number, events: readonly InputEvent[]): void {
    this.#say({ type: 'input', domid, events });
  }

  release(domid: number): void {
    this.#say({ type: 'release', domid });
  }

  /** Asks for an action on a guest; resolves when it is done. @throws with the server's reason */
  async control(domid: number, action: ControlAction): Promise<void> {
    const answer = await fetch(`api/guests/${domid}/control`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ action }),
    });
    if (answer.ok) return;
    const { error } = (await answer.json()) as { error: string };
    throw new Error(error);
  }

  /** Gives up this connection and makes a new one: it is dead, or what came was not understood. */
  restart(): void {
    const socket = this.#socket;
    if (!socket) return;
    // A dead connection would take its time to close: nobody waits for it.
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
    void this.#lost();
  }

  #say(message: ViewerMessage): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #connect(): void {
    this.#retry = undefined;
    this.#events.onState({ kind: 'connecting' });
    const url = new URL('api/view', location.href);
    url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    url.search = new URLSearchParams({ token: this.#token }).toString();
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      this.#pauseMs = FIRST_PAUSE_MS;
      this.#events.onState({ kind: 'live' });
      this.#expectMore();
      socket.send(`{"type":"watch","screens":${this.#watched}}`);
    };
    socket.onmessage = ({ data }) => {
      try {
        this.#receive(data);
      } catch (error) {
        console.error(error);
        this.restart();
      }
    };
    socket.onclose = () => void this.#lost();
  }

  #receive(data: string | ArrayBuffer): void {
    this.#expectMore();
    if (typeof data === 'string') {
      const message = JSON.parse(data) as ServerMessage<ServedStatus>;
      this.#events.onStatus(message.status);
    } else {
      this.#events.onUpdate(readUpdate(data));
    }
  }

  #expectMore(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.restart(), LONGEST_SILENCE_MS);
  }

  /** A socket does not say why it was refused; an ordinary request does. */
  async #lost(): Promise<void> {
    clearTimeout(this.#silence);
    this.#socket = undefined;
    const reason = await this.#refusal();
    if (reason !== undefined) {
      this.#events.onState({ kind: 'refused', reason });
      return;
    }
    this.#events.onState({ kind: 'waiting', pauseMs: this.#pauseMs });
    this.#retry = setTimeout(() => this.#connect(), this.#pauseMs);
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }

  async #refusal(): Promise<string | undefined> {
    try {
      const headers = { authorization: `Bearer ${this.#token}` };
      const answer = await fetch('api/status', { headers });
      if (answer.status !== 401 && answer.status !== 403) return undefined;
      const { error } = (await answer.json()) as { error: string };
      return error;
    } catch {
      return undefined;
    }
  }

  #retryNow(): void {
    if (this.#retry === undefined) return;
    clearTimeout(this.#retry);
    this.#connect();
  }
}
