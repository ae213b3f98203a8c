// What everybody in a simulated world has in common: its time, its host, and those who look on.

import type { HypercallPort } from '../src/hypervisor/hypercalls.ts';
import type { XenHost } from '../src/hypervisor/xen-host.ts';
import type { VirtualRuntime } from '../src/runtime/virtual.ts';
import type { Domain } from '../src/xen/domain.ts';
import type { DomId } from '../src/xen/ids.ts';
import type { Budget } from '../src/zcopy/budget.ts';
import type { Faults } from './faults.ts';
import type { Findings } from './findings.ts';
import type { HypervisorOracle } from './hypervisor-oracle.ts';
import type { RingOracle } from './ring-oracle.ts';
import type { Trace } from './trace.ts';

export interface Surroundings {
  readonly seed: number;
  readonly runtime: VirtualRuntime;
  readonly host: XenHost;
  readonly budget: Budget;
  readonly trace: Trace;
  readonly faults: Faults;
  readonly findings: Findings;
  readonly oracle: HypervisorOracle;
  /** The rings of frontends that keep the rules. */
  readonly rings: Set<RingOracle>;
  /** Domains of which a device is away. */
  readonly detached: Set<DomId>;
  /** How often the toolstack began, and ended, to take a device of a domain away and give it back. */
  readonly detachments: Map<DomId, number>;
  /** Domains that share with each other. */
  readonly sharers: Set<DomId>;
  /** Domains that are backends of others' devices. */
  readonly drivers: Set<DomId>;
  /** What a program that shares gets for its domain; a test makes it defective here. */
  readonly throughSharing: (domain: Domain) => Domain;
  /** Whether an act of somebody's is to be left out, by its name. */
  omits(act: string): boolean;
  /** Straight to the hypervisor, for a program of that domain that does without its kernel. */
  port(domid: DomId): HypercallPort;
  /** Whether a guest's program may run: its domain does. */
  runs(domid: DomId): boolean;
  /** Whether there is such a guest, and it keeps the rules. */
  keepsRules(domid: DomId): boolean;
  /** Whether the daemon says that it has not let go of something of that domain. */
  quarantined(domid: DomId): boolean;
  /** The first pixel of what a connector shows now; undefined while it shows nothing. */
  shownPixel(domid: DomId, connector: number): number | undefined;
}
