// The pages of one open device file that are in use, so that closing the device gives them up first.
//
// Invariant: a record of the driver is dropped by whoever has its pages, or by the closing of the device: once
// the device is closed, nobody asks it for a record again.

import { attemptAll } from './attempt-all.ts';

export class LivePages<Pages extends Disposable> implements Disposable {
  readonly #pages = new Set<Pages>();
  #over = false;

  /**
   * Makes pages that are known here until they have dropped their record.
   * @param drop drops the driver's record of them; called again when it has thrown
   * @param make is given what the pages have to call instead of `drop`
   */
  add(drop: () => void, make: (release: () => void) => Pages): Pages {
    const pages = make(() => {
      if (!this.#over) drop();
      this.#pages.delete(pages);
    });
    this.#pages.add(pages);
    return pages;
  }

  /**
   * Disposes all of them, even when some fail. The device is closed next, which drops what records are left:
   * pages that are disposed later have none. @throws what failed
   */
  [Symbol.dispose](): void {
    try {
      attemptAll(this.#pages, (pages) => pages[Symbol.dispose](), 'giving back pages of a device');
    } finally {
      this.#over = true;
    }
  }
}
