// What a guest that runs programs of ours has beside the ordinary image: Node, koffi and the C library, as an archive
// of its own, which Linux unpacks behind the other. Guests without it boot as fast as ever.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { command } from './command.ts';
import { CpioWriter } from './cpio.ts';
import { addKoffi, addNodeLibraries } from './node-files.ts';
import type { UnpackedPackages } from './packages.ts';

/** Makes the compressed archive with the stripped `node` in it, and returns its bytes. */
export async function guestNodeImage(packages: UnpackedPackages, node: string): Promise<Buffer> {
  const folder = mkdtempSync(`${tmpdir()}/xen-zcopy-guest-node-`);
  try {
    const path = `${folder}/guest-node.cpio`;
    const archive = new CpioWriter(path);
    archive.file('bin/node', readFileSync(node), 0o755);
    addNodeLibraries(archive, packages);
    addKoffi(archive);
    archive.finish();
    await command(['zstd', '-q', '-12', '-T0', path], { context: "compressing the guests' node" });
    return readFileSync(`${path}.zst`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
