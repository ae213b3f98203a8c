// Runs in dom0 or in a guest and does there what it is told (domain-acts.ts), one JSON line of stdin after the other:
//
//   {"id": N, "act": NAME, "request": {...}}
//
// It answers each by a line, `{"re":N,"answer":...}` or `{"re":N,"error":"..."}`, and says `{"re":0,...}` once it is
// ready. It ends, and gives everything back, by SIGTERM.
import { createInterface } from 'node:readline';
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { DomainActs } from './domain-acts.ts';

interface Order {
  readonly id: number;
  readonly act: keyof DomainActs;
  readonly request: never;
}

function reply(re: number, what: { answer: unknown } | { error: string }): void {
  process.stdout.write(`${JSON.stringify({ re, ...what })}\n`);
}

const domain = await openLinuxDomain({ runtime: systemRuntime() });
const acts = new DomainActs(domain);
const orders = createInterface({ input: process.stdin });

process.once('SIGTERM', async () => {
  orders.close();
  process.stdin.destroy();
  await domain[Symbol.asyncDispose]();
});
orders.on('line', async (line) => {
  const { id, act, request } = JSON.parse(line) as Order;
  try {
    reply(id, { answer: (await acts[act](request)) ?? null });
  } catch (error) {
    reply(id, { error: String(error) });
  }
});
reply(0, { answer: await acts.identify() });
