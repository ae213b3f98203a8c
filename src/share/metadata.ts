// What a share is, as its exporter says: bytes, or pictures of a format and size, with a name for people and
// bytes of the application's own (docs/share-protocol.md, share_metadata).
//
// Invariant: what comes from another domain is copied once and checked as a whole: sizes, text, the bytes
// that follow. A picture's rows fit into a slot, or the offer is refused.

import {
  SHARE_METADATA_MAX,
  SHARE_TYPE_BYTES,
  SHARE_TYPE_PICTURE,
  shareMetadata,
} from '../abi/share.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import { check, type Untrusted } from '../xen/untrusted.ts';
import { ShareError } from './share-error.ts';

/** ITU-T H.273 code points; 2 is unspecified. */
export interface ColourSpace {
  readonly primaries: number;
  readonly transfer: number;
  readonly matrix: number;
  readonly fullRange: boolean;
}

export interface BytesContent {
  readonly type: 'bytes';
  /** Of the whole stream, where it is known. */
  readonly totalBytes?: number;
}

export interface PictureContent {
  readonly type: 'picture';
  /** FourCC as in drm_fourcc.h. */
  readonly format: number;
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  /** As in drm_fourcc.h; 0n is linear. */
  readonly modifier: bigint;
  readonly refreshHz?: number;
  readonly colour: ColourSpace;
}

export interface ShareMetadata {
  /** For people, up to 80 bytes of UTF-8. */
  readonly name: string;
  readonly content: BytesContent | PictureContent;
  /** The application's own. */
  readonly userBytes: Uint8Array;
}

export const UNSPECIFIED_COLOUR: ColourSpace = {
  primaries: 2,
  transfer: 2,
  matrix: 2,
  fullRange: false,
};

/** Of a share whose exporter says nothing. */
export const UNNAMED: ShareMetadata = {
  name: '',
  content: { type: 'bytes' },
  userBytes: new Uint8Array(0),
};

/** Room for the application's own bytes. */
export const USER_BYTES_MAX = SHARE_METADATA_MAX - shareMetadata.size;
const NAME_BYTES_MAX = shareMetadata.fields.name.size;

/** The bytes of the metadata. @throws ShareError `oversized-metadata` */
export function encodeMetadata({ name, content, userBytes }: ShareMetadata): Uint8Array {
  const nameBytes = Buffer.from(name);
  if (nameBytes.length > NAME_BYTES_MAX) {
    throw oversized(`a name of ${nameBytes.length} bytes, where ${NAME_BYTES_MAX} are the limit`);
  }
  if (userBytes.length > USER_BYTES_MAX) {
    throw oversized(`${userBytes.length} user bytes, where ${USER_BYTES_MAX} are the limit`);
  }
  const encoded = new Uint8Array(shareMetadata.size + userBytes.length);
  const padded = new Uint8Array(NAME_BYTES_MAX);
  padded.set(nameBytes);
  shareMetadata.write(new DataView(encoded.buffer), 0, {
    ...(content.type === 'picture' ? pictureFields(content) : bytesFields(content)),
    user_bytes: userBytes.length,
    name: padded,
  });
  encoded.set(userBytes, shareMetadata.size);
  return encoded;
}

/** @throws ProtocolViolation `malformed-metadata` (XEN_EINVAL) */
export function parseMetadata(copy: Untrusted<Uint8Array>, slotBytes: number): ShareMetadata {
  return check(copy, (bytes) => {
    if (bytes.length < shareMetadata.size) throw malformed(`${bytes.length} bytes of metadata`);
    const fields = shareMetadata.read(new DataView(bytes.buffer, bytes.byteOffset), 0);
    const userBytes = bytes.subarray(shareMetadata.size);
    if (fields.user_bytes !== userBytes.length) {
      throw malformed(`${fields.user_bytes} user bytes in metadata of ${bytes.length} bytes`);
    }
    return { name: nameOf(fields.name), content: contentOf(fields, slotBytes), userBytes };
  });
}

type Fields = ReturnType<typeof shareMetadata.read>;
type ContentFields = Omit<Parameters<typeof shareMetadata.write>[2], 'user_bytes' | 'name'>;

const NO_PICTURE = {
  format: 0,
  width: 0,
  height: 0,
  stride: 0,
  refresh_mhz: 0,
  modifier: 0n,
  colour_primaries: 0,
  colour_transfer: 0,
  colour_matrix: 0,
  colour_full_range: 0,
};

function bytesFields({ totalBytes = 0 }: BytesContent): ContentFields {
  return { ...NO_PICTURE, type: SHARE_TYPE_BYTES, total_bytes: BigInt(totalBytes) };
}

function pictureFields(picture: PictureContent): ContentFields {
  const { format, width, height, stride, modifier, refreshHz = 0, colour } = picture;
  return {
    type: SHARE_TYPE_PICTURE,
    format,
    width,
    height,
    stride,
    refresh_mhz: Math.round(refreshHz * 1000),
    modifier,
    colour_primaries: colour.primaries,
    colour_transfer: colour.transfer,
    colour_matrix: colour.matrix,
    colour_full_range: colour.fullRange ? 1 : 0,
    total_bytes: 0n,
  };
}

function contentOf(fields: Fields, slotBytes: number): ShareMetadata['content'] {
  if (fields.type === SHARE_TYPE_BYTES) {
    const totalBytes = Number(fields.total_bytes);
    if (!Number.isSafeInteger(totalBytes)) throw malformed(`${fields.total_bytes} bytes in all`);
    return totalBytes === 0 ? { type: 'bytes' } : { type: 'bytes', totalBytes };
  }
  if (fields.type !== SHARE_TYPE_PICTURE) throw malformed(`metadata of type ${fields.type}`);
  const { format, width, height, stride, refresh_mhz, modifier } = fields;
  const rowsFit = width > 0 && height > 0 && stride > 0 && stride * height <= slotBytes;
  if (!rowsFit) throw malformed(`${height} rows of ${stride} bytes in a slot of ${slotBytes}`);
  const colour = {
    primaries: fields.colour_primaries,
    transfer: fields.colour_transfer,
    matrix: fields.colour_matrix,
    fullRange: fields.colour_full_range === 1,
  };
  const picture = { type: 'picture' as const, format, width, height, stride, modifier, colour };
  return refresh_mhz === 0 ? picture : { ...picture, refreshHz: refresh_mhz / 1000 };
}

function nameOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(
      end < 0 ? bytes : bytes.subarray(0, end),
    );
    // It is shown on terminals: nothing of it may move a cursor.
    return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd');
  } catch {
    throw malformed('a name that is not UTF-8');
  }
}

function malformed(detail: string): ProtocolViolation {
  return new ProtocolViolation('malformed-metadata', 'XEN_EINVAL', detail);
}

function oversized(detail: string): ShareError {
  return new ShareError('oversized-metadata', detail);
}
