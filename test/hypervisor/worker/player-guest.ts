// The guest of the worker tests: what it does follows from the arguments it was started with.

import { enterGuest } from '../../../src/hypervisor/worker/enter-guest.ts';
import { playInGuest } from '../ping-pong.ts';

export interface PlayerArguments {
  readonly rounds: number;
  /** `play` and then wait for a shutdown; `throw` once it has started; `ignore` every request. */
  readonly ending: 'shutdown' | 'throw' | 'ignore';
}

const guest = await enterGuest();
const { rounds, ending } = guest.arguments as PlayerArguments;
await playInGuest(guest.domain, rounds);
if (ending === 'throw') throw new Error('the guest throws, as the test wants');
if (ending === 'ignore') {
  const forever = new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait(forever, 0, 0);
}
await guest.shutdown(await guest.shutdownRequested);
