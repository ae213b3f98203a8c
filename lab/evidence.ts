// What explains a scenario that failed, gathered while its machine still has it: the ends of the logs, and who lives.
import { writeFileSync } from 'node:fs';
import { messageOf } from '../src/runtime/errors.ts';
import type { Dom0 } from './dom0.ts';
import { lastLines } from './serial-log.ts';

const SERIAL_LINES = 100;
const TIMEOUT_MS = 30_000;

/** The latest logs of xl, of the guests' consoles and of what runs in dom0, each with its end. */
const GATHER = `
show() { echo; echo "--- $*"; "$@" 2>&1 | tail -n 50; }
show xl list
show lsevtchn 0
show xenstore-ls /local/domain/0/backend
show dmesg
for path in $(ls -t /var/log/xen/xl-*.log | head -n 4) $(ls -t /var/log/xen/console/*.log | head -n 4) \\
  $(ls -t /var/log/*.log | head -n 4) $(ls -t /tmp/program-*/out | head -n 4); do
  show cat "$path"
done 2>/dev/null
`;

/** Writes it to a file; a dom0 that does not answer leaves what Xen said, and why there is no more. */
export async function gatherEvidence(
  { dom0, serialLog }: { dom0: Dom0; serialLog: string },
  path: string,
): Promise<void> {
  const answer = await dom0.run(['sh', '-c', GATHER], TIMEOUT_MS).then(
    ({ stdout, stderr }) => stdout + stderr,
    (error) => `\n--- dom0 says nothing\n${messageOf(error)}`,
  );
  const serial = lastLines(serialLog, SERIAL_LINES);
  writeFileSync(path, `--- the end of ${serialLog}\n${serial}\n${answer}\n`);
}
