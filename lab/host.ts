// What the whole host holds, in numbers taken from Xen, xenstored and dom0's kernel themselves, not from
// our daemon: so that a scenario can say that everything is as it was before.
import { until } from '../src/runtime/runtime.ts';
import type { Dom0 } from './dom0.ts';
import { listDomains } from './guest.ts';

/** What is in use on the host now. */
export interface HostCounts {
  /** Domains that exist, dying ones too, dom0 included. */
  readonly domains: number;
  /** Grants that somebody maps, over all domains (Xen's grant table dump). */
  readonly mappedGrants: number;
  /** Event channels of dom0 that lead to another domain, or wait for one (lsevtchn). */
  readonly ports: number;
  /** Watches that xenstored holds for anybody. */
  readonly watches: number;
}

const GRANT_DUMP_BEGIN = 'gnttab_usage_print_all [';
const GRANT_DUMP_END = 'gnttab_usage_print_all ] done';
const ACTIVE_ENTRY = /^\(XEN\) \[0x[0-9a-f]+\]/;
const FOREIGN_PORT = /: (Interdomain|Waiting)/i;
const SEPARATOR = '--------lab--------';
const SETTLE_TIMEOUT_MS = 60_000;
const SETTLE_INTERVAL_MS = 500;
/** Kernel messages of this level and below are warnings and worse (`<4>`, dmesg -r). */
const WARNING_LEVEL = 4;
/** The number in front also has the facility, in units of this. */
const LEVELS = 8;

/** What a kernel says when its computer is slow or busy, which an emulated one is: no complaint. */
const SLOWNESS =
  /hrtimer: interrupt took|clocksource|rcu: INFO|soft lockup|workqueue: .* hogged CPU|vblank timer overrun|Overflow of CRC buffer/;

/** The grants in use per Xen's dump. @throws when the dump is not whole */
export function countActiveGrants(dump: string): number {
  const begin = dump.indexOf(GRANT_DUMP_BEGIN);
  const end = dump.indexOf(GRANT_DUMP_END, begin);
  if (begin < 0 || end < 0) throw new Error('the dump of the grant tables is not whole');
  return dump
    .slice(begin, end)
    .split('\n')
    .filter((line) => ACTIVE_ENTRY.test(line)).length;
}

function countLines(text: string, pattern: RegExp): number {
  return text.split('\n').filter((line) => pattern.test(line)).length;
}

/** Watches one host. It takes the logs of Xen and of dom0's kernel as it reads them: have one per host. */
export class HostWatch {
  readonly #dom0: Dom0;
  readonly #xenComplaints: string[] = [];

  constructor(dom0: Dom0) {
    this.#dom0 = dom0;
  }

  /** What the host holds now. */
  async counts(): Promise<HostCounts> {
    const commands = [
      'xl dmesg -c',
      'xl debug-keys g && xl dmesg -c',
      'lsevtchn 0',
      // xenstored appends to the file when it is there.
      'rm -f /run/memreport; xenstore-control memreport /run/memreport && cat /run/memreport',
    ];
    const text = await this.#dom0.shell(commands.join(`; echo ${SEPARATOR}; `));
    const [xenLog, grants, ports, memory] = text.split(`${SEPARATOR}\n`);
    this.#noteXenLog(xenLog!);
    const dumpEnd = grants!.indexOf(GRANT_DUMP_END);
    this.#noteXenLog(grants!.slice(0, Math.max(0, grants!.indexOf(GRANT_DUMP_BEGIN))));
    this.#noteXenLog(grants!.slice(dumpEnd + GRANT_DUMP_END.length));
    return {
      domains: (await listDomains(this.#dom0)).length,
      mappedGrants: countActiveGrants(grants!),
      ports: countLines(ports!, FOREIGN_PORT),
      watches: countLines(memory!, /^\s*struct watch\s/),
    };
  }

  /**
   * Resolves when the host holds what it held at `before` again; tearing down takes a moment.
   * @throws with both sets of numbers when that does not come
   */
  async settled(before: HostCounts): Promise<void> {
    const wanted = JSON.stringify(before);
    let now = '';
    const same = async () => {
      now = JSON.stringify(await this.counts());
      return now === wanted;
    };
    const timing = { timeoutMs: SETTLE_TIMEOUT_MS, intervalMs: SETTLE_INTERVAL_MS };
    await until(this.#dom0.runtime, same, { what: 'nothing is held any more', ...timing }).catch(
      () => {
        throw new Error(`something leaked: the host held ${wanted} before and holds ${now} now`);
      },
    );
  }

  /** Warnings and worse, those about slowness apart, that Xen and dom0's kernel have said since the last call (since the boot at first). */
  async complaints(): Promise<string[]> {
    this.#noteXenLog(await this.#dom0.output(['xl', 'dmesg', '-c']));
    const kernel = (await this.#dom0.output(['dmesg', '-r', '-c'])).split('\n').filter((line) => {
      const level = /^<(\d+)>/.exec(line)?.[1];
      const grave = level !== undefined && Number(level) % LEVELS <= WARNING_LEVEL;
      return grave && !SLOWNESS.test(line);
    });
    return [...this.#xenComplaints.splice(0), ...kernel];
  }

  #noteXenLog(text: string): void {
    this.#xenComplaints.push(...text.split('\n').filter((line) => /^\(XEN\) ./.test(line)));
  }
}
