// What `share export` is told, checked as a whole before anything starts.

import { UsageError } from '../../runtime/errors.ts';
import type { WhenFull } from '../../share/producer.ts';
import { wholeNumber } from '../config.ts';
import {
  type PictureShape,
  type PictureSpec,
  parsePicture,
  parseSeconds,
  parseShape,
  parseSize,
} from './arguments.ts';
import { type DomainRef, parseOneDomain } from './domain-refs.ts';
import { checkPlace } from './place.ts';
import type { SessionOptions } from './session.ts';

/** As typed. */
export interface ExportArguments extends SessionOptions {
  readonly to: string;
  readonly name?: string;
  readonly slots?: string;
  readonly slotSize?: string;
  readonly timeout?: string;
  readonly picture?: string;
  readonly loop?: boolean;
  readonly whenFull?: WhenFull;
  readonly testCard?: string;
  readonly buffer?: boolean;
  readonly once?: boolean;
  readonly writable?: boolean;
  readonly json?: boolean;
}

/** What is exported. */
export type Wanted =
  | { readonly kind: 'bytes'; readonly slotBytes: number | undefined }
  | { readonly kind: 'pictures'; readonly spec: PictureSpec; readonly loop: boolean }
  | { readonly kind: 'test-card'; readonly shape: PictureShape }
  | { readonly kind: 'buffer'; readonly once: boolean; readonly writable: boolean };

export interface ExportChoice {
  readonly to: DomainRef;
  readonly path: string | undefined;
  readonly wanted: Wanted;
  readonly name: string | undefined;
  readonly slots: number | undefined;
  readonly whenFull: WhenFull;
  readonly timeoutMs: number | undefined;
  readonly json: boolean;
}

const SLOTS_MAX = 64;
const NAME_BYTES_MAX = 80;

/** @throws UsageError in one line */
export function exportChoice(path: string | undefined, typed: ExportArguments): ExportChoice {
  checkPlace(typed);
  const { name, slots, timeout } = typed;
  if (name !== undefined && Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw new UsageError(
      `--name: ${Buffer.byteLength(name)} bytes, where ${NAME_BYTES_MAX} are the limit`,
    );
  }
  const wanted = wantedOf(path, typed);
  checkFits(wanted, path, typed);
  const ofPictures = wanted.kind === 'pictures' || wanted.kind === 'test-card';
  return {
    to: parseOneDomain(typed.to, '--to'),
    path,
    wanted,
    name,
    slots:
      slots === undefined
        ? undefined
        : wholeNumber(slots, { option: '--slots', min: 1, max: SLOTS_MAX }),
    whenFull: typed.whenFull ?? (ofPictures ? 'drop' : 'wait'),
    timeoutMs: timeout === undefined ? undefined : parseSeconds(timeout, '--timeout'),
    json: typed.json ?? false,
  };
}

function wantedOf(path: string | undefined, typed: ExportArguments): Wanted {
  const { picture, testCard, buffer, slotSize } = typed;
  const kinds = [picture && '--picture', testCard && '--test-card', buffer && '--buffer'];
  const given = kinds.filter((kind) => kind);
  if (given.length > 1) throw new UsageError(`${given.join(' and ')}: one of them at a time`);
  if (picture !== undefined) {
    return {
      kind: 'pictures',
      spec: parsePicture(picture, '--picture'),
      loop: typed.loop ?? false,
    };
  }
  if (testCard !== undefined) {
    if (path !== undefined)
      throw new UsageError(`--test-card makes its own pictures and reads no ${path}`);
    return { kind: 'test-card', shape: parseShape(testCard, '--test-card') };
  }
  if (buffer) {
    return { kind: 'buffer', once: typed.once ?? false, writable: typed.writable ?? false };
  }
  const slotBytes = slotSize === undefined ? undefined : parseSize(slotSize, '--slot-size');
  return { kind: 'bytes', slotBytes };
}

/** Which option goes with what. */
function checkFits({ kind }: Wanted, path: string | undefined, typed: ExportArguments): void {
  const only = (given: unknown, option: string, what: string, fits: boolean) => {
    if (given !== undefined && !fits) throw new UsageError(`${option} goes with ${what}`);
  };
  only(typed.loop, '--loop', '--picture', kind === 'pictures');
  only(typed.once, '--once', '--buffer', kind === 'buffer');
  only(typed.writable, '--writable', '--buffer', kind === 'buffer');
  only(typed.slotSize, '--slot-size', 'a stream of bytes', kind === 'bytes');
  only(typed.slots, '--slots', 'a stream', kind !== 'buffer');
  only(
    typed.whenFull,
    '--when-full',
    'a stream of pictures',
    kind === 'pictures' || kind === 'test-card' || typed.whenFull === 'wait',
  );
  if (typed.loop && (path === undefined || path === '-')) {
    throw new UsageError('--loop needs a FILE: standard input cannot be read again');
  }
}
