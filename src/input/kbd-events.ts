// The in events of kbdif as values, and their bytes in a slot (xen/io/kbdif.h, "In events").
//
// Wheels turn the other way on the wire: the Linux frontend reports REL_WHEEL = -rel_z, so `wheel` here, like
// everywhere above, is positive away from the user.

import {
  kbdInEvent,
  kbdPage,
  XENKBD_IN_EVENT_SIZE,
  XENKBD_IN_RING_LEN,
  XENKBD_IN_RING_OFFS,
  XENKBD_MT_EV_DOWN,
  XENKBD_MT_EV_MOTION,
  XENKBD_MT_EV_SYN,
  XENKBD_MT_EV_UP,
  XENKBD_OUT_EVENT_SIZE,
  XENKBD_OUT_RING_LEN,
  XENKBD_OUT_RING_OFFS,
  XENKBD_TYPE_KEY,
  XENKBD_TYPE_MOTION,
  XENKBD_TYPE_MTOUCH,
  XENKBD_TYPE_POS,
} from '../abi/kbdif.ts';
import type { EventRingGeometry } from '../xen/event-page.ts';

/** Largest evdev code: KEY_MAX of linux/input-event-codes.h. Linux looks beyond its tables for larger ones. */
export const KEY_MAX = 0x2ff;
/** First code that is a button and not a key: BTN_MISC. Keys repeat while they are held, buttons do not. */
export const FIRST_BUTTON = 0x100;
/** BTN_LEFT of linux/input-event-codes.h. */
export const BTN_LEFT = 0x110;
/** BTN_TASK, the last of the buttons that Linux's pointer has; all other codes are its keyboard's. */
export const BTN_TASK = 0x117;
/** Absolute positions of a frontend that asked for raw ones run from 0 to here. */
export const RAW_POSITION_MAX = 0x7fff;

export const IN_RING: EventRingGeometry = {
  consOffset: kbdPage.fields.in_cons.offset,
  prodOffset: kbdPage.fields.in_prod.offset,
  slotsOffset: XENKBD_IN_RING_OFFS,
  slotBytes: XENKBD_IN_EVENT_SIZE,
  slots: XENKBD_IN_RING_LEN,
};

export const OUT_RING: EventRingGeometry = {
  consOffset: kbdPage.fields.out_cons.offset,
  prodOffset: kbdPage.fields.out_prod.offset,
  slotsOffset: XENKBD_OUT_RING_OFFS,
  slotBytes: XENKBD_OUT_EVENT_SIZE,
  slots: XENKBD_OUT_RING_LEN,
};

export function isPointerButton(code: number): boolean {
  return code >= BTN_LEFT && code <= BTN_TASK;
}

/** What one slot of the in ring says. */
export type KbdEvent =
  | { readonly kind: 'key'; readonly code: number; readonly pressed: boolean }
  | { readonly kind: 'motion'; readonly dx: number; readonly dy: number; readonly wheel: number }
  | { readonly kind: 'position'; readonly x: number; readonly y: number; readonly wheel: number }
  | {
      readonly kind: 'down' | 'move';
      readonly contact: number;
      readonly x: number;
      readonly y: number;
    }
  | { readonly kind: 'up' | 'sync'; readonly contact: number };

const TOUCH_TYPES = {
  down: XENKBD_MT_EV_DOWN,
  move: XENKBD_MT_EV_MOTION,
  up: XENKBD_MT_EV_UP,
  sync: XENKBD_MT_EV_SYN,
} as const;

/** Writes every byte of a slot. Numbers must fit their fields: i32, contacts below 256. */
export function encodeKbdEvent(slot: DataView, event: KbdEvent): void {
  kbdInEvent.write(slot, 0, memberOf(event));
}

/** The member of the union that says `event`. */
function memberOf(event: KbdEvent): Parameters<typeof kbdInEvent.write>[2] {
  switch (event.kind) {
    case 'key': {
      const { code: keycode, pressed } = event;
      return { key: { type: XENKBD_TYPE_KEY, pressed: pressed ? 1 : 0, keycode } };
    }
    case 'motion': {
      const { dx: rel_x, dy: rel_y, wheel } = event;
      return { motion: { type: XENKBD_TYPE_MOTION, rel_x, rel_y, rel_z: -wheel } };
    }
    case 'position': {
      const { x: abs_x, y: abs_y, wheel } = event;
      return { pos: { type: XENKBD_TYPE_POS, abs_x, abs_y, rel_z: -wheel } };
    }
    case 'down':
    case 'move':
    case 'up':
    case 'sync': {
      const head = { type: XENKBD_TYPE_MTOUCH, event_type: TOUCH_TYPES[event.kind] };
      const place = 'x' in event ? { u: { pos: { abs_x: event.x, abs_y: event.y } } } : {};
      return { mtouch: { ...head, contact_id: event.contact, ...place } };
    }
  }
}

const { fields } = kbdInEvent;
const touchFields = fields.mtouch.fields;
const touchPlace = touchFields.u.fields.pos.fields;

/** What a slot says, or undefined for what a frontend has to ignore: other types, shapes, orientations. */
export function decodeKbdEvent(slot: DataView): KbdEvent | undefined {
  switch (fields.type.get(slot, 0)) {
    case XENKBD_TYPE_KEY: {
      const { pressed, keycode: code } = fields.key.get(slot, 0);
      return code <= KEY_MAX ? { kind: 'key', code, pressed: pressed !== 0 } : undefined;
    }
    case XENKBD_TYPE_MOTION: {
      const { rel_x: dx, rel_y: dy, rel_z } = fields.motion.get(slot, 0);
      return { kind: 'motion', dx, dy, wheel: 0 - rel_z };
    }
    case XENKBD_TYPE_POS: {
      const { abs_x: x, abs_y: y, rel_z } = fields.pos.get(slot, 0);
      return { kind: 'position', x, y, wheel: 0 - rel_z };
    }
    case XENKBD_TYPE_MTOUCH:
      return decodeTouch(slot);
    default:
      return undefined;
  }
}

function decodeTouch(slot: DataView): KbdEvent | undefined {
  const contact = touchFields.contact_id.get(slot, 0);
  const place = () => ({ x: touchPlace.abs_x.get(slot, 0), y: touchPlace.abs_y.get(slot, 0) });
  switch (touchFields.event_type.get(slot, 0)) {
    case XENKBD_MT_EV_DOWN:
      return { kind: 'down', contact, ...place() };
    case XENKBD_MT_EV_MOTION:
      return { kind: 'move', contact, ...place() };
    case XENKBD_MT_EV_UP:
      return { kind: 'up', contact };
    case XENKBD_MT_EV_SYN:
      return { kind: 'sync', contact };
    default:
      return undefined;
  }
}
