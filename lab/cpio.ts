// A writer of cpio archives in the `newc` format, the one that Linux unpacks into its first file system
// (Documentation/driver-api/early-userspace/buffer-format). Everything belongs to root, whoever writes
// it, and device nodes need no privilege, so images can be made by any user.
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeSync,
} from 'node:fs';

const MAGIC = '070701';
const ALIGNMENT_BYTES = 4;
const TYPE = { directory: 0o040000, file: 0o100000, link: 0o120000, character: 0o020000 };

interface Entry {
  readonly mode: number;
  readonly data?: Uint8Array;
  readonly deviceMajor?: number;
  readonly deviceMinor?: number;
}

/** An archive being written to a file. Paths are those of the image, without the leading slash. */
export class CpioWriter implements Disposable {
  readonly #fd: number;
  readonly #written = new Set<string>();
  #inode = 1;

  constructor(path: string) {
    this.#fd = openSync(path, 'w');
  }

  /** Makes a folder, and those above it that are not there yet. */
  directory(path: string): void {
    if (path === '' || this.#written.has(path)) return;
    this.#add(path, { mode: TYPE.directory | 0o755 });
  }

  file(path: string, data: Uint8Array | string, permissions = 0o644): void {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
    this.#add(path, { mode: TYPE.file | permissions, data: bytes });
  }

  link(path: string, target: string): void {
    this.#add(path, { mode: TYPE.link | 0o777, data: Buffer.from(target, 'utf8') });
  }

  characterDevice(path: string, deviceMajor: number, deviceMinor: number): void {
    this.#add(path, { mode: TYPE.character | 0o600, deviceMajor, deviceMinor });
  }

  has(path: string): boolean {
    return this.#written.has(path);
  }

  /** Copies what is below the folder `source` of this machine to `target` of the image. */
  tree(source: string, target: string): void {
    const entries = readdirSync(source, { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const from = `${source}/${entry.name}`;
      const to = target === '' ? entry.name : `${target}/${entry.name}`;
      if (entry.isDirectory()) {
        this.directory(to);
        this.tree(from, to);
      } else if (entry.isSymbolicLink()) this.link(to, readlinkSync(from));
      else if (entry.isFile()) this.file(to, readFileSync(from), statSync(from).mode & 0o777);
    }
  }

  /** Writes the end mark and closes the file. */
  finish(): void {
    this.#write('TRAILER!!!', { mode: 0 });
    this[Symbol.dispose]();
  }

  #closed = false;

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  #add(path: string, entry: Entry): void {
    const slash = path.lastIndexOf('/');
    if (slash > 0) this.directory(path.slice(0, slash));
    this.#written.add(path);
    this.#write(path, entry);
  }

  #write(name: string, entry: Entry): void {
    const data = entry.data ?? new Uint8Array();
    const fields = [
      this.#inode++,
      entry.mode,
      0, // uid
      0, // gid
      1, // links
      0, // modification time: the same content gives the same archive
      data.length,
      0, // device that the entry comes from
      0,
      entry.deviceMajor ?? 0,
      entry.deviceMinor ?? 0,
      name.length + 1,
      0, // checksum, unused in this format
    ];
    const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join('');
    this.#padded(Buffer.from(`${header}${name}\0`, 'latin1'));
    this.#padded(data);
  }

  #padded(bytes: Uint8Array): void {
    let offset = 0;
    while (offset < bytes.length) offset += writeSync(this.#fd, bytes, offset);
    const rest = bytes.length % ALIGNMENT_BYTES;
    if (rest !== 0) writeSync(this.#fd, new Uint8Array(ALIGNMENT_BYTES - rest));
  }
}
