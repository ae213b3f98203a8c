// xen/io/kbdif.h: para-virtual keyboard, pointer and touch screen. One shared page carries both
// rings; every event is 40 bytes. No out event is defined yet.
import { ANONYMOUS, bytes, i16, i32, reserved, struct, u8, u32, union } from './layout.ts';

export const XENKBD_TYPE_MOTION = 1;
export const XENKBD_TYPE_RESERVED = 2;
export const XENKBD_TYPE_KEY = 3;
export const XENKBD_TYPE_POS = 4;
export const XENKBD_TYPE_MTOUCH = 5;

export const XENKBD_MT_EV_DOWN = 0;
export const XENKBD_MT_EV_UP = 1;
export const XENKBD_MT_EV_MOTION = 2;
/** Ends a group of events that happened together. */
export const XENKBD_MT_EV_SYN = 3;
export const XENKBD_MT_EV_SHAPE = 4;
export const XENKBD_MT_EV_ORIENT = 5;

export const XENKBD_DRIVER_NAME = 'vkbd';
/** Backend nodes, "1" or "0". */
export const XENKBD_FIELD_FEAT_DSBL_KEYBRD = 'feature-disable-keyboard';
export const XENKBD_FIELD_FEAT_DSBL_POINTER = 'feature-disable-pointer';
export const XENKBD_FIELD_FEAT_ABS_POINTER = 'feature-abs-pointer';
export const XENKBD_FIELD_FEAT_RAW_POINTER = 'feature-raw-pointer';
export const XENKBD_FIELD_FEAT_MTOUCH = 'feature-multi-touch';
/** Frontend nodes, "1" or "0". */
export const XENKBD_FIELD_REQ_ABS_POINTER = 'request-abs-pointer';
export const XENKBD_FIELD_REQ_RAW_POINTER = 'request-raw-pointer';
export const XENKBD_FIELD_REQ_MTOUCH = 'request-multi-touch';
/** Frontend nodes, u32 in decimal. */
export const XENKBD_FIELD_RING_GREF = 'page-gref';
export const XENKBD_FIELD_EVT_CHANNEL = 'event-channel';
/** Obsolete: the page's frame number. */
export const XENKBD_FIELD_RING_REF = 'page-ref';
/** Backend nodes, u32 in decimal: the range of absolute positions. */
export const XENKBD_FIELD_WIDTH = 'width';
export const XENKBD_FIELD_HEIGHT = 'height';
export const XENKBD_FIELD_MT_WIDTH = 'multi-touch-width';
export const XENKBD_FIELD_MT_HEIGHT = 'multi-touch-height';
export const XENKBD_FIELD_MT_NUM_CONTACTS = 'multi-touch-num-contacts';
export const XENKBD_FIELD_UNIQUE_ID = 'unique-id';

export const kbdMotion = struct('xenkbd_motion', 'Relative motion of the pointer.', {
  type: [0, u8, 'XENKBD_TYPE_MOTION'],
  rel_x: [4, i32, 'to the right'],
  rel_y: [8, i32, 'downwards'],
  rel_z: [12, i32, 'wheel'],
});

export const kbdKey = struct('xenkbd_key', 'A key or button.', {
  type: [0, u8, 'XENKBD_TYPE_KEY'],
  pressed: [1, u8, '1 pressed, 0 released'],
  keycode: [4, u32, 'Linux KEY_* or BTN_*'],
});

export const kbdPosition = struct('xenkbd_position', 'Absolute position of the pointer.', {
  type: [0, u8, 'XENKBD_TYPE_POS'],
  abs_x: [4, i32, '0 to width - 1, or 0 to 0x7fff when raw'],
  abs_y: [8, i32, '0 to height - 1, or 0 to 0x7fff when raw'],
  rel_z: [12, i32, 'wheel'],
});

export const kbdMtouch = struct('xenkbd_mtouch', 'An event of one contact of a touch screen.', {
  type: [0, u8, 'XENKBD_TYPE_MTOUCH'],
  event_type: [1, u8, 'XENKBD_MT_EV_*'],
  contact_id: [2, u8, '0 to the number of contacts - 1; free again after UP'],
  reserved: [3, reserved(u8, 5), 'zero'],
  u: [
    8,
    union(ANONYMOUS, 'By event_type.', {
      pos: [
        0,
        struct(ANONYMOUS, 'Where the contact is.', {
          abs_x: [0, i32, '0 to multi-touch-width - 1'],
          abs_y: [4, i32, '0 to multi-touch-height - 1'],
        }),
        'DOWN and MOTION',
      ],
      shape: [
        0,
        struct(ANONYMOUS, 'The ellipse that the contact covers.', {
          major: [0, u32, 'length of the longer axis'],
          minor: [4, u32, 'length of the shorter axis'],
        }),
        'SHAPE',
      ],
      orientation: [0, i16, 'ORIENT: degrees clockwise from the positive Y axis, -180 to 180'],
    }),
    'by event_type',
  ],
});

export const XENKBD_IN_EVENT_SIZE = 40;

export const kbdInEvent = union('xenkbd_in_event', 'An event, backend to frontend.', {
  type: [0, u8, 'XENKBD_TYPE_*'],
  motion: [0, kbdMotion, 'XENKBD_TYPE_MOTION'],
  key: [0, kbdKey, 'XENKBD_TYPE_KEY'],
  pos: [0, kbdPosition, 'XENKBD_TYPE_POS'],
  mtouch: [0, kbdMtouch, 'XENKBD_TYPE_MTOUCH'],
  pad: [0, bytes(XENKBD_IN_EVENT_SIZE), 'gives the union its size'],
});

export const XENKBD_OUT_EVENT_SIZE = 40;

export const kbdOutEvent = union('xenkbd_out_event', 'An event, frontend to backend.', {
  type: [0, u8, 'none is defined'],
  pad: [0, bytes(XENKBD_OUT_EVENT_SIZE), 'gives the union its size'],
});

export const XENKBD_IN_RING_OFFS = 1024;
export const XENKBD_IN_RING_SIZE = 2048;
/** 51 slots: not a power of two, so slot = index % 51 jumps where the 32-bit index wraps. */
export const XENKBD_IN_RING_LEN = Math.floor(XENKBD_IN_RING_SIZE / XENKBD_IN_EVENT_SIZE);
export const XENKBD_OUT_RING_OFFS = XENKBD_IN_RING_OFFS + XENKBD_IN_RING_SIZE;
export const XENKBD_OUT_RING_SIZE = 1024;
/** 25 slots, with the same jump. */
export const XENKBD_OUT_RING_LEN = Math.floor(XENKBD_OUT_RING_SIZE / XENKBD_OUT_EVENT_SIZE);

export const kbdPage = struct('xenkbd_page', 'Head of the shared page.', {
  in_cons: [0, u32, 'in events the frontend has taken'],
  in_prod: [4, u32, 'in events the backend has sent'],
  out_cons: [8, u32, 'out events the backend has taken'],
  out_prod: [12, u32, 'out events the frontend has sent'],
});
