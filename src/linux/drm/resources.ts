// What a card has: connectors (the sockets on it), CRTCs (each scans out one picture) and planes (each
// puts one framebuffer into a CRTC's picture). Plain facts, as they were when they were read.

import {
  DRM_IOCTL_MODE_GETCONNECTOR,
  DRM_IOCTL_MODE_GETENCODER,
  DRM_IOCTL_MODE_GETPLANE,
  DRM_IOCTL_MODE_GETPLANERESOURCES,
  DRM_IOCTL_MODE_GETRESOURCES,
  DRM_MODE_CONNECTOR,
  DRM_MODE_FLAG_DBLSCAN,
  DRM_MODE_FLAG_INTERLACE,
  DRM_MODE_TYPE_PREFERRED,
  drmModeCardRes,
  drmModeGetConnector,
  drmModeGetEncoder,
  drmModeGetPlane,
  drmModeGetPlaneRes,
  drmModeModeinfo,
} from '../../abi/drm-mode.ts';
import type { DeviceFile } from '../device.ts';
import { ask, askList, Room, textOf } from './requests.ts';

const GET_RESOURCES = {
  name: 'DRM_IOCTL_MODE_GETRESOURCES',
  number: DRM_IOCTL_MODE_GETRESOURCES,
  layout: drmModeCardRes,
};
const GET_CONNECTOR = {
  name: 'DRM_IOCTL_MODE_GETCONNECTOR',
  number: DRM_IOCTL_MODE_GETCONNECTOR,
  layout: drmModeGetConnector,
};
const GET_ENCODER = {
  name: 'DRM_IOCTL_MODE_GETENCODER',
  number: DRM_IOCTL_MODE_GETENCODER,
  layout: drmModeGetEncoder,
};
const GET_PLANES = {
  name: 'DRM_IOCTL_MODE_GETPLANERESOURCES',
  number: DRM_IOCTL_MODE_GETPLANERESOURCES,
  layout: drmModeGetPlaneRes,
};
const GET_PLANE = {
  name: 'DRM_IOCTL_MODE_GETPLANE',
  number: DRM_IOCTL_MODE_GETPLANE,
  layout: drmModeGetPlane,
};

const {
  DRM_MODE_CONNECTOR_Unknown: UNKNOWN,
  DRM_MODE_CONNECTOR_WRITEBACK: WRITEBACK,
  ...TYPES
} = DRM_MODE_CONNECTOR;

/** As the kernel names connectors in /sys/class/drm, and people in `unique-id`: by type, then a number. */
const TYPE_NAMES: ReadonlyMap<number, string> = new Map<number, string>([
  [UNKNOWN, 'Unknown'],
  [TYPES.DRM_MODE_CONNECTOR_VGA, 'VGA'],
  [TYPES.DRM_MODE_CONNECTOR_DVII, 'DVI-I'],
  [TYPES.DRM_MODE_CONNECTOR_DVID, 'DVI-D'],
  [TYPES.DRM_MODE_CONNECTOR_DVIA, 'DVI-A'],
  [TYPES.DRM_MODE_CONNECTOR_Composite, 'Composite'],
  [TYPES.DRM_MODE_CONNECTOR_SVIDEO, 'SVIDEO'],
  [TYPES.DRM_MODE_CONNECTOR_LVDS, 'LVDS'],
  [TYPES.DRM_MODE_CONNECTOR_Component, 'Component'],
  [TYPES.DRM_MODE_CONNECTOR_9PinDIN, 'DIN'],
  [TYPES.DRM_MODE_CONNECTOR_DisplayPort, 'DP'],
  [TYPES.DRM_MODE_CONNECTOR_HDMIA, 'HDMI-A'],
  [TYPES.DRM_MODE_CONNECTOR_HDMIB, 'HDMI-B'],
  [TYPES.DRM_MODE_CONNECTOR_TV, 'TV'],
  [TYPES.DRM_MODE_CONNECTOR_eDP, 'eDP'],
  [TYPES.DRM_MODE_CONNECTOR_VIRTUAL, 'Virtual'],
  [TYPES.DRM_MODE_CONNECTOR_DSI, 'DSI'],
  [TYPES.DRM_MODE_CONNECTOR_DPI, 'DPI'],
  [TYPES.DRM_MODE_CONNECTOR_SPI, 'SPI'],
  [TYPES.DRM_MODE_CONNECTOR_USB, 'USB'],
]);

export type ConnectorStatus = 'connected' | 'disconnected' | 'unknown';
const STATUSES: Readonly<Record<number, ConnectorStatus>> = { 1: 'connected', 2: 'disconnected' };

export interface Mode {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly refreshHz: number;
  readonly preferred: boolean;
  /** Whether each row is shown once per refresh, neither every other one nor twice. */
  readonly progressive: boolean;
  /** struct drm_mode_modeinfo, to be given back as it is. */
  readonly bytes: Uint8Array;
}

export interface CardConnector {
  readonly id: number;
  /** Such as `HDMI-A-1`. */
  readonly name: string;
  readonly status: ConnectorStatus;
  readonly modes: readonly Mode[];
  readonly encoders: readonly number[];
  /** The encoder in use, or 0. */
  readonly encoder: number;
}

export interface CardPlane {
  readonly id: number;
  /** Bit i: can be on the i-th CRTC. */
  readonly possibleCrtcs: number;
  /** FourCCs. */
  readonly formats: ReadonlySet<number>;
}

/** The objects of a card, by number; CRTCs in the order that masks count by. */
export interface CardObjects {
  readonly crtcs: readonly number[];
  readonly connectors: readonly number[];
}

/** @throws SysError */
export function readObjects(file: DeviceFile): CardObjects {
  return askList((room) => {
    const [crtcs, connectors] = [Room.u32(room), Room.u32(room)];
    const answer = ask(
      file,
      GET_RESOURCES,
      {
        crtc_id_ptr: crtcs.address,
        connector_id_ptr: connectors.address,
        count_crtcs: room,
        count_connectors: room,
      },
      { context: 'reading what the card has' },
    );
    const { count_crtcs, count_connectors } = answer;
    const filled = (count: number) => Math.min(count, room);
    return {
      count: Math.max(count_crtcs, count_connectors),
      result: {
        crtcs: crtcs.numbers(filled(count_crtcs)),
        connectors: connectors.numbers(filled(count_connectors)),
      },
    };
  });
}

/**
 * What a connector is and has on it, or undefined for one that leads to no screen (writeback).
 * `probe` has the driver look at the cable and read the monitor's EDID, which takes its time.
 * @throws SysError
 */
export function readConnector(
  file: DeviceFile,
  id: number,
  { probe }: { probe: boolean },
): CardConnector | undefined {
  const context = { context: `reading connector ${id}` };
  if (probe) ask(file, GET_CONNECTOR, { connector_id: id }, context);
  return askList((room) => {
    const [modes, encoders] = [new Room(room, drmModeModeinfo.size), Room.u32(room)];
    // With room for one mode the driver does not probe; see struct drm_mode_get_connector.
    const answer = ask(
      file,
      GET_CONNECTOR,
      {
        connector_id: id,
        modes_ptr: modes.address,
        count_modes: Math.max(1, room),
        encoders_ptr: encoders.address,
        count_encoders: room,
      },
      context,
    );
    const { connector_type: type, connector_type_id: number } = answer;
    if (type === WRITEBACK) return { count: 0, result: undefined };
    const filled = (count: number) => Math.min(count, room);
    const result: CardConnector = {
      id,
      name: `${TYPE_NAMES.get(type) ?? 'Unknown'}-${number}`,
      status: STATUSES[answer.connection] ?? 'unknown',
      modes: Array.from({ length: filled(answer.count_modes) }, (_, i) => modeOf(modes.bytesOf(i))),
      encoders: encoders.numbers(filled(answer.count_encoders)),
      encoder: answer.encoder_id,
    };
    return { count: Math.max(answer.count_modes, answer.count_encoders), result };
  });
}

/** The status as the driver last knew it: one call that makes it look at nothing. @throws SysError */
export function readStatus(file: DeviceFile, id: number): ConnectorStatus {
  const mode = new Room(1, drmModeModeinfo.size);
  const { connection } = ask(
    file,
    GET_CONNECTOR,
    { connector_id: id, modes_ptr: mode.address, count_modes: 1 },
    { context: `reading the status of connector ${id}` },
  );
  return STATUSES[connection] ?? 'unknown';
}

/** The CRTCs that an encoder can be on, as a mask, and the one it is on, or 0. @throws SysError */
export function readEncoder(file: DeviceFile, id: number): { possibleCrtcs: number; crtc: number } {
  const context = { context: `reading encoder ${id}` };
  const answer = ask(file, GET_ENCODER, { encoder_id: id }, context);
  return { possibleCrtcs: answer.possible_crtcs, crtc: answer.crtc_id };
}

/** All planes, primary ones too where the file has asked for them. @throws SysError */
export function readPlanes(file: DeviceFile): CardPlane[] {
  const ids = askList((room) => {
    const list = Room.u32(room);
    const { count_planes: count } = ask(
      file,
      GET_PLANES,
      { plane_id_ptr: list.address, count_planes: room },
      { context: 'reading the planes of the card' },
    );
    return { count, result: list.numbers(Math.min(count, room)) };
  });
  return ids.map((id) => readPlane(file, id));
}

function readPlane(file: DeviceFile, id: number): CardPlane {
  return askList((room) => {
    const formats = Room.u32(room);
    const { count_format_types: count, possible_crtcs } = ask(
      file,
      GET_PLANE,
      { plane_id: id, format_type_ptr: formats.address, count_format_types: room },
      { context: `reading plane ${id}` },
    );
    const known = new Set(formats.numbers(Math.min(count, room)));
    return { count, result: { id, possibleCrtcs: possible_crtcs, formats: known } };
  });
}

function modeOf(bytes: Uint8Array): Mode {
  const info = drmModeModeinfo.read(new DataView(bytes.buffer), 0);
  return {
    name: textOf(info.name),
    width: info.hdisplay,
    height: info.vdisplay,
    refreshHz: info.vrefresh,
    preferred: (info.type & DRM_MODE_TYPE_PREFERRED) !== 0,
    progressive: (info.flags & (DRM_MODE_FLAG_INTERLACE | DRM_MODE_FLAG_DBLSCAN)) === 0,
    bytes,
  };
}
