// Where an import puts its bytes: a file or standard output, written straight from the shared memory.
//
// Invariants: every byte is written or an error says why not; a reader that is slow, or stopped, does not keep
// the process from ending. A file is emptied when there is something to put into it, not before.

import { closeSync, constants, fstatSync, ftruncateSync, openSync, write } from 'node:fs';
import { promisify } from 'node:util';
import { PatientFd } from '../../posix/patient-fd.ts';
import { messageOf, SysError, UsageError } from '../../runtime/errors.ts';

const writeFrom = promisify(write);
const STDOUT_FD = 1;

export class OutputFile implements Disposable {
  readonly name: string;
  readonly #fd: number;
  readonly #patient: PatientFd | undefined;

  private constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
    const context = `writing ${name}`;
    this.#patient = fstatSync(fd).isFile()
      ? undefined
      : PatientFd.open(fd, { readiness: 'writable', context });
  }

  /** `-` or nothing is standard output. @throws UsageError */
  static open(path = '-'): OutputFile {
    if (path === '-') return new OutputFile('stdout', STDOUT_FD);
    let fd: number;
    try {
      fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o666);
    } catch (error) {
      throw new UsageError(`--output ${path} cannot be written: ${messageOf(error)}`);
    }
    try {
      return new OutputFile(path, fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Forgets what was in a file before; a file that others write to as well (standard output) stays. */
  clear(): void {
    if (this.#fd !== STDOUT_FD && fstatSync(this.#fd).isFile()) ftruncateSync(this.#fd);
  }

  /** Writes all of it. @throws SysError EPIPE when nobody reads any more; the signal's reason */
  async write(bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      signal.throwIfAborted();
      done += await this.#writeSome(bytes.subarray(done), signal);
    }
  }

  [Symbol.dispose](): void {
    this.#patient?.[Symbol.dispose]();
    if (this.#fd !== STDOUT_FD) closeSync(this.#fd);
  }

  async #writeSome(bytes: Uint8Array, signal: AbortSignal): Promise<number> {
    if (this.#patient === undefined) return this.#writeOnThread(bytes);
    const count = this.#patient.tryWrite(bytes);
    if (count === undefined) await this.#patient.ready(signal);
    return count ?? 0;
  }

  async #writeOnThread(bytes: Uint8Array): Promise<number> {
    try {
      return (await writeFrom(this.#fd, bytes)).bytesWritten;
    } catch (error) {
      const { code = messageOf(error) } = error as NodeJS.ErrnoException;
      throw new SysError({ call: 'write', errnoName: code, context: `writing ${this.name}` });
    }
  }
}
