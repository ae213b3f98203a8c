// How many pages this host lets programs share by gntalloc, as one of the ways that `doctor` tells of: the module
// counts those of all programs together, and what it allows of itself is less than a picture.

import { GNTALLOC, type OpenDevice } from './device.ts';
import type { HostPath } from './host-path.ts';
import { gntallocLimit } from './kernel-facts.ts';

/** What a program shares at least that shows something: 1920x1080 with 4 bytes a pixel. */
const PICTURE = { name: '1920x1080', pages: 2025 };
const REMEDY =
  `a picture of ${PICTURE.name} has ${PICTURE.pages} pages: ` +
  '`echo 65536 > /sys/module/xen_gntalloc/parameters/limit`';

/** Opens the device for a moment. @throws SysError where there is none */
export function lookAtSharing(open: OpenDevice): HostPath {
  open(GNTALLOC)[Symbol.dispose]();
  return sharePath(gntallocLimit());
}

/** What it means that all programs together may share `limit` pages. */
export function sharePath(limit: number): HostPath {
  const reason = `opened; all programs together may share ${limit} pages`;
  const path = { available: true, reason };
  return limit < PICTURE.pages ? { ...path, remedy: REMEDY } : path;
}
