// What explains a scenario that failed, gathered while its machine still has it: the ends of the logs, and who lives.
import { writeFileSync } from 'node:fs';
import { messageOf } from '../src/runtime/errors.ts';
import type { Dom0 } from './dom0.ts';
import { doublyInterrupted, type LostGuest } from './lost-guests.ts';
import { lastLines } from './serial-log.ts';

const SERIAL_LINES = 100;
const TIMEOUT_MS = 30_000;
const CONSOLE = /^--- console of (.+)$/m;

/** Removes the logs of guests that are no more, so that the next scenario's are the only ones. */
export const REMOVE_GUEST_LOGS = 'rm -f /var/log/xen/console/guest-*.log /var/log/xen/xl-*.log*';

/** Who lives, the latest logs of what runs in dom0, of xl and of the guests' consoles, each with its end. */
const GATHER = `
show() { echo; echo "--- $*"; "$@" 2>&1 | tail -n 50; }
show xl list
show lsevtchn 0
show xenstore-ls /local/domain/0/backend
show dmesg
for path in $(ls -t /var/log/xen/xl-*.log /var/log/*.log /tmp/program-*/out 2>/dev/null | head -n 12); do
  show cat "$path"
done
for path in /var/log/xen/console/guest-*.log; do
  name=\${path##*/guest-}
  echo; echo "--- console of \${name%.log}"
  # Without what the lab and the guest's init say to each other, which fills it.
  grep -av '^lab-reply' "$path" | tail -n 200
done
`;

/** Those whose console, as gathered, shows that QEMU has lost them. */
function lostByConsole(gathered: string): LostGuest[] {
  // The text in front of the first, then name and text by turns.
  const parts = gathered.split(CONSOLE);
  const lost: LostGuest[] = [];
  for (let index = 1; index + 1 < parts.length; index += 2) {
    const found = doublyInterrupted(parts[index]!, parts[index + 1]!);
    if (found) lost.push(found);
  }
  return lost;
}

/**
 * Writes it to a file; a dom0 that does not answer leaves what Xen said, and why there is no more.
 * @returns the guests that QEMU has lost by what their consoles say
 */
export async function gatherEvidence(
  { dom0, serialLog }: { dom0: Pick<Dom0, 'run'>; serialLog: string },
  path: string,
): Promise<LostGuest[]> {
  const gathered = await dom0.run(['sh', '-c', GATHER], TIMEOUT_MS).then(
    ({ stdout, stderr }) => stdout + stderr,
    (error) => `\n--- dom0 says nothing\n${messageOf(error)}`,
  );
  const serial = lastLines(serialLog, SERIAL_LINES);
  writeFileSync(path, `--- the end of ${serialLog}\n${serial}\n${gathered}\n`);
  return lostByConsole(gathered);
}
