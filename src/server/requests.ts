// What comes in, before anything is done with it: the target, the method and the body of a request.

import type { IncomingMessage } from 'node:http';
import { HttpError } from './http-error.ts';
import { MAX_MESSAGE_BYTES, MAX_TARGET_CHARS } from './limits.ts';

/** @throws HttpError 400 when the request's target is not a path, 414 when it is too long */
export function urlOf({ url = '' }: IncomingMessage): URL {
  if (url.length > MAX_TARGET_CHARS) {
    const message = `the target is longer than ${MAX_TARGET_CHARS} characters`;
    throw new HttpError(414, message, { reason: 'oversized' });
  }
  const target = `http://server${url}`;
  if (!url.startsWith('/') || !URL.canParse(target)) {
    throw new HttpError(400, 'the request is not for a path');
  }
  return new URL(target);
}

/** @throws HttpError 405 naming what is allowed; HEAD is allowed where GET is */
export function checkMethod(request: IncomingMessage, allowed: readonly string[]): void {
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  if (allowed.includes(method)) return;
  const allow = allowed.join(', ');
  const message = `${request.method} is not allowed here, only ${allow}`;
  throw new HttpError(405, message, { headers: { allow } });
}

/** @throws HttpError 415 when it is not JSON, 413 when it is longer than MAX_MESSAGE_BYTES, 400 when it breaks off */
export async function readJsonBody(request: IncomingMessage): Promise<string> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
    throw new HttpError(415, 'the body must be JSON, and its Content-Type application/json');
  }
  const message = `the body is longer than ${MAX_MESSAGE_BYTES} bytes`;
  const tooLong = new HttpError(413, message, { reason: 'oversized' });
  if (Number(request.headers['content-length'] ?? 0) > MAX_MESSAGE_BYTES) throw tooLong;
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of chunksOf(request)) {
      bytes += part.length;
      if (bytes > MAX_MESSAGE_BYTES) break;
      parts.push(part);
    }
  } catch {
    throw new HttpError(400, 'the body broke off');
  }
  if (bytes > MAX_MESSAGE_BYTES) throw tooLong;
  return Buffer.concat(parts).toString();
}

/** Leaving the loop early does not take the connection away: the refusal still goes out on it. */
function chunksOf(request: IncomingMessage): AsyncIterable<Buffer> {
  return request.iterator({ destroyOnReturn: false });
}
