// Blobs: property values of more than a number, modes above all.

import {
  DRM_IOCTL_MODE_CREATEPROPBLOB,
  DRM_IOCTL_MODE_DESTROYPROPBLOB,
  DRM_IOCTL_MODE_GETPROPBLOB,
  drmModeCreateBlob,
  drmModeDestroyBlob,
  drmModeGetBlob,
} from '../../abi/drm-mode.ts';
import type { DeviceFile } from '../device.ts';
import { ask, askList, Room } from './requests.ts';

const GET = {
  name: 'DRM_IOCTL_MODE_GETPROPBLOB',
  number: DRM_IOCTL_MODE_GETPROPBLOB,
  layout: drmModeGetBlob,
};
const CREATE = {
  name: 'DRM_IOCTL_MODE_CREATEPROPBLOB',
  number: DRM_IOCTL_MODE_CREATEPROPBLOB,
  layout: drmModeCreateBlob,
};
const DESTROY = {
  name: 'DRM_IOCTL_MODE_DESTROYPROPBLOB',
  number: DRM_IOCTL_MODE_DESTROYPROPBLOB,
  layout: drmModeDestroyBlob,
};

/** A copy of a blob's bytes. @throws SysError ENOENT when it is gone */
export function readBlob(file: DeviceFile, id: number): Uint8Array {
  return askList((length) => {
    const room = new Room(length, 1);
    const given = { blob_id: id, length, data: room.address };
    const answer = ask(file, GET, given, { context: `reading blob ${id}` });
    const bytes = new Uint8Array(room.view.buffer).slice(0, Math.min(length, answer.length));
    return { count: answer.length, result: bytes };
  });
}

/** A new blob, gone when disposed; commits that used it keep it by themselves. @throws SysError */
export function createBlob(file: DeviceFile, bytes: Uint8Array): Disposable & { id: number } {
  const given = { data: Room.of(bytes).address, length: bytes.length };
  const { blob_id: id } = ask(file, CREATE, given, { context: 'making a mode for the card' });
  return {
    id,
    [Symbol.dispose]: () => {
      ask(file, DESTROY, { blob_id: id }, { context: `giving blob ${id} up` });
    },
  };
}
