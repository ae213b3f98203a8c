// Bytes on a socket, as they are: what no HTTP client would send, for tests of what the server does with it.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface RawAnswer {
  /** Of the first answer; 0 when the connection was closed without one. */
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

/** A connection that says nothing until it is told to. */
export async function rawConnection(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** What comes on the connection until the server ends it. */
export async function answerOn(socket: Socket): Promise<RawAnswer> {
  const parts: Buffer[] = [];
  socket.on('data', (part) => parts.push(part));
  // A reset is an end as well: `once` would take it for an error.
  await new Promise((resolve) => socket.once('close', resolve));
  return parse(Buffer.concat(parts).toString('latin1'));
}

/** Sends `bytes` on a connection of their own, which the server has to end. */
export async function raw(port: number, bytes: string): Promise<RawAnswer> {
  const socket = await rawConnection(port);
  socket.write(bytes, 'latin1');
  return await answerOn(socket);
}

/** A request for `target`, written exactly so, on a connection that ends with its answer. */
export function requestFor(target: string, ...headers: readonly string[]): string {
  const lines = ['Host: 127.0.0.1', 'Connection: close', ...headers];
  return `GET ${target} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`;
}

function parse(text: string): RawAnswer {
  const [head = '', ...rest] = text.split('\r\n\r\n');
  const [first = '', ...lines] = head.split('\r\n');
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(':');
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  });
  return {
    status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1] ?? 0),
    headers: new Map(headers),
    body: rest.join('\r\n\r\n'),
  };
}
