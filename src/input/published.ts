// The xenstore nodes of a PV keyboard, as its backend writes and reads them (xen/io/kbdif.h; libxl writes
// those of the backend that the guest's configuration names, the rest is ours).
//
// xen-kbdfront reads the backend's nodes once, when it is probed, so they are there before InitWait and are
// never changed afterwards.

import { XENDISPL_DRIVER_NAME, XENDISPL_FIELD_RESOLUTION } from '../abi/displif.ts';
import {
  XENKBD_FIELD_EVT_CHANNEL,
  XENKBD_FIELD_FEAT_ABS_POINTER,
  XENKBD_FIELD_FEAT_DSBL_KEYBRD,
  XENKBD_FIELD_FEAT_DSBL_POINTER,
  XENKBD_FIELD_FEAT_MTOUCH,
  XENKBD_FIELD_FEAT_RAW_POINTER,
  XENKBD_FIELD_HEIGHT,
  XENKBD_FIELD_MT_HEIGHT,
  XENKBD_FIELD_MT_NUM_CONTACTS,
  XENKBD_FIELD_MT_WIDTH,
  XENKBD_FIELD_REQ_ABS_POINTER,
  XENKBD_FIELD_REQ_MTOUCH,
  XENKBD_FIELD_REQ_RAW_POINTER,
  XENKBD_FIELD_RING_GREF,
  XENKBD_FIELD_WIDTH,
} from '../abi/kbdif.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Gref, Port } from '../xen/ids.ts';
import { distrust } from '../xen/untrusted.ts';
import type { BackendDevice } from '../xen/xenbus/driver.ts';
import {
  parseFlag,
  parseGref,
  parsePort,
  parseResolution,
  parseU32,
  required,
} from '../xen/xenbus/parse.ts';
import { readPeerNode } from '../xen/xenbus/peer-node.ts';
import type { Area, InputOffer, InputWishes } from './keyboard-input.ts';

/** The pointer's area when nobody says anything: what xen-kbdfront takes then (XENFB_WIDTH, XENFB_HEIGHT). */
const DEFAULT_AREA: Area = { width: 800, height: 600 };
/** Contacts of the touch screen that is offered: a person's fingers. */
const DEFAULT_CONTACTS = 10;
/** Contact ids are one byte. */
const CONTACTS_MAX = 256;
/** Largest side of an area; positions are i32. */
const SIDE_MAX = 0x7fff_ffff;

/** The node's number, after writing `value` there when the toolstack has not written it. */
async function offered(
  device: BackendDevice,
  key: string,
  { value, max }: { value: number; max: number },
): Promise<number> {
  const present = await device.readBackend(key);
  if (present !== undefined) return parseU32(distrust(present), key, { min: 0, max });
  await device.writeBackend(key, String(value));
  return value;
}

/** The size of the guest's first display, so that pointer and picture have the same pixels. */
async function firstDisplay({ guest }: BackendDevice): Promise<Area> {
  const display = `/local/domain/${guest.domid}/device/${XENDISPL_DRIVER_NAME}/0`;
  const value = await readPeerNode(guest.domain.store, `${display}/0/${XENDISPL_FIELD_RESOLUTION}`);
  if (value === undefined) return DEFAULT_AREA;
  try {
    return parseResolution(distrust(value), XENDISPL_FIELD_RESOLUTION, SIDE_MAX);
  } catch (error) {
    // The display's own backend refuses it; a pointer can do without.
    if (error instanceof ProtocolViolation) return DEFAULT_AREA;
    throw error;
  }
}

/**
 * Writes what is offered and not written yet: an absolute pointer over the first display, a touch screen.
 * @throws ProtocolViolation when the toolstack's nodes are malformed
 */
export async function publishOffer(device: BackendDevice): Promise<InputOffer> {
  const size = await firstDisplay(device);
  const flag = { value: 1, max: 1 };
  await offered(device, XENKBD_FIELD_FEAT_ABS_POINTER, flag);
  const area = {
    width: await offered(device, XENKBD_FIELD_WIDTH, { value: size.width, max: SIDE_MAX }),
    height: await offered(device, XENKBD_FIELD_HEIGHT, { value: size.height, max: SIDE_MAX }),
  };
  const has = async (disabled: string) => (await device.readBackend(disabled)) !== '1';
  const keyboard = await has(XENKBD_FIELD_FEAT_DSBL_KEYBRD);
  const pointer = await has(XENKBD_FIELD_FEAT_DSBL_POINTER);
  if (keyboard && !pointer) {
    device.log.warn('xen-kbdfront crashes on the first key when the pointer alone is disabled');
  }
  if ((await offered(device, XENKBD_FIELD_FEAT_MTOUCH, flag)) === 0) {
    return { keyboard, pointer, area, touch: undefined };
  }
  const touch = {
    width: await offered(device, XENKBD_FIELD_MT_WIDTH, { value: area.width, max: SIDE_MAX }),
    height: await offered(device, XENKBD_FIELD_MT_HEIGHT, { value: area.height, max: SIDE_MAX }),
  };
  const count = { value: DEFAULT_CONTACTS, max: CONTACTS_MAX };
  const contacts = await offered(device, XENKBD_FIELD_MT_NUM_CONTACTS, count);
  return { keyboard, pointer, area, touch: { area: touch, contacts } };
}

export interface PublishedKeyboard {
  readonly page: Gref;
  readonly port: Port;
  readonly wishes: InputWishes;
}

/** What the frontend has published. @throws ProtocolViolation */
export async function readPublished(device: BackendDevice): Promise<PublishedKeyboard> {
  const node = async (key: string) => required(await device.readFrontend(key), key);
  const page = parseGref(await node(XENKBD_FIELD_RING_GREF), XENKBD_FIELD_RING_GREF);
  const port = parsePort(await node(XENKBD_FIELD_EVT_CHANNEL), XENKBD_FIELD_EVT_CHANNEL);
  const wish = async (request: string, feature: string) =>
    parseFlag(await device.readFrontend(request)) && (await device.readBackend(feature)) === '1';
  const absolute = await wish(XENKBD_FIELD_REQ_ABS_POINTER, XENKBD_FIELD_FEAT_ABS_POINTER);
  const raw = await wish(XENKBD_FIELD_REQ_RAW_POINTER, XENKBD_FIELD_FEAT_RAW_POINTER);
  const multiTouch = await wish(XENKBD_FIELD_REQ_MTOUCH, XENKBD_FIELD_FEAT_MTOUCH);
  return { page, port, wishes: { absolute, raw: absolute && raw, multiTouch } };
}
