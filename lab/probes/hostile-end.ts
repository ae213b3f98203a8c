// Runs in a guest and is to its PV display what it is told to be (hostile-acts.ts, serve-acts.ts).
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { HostileActs } from './hostile-acts.ts';
import { serveActs } from './serve-acts.ts';

const runtime = systemRuntime();
const domain = await openLinuxDomain({ runtime });
const acts = new HostileActs(runtime, domain);
serveActs(acts, {
  ready: { domid: domain.domid },
  close: async () => {
    await acts.closeAll();
    await domain[Symbol.asyncDispose]();
  },
});
