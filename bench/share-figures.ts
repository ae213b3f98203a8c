// What the benchmark of sharing and its ends agree upon: amounts, what is sent, how it is measured.

import { performance } from 'node:perf_hooks';
import { PAGE_SIZE } from '../src/abi/page.ts';

export const CHUNK_BYTES = 16 * 1024 * 1024;
export const SLOTS = 4;
export const PICTURE_BYTES = 1920 * 1080 * 4;
/** What is sent is this, over and over: larger than any cache. */
export const SOURCE_BYTES = 64 * 1024 * 1024;

/** What an end has measured. */
export interface EndFigures {
  readonly seconds: number;
  readonly bytes: number;
  /** Of this process, user and system, while it was measured. */
  readonly cpuSeconds: number;
  readonly frames: number;
}

/** Repeats itself every 256 bytes, beginning with 0. */
export function sourceBytes(): Uint8Array {
  const bytes = new Uint8Array(SOURCE_BYTES);
  for (let at = 0; at < bytes.length; at++) bytes[at] = at * 31;
  return bytes;
}

/** What it takes to do something. */
export async function measured(
  work: () => Promise<{ bytes: number; frames: number }>,
): Promise<EndFigures> {
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  const done = await work();
  const seconds = (performance.now() - startMs) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { ...done, seconds, cpuSeconds: (user + system) / 1e6 };
}

/** Reads a byte of every page, and checks it: what is sent repeats itself every 256 bytes. */
export function touchPages(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
    if (bytes[at] !== 0) throw new Error(`byte ${at} of a frame is ${bytes[at]}`);
  }
}
