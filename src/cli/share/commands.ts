// The words of `xen-zcopy share`: its subcommands, their options and their help. Each loads its own code.

import { Command, Option } from 'commander';

const DESCRIPTION = `Buffers and streams from one domain to another, in shared memory.

On a Xen host, from guest bob (domain 3) to dom0:
  bob:   xen-zcopy share export --to dom0 disk.img
  dom0:  xen-zcopy share import --from bob > disk.img

In a machine that runs in another process (xen-zcopy demo --machine /tmp/xen.sock):
  xen-zcopy share import --machine /tmp/xen.sock --as alice --from bob > disk.img &
  xen-zcopy share export --machine /tmp/xen.sock --as bob --to alice disk.img`;

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];
const DOMAINS = `
DOMAIN is a number or a name; dom0 is domain 0. A name that nobody has yet is waited for.`;

/** The command with all of its subcommands. `withServiceOptions`: those of everything that serves the viewer. */
export function shareCommand(withServiceOptions: (command: Command) => Command): Command {
  const share = new Command('share').description(DESCRIPTION);
  addExport(share);
  addImport(share);
  addLooks(share);
  addView(share, withServiceOptions);
  return share;
}

function addExport(share: Command): void {
  const command = share
    .command('export')
    .description('offer a file, standard input, pictures or a buffer to one domain')
    .argument('[file]', 'what is sent; - or nothing is standard input')
    .requiredOption('--to <domain>', 'who may open it')
    .option('--name <text>', 'what it is called (otherwise after the file)')
    .option('--slots <n>', 'buffers of the stream, 1 to 64 (otherwise 4)')
    .option(
      '--slot-size <size>',
      'bytes of each, such as 1M (otherwise 4M with --machine, 512K on Linux)',
    )
    .option('--timeout <seconds>', 'how long to wait for it to be opened (otherwise for ever)')
    .option('--picture <fourcc:WxH@rate>', 'raw frames of pictures, paced: XR24:1920x1080@60')
    .option('--loop', 'repeat the file of pictures, for every importer that comes')
    .option('--test-card <WxH@rate>', 'a moving test card, until Ctrl-C: 1280x720@60')
    .addOption(
      new Option(
        '--when-full <what>',
        'with no slot free: wait, or drop the oldest picture (drop for pictures)',
      ).choices(['wait', 'drop']),
    )
    .option('--buffer', 'the file as one buffer, offered until Ctrl-C')
    .option('--once', 'with --buffer: until it was opened and closed')
    .option('--writable', 'with --buffer: the importer may write to it')
    .option(
      '--json',
      'print {"id", "to", "name", "kind", "slotBytes", "content", "pid"} in one line',
    )
    .addHelpText(
      'after',
      `${DOMAINS}
Prints the id of the share as soon as it is offered; another one when the domain goes before it has
opened the share, and comes again under another number. Exit codes: 0 when the importer has got all of
it, 1 when it has not, 130 after Ctrl-C, which takes the share back.

Examples:
  tar c . | xen-zcopy share export --to bob --name backup
  xen-zcopy share export --machine /tmp/xen.sock --as cam --to bob --test-card 1280x720@60`,
    );
  withPlace(command).action(async (file, options) =>
    (await import('./export.ts')).exportShare(file, options),
  );
}

function addImport(share: Command): void {
  const command = share
    .command('import')
    .description('write out what another domain shares')
    .argument('[id]', 'of the share (otherwise the first that is offered)')
    .option('--output <file>', 'where to (otherwise standard output)')
    .option('--frames <n>', 'stop after so many frames of a stream')
    .option('--timeout <seconds>', 'how long to wait for an offer (otherwise for ever)')
    .option('--quiet', 'no progress on the terminal')
    .addHelpText(
      'after',
      `${DOMAINS}
Exit codes: 0 when all of it was written, 1 when the exporter went or took it back before, 130 after
Ctrl-C.

Example:
  xen-zcopy share import --from bob --output disk.img`,
    );
  withFrom(command).action(async (id, options) =>
    (await import('./import.ts')).importShare(id, options),
  );
}

function addLooks(share: Command): void {
  const list = share
    .command('list')
    .description('what is offered to this domain; opens and answers nothing')
    .option('--wait <seconds>', 'look after so long (otherwise at once; 1 with --machine)')
    .option('--json', 'print an array, one object for each share')
    .addHelpText('after', `${DOMAINS}\n\nExample:\n  xen-zcopy share list --from any --json`);
  withFrom(list).action(async (options) => (await import('./list.ts')).listShares(options));
  const watch = share
    .command('watch')
    .description('what happens to the offers, line by line until Ctrl-C; opens and answers nothing')
    .option('--json', 'print a line of JSON for each event')
    .addHelpText('after', `${DOMAINS}\n\nExample:\n  xen-zcopy share watch --from bob --from 7`);
  withFrom(watch).action(async (options) => (await import('./watch.ts')).watchShares(options));
}

function addView(share: Command, withServiceOptions: (command: Command) => Command): void {
  const command = share
    .command('view')
    .description('show pictures of another domain in the browser, until Ctrl-C')
    .argument('[id]', 'of the share (otherwise the first, and then the next of its name)')
    .addHelpText(
      'after',
      `${DOMAINS}

Example:
  xen-zcopy share view --machine /tmp/xen.sock --as screen --from cam`,
    );
  withFrom(withServiceOptions(command), { logLevel: false }).action(async (id, options) =>
    (await import('./view.ts')).viewShare(id, options),
  );
}

/** Which domain the command is. */
function withPlace(command: Command, { logLevel = true } = {}): Command {
  command
    .option('--machine <socket>', 'a machine in another process (otherwise this Xen host)')
    .option('--as <name>', 'with --machine: the name of the domain to be there');
  if (!logLevel) return command;
  return command.addOption(
    new Option('--log-level <level>', 'how much to log on stderr').choices(LOG_LEVELS),
  );
}

/** Whose offers are looked at. */
function withFrom(command: Command, options = {}): Command {
  return withPlace(
    command
      .option('--from <domain>', 'who offers: repeatable; any, where all may be listed', collect)
      .option('--policy <file>', 'JSON: from whom, how much and what is accepted'),
    options,
  );
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}
