// Runs in dom0: does with the Linux provider, against a guest that has a PV keyboard, what a backend does,
// and prints one JSON object of what it saw. The guest's frontend has published a page and a port.

import { openLinuxDomain } from '../../src/linux/domain.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { type Domain, GrantMapError } from '../../src/xen/domain.ts';
import { type DomId, domId, gref, port } from '../../src/xen/ids.ts';

/** What the scenario gets. */
export interface ProviderSightings {
  readonly domid: number;
  readonly mappedBytes: number;
  /** A reference that the guest never gave. */
  readonly refusal: string;
  /** Whether the pages read zeros once they were unmapped, through a view taken before. */
  readonly revoked: boolean;
  readonly sharedRefs: number;
  readonly watchedPaths: readonly string[];
}

/** Far above what a guest's grant table has by default. */
const ABSENT_GREF = 500_000;

async function mapAndRevoke(domain: Domain, guest: DomId) {
  const device = `/local/domain/${guest}/device/vkbd/0`;
  const pageRef = gref(Number(await domain.store.read(`${device}/page-gref`)));
  const remotePort = port(Number(await domain.store.read(`${device}/event-channel`)));
  const page = await domain.foreign.map({ domid: guest, refs: [pageRef], writable: true });
  const channel = await domain.events.bindInterdomain({
    remote: guest,
    remotePort,
    handler: () => {},
  });
  channel.notify();
  const view = page.bytes;
  const mappedBytes = view.length;
  view[view.length - 1] = 0xff;
  await page[Symbol.asyncDispose]();
  const revoked = view.every((byte) => byte === 0);
  await channel[Symbol.asyncDispose]();
  return { mappedBytes, revoked };
}

async function refusalOf(domain: Domain, guest: DomId): Promise<string> {
  try {
    await domain.foreign.map({ domid: guest, refs: [gref(ABSENT_GREF)], writable: true });
  } catch (error) {
    if (error instanceof GrantMapError) return error.status;
    throw error;
  }
  return 'none';
}

async function watchedPaths(domain: Domain): Promise<string[]> {
  const node = '/local/domain/0/xen-zcopy-probe';
  const paths: string[] = [];
  let seen = () => {};
  const changed = new Promise<void>((resolve) => {
    seen = resolve;
  });
  const watch = await domain.store.watch(node, (path) => {
    paths.push(path);
    if (path !== node) seen();
  });
  await domain.store.transaction(async (access) => {
    await access.write(`${node}/child`, 'value');
  });
  await changed;
  await watch[Symbol.asyncDispose]();
  await domain.store.remove(node);
  return paths;
}

const domain = await openLinuxDomain({ runtime: systemRuntime() });
const guest = domId(Number(process.argv[2]));
const shared = await domain.grants.share({ domid: guest, pages: 3, writable: true });
const sightings: ProviderSightings = {
  domid: domain.domid,
  ...(await mapAndRevoke(domain, guest)),
  refusal: await refusalOf(domain, guest),
  sharedRefs: new Set(shared.refs).size,
  watchedPaths: await watchedPaths(domain),
};
await shared[Symbol.asyncDispose]();
await domain[Symbol.asyncDispose]();
console.log(JSON.stringify(sightings));
