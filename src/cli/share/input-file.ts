// Where an export gets its bytes: a file or standard input, read straight into the memory that it is given.
//
// Invariant: reading never keeps the process from ending (see PatientFd). A file whose size is known is as long as
// it was when it was opened: what is appended later is not read, and what is cut off meanwhile is an error.

import { closeSync, fstatSync, openSync, read, readFileSync, type Stats } from 'node:fs';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { PatientFd } from '../../posix/patient-fd.ts';
import { messageOf, SysError, UsageError } from '../../runtime/errors.ts';

const readInto = promisify(read);
const STDIN_FD = 0;

export class InputFile implements Disposable {
  /** For people. */
  readonly name: string;
  /** Of what is to be read; undefined where only the end will tell. */
  readonly bytes: number | undefined;
  readonly #fd: number;
  readonly #start: number;
  readonly #patient: PatientFd | undefined;

  private constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
    const stats = fstatSync(fd);
    if (stats.isDirectory()) throw new UsageError(`${name} is a directory`);
    this.#start = stats.isFile() ? positionOf(fd) : 0;
    this.bytes = knownBytes(stats, this.#start);
    const context = `reading ${name}`;
    this.#patient = stats.isFile()
      ? undefined
      : PatientFd.open(fd, { readiness: 'readable', context });
  }

  /** `-` or nothing is standard input. @throws UsageError */
  static open(path = '-'): InputFile {
    if (path === '-') return new InputFile('stdin', STDIN_FD);
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      throw new UsageError(`${path} cannot be read: ${messageOf(error)}`);
    }
    try {
      return new InputFile(basename(path), fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Fills `into` from `position` bytes after the first one on; several may be under way at once.
   * @throws SysError; also when the file has become shorter than it was
   */
  async readAt(into: Uint8Array, position: number): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const count = await this.#read(into.subarray(done), this.#start + position + done);
      if (count === 0) throw this.#shortened(position + done);
      done += count;
    }
  }

  /** The next bytes: as many as are there, at least one; 0 at the end. @throws SysError, the signal's reason */
  async next(into: Uint8Array, signal: AbortSignal): Promise<number> {
    if (this.#patient === undefined) return this.#read(into, null);
    let done = 0;
    while (done < into.length) {
      const count = this.#patient.tryRead(into.subarray(done));
      if (count === 0 || (count === undefined && done > 0)) break;
      if (count === undefined) await this.#patient.ready(signal);
      else done += count;
    }
    return done;
  }

  /** Fills `into` with the next bytes. @returns less than its length at the end alone */
  async fill(into: Uint8Array, signal: AbortSignal): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const count = await this.next(into.subarray(done), signal);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  [Symbol.dispose](): void {
    this.#patient?.[Symbol.dispose]();
    if (this.#fd !== STDIN_FD) closeSync(this.#fd);
  }

  async #read(into: Uint8Array, position: number | null): Promise<number> {
    try {
      return (await readInto(this.#fd, into, 0, into.length, position)).bytesRead;
    } catch (error) {
      const { code = messageOf(error) } = error as NodeJS.ErrnoException;
      throw new SysError({ call: 'read', errnoName: code, context: `reading ${this.name}` });
    }
  }

  #shortened(at: number): Error {
    const was = `it had ${this.bytes} bytes and has ${at} now`;
    return new Error(`${this.name} became shorter while it was read: ${was}`);
  }
}

/** Files of /proc say 0 and have more. */
function knownBytes(stats: Stats, start: number): number | undefined {
  return stats.isFile() && stats.size > 0 ? Math.max(0, stats.size - start) : undefined;
}

/** Where a file that we were given open stands: whoever had it before may have read some of it. */
function positionOf(fd: number): number {
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  return Number(/^pos:\s*(\d+)/.exec(info)?.[1] ?? 0);
}
