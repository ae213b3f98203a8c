// What the daemon wants of an output beyond what the display backend asks: the screens that viewers and
// images read, whatever else shows the same pictures, and what is to be told about it.

import type { DisplayOutput } from '../display/output.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { DomId } from '../xen/ids.ts';
import type { OutputStatus } from './output-status.ts';
import type { Screen } from './screen.ts';

/** Disposed after the last connector was. */
export interface ScreenOutput extends DisplayOutput, AsyncDisposable {
  /** The screen of a connector, or undefined when it is not connected now. */
  screen(domid: DomId, connector: number): Screen | undefined;
  status(): OutputStatus;
}

export interface ScreenOutputOptions {
  readonly runtime: Runtime;
  /** The rate that flips complete at where no hardware sets it. */
  readonly refreshHz?: number;
  /** Called when a screen came or went, or a monitor did. */
  readonly onChange?: () => void;
}
