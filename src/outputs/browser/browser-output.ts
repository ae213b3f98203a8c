// The output whose screens people see in a browser (and scripts as PNG): one Screen per connector, to be
// found by domid and connector while the connector exists.

import assert from 'node:assert/strict';
import type { ConnectorInfo } from '../../display/output.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { DomId } from '../../xen/ids.ts';
import { LookingTime } from '../looking-time.ts';
import type { OutputStatus } from '../output-status.ts';
import { Screen } from '../screen.ts';
import type { ScreenOutput, ScreenOutputOptions } from '../screen-output.ts';

const STATUS: OutputStatus = { name: 'browser', monitors: [], viewerOnly: [], counters: {} };

export class BrowserOutput implements ScreenOutput {
  readonly #runtime: Runtime;
  readonly #options: ScreenOutputOptions;
  readonly #screens = new Map<string, Screen>();
  readonly #looking: LookingTime;

  constructor(options: ScreenOutputOptions) {
    this.#runtime = options.runtime;
    this.#options = options;
    this.#looking = new LookingTime(options.runtime);
  }

  async connect(info: ConnectorInfo, runtime = this.#runtime): Promise<Screen> {
    const key = keyOf(info.domid, info.index);
    assert(!this.#screens.has(key), `connector ${key} is connected already`);
    const { refreshHz, onChange } = this.#options;
    const screen = new Screen(runtime, info, {
      ...(refreshHz === undefined ? {} : { refreshHz }),
      looking: this.#looking,
      onClosed: () => {
        this.#screens.delete(key);
        onChange?.();
      },
    });
    this.#screens.set(key, screen);
    onChange?.();
    return screen;
  }

  /** The screen of a connector, or undefined when it is not connected now. */
  screen(domid: DomId, connector: number): Screen | undefined {
    return this.#screens.get(keyOf(domid, connector));
  }

  get screens(): Iterable<Screen> {
    return this.#screens.values();
  }

  status(): OutputStatus {
    return STATUS;
  }

  /** There is nothing to give back: a screen goes with its connector. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

function keyOf(domid: DomId, connector: number): string {
  return `${domid}/${connector}`;
}
