#!/usr/bin/env node
// xen-zcopy's command line: reads the words, and loads the one command that was asked for.

import { Command, Option } from 'commander';
import { exitCodeOf } from './exit-code.ts';
import { shareCommand } from './share/commands.ts';

const DESCRIPTION = `Zero-copy sharing of pictures and input between Xen domains, in user space.

Try it without Xen:        xen-zcopy demo
On a Xen host, in dom0:    xen-zcopy serve    (what it gives: xen-zcopy doctor)
A real Xen under QEMU:     xen-zcopy lab
From domain to domain:     xen-zcopy share`;

/** The options that every command which serves the viewer has. */
function withServiceOptions(command: Command): Command {
  return command
    .option('--listen <host:port>', 'where the viewer and the API answer; port 0 picks one')
    .option(
      '--token-file <file>',
      'file with the access token (otherwise XEN_ZCOPY_TOKEN or random)',
    )
    .option('--config <file>', 'JSON configuration file')
    .option('--json', 'print one JSON line {"url", "pid"} on stdout when ready')
    .addOption(
      new Option('--log-level <level>', 'how much to log on stderr').choices([
        'trace',
        'debug',
        'info',
        'warn',
        'error',
        'silent',
      ]),
    );
}

function program(): Command {
  const root = new Command('xen-zcopy')
    .description(DESCRIPTION)
    .exitOverride()
    .showHelpAfterError('(--help says more)')
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'xen-zcopy: ')),
    });

  withServiceOptions(root.command('demo'))
    .description('Xen in this process: guests that draw, served to the viewer in your browser')
    .option('--guests <n>', 'how many guests to boot, 1 to 8', '2')
    .option(
      '--xenstore-socket <path>',
      "also offer the in-process xenstored to Debian's xenstore-utils",
    )
    .option(
      '--machine <path>',
      'also offer a socket by which processes of yours become domains of the machine',
    )
    .action(async (options) => (await import('./demo.ts')).demo(options));

  withServiceOptions(root.command('serve'))
    .description("the driver domain's daemon on a Xen host: PV displays and input of its guests")
    .option(
      '--output <where>',
      'browser, or a card whose monitors show the guests as well: kms:card0 (a display goes to the ' +
        'connector that has its unique-id for a name, or that "kms" in the configuration names)',
    )
    .action(async (options) => (await import('./serve.ts')).serve(options));

  root
    .command('lab')
    .description(
      'a real Xen host under QEMU, made from Debian packages, with a guest in the viewer',
    )
    .option('--port <port>', 'port of the viewer on this machine; 0 picks one', '0')
    .option('--guests <n>', 'how many guests to create, 1 to 4', '1')
    .option('--cache <dir>', 'where the images are kept')
    .option('--json', 'print one JSON line {"url", "pid"} on stdout when ready')
    .action(async (options) => (await import('./lab.ts')).lab(options));

  root
    .command('status')
    .description('what a running daemon serves and holds')
    .option('--url <url>', 'the daemon, with its token: http://127.0.0.1:8470/?token=...')
    .option('--token-file <file>', 'file with the access token (otherwise XEN_ZCOPY_TOKEN)')
    .option('--json', 'print what GET /api/status answers')
    .action(async (options) => (await import('./status.ts')).status(options));

  root
    .command('doctor')
    .description('which ways of sharing this host gives, how that was found out, and the remedies')
    .option('--json', 'print {"xen", "servable", "paths", "summary"}')
    .action(async (options) => (await import('./doctor.ts')).doctor(options));

  root
    .command('abi')
    .description(
      'the layouts and numbers of the interfaces: displif, kbdif, grants, events, xenstore',
    )
    .option('--json', 'as JSON: structs with sizes and offsets, constants')
    .action(async (options) => (await import('./abi.ts')).abi(options));

  root
    .command('sim')
    .description(
      'a whole host in virtual time, with everything going wrong that can; one seed, one run',
    )
    .option('--seed <n>', 'of the run; a fresh one when left out')
    .option('--steps <n>', 'scheduler steps to run', '100000')
    .option(
      '--json',
      'print {"seed", "steps", "stepsPerSecond", "guests", "faults", "violations", "digest"}',
    )
    .action(async (options) => (await import('./sim.ts')).sim(options));

  root.addCommand(shareCommand(withServiceOptions));
  inherit(root);
  return root;
}

/** Commands that were made elsewhere end and complain as the others do. */
function inherit(command: Command): void {
  for (const inner of command.commands) inherit(inner.copyInheritedSettings(command));
}

process.exitCode = await exitCodeOf(() => program().parseAsync(process.argv));
