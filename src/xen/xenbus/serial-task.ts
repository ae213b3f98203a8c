// A task that is asked for by events: it runs one at a time, and all requests made while it runs become
// one more run. However fast a guest toggles a node, nothing is entered twice and nothing queues (XSA-350).

export class SerialTask {
  readonly #body: () => Promise<void>;
  #wanted = false;
  #stopped = false;
  #running: Promise<void> | undefined;

  /** `body` must handle its own failures: a rejection here is our bug and stays unhandled. */
  constructor(body: () => Promise<void>) {
    this.#body = body;
  }

  /** Whether it was asked for after its last run began. */
  get wanted(): boolean {
    return this.#wanted;
  }

  /** Runs the body soon, after the caller's own turn; merged with a request that is waiting. */
  request(): void {
    this.#wanted = true;
    if (this.#stopped) return;
    this.#running ??= this.#run();
  }

  /** No run begins after this; resolves when the one under way is over. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    await undefined;
    while (this.#wanted && !this.#stopped) {
      this.#wanted = false;
      await this.#body();
    }
    this.#running = undefined;
  }
}
