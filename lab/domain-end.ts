// A program of ours in dom0 or in a guest that does what a scenario tells it as the domain that it runs in:
// probes/domain-end.ts from outside.
import type { Dom0 } from './dom0.ts';
import type { Guest } from './guest.ts';
import { startProbe } from './payload.ts';
import type { DomainActs } from './probes/domain-acts.ts';
import type { Program } from './program.ts';

/** The program's name in lab/probes/, for `GuestConfig.programs`. */
export const DOMAIN_END = 'domain-end';

/** Node starts in some seconds under emulation, two of them beside each other later. */
const READY_TIMEOUT_MS = 120_000;
const ACT_TIMEOUT_MS = 60_000;

type Act = keyof DomainActs;
type Request<Name extends Act> = Parameters<DomainActs[Name]>;
type Answer<Name extends Act> = Awaited<ReturnType<DomainActs[Name]>>;

type Reply = { readonly answer: unknown } | { readonly error: string };

export class DomainEnd {
  readonly domid: number;
  readonly program: Program;
  #lastId = 0;

  private constructor(program: Program, domid: number) {
    this.program = program;
    this.domid = domid;
  }

  static async inDom0(dom0: Dom0): Promise<DomainEnd> {
    return DomainEnd.#of(await startProbe(dom0, DOMAIN_END));
  }

  /** In a guest whose `programs` have DOMAIN_END. */
  static async inGuest(guest: Guest): Promise<DomainEnd> {
    return DomainEnd.#of(await guest.startNode(DOMAIN_END));
  }

  static async #of(program: Program): Promise<DomainEnd> {
    const { answer } = await program.waitForLine<{ answer: Answer<'identify'> }>(
      replyTo(0),
      READY_TIMEOUT_MS,
    );
    return new DomainEnd(program, answer.domid);
  }

  /** Has it do something, as DomainActs has it. @throws with its words when that fails there */
  async do<Name extends Act>(act: Name, ...[request]: Request<Name>): Promise<Answer<Name>> {
    const id = ++this.#lastId;
    const order = JSON.stringify({ id, act, request });
    const beginning = replyTo(id);
    const reply = await this.program.ask<Reply>(order, { beginning, timeoutMs: ACT_TIMEOUT_MS });
    if ('error' in reply) throw new Error(`domain ${this.domid}: ${act}: ${reply.error}`);
    return reply.answer as Answer<Name>;
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
