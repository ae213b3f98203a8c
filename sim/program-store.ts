// Xenstore as a program has it, with what befalls it: requests that are refused, transactions that have to be done
// again, watches that fire for nothing, and the end of the program in the middle of all of that.

import type { Runtime } from '../src/runtime/runtime.ts';
import type { Xenstore, XenstoreAccess } from '../src/xen/xenstore.ts';
import { lacking } from './errors.ts';
import type { Faults } from './faults.ts';
import type { Program } from './program.ts';
import { hashOf, type Trace } from './trace.ts';

/** When a watch fires for nothing, in milliseconds after it fired for something. */
const SPURIOUS_AFTER_MS = [0, 50] as const;

export interface ProgramStore {
  /** The world's. */
  readonly runtime: Runtime;
  readonly program: Program;
  /** The program's connection. */
  readonly store: Xenstore;
  readonly faults: Faults;
  readonly trace: Trace;
}

export function programStore({ runtime, program, store, faults, trace }: ProgramStore): Xenstore {
  const access = (inner: XenstoreAccess) => accessOf(refusing(inner, faults), program, trace);
  const transact = async <T>(body: (access: XenstoreAccess) => Promise<T>): Promise<T> => {
    if (faults.strikes('store-conflict')) await doneInVain(store, (inner) => body(access(inner)));
    return store.transaction((inner) => body(access(inner)));
  };
  return {
    ...access(store),
    transaction: (body) => program.call('transaction', () => transact(body)),
    watch: async (path, onEvent) => {
      let open = true;
      const tell = (changed: string) => program.run(() => onEvent(changed));
      if (faults.strikes('store-refused')) throw lacking('XS_WATCH', 'ENOMEM');
      const watch = await program.call('watch', () =>
        store.watch(path, (changed) => {
          tell(changed);
          if (!faults.strikes('watch-spurious')) return;
          const delayMs = faults.measure('watch-spurious', ...SPURIOUS_AFTER_MS);
          runtime.after(delayMs, () => open && tell(changed));
        }),
      );
      return {
        path,
        [Symbol.asyncDispose]: () => {
          open = false;
          return program.call('unwatch', async () => watch[Symbol.asyncDispose]());
        },
      };
    },
  };
}

/** A transaction whose commit is refused because somebody else got in between. */
async function doneInVain(
  store: Xenstore,
  body: (access: XenstoreAccess) => Promise<unknown>,
): Promise<void> {
  const again = new Error('EAGAIN');
  const attempt = store.transaction(async (access) => {
    await body(access);
    throw again;
  });
  await attempt.catch((error: unknown) => {
    if (error !== again) throw error;
  });
}

/** What xenstored refuses has changed nothing. */
function refusing(access: XenstoreAccess, faults: Faults): XenstoreAccess {
  const unless = <T>(call: string, work: () => Promise<T>): Promise<T> =>
    faults.strikes('store-refused') ? Promise.reject(lacking(call, 'ENOMEM')) : work();
  return {
    read: (path) => unless('XS_READ', () => access.read(path)),
    directory: (path) => unless('XS_DIRECTORY', () => access.directory(path)),
    write: (path, value) => unless('XS_WRITE', () => access.write(path, value)),
    mkdir: (path) => unless('XS_MKDIR', () => access.mkdir(path)),
    remove: (path) => unless('XS_RM', () => access.remove(path)),
    getPermissions: (path) => unless('XS_GET_PERMS', () => access.getPermissions(path)),
    setPermissions: (path, permissions) =>
      unless('XS_SET_PERMS', () => access.setPermissions(path, permissions)),
  };
}

function accessOf(access: XenstoreAccess, program: Program, trace: Trace): XenstoreAccess {
  const noted = <T>(what: string, path: string, work: () => Promise<T>): Promise<T> =>
    program.call(what, () =>
      work().then((result) => {
        trace.note(what, hashOf(path), typeof result === 'string' ? hashOf(result) : 0);
        return result;
      }),
    );
  return {
    read: (path) => noted('store read', path, () => access.read(path)),
    directory: (path) => noted('store directory', path, () => access.directory(path)),
    write: (path, value) => {
      trace.note('store value', hashOf(value));
      return noted('store write', path, () => access.write(path, value));
    },
    mkdir: (path) => noted('store mkdir', path, () => access.mkdir(path)),
    remove: (path) => noted('store remove', path, () => access.remove(path)),
    getPermissions: (path) => program.call('store permissions', () => access.getPermissions(path)),
    setPermissions: (path, permissions) =>
      program.call('store permissions', () => access.setPermissions(path, permissions)),
  };
}
