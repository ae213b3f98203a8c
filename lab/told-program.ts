// A program of ours in dom0 or in a guest that does what a scenario tells it (probes/serve-acts.ts), from outside.
import type { Program } from './program.ts';

/** Node starts in some seconds under emulation, two of them beside each other later. */
const READY_TIMEOUT_MS = 120_000;
const ACT_TIMEOUT_MS = 60_000;

/** What the program can be told, by name: each takes one object and answers with something that JSON can say. */
type ActsOf<Acts> = {
  readonly [Name in keyof Acts]: (...request: never[]) => Promise<unknown>;
};

type Reply = { readonly answer: unknown } | { readonly error: string };

export class ToldProgram<Acts extends ActsOf<Acts>> {
  readonly program: Program;
  readonly domid: number;
  #lastId = 0;

  private constructor(program: Program, domid: number) {
    this.program = program;
    this.domid = domid;
  }

  /** Resolves when the program, which says its domain's number, is ready. */
  static async of<Acts extends ActsOf<Acts>>(program: Program): Promise<ToldProgram<Acts>> {
    const { answer } = await program.waitForLine<{ answer: { domid: number } }>(
      replyTo(0),
      READY_TIMEOUT_MS,
    );
    return new ToldProgram<Acts>(program, answer.domid);
  }

  /** Has it do something. @throws with its words when that fails there */
  async do<Name extends keyof Acts & string>(
    act: Name,
    ...[request]: Parameters<Acts[Name]>
  ): Promise<Awaited<ReturnType<Acts[Name]>>> {
    const id = ++this.#lastId;
    const order = JSON.stringify({ id, act, request });
    const beginning = replyTo(id);
    const reply = await this.program.ask<Reply>(order, { beginning, timeoutMs: ACT_TIMEOUT_MS });
    if ('error' in reply) throw new Error(`domain ${this.domid}: ${act}: ${reply.error}`);
    return reply.answer as Awaited<ReturnType<Acts[Name]>>;
  }

  /** Has it give everything back, and end. @returns its exit status */
  end(): Promise<number> {
    return this.program.stop();
  }

  /** Kills it on the spot. */
  kill(): Promise<number> {
    return this.program.stop({ signal: 'KILL' });
  }
}

/** How the program begins the line that answers an order. */
function replyTo(id: number): string {
  return `{"re":${id},`;
}
