// All that abi/ declares, by header: what `abi --json`, the documentation and the comparison with the
// real headers are made of. A module's exports are its declarations: layouts, numbers and tables of
// numbers (C enums), and strings, under C names; exports in camelCase other than layouts are helpers.
import * as displif from './displif.ts';
import * as dmaBuf from './dma-buf.ts';
import * as dmaHeap from './dma-heap.ts';
import * as drm from './drm.ts';
import * as drmMode from './drm-mode.ts';
import * as errno from './errno.ts';
import * as eventChannel from './event-channel.ts';
import * as evtchn from './evtchn.ts';
import * as fcntl from './fcntl.ts';
import * as gntalloc from './gntalloc.ts';
import * as gntdev from './gntdev.ts';
import * as grantTable from './grant-table.ts';
import * as kbdif from './kbdif.ts';
import { type AnyLayout, isLayout } from './layout.ts';
import * as memfd from './memfd.ts';
import * as privcmd from './privcmd.ts';
import * as sharedInfoArm from './shared-info-arm.ts';
import * as sharedInfoX86 from './shared-info-x86.ts';
import * as udmabuf from './udmabuf.ts';
import * as xen from './xen.ts';
import * as xenbus from './xenbus.ts';
import * as xsWire from './xs-wire.ts';

/** The architectures of Xen; only shared_info differs between them. */
export type Arch = 'x86_64' | 'arm64';
export const HOST_ARCH: Arch = process.arch === 'arm64' ? 'arm64' : 'x86_64';

/** One C header and what is declared of it. */
export interface Header {
  /** As in `#include <...>`. */
  readonly include: string;
  /** The Debian package that has it. */
  readonly debianPackage: 'libxen-dev' | 'linux-libc-dev' | 'libdrm-dev';
  readonly layouts: readonly AnyLayout[];
  /** Numeric constants by C name. */
  readonly constants: ReadonlyMap<string, number>;
  /** String constants by C name: xenstore keys, mostly. */
  readonly strings: ReadonlyMap<string, string>;
}

/** Every header that abi/ declares something of, as it looks on `arch`. */
export function headers(arch: Arch = HOST_ARCH): readonly Header[] {
  return [
    header('xen/xen.h', { ...xen, ...(arch === 'arm64' ? sharedInfoArm : sharedInfoX86) }),
    header('xen/errno.h', errno),
    header('xen/grant_table.h', grantTable),
    header('xen/event_channel.h', eventChannel),
    header('xen/io/xenbus.h', xenbus),
    header('xen/io/xs_wire.h', xsWire),
    header('xen/io/displif.h', displif),
    header('xen/io/kbdif.h', kbdif),
    header('xen/gntdev.h', gntdev, 'linux-libc-dev'),
    header('xen/gntalloc.h', gntalloc, 'linux-libc-dev'),
    header('xen/evtchn.h', evtchn, 'linux-libc-dev'),
    header('xen/privcmd.h', privcmd, 'linux-libc-dev'),
    header('linux/memfd.h', memfd, 'linux-libc-dev'),
    header('linux/fcntl.h', fcntl, 'linux-libc-dev'),
    header('linux/udmabuf.h', udmabuf, 'linux-libc-dev'),
    header('linux/dma-buf.h', dmaBuf, 'linux-libc-dev'),
    header('linux/dma-heap.h', dmaHeap, 'linux-libc-dev'),
    // Debian leaves these out of linux-libc-dev; libdrm-dev has them in a folder of its own.
    header('libdrm/drm.h', drm, 'libdrm-dev'),
    header('libdrm/drm_mode.h', drmMode, 'libdrm-dev'),
  ];
}

function header(
  include: string,
  exported: Readonly<Record<string, unknown>>,
  debianPackage: Header['debianPackage'] = 'libxen-dev',
): Header {
  const layouts: AnyLayout[] = [];
  const constants = new Map<string, number>();
  const strings = new Map<string, string>();
  const collect = (name: string, value: unknown): void => {
    if (isLayout(value)) layouts.push(value);
    else if (!/^(__)?[A-Z]/.test(name)) return;
    else if (typeof value === 'number') constants.set(name, value);
    else if (typeof value === 'string') strings.set(name, value);
    else if (typeof value === 'object' && value !== null) {
      for (const [member, number] of Object.entries(value)) collect(member, number);
    }
  };
  for (const [name, value] of Object.entries(exported)) collect(name, value);
  return { include, debianPackage, layouts, constants, strings };
}
