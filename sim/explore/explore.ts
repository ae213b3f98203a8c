// Every way that the life of buffers can go (life-cycle.ts): a search through all choices at all moments, each state
// entered once.
//
// The code under test cannot be copied in the middle of its work, so a state is had again by making the same
// choices from the start. A state is what the books, the rings, and everything that waits say (`LifeCycle.state`);
// two ways that lead to the same are one from there on.
//
// What is left out, so that all of it can be searched: the handshake goes one way, time goes on only when none of
// our own calls is under way (the seeded worlds have the slow ones), and a dead guest does not come back.

import { createHash } from 'node:crypto';
import { Broken, type BufferKind, LifeCycle } from './life-cycle.ts';
import type { ModelDomain } from './model-domain.ts';

export interface ExploreReport {
  /** States entered, in each of which every invariant was looked at. */
  readonly states: number;
  /** Choices made, those that led to known states included. */
  readonly transitions: number;
  /** States in which nothing can happen any more. */
  readonly ends: number;
  /** Length of the longest way. */
  readonly longest: number;
  /** Whether there was nothing left to explore. */
  readonly complete: boolean;
  /** The first way that breaks something, and what. */
  readonly broken: { readonly way: readonly string[]; readonly what: string } | undefined;
}

export interface ExploreOptions {
  /** The guests, by what their buffers are. */
  readonly guests: readonly BufferKind[];
  /** States after which the search gives up. */
  readonly maxStates: number;
  /** Puts a defect into the domain, for those who test the exploration. */
  readonly defect?: (domain: ModelDomain) => void;
}

export async function explore(options: ExploreOptions): Promise<ExploreReport> {
  const seen = new Set<string>();
  // By length, so that what is found broken is found by a shortest way.
  let frontier: Way[] = [undefined];
  const counts = { transitions: 0, ends: 0, longest: 0 };
  while (frontier.length > 0) {
    const next: Way[] = [];
    for (const way of frontier) {
      const outcome = await replay(options, choicesOf(way));
      if (typeof outcome === 'string') return report({ way: choicesOf(way), what: outcome });
      counts.transitions += 1;
      const state = keyOf(outcome.state);
      if (seen.has(state)) continue;
      seen.add(state);
      counts.longest = way?.length ?? 0;
      if (outcome.choices.length === 0) counts.ends += 1;
      if (seen.size >= options.maxStates) return report(undefined, false);
      const length = counts.longest + 1;
      for (const choice of outcome.choices) next.push({ choice, length, before: way });
    }
    frontier = next;
  }
  return report(undefined);

  function report(broken: ExploreReport['broken'], complete = broken === undefined): ExploreReport {
    return { states: seen.size, ...counts, complete, broken };
  }
}

/** 128 bits that stand for a state: a search has too many to keep them as they are. */
function keyOf(state: string): string {
  return createHash('sha256').update(state).digest('base64').slice(0, 22);
}

/** A way from the start, which is itself undefined: its last choice, and the way before that. */
type Way = { readonly choice: string; readonly length: number; readonly before: Way } | undefined;

function choicesOf(way: Way): string[] {
  const choices: string[] = [];
  for (let at = way; at; at = at.before) choices.push(at.choice);
  return choices.reverse();
}

/** The state that a way leads to, and what could happen there; or what is broken on it. */
async function replay(
  options: ExploreOptions,
  way: readonly string[],
): Promise<{ state: string; choices: string[] } | string> {
  const life = await connected(options);
  try {
    for (const choice of way) {
      life.choose(choice);
      await settle();
      life.look();
    }
    const { state, choices } = life;
    if (choices.length === 0) life.lookAtEnd();
    return { state, choices };
  } catch (error) {
    if (error instanceof Broken) return error.message;
    throw error;
  }
}

/** The guests when they are connected, by the first way there is. */
async function connected({ guests, defect = () => {} }: ExploreOptions): Promise<LifeCycle> {
  const life = new LifeCycle(guests, defect);
  await settle();
  while (!life.connected) {
    life.choose(life.choices[0]!);
    await settle();
  }
  return life;
}

/** Every promise reaction has run. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
