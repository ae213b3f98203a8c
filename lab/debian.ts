// Debian packages, fetched by apt and unpacked without installing them and without privilege: apt works
// on private state folders, with the sources and keys that this machine has.
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { command } from './command.ts';
import { HYPERVISOR_PACKAGE } from './recipe.ts';

/** apt on state of its own below one folder. */
export class PrivateApt {
  readonly #options: readonly string[];

  private constructor(options: readonly string[]) {
    this.#options = options;
  }

  /**
   * Makes the state folders below `folder` and reads the lists of this machine's sources.
   * @throws {SysError} when the sources cannot be read, or they are not those of Debian 12
   */
  static async open(folder: string): Promise<PrivateApt> {
    mkdirSync(`${folder}/state/lists/partial`, { recursive: true });
    mkdirSync(`${folder}/cache/archives/partial`, { recursive: true });
    writeFileSync(`${folder}/status`, '');
    const settings = [
      `Dir::State=${folder}/state`,
      `Dir::State::status=${folder}/status`,
      `Dir::Cache=${folder}/cache`,
      'Acquire::Languages=none',
      'APT::Sandbox::User=root',
    ];
    const apt = new PrivateApt(settings.flatMap((setting) => ['-o', setting]));
    await command(['apt-get', ...apt.#options, 'update', '-q'], {
      context: 'reading package lists',
    });
    await command(['apt-cache', ...apt.#options, 'show', HYPERVISOR_PACKAGE], {
      context: 'the lab needs bookworm and bookworm-security (main) among the sources of apt',
    });
    return apt;
  }

  /** The package that the metapackage `name` stands for now. */
  async dependency(name: string): Promise<string> {
    const listing = await command(['apt-cache', ...this.#options, 'depends', name], {
      context: `looking up ${name}`,
    });
    const found = /^\s*Depends: (\S+)$/m.exec(listing.toString('utf8'));
    if (found === null) throw new Error(`the package ${name} depends on nothing`);
    return found[1]!;
  }

  /** Fetches the packages into `folder` and returns the paths of the files. */
  async download(names: readonly string[], folder: string): Promise<string[]> {
    mkdirSync(folder, { recursive: true });
    await command(['apt-get', ...this.#options, 'download', '-q', ...names], {
      context: 'fetching Debian packages',
      cwd: folder,
    });
    return readdirSync(folder)
      .filter((name) => name.endsWith('.deb'))
      .map((name) => `${folder}/${name}`);
  }
}

/**
 * Unpacks the files of one package into `folder`, without those that match `leftOut`.
 * Folders that are links there (`/lib` to `/usr/lib`) stay links.
 */
export async function unpack(
  deb: string,
  { folder, leftOut = [] }: { folder: string; leftOut?: readonly string[] },
): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const excludes = leftOut.map((pattern) => `--exclude=${pattern}`);
  const tar = [
    'tar',
    '-x',
    '-C',
    folder,
    '--keep-directory-symlink',
    '--no-same-owner',
    ...excludes,
  ];
  const pipe = 'set -o pipefail; deb=$1; shift; dpkg-deb --fsys-tarfile "$deb" | "$@"';
  await command(['bash', '-c', pipe, 'unpack', deb, ...tar], { context: `unpacking ${deb}` });
}
