// What goes out: every answer, also those that Node would give by itself, with the security headers.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { jsonAnswer } from './api.ts';
import type { HttpError } from './http-error.ts';

/**
 * Only our own scripts and styles, from files (none in the page), and no strings as markup; not inside of
 * other pages, nor their pictures; no address of ours, which may have the token in it, to others; nothing kept.
 */
const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
    "require-trusted-types-for 'script'; trusted-types 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
};

export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | string;
}

/** The answer that says what was wrong, as one line of JSON. */
export function refusal({ status, headers, message }: HttpError): Response {
  const { type, body } = jsonAnswer({ error: message });
  return { status, headers: { ...headers, 'content-type': type }, body };
}

/** Answers a request. What is left of its body is not read: then the connection ends with the answer. */
export function respond(
  request: IncomingMessage,
  response: ServerResponse,
  { status, headers, body }: Response,
): void {
  if (!request.complete) response.setHeader('connection', 'close');
  response.writeHead(status, {
    ...SECURITY_HEADERS,
    ...headers,
    'content-length': Buffer.byteLength(body),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Answers on a connection that has no ServerResponse (yet, or any more), and ends it. */
export function respondOn(socket: Duplex, { status, headers, body }: Response): void {
  const all = {
    ...SECURITY_HEADERS,
    ...headers,
    connection: 'close',
    'content-length': String(Buffer.byteLength(body)),
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
}
