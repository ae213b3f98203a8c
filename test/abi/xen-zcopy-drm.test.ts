// The interface of 2018 has no header to be compared with: these are the figures of its patch, computed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DRM_IOCTL_XEN_ZCOPY_DUMB_FROM_REFS,
  DRM_IOCTL_XEN_ZCOPY_DUMB_TO_REFS,
  DRM_IOCTL_XEN_ZCOPY_DUMB_WAIT_FREE,
  drmModeCreateDumb,
  drmXenZcopyDumbFromRefs,
  drmXenZcopyDumbToRefs,
  drmXenZcopyDumbWaitFree,
} from '../../src/abi/xen-zcopy-drm.ts';

test('the ioctls of drm/xen-zcopy have the numbers of the series of 2018, from the sizes of their structs', () => {
  assert.equal(DRM_IOCTL_XEN_ZCOPY_DUMB_FROM_REFS, 0xc040_6440);
  assert.equal(DRM_IOCTL_XEN_ZCOPY_DUMB_TO_REFS, 0xc020_6441);
  assert.equal(DRM_IOCTL_XEN_ZCOPY_DUMB_WAIT_FREE, 0xc008_6442);
});

test('and the structs their sizes and offsets on LP64', () => {
  const { fields } = drmXenZcopyDumbFromRefs;
  const offsets = (of: Readonly<Record<string, { readonly offset: number }>>) =>
    Object.values(of).map(({ offset }) => offset);
  assert.equal(drmXenZcopyDumbFromRefs.size, 64);
  assert.deepEqual(offsets(fields), [0, 8, 16, 24, 56]);
  assert.equal(fields.dumb.fields.size.offset, 48);
  assert.equal(drmModeCreateDumb.size, 32);
  assert.equal(drmXenZcopyDumbToRefs.size, 32);
  assert.deepEqual(offsets(drmXenZcopyDumbToRefs.fields), [0, 8, 16, 24]);
  assert.equal(drmXenZcopyDumbWaitFree.size, 8);
});
