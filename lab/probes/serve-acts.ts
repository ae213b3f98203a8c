// Has a program do what it is told, one JSON line of stdin after the other:
//
//   {"id": N, "act": NAME, "request": {...}}
//
// It answers each by a line, `{"re":N,"answer":...}` or `{"re":N,"error":"..."}`, and says `{"re":0,...}` once it is
// ready. It ends, and gives everything back, by SIGTERM.
import { createInterface } from 'node:readline';

type Acts = Readonly<Record<string, (request: never) => Promise<unknown>>>;

interface Order {
  readonly id: number;
  readonly act: string;
  readonly request: never;
}

function reply(re: number, what: { answer: unknown } | { error: string }): void {
  process.stdout.write(`${JSON.stringify({ re, ...what })}\n`);
}

/** `ready` is the answer with the number 0; `close` gives everything back. */
export function serveActs(
  acts: object,
  { ready, close }: { ready: unknown; close: () => Promise<void> },
): void {
  const orders = createInterface({ input: process.stdin });
  process.once('SIGTERM', async () => {
    orders.close();
    process.stdin.destroy();
    await close();
  });
  orders.on('line', async (line) => {
    const { id, act, request } = JSON.parse(line) as Order;
    try {
      reply(id, { answer: (await (acts as Acts)[act]!(request)) ?? null });
    } catch (error) {
      reply(id, { error: String(error) });
    }
  });
  reply(0, { answer: ready });
}
