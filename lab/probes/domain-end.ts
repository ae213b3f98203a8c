// Runs in dom0 or in a guest and does there what it is told (domain-acts.ts, serve-acts.ts).
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { DomainActs } from './domain-acts.ts';
import { serveActs } from './serve-acts.ts';

const domain = await openLinuxDomain({ runtime: systemRuntime() });
const acts = new DomainActs(domain);
serveActs(acts, {
  ready: await acts.identify(),
  close: async () => {
    await domain[Symbol.asyncDispose]();
  },
});
