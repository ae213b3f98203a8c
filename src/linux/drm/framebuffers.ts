// Framebuffers: memory with a geometry and a pixel format, which planes show. Making one shows nothing;
// removing one that is shown makes the kernel switch its CRTC off, so who removes must know.

import { DRM_IOCTL_MODE_ADDFB2, DRM_IOCTL_MODE_RMFB, drmModeFbCmd2 } from '../../abi/drm-mode.ts';
import type { DeviceFile } from '../device.ts';
import { ask, repeatIoctl } from './requests.ts';

const ADD = { name: 'DRM_IOCTL_MODE_ADDFB2', number: DRM_IOCTL_MODE_ADDFB2, layout: drmModeFbCmd2 };

export interface FramebufferRequest {
  readonly handle: number;
  readonly width: number;
  readonly height: number;
  readonly fourcc: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  /** Bytes before the first row. */
  readonly offset: number;
}

/** @returns its number @throws SysError EINVAL where the hardware cannot read memory so */
export function addFramebuffer(file: DeviceFile, request: FramebufferRequest): number {
  const { handle, width, height, fourcc, stride, offset } = request;
  const only = (value: number) => [value, 0, 0, 0];
  const { fb_id } = ask(
    file,
    ADD,
    {
      width,
      height,
      pixel_format: fourcc,
      handles: only(handle),
      pitches: only(stride),
      offsets: only(offset),
    },
    {
      context: `making a framebuffer of ${width}x${height}, ${stride} bytes a row, from ${offset}`,
    },
  );
  return fb_id;
}

/** @throws SysError */
export function removeFramebuffer(file: DeviceFile, framebuffer: number): void {
  const argument = new Uint8Array(Uint32Array.of(framebuffer).buffer);
  const request = { name: 'DRM_IOCTL_MODE_RMFB', number: DRM_IOCTL_MODE_RMFB, argument };
  repeatIoctl(file, request, { context: `removing framebuffer ${framebuffer}` });
}
