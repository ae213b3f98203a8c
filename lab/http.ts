// One HTTP request to a port of this machine's loopback, answered or failed within a bound: both to the
// agent and to the daemon in dom0, through the ports that QEMU forwards.
import { type Agent, type IncomingMessage, request } from 'node:http';
import type { Runtime } from '../src/runtime/runtime.ts';

export interface HttpQuestion {
  readonly port: number;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly timeoutMs: number;
  /** Keeps connections open between requests; left out, each request has a connection of its own. */
  readonly agent?: Agent;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: Buffer;
}

async function collect(response: IncomingMessage): Promise<HttpAnswer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks) };
}

/** Asks and waits for the whole answer, whatever its status. @throws when there is none in time */
export function ask(runtime: Runtime, question: HttpQuestion): Promise<HttpAnswer> {
  const { method, path, body, headers, port, timeoutMs, agent = false } = question;
  const length = { 'content-length': `${body?.length ?? 0}` };
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, method, path, agent, headers: { ...headers, ...length } },
      (response) => {
        collect(response).then(resolve, reject);
      },
    );
    const timer = runtime.after(timeoutMs, () => {
      asked.destroy(new Error(`no answer to ${method} ${path} within ${timeoutMs} ms`));
    });
    asked.on('error', reject);
    asked.on('close', () => timer.cancel());
    asked.end(body);
  });
}
