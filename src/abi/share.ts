// The wire of sharing by name, version 1: our own protocol, written down in docs/share-protocol.md, which a
// test compares with these declarations. Little-endian, as everything on Xen's architectures.

import { bytes, reserved, struct, u8, u32, u64 } from './layout.ts';
import { PAGE_SIZE } from './page.ts';

/** The version that is described here. */
export const SHARE_VERSION = 1;
/** "XZSH". */
export const SHARE_MAGIC = 0x4853_5a58;

/** Below a domain's own `data` in xenstore: `ROOT/offers/IMPORTER/ID` and `ROOT/answers/EXPORTER/ID`. */
export const SHARE_ROOT = 'data/xen-zcopy';
export const SHARE_OFFERS = 'offers';
export const SHARE_ANSWERS = 'answers';

/** The importer may write to the data. */
export const SHARE_FLAG_WRITABLE = 1 << 0;
/** The slots are the buffers of a stream, in whose frames they are named; else there is one slot. */
export const SHARE_FLAG_STREAM = 1 << 1;

export const SHARE_SLOTS_MAX = 64;
export const SHARE_DIRECTORY_REFS = PAGE_SIZE / u32.size;
/** What two levels of a directory can name: 4 GiB. */
export const SHARE_PAGES_MAX = SHARE_DIRECTORY_REFS * SHARE_DIRECTORY_REFS;
export const SHARE_METADATA_MAX = PAGE_SIZE;

/** Values of `attached`. */
export const SHARE_ATTACHED_ACCEPTED = 1;
export const SHARE_ATTACHED_REFUSED = 2;

export const shareOffer = struct(
  'share_offer',
  'First of two pages that the importer can read; the metadata is in the second.',
  {
    magic: [0, u32, 'SHARE_MAGIC'],
    flags: [4, u32, 'SHARE_FLAG_*'],
    id: [8, bytes(16), 'of the share, as in xenstore'],
    slots: [24, u32, 'buffers: 1 to 64, 1 unless it is a stream'],
    slot_pages: [28, u32, 'pages of each slot'],
    slot_bytes: [32, u64, 'bytes of each slot, from the data offset on'],
    data_offset: [40, u32, 'first byte of the data in the first page of each slot'],
    directory_ref: [44, u32, 'the first level of the directory'],
    control_ref: [48, u32, 'the page that the importer can write to'],
    generation: [52, u32, 'of the metadata; odd while they are being written'],
    metadata_bytes: [56, u32, 'of the metadata'],
    session: [60, u32, 'of the importer that attached: the answer to the one in the control page'],
    attached: [64, u32, 'SHARE_ATTACHED_*: what the answer is'],
    ended: [68, u32, '1: no frame follows those that are ready'],
    dropped: [72, u64, 'frames of a stream that nobody took'],
    exporter_live: [
      80,
      u8,
      '1 while the exporter is there; cleared when it is gone, with an event',
    ],
    reserved: [81, reserved(u8, 1967), 'zero'],
  },
);

/** Where the descriptors of the frames are in the page of the offer, one for each slot. */
export const SHARE_FRAMES_OFFSET = 2048;

export const shareFrame = struct('share_frame', 'What is in a slot that is ready or held.', {
  sequence: [0, u64, 'from 1 on, one more for each frame, dropped ones included'],
  timestamp_ns: [8, u64, 'of the frame; the clock is the producer’s'],
  bytes: [16, u64, 'of the frame, at most slot_bytes'],
  flags: [24, u32, 'none are defined'],
  reserved: [28, reserved(u32), 'zero'],
});

/** Values of a slot's state. */
export const SHARE_SLOT_FREE = 0;
export const SHARE_SLOT_READY = 1;
export const SHARE_SLOT_HELD = 2;

export const shareControl = struct(
  'share_control',
  'The page that both ends write to; a state for each slot follows.',
  {
    importer_live: [0, u8, '1 while an importer is there; cleared when it is gone, with an event'],
    reserved: [1, reserved(u8, 3), 'zero'],
    version: [4, u32, 'the importer’s choice of those in xenstore'],
    session: [8, u32, 'of the importer: another number for each time that one attaches, never 0'],
    turned_away: [12, u32, 'importers that found the share in use'],
    exporter_waits: [16, u32, '1: the exporter wants an event when a slot becomes free'],
    importer_waits: [20, u32, '1: the importer wants an event when a slot becomes ready'],
    id: [24, bytes(16), 'of the share'],
    reserved_2: [40, reserved(u8, 24), 'zero'],
  },
);

/** Where the states of the slots are in the control page, a u32 each. */
export const SHARE_STATES_OFFSET = shareControl.size;

/** Values of a metadata's `type`. */
export const SHARE_TYPE_BYTES = 0;
export const SHARE_TYPE_PICTURE = 1;

export const shareMetadata = struct('share_metadata', 'What a share is; user bytes follow.', {
  type: [0, u32, 'SHARE_TYPE_*'],
  format: [4, u32, 'of a picture: FourCC as in drm_fourcc.h'],
  width: [8, u32, 'pixels'],
  height: [12, u32, 'rows'],
  stride: [16, u32, 'bytes from one row to the next'],
  refresh_mhz: [20, u32, 'frames in 1000 seconds, 0 when nobody knows'],
  modifier: [24, u64, 'how the pixels are arranged, as in drm_fourcc.h; 0 is linear'],
  colour_primaries: [32, u8, 'ITU-T H.273; 2 is unspecified'],
  colour_transfer: [33, u8, 'ITU-T H.273; 2 is unspecified'],
  colour_matrix: [34, u8, 'ITU-T H.273; 2 is unspecified'],
  colour_full_range: [35, u8, '1: full, 0: limited'],
  user_bytes: [36, u32, 'bytes behind this struct'],
  total_bytes: [40, u64, 'of a stream of bytes, 0 when nobody knows'],
  name: [48, bytes(80), 'for people: UTF-8, NUL to the end'],
});
