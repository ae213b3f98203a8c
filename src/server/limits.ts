// How much the server takes from those who connect, with and without a token.

/** Largest request body and WebSocket message: a full array of input events. */
export const MAX_MESSAGE_BYTES = 128 * 1024;

/** Longest request target; the longest of ours is a path with a token of some hundred characters. */
export const MAX_TARGET_CHARS = 2048;

/** Largest head of a request, target and all headers together. */
export const MAX_HEAD_BYTES = 8 * 1024;

export interface ServerLimits {
  /** Connections at a time, WebSockets included. */
  readonly connections: number;
  /** Viewers at a time; each may hold one frame per screen it watches. */
  readonly viewers: number;
  /** Viewers with limited tokens together, so that there is room for the others. */
  readonly limitedViewers: number;
  /** Viewers with one limited token, so that there is room for those with another. */
  readonly viewersPerLimitedToken: number;
  /** Messages, events and newly watched screens of one viewer a second (viewer-pace.ts); what is more waits. */
  readonly viewerWorkPerSecond: number;
  /** Requests of one token a second, and what their bodies are worth (request-pace.ts); what is more is refused. */
  readonly requestWorkPerSecond: number;
  /** How long a request's head may take to come, from the connection's beginning. */
  readonly headMs: number;
  /** How long a whole request may take to come. */
  readonly requestMs: number;
  /** How long a connection may be idle between requests. */
  readonly idleMs: number;
  /** How often these times are looked at. */
  readonly checkMs: number;
}

export const SERVER_LIMITS: ServerLimits = {
  connections: 256,
  viewers: 32,
  limitedViewers: 24,
  viewersPerLimitedToken: 8,
  viewerWorkPerSecond: 10_000,
  requestWorkPerSecond: 10_000,
  headMs: 10_000,
  requestMs: 30_000,
  idleMs: 5_000,
  checkMs: 1_000,
};
