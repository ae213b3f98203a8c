// The output whose screens people see in a browser (and scripts as PNG): one Screen per connector, to be
// found by domid and connector while the connector exists.

import assert from 'node:assert/strict';
import type { ConnectorInfo, DisplayOutput } from '../../display/output.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import type { DomId } from '../../xen/ids.ts';
import { Screen } from '../screen.ts';

export interface BrowserOutputOptions {
  readonly refreshHz?: number;
  /** Called when a screen came or went. */
  readonly onChange?: () => void;
}

export class BrowserOutput implements DisplayOutput {
  readonly #runtime: Runtime;
  readonly #options: BrowserOutputOptions;
  readonly #screens = new Map<string, Screen>();

  constructor(runtime: Runtime, options: BrowserOutputOptions = {}) {
    this.#runtime = runtime;
    this.#options = options;
  }

  async connect(info: ConnectorInfo): Promise<Screen> {
    const key = keyOf(info.domid, info.index);
    assert(!this.#screens.has(key), `connector ${key} is connected already`);
    const { refreshHz, onChange } = this.#options;
    const screen = new Screen(this.#runtime, info, {
      ...(refreshHz === undefined ? {} : { refreshHz }),
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
}

function keyOf(domid: DomId, connector: number): string {
  return `${domid}/${connector}`;
}
