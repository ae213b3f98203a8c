// The agent's time, for the bounds of what it waits for: dom0's clock goes on while the computer that emulates it is suspended.
import { LivedClock } from '../lived-time.ts';

export const clock = new LivedClock({
  nowMs: () => performance.now(),
  after(delayMs, task) {
    const handle = setTimeout(task, delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
});
