// Which machine's log has what of which scenario: a scenario that asks for a machine begins there, and lasts until the
// next one does. So what happened to a machine belongs to the scenario that ran then, and to no other.
import { type LostGuest, lostGuests } from './lost-guests.ts';
import { serialText } from './serial-log.ts';

interface Run {
  readonly scenario: string;
  readonly serialLog: string;
  /** Where it begins in the log, in characters. */
  readonly offset: number;
}

/** A guest that QEMU has lost while a scenario ran. */
export interface SpoiltRun extends LostGuest {
  readonly serialLog: string;
}

export class ScenarioRuns {
  readonly #runs: Run[] = [];

  /** Notes that a scenario begins now, in the machine with this log. */
  begin(scenario: string, serialLog: string): void {
    this.#runs.push({ scenario, serialLog, offset: serialText(serialLog).length });
  }

  /** The guests that QEMU has lost in the latest run of a scenario. */
  lostGuests(scenario: string): SpoiltRun[] {
    const index = this.#runs.findLastIndex((run) => run.scenario === scenario);
    return index < 0 ? [] : this.#lostIn(index);
  }

  #lostIn(index: number): SpoiltRun[] {
    const { serialLog, offset } = this.#runs[index]!;
    const next = this.#runs[index + 1];
    const end = next?.serialLog === serialLog ? next.offset : undefined;
    const said = serialText(serialLog).slice(offset, end);
    return lostGuests(said).map((guest) => ({ ...guest, serialLog }));
  }
}
