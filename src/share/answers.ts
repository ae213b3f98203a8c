// What we say to one exporter about its offers, in xenstore, where it alone can read it.
//
// Invariants: writes follow each other in the order in which they were asked for; refusals that are told are
// bounded; at the end nothing is left.

import { messageOf } from '../runtime/errors.ts';
import type { Logger } from '../runtime/runtime.ts';
import type { DomId } from '../xen/ids.ts';
import type { Xenstore } from '../xen/xenstore.ts';
import { type Answer, answersPath, formatAnswer, makeReadableBy, nodeOf } from './nodes.ts';
import { parseShareId, type ShareId } from './share-id.ts';

/** Refusals that are told at a time; more of them are only counted. */
const MAX_REFUSALS_TOLD = 64;

export interface AnswersOptions {
  readonly store: Xenstore;
  readonly importer: DomId;
  readonly exporter: DomId;
  readonly log: Logger;
}

export class Answers implements AsyncDisposable {
  readonly #options: AnswersOptions;
  readonly #path: string;
  readonly #said = new Map<ShareId, Answer['kind']>();
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: AnswersOptions, path: string) {
    this.#options = options;
    this.#path = path;
  }

  /** The place is there from now on, by which the exporter knows that this domain is. @throws SysError */
  static async open(options: AnswersOptions): Promise<Answers> {
    const { store, importer, exporter } = options;
    const path = answersPath({ exporter, importer });
    const rights = { owner: importer, reader: exporter };
    await store.transaction((access) => makeReadableBy(access, path, rights));
    return new Answers(options, path);
  }

  /** Takes back what programs of this domain left that died: answers to what is not offered. @throws SysError */
  async sweep(offered: (id: ShareId) => boolean): Promise<void> {
    const { store } = this.#options;
    for (const name of (await store.directory(this.#path)) ?? []) {
      const id = parseShareId(name);
      if (id !== undefined && (this.#said.has(id) || offered(id))) continue;
      await store.remove(`${this.#path}/${name}`);
    }
  }

  say(id: ShareId, answer: Answer): void {
    if (answer.kind === 'refused' && this.#refusals >= MAX_REFUSALS_TOLD) return;
    this.#said.set(id, answer.kind);
    const { store } = this.#options;
    this.#next(() => store.write(nodeOf(this.#path, id), formatAnswer(answer)));
  }

  /** Does nothing when nothing was said. */
  takeBack(id: ShareId): void {
    if (!this.#said.delete(id)) return;
    this.#next(() => this.#options.store.remove(nodeOf(this.#path, id)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const id of [...this.#said.keys()]) this.takeBack(id);
    await this.#writing;
  }

  get #refusals(): number {
    return [...this.#said.values()].filter((kind) => kind === 'refused').length;
  }

  #next(write: () => Promise<void>): void {
    this.#writing = this.#writing.then(() => this.#attempt(write));
  }

  /** An answer that cannot be written costs the exporter the news, and nobody anything else. */
  async #attempt(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#options.log.warn({ reason: messageOf(error) }, 'cannot answer an exporter');
    }
  }
}
