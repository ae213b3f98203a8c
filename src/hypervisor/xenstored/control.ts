// XS_CONTROL: commands for the daemon itself, whose set is each implementation's own (docs/misc/xenstore.txt of the
// Xen tree, "Miscellaneous"). Only the control domain gets here.

import { XENSTORE_PAYLOAD_MAX } from '../../abi/xs-wire.ts';
import type { Xenstored } from './server.ts';
import { StoreError } from './store-error.ts';
import { walk } from './tree.ts';

type Command = (server: Xenstored, args: readonly string[]) => string;

const COMMANDS: Readonly<Record<string, Command>> = {
  check,
  help,
  print,
};

/** What xenstored has and this one has not: it neither logs to files nor replaces itself. */
const UNSUPPORTED = new Set(['live-update', 'log', 'logfile', 'memreport', 'quota', 'quota-soft']);

/** Runs a command. @throws StoreError ENOSYS for one of xenstored's that is not here, EINVAL for no command */
export function control(server: Xenstored, [name = '', ...args]: readonly string[]): string {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) throw StoreError.of(UNSUPPORTED.has(name) ? 'ENOSYS' : 'EINVAL');
  return `${command(server, args).slice(0, XENSTORE_PAYLOAD_MAX - 1)}\0`;
}

/** Counts every node anew and compares with the books. */
function check({ store }: Xenstored): string {
  const counted = new Map<number, number>();
  for (const [, { permissions }] of walk('/', store.root)) {
    const [{ domid }] = permissions;
    counted.set(domid, (counted.get(domid) ?? 0) + 1);
  }
  const booked = store.owners();
  const wrong = [...new Set([...counted.keys(), ...booked.keys()])].filter(
    (domid) => counted.get(domid) !== store.owned(domid as never),
  );
  if (wrong.length > 0) throw StoreError.of('EIO');
  return 'OK';
}

function help(): string {
  return Object.keys(COMMANDS).join('\n');
}

function print({ log }: Xenstored, args: readonly string[]): string {
  if (args.length !== 1) throw StoreError.of('EINVAL');
  log.info({ text: args[0] }, 'xenstore control print');
  return 'OK';
}
