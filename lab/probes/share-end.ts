// Runs in dom0 or in a guest and shares with others as it is told (share-acts.ts, serve-acts.ts).
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { serveActs } from './serve-acts.ts';
import { ShareActs } from './share-acts.ts';

const runtime = systemRuntime();
const domain = await openLinuxDomain({ runtime });
const acts = new ShareActs(runtime, domain);
serveActs(acts, {
  ready: { domid: domain.domid },
  close: async () => {
    await acts.closeAll();
    await domain[Symbol.asyncDispose]();
  },
});
