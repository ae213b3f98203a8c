// What the kernel does for us when pages go out of use on our side, also when this process dies: it clears
// a byte of them and signals an event channel (SET_UNMAP_NOTIFY of xen/gntdev.h and xen/gntalloc.h).
//
// Invariants (of the drivers):
// - gntdev clears the byte when the view is torn down or the grants are unmapped, and signals when the record
//   of the mapping is dropped, which is the last thing to go; gntalloc does both when the page's grant ends.
// - Either does it once, and keeps the channel's port open until it has, whether or not we close the channel.
// - Setting it again replaces what was set; no action takes it back.

import assert from 'node:assert/strict';
import { IOCTL_GNTALLOC_SET_UNMAP_NOTIFY, ioctlGntallocUnmapNotify } from '../abi/gntalloc.ts';
import {
  IOCTL_GNTDEV_SET_UNMAP_NOTIFY,
  ioctlGntdevUnmapNotify,
  UNMAP_NOTIFY_CLEAR_BYTE,
  UNMAP_NOTIFY_SEND_EVENT,
} from '../abi/gntdev.ts';
import { PAGE_SIZE } from '../abi/page.ts';
import type { EventChannel, Farewell } from '../xen/domain.ts';
import type { DeviceFile } from './device.ts';

const GNTDEV_CALL = {
  name: 'IOCTL_GNTDEV_SET_UNMAP_NOTIFY',
  number: IOCTL_GNTDEV_SET_UNMAP_NOTIFY,
  layout: ioctlGntdevUnmapNotify,
} as const;
const GNTALLOC_CALL = {
  name: 'IOCTL_GNTALLOC_SET_UNMAP_NOTIFY',
  number: IOCTL_GNTALLOC_SET_UNMAP_NOTIFY,
  layout: ioctlGntallocUnmapNotify,
} as const;

const SETTING = 'asking for a farewell';
const GNTDEV_REMEDY =
  'the pages must be mapped for writing, and the event channel be open in this domain';
const GNTALLOC_REMEDY = 'the event channel must be open in this domain';

/** Where the byte is, and who is signalled. */
export interface UnmapNotify {
  /** Byte offset in the device file. */
  readonly index: bigint;
  readonly channel: EventChannel;
}

/** A farewell whose byte is outside of its pages is our bug: the kernel would take another's page. */
export function assertWithin(farewell: Farewell | undefined, pages: number): void {
  if (farewell === undefined) return;
  const { byte } = farewell;
  const within = Number.isInteger(byte) && byte >= 0 && byte < pages * PAGE_SIZE;
  assert(within, `a farewell at byte ${byte} of ${pages} pages`);
}

/** For a record of gntdev that is mapped already. @throws SysError EINVAL when it is not mapped for writing */
export function notifyAtUnmap(device: DeviceFile, notify: UnmapNotify): void {
  set(device, GNTDEV_CALL, { notify, remedy: GNTDEV_REMEDY });
}

/** For a page of gntalloc. @throws SysError EINVAL when the channel is not open */
export function notifyAtEndOfGrant(device: DeviceFile, notify: UnmapNotify): void {
  set(device, GNTALLOC_CALL, { notify, remedy: GNTALLOC_REMEDY });
}

/** Takes back what was set for a page of gntalloc. @throws SysError */
export function forgetEndOfGrant(device: DeviceFile, { index }: UnmapNotify): void {
  const { name, number, layout } = GNTALLOC_CALL;
  const argument = new Uint8Array(layout.size);
  const value = { index, action: 0, event_channel_port: 0 };
  layout.write(new DataView(argument.buffer), 0, value);
  device.ioctl({ name, number, argument }, { context: 'taking back a farewell that we said' });
}

function set(
  device: DeviceFile,
  { name, number, layout }: typeof GNTDEV_CALL | typeof GNTALLOC_CALL,
  { notify, remedy }: { readonly notify: UnmapNotify; readonly remedy: string },
): void {
  const { index, channel } = notify;
  const argument = new Uint8Array(layout.size);
  const action = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;
  const value = { index, action, event_channel_port: channel.port };
  layout.write(new DataView(argument.buffer), 0, value);
  device.ioctl(
    { name, number, argument },
    { context: `${SETTING} by port ${channel.port}`, remedy },
  );
}
