// Which machine's log has what of which scenario: a scenario that asks for a machine begins there, and lasts until the
// next one does. So what happened to a machine belongs to the scenario that ran then, and to no other.
import { faultedGuests, type LostGuest } from './lost-guests.ts';
import { serialText } from './serial-log.ts';

interface Run {
  readonly scenario: string;
  readonly serialLog: string;
  /** Where it begins in the log, in characters. */
  readonly offset: number;
  /** Guests that QEMU has lost without a word of Xen's. */
  readonly lost: LostGuest[];
}

export class ScenarioRuns {
  readonly #runs: Run[] = [];

  /** Notes that a scenario begins now, in the machine with this log. */
  begin(scenario: string, serialLog: string): void {
    const offset = serialText(serialLog).length;
    this.#runs.push({ scenario, serialLog, offset, lost: [] });
  }

  /** Notes guests that QEMU has lost in the latest run of a scenario by other evidence than Xen's log. */
  noteLost(scenario: string, lost: readonly LostGuest[]): void {
    this.#runs[this.#latest(scenario)]?.lost.push(...lost);
  }

  /** The guests that QEMU has lost in the latest run of a scenario. */
  lostGuests(scenario: string): LostGuest[] {
    const index = this.#latest(scenario);
    const run = this.#runs[index];
    if (run === undefined) return [];
    const next = this.#runs[index + 1];
    const end = next?.serialLog === run.serialLog ? next.offset : undefined;
    return [...faultedGuests(serialText(run.serialLog).slice(run.offset, end)), ...run.lost];
  }

  #latest(scenario: string): number {
    return this.#runs.findLastIndex((run) => run.scenario === scenario);
  }
}
