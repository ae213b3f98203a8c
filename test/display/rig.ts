// A guest without manners on a host with the display backend, and how it sends its requests.

import assert from 'node:assert/strict';
import { type RawConnector, RawFrontend, type RawWorld } from '../../sim/guests/raw-frontend.ts';
import type { XenHost } from '../../src/hypervisor/xen-host.ts';
import type { SharedPages } from '../../src/xen/domain.ts';
import { DOM0, type DomId } from '../../src/xen/ids.ts';
import { offerPageDirectory, writePageDirectory } from '../../src/xen/page-directory.ts';
import type { Account } from '../../src/zcopy/ledger.ts';
import {
  type AttachChanges,
  type ConfigChanges,
  type CreateChanges,
  HEIGHT,
  request,
  WIDTH,
} from './bodies.ts';
import { DisplayHost, type HostOptions } from './host.ts';

/** The host that a rig is on, whatever serves its displays there. */
export interface RigHost extends RawWorld {
  readonly host: XenHost;
  /** What is held for a guest, and what it was refused. */
  account(domid: DomId): Pick<Account, 'held' | 'refused' | 'budget'>;
  /** Takes the guests away; all that they made the host hold must be gone then. */
  close(): Promise<void>;
}

export class Rig<Host extends RigHost = DisplayHost> {
  readonly host: Host;
  readonly raw: RawFrontend;
  readonly domid: DomId;

  constructor(host: Host, raw: RawFrontend) {
    this.host = host;
    this.raw = raw;
    this.domid = raw.guest.domid;
  }

  get connector(): RawConnector {
    return this.raw.connectors[0]!;
  }

  get account(): ReturnType<Host['account']> {
    return this.host.account(this.domid) as ReturnType<Host['account']>;
  }

  /** New pages and their directory. @returns the reference of the directory's first page */
  async pages(count: number, draw: (words: Uint32Array) => void = () => {}): Promise<number> {
    const { grants } = this.raw.guest;
    const request = { domid: DOM0, pages: count, writable: false };
    const { bytes, refs } = await this.host.run(grants.share(request));
    draw(new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4));
    const directory = await this.host.run(writePageDirectory(grants, { domid: DOM0, refs }));
    return directory.refs[0]!;
  }

  /** A directory page of these words: the next page, then references. */
  async directory(words: (ownRef: number) => readonly number[]): Promise<number> {
    const request = { domid: DOM0, pages: 1, writable: false };
    const page = await this.host.run(this.raw.guest.grants.share(request));
    const view = new DataView(page.bytes.buffer, page.bytes.byteOffset, 4096);
    words(page.refs[0]!).forEach((word, index) => {
      view.setUint32(index * 4, word, true);
    });
    return page.refs[0]!;
  }

  /** A directory without references, for the backend to fill. */
  async offer(count: number): Promise<SharedPages> {
    const { grants } = this.raw.guest;
    return this.host.run(offerPageDirectory(grants, { domid: DOM0, pages: count }));
  }

  create(changes: CreateChanges): Promise<number> {
    return this.connector.ask(request.create(changes));
  }

  destroy(dbufCookie: bigint): Promise<number> {
    return this.connector.ask(request.destroy(dbufCookie));
  }

  attach(changes: AttachChanges): Promise<number> {
    return this.connector.ask(request.attach(changes));
  }

  detach(fbCookie: bigint): Promise<number> {
    return this.connector.ask(request.detach(fbCookie));
  }

  config(changes: ConfigChanges): Promise<number> {
    return this.connector.ask(request.config(changes));
  }

  flip(fbCookie: bigint): Promise<number> {
    return this.connector.ask(request.flip(fbCookie));
  }

  /** Buffer 1 with framebuffer 2, shown. */
  async show(): Promise<void> {
    assert.equal(await this.create({ gref_directory: await this.pages(3) }), 0);
    assert.equal(await this.attach({}), 0);
    assert.equal(await this.config({}), 0);
  }

  /** What the device's error node says. */
  async error(): Promise<string | undefined> {
    const path = `/local/domain/0/error/backend/vdispl/${this.domid}/0/error`;
    return this.host.run(this.host.host.dom0.store.read(path));
  }

  async finish(): Promise<void> {
    await this.raw.close();
    await this.host.close();
  }
}

export async function rig(connectors = 1, options?: HostOptions): Promise<Rig> {
  const host = await DisplayHost.open(options);
  const resolutions = Array.from({ length: connectors }, () => `${WIDTH}x${HEIGHT}`);
  const { domain } = await host.guest(...resolutions);
  const raw = new RawFrontend(host, domain, { connectors });
  await raw.open();
  return new Rig(host, raw);
}
