// One daemon for each driver domain. Two of them would both answer the same frontends: each would take the guests'
// displays from the other, for ever.
//
// The lock is the kernel's (flock(2)), on a file that nobody can open who may not serve anyway: so a killed daemon
// leaves none behind, and no other program can hold it by mistake.

import { close, openDevice, tryLock } from '../posix/libc.ts';
import { SysError } from '../runtime/errors.ts';

/**
 * Makes this process the only daemon until the result is disposed.
 * @param path the file that stands for the domain
 * @throws SysError EBUSY when there is one already, or as open(2)
 */
export function becomeSoleDaemon(path: string): Disposable {
  const context = { context: `becoming the daemon of this domain by a lock on ${path}` };
  const fd = openDevice(path, context);
  if (tryLock(fd, context)) return { [Symbol.dispose]: () => close(fd, context) };
  close(fd, context);
  throw new SysError({
    call: 'flock',
    errnoName: 'EBUSY',
    context: `another xen-zcopy serves the guests of this domain (it holds the lock on ${path})`,
    remedy: 'stop that one first',
  });
}
