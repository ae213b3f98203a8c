// What a display's frontend directory says (displif.h): per connector N, contiguous from 0, the size and
// name that the toolstack gave it, and the rings and ports that the guest published.
// Everything in that directory may be the guest's doing, so all of it is parsed strictly.

import {
  XENDISPL_FIELD_BE_ALLOC,
  XENDISPL_FIELD_EVT_CHANNEL,
  XENDISPL_FIELD_EVT_RING_REF,
  XENDISPL_FIELD_FE_VERSION,
  XENDISPL_FIELD_REQ_CHANNEL,
  XENDISPL_FIELD_REQ_RING_REF,
  XENDISPL_FIELD_RESOLUTION,
  XENDISPL_FIELD_UNIQUE_ID,
} from '../abi/displif.ts';
import { ProtocolViolation } from '../runtime/errors.ts';
import type { Gref, Port } from '../xen/ids.ts';
import { check, type Untrusted } from '../xen/untrusted.ts';
import type { BackendDevice } from '../xen/xenbus/driver.ts';
import {
  parseGref,
  parsePort,
  parseResolution,
  parseVersion,
  required,
} from '../xen/xenbus/parse.ts';
import { CONNECTORS_MAX, connectorNumber } from './connector-number.ts';
import { DIMENSION_MAX } from './geometry.ts';

/** Versions of displif that are served. */
export const VERSIONS: readonly number[] = [1];
/** Longest name of a connector, in characters. */
const UNIQUE_ID_MAX = 256;

export interface PublishedConnector {
  /** Position at its device, from 0. */
  readonly index: number;
  readonly uniqueId: string;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  readonly controlRing: Gref;
  readonly controlPort: Port;
  readonly eventPage: Gref;
  readonly eventPort: Port;
}

/** @throws ProtocolViolation when the frontend wants a version that is not offered */
export async function checkVersion(device: BackendDevice): Promise<void> {
  const value = await device.readFrontend(XENDISPL_FIELD_FE_VERSION);
  parseVersion(value, XENDISPL_FIELD_FE_VERSION, { offered: VERSIONS, whenAbsent: 1 });
}

/**
 * Whether the toolstack wants the display's buffers to be allocated here; libxl writes the node so that the
 * guest can only read it, and any value but `1` means no.
 */
export async function backendAllocates(device: BackendDevice): Promise<boolean> {
  const value = await device.readFrontend(XENDISPL_FIELD_BE_ALLOC);
  return value !== undefined && check(value, (content) => content === '1');
}

/**
 * The connectors that the guest uses: those that have a size, up to the first that it did not publish
 * (Linux stops at 4, whatever the toolstack configured).
 * @throws ProtocolViolation for a malformed or missing node, or when there is no connector at all
 */
export async function readConnectors(device: BackendDevice): Promise<PublishedConnector[]> {
  const connectors: PublishedConnector[] = [];
  while (connectors.length < CONNECTORS_MAX) {
    const connector = await readConnector(device, connectors.length);
    if (connector === undefined) break;
    connectors.push(connector);
  }
  if (connectors.length > 0) return connectors;
  throw new ProtocolViolation('no-connector', 'XEN_ENOENT', 'connector 0 is not published');
}

async function readConnector(
  device: BackendDevice,
  index: number,
): Promise<PublishedConnector | undefined> {
  const nodes = new Map<string, Untrusted<string> | undefined>();
  for (const field of FIELDS) nodes.set(field, await device.readFrontend(`${index}/${field}`));
  const parse = <T>(field: string, parser: (value: Untrusted<string>, node: string) => T): T => {
    const node = `${index}/${field}`;
    return parser(required(nodes.get(field), node), node);
  };
  const configured = nodes.get(XENDISPL_FIELD_RESOLUTION) !== undefined;
  const published = PUBLISHED_FIELDS.some((field) => nodes.get(field) !== undefined);
  if (!configured && !published) return undefined;
  if (!published && index > 0) return undefined;
  const { width, height } = parse(XENDISPL_FIELD_RESOLUTION, (value, node) =>
    parseResolution(value, node, DIMENSION_MAX),
  );
  return {
    index,
    uniqueId: uniqueId(device, nodes.get(XENDISPL_FIELD_UNIQUE_ID), index),
    width,
    height,
    controlRing: parse(XENDISPL_FIELD_REQ_RING_REF, parseGref),
    controlPort: parse(XENDISPL_FIELD_REQ_CHANNEL, parsePort),
    eventPage: parse(XENDISPL_FIELD_EVT_RING_REF, parseGref),
    eventPort: parse(XENDISPL_FIELD_EVT_CHANNEL, parsePort),
  };
}

const PUBLISHED_FIELDS = [
  XENDISPL_FIELD_REQ_RING_REF,
  XENDISPL_FIELD_REQ_CHANNEL,
  XENDISPL_FIELD_EVT_RING_REF,
  XENDISPL_FIELD_EVT_CHANNEL,
] as const;
const FIELDS = [XENDISPL_FIELD_RESOLUTION, XENDISPL_FIELD_UNIQUE_ID, ...PUBLISHED_FIELDS] as const;

/** Printable ASCII: it is shown to people and used as a name. Without a node, the guest-wide number. */
const UNIQUE_ID = /^[\x20-\x7e]+$/;

function uniqueId(
  { devid }: BackendDevice,
  value: Untrusted<string> | undefined,
  index: number,
): string {
  if (value === undefined) return String(connectorNumber(devid, index));
  return check(value, (content) => {
    if (content.length <= UNIQUE_ID_MAX && UNIQUE_ID.test(content)) return content;
    const detail = `${index}/${XENDISPL_FIELD_UNIQUE_ID} is not 1 to ${UNIQUE_ID_MAX} printable characters`;
    throw new ProtocolViolation('malformed-node', 'XEN_EINVAL', detail);
  });
}
