// The displays that have no monitor, and why: for the status, for as long as they are connected.

import type { OutputConnector, Picture } from '../../display/output.ts';
import type { ViewerOnlyStatus } from '../output-status.ts';
import type { Screen } from '../screen.ts';

export class ViewerOnly {
  readonly #displays = new Map<Screen, string>();

  get list(): ViewerOnlyStatus[] {
    return [...this.#displays].map(
      ([
        {
          info: { domid, uniqueId },
        },
        reason,
      ]) => ({
        domid,
        uniqueId,
        reason,
      }),
    );
  }

  /** The connector of a display that has its screen alone. */
  add(screen: Screen, reason: string): OutputConnector {
    this.#displays.set(screen, reason);
    return new ViewerOnlyConnector(screen, () => this.#displays.delete(screen));
  }
}

class ViewerOnlyConnector implements OutputConnector {
  readonly #screen: Screen;
  readonly #onClosed: () => void;

  constructor(screen: Screen, onClosed: () => void) {
    this.#screen = screen;
    this.#onClosed = onClosed;
  }

  get bytesCopied(): number {
    return this.#screen.bytesCopied;
  }

  get path(): string {
    return this.#screen.path;
  }

  show(picture: Picture | undefined): void {
    this.#screen.show(picture);
  }

  flip(picture: Picture, onFlipped: () => void): void {
    this.#screen.flip(picture, onFlipped);
  }

  retire(picture: Picture): Promise<void> {
    return this.#screen.retire(picture);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#screen[Symbol.asyncDispose]();
    this.#onClosed();
  }
}
