// A card: a DRM device that sets modes, with all that programs ask of it.
//
// Invariants:
// - Only the master may set modes. The first to open a card is it; it may be taken away (a compositor on
//   another virtual terminal), which shows as EACCES when something is set, and had back when it is free.
// - What the card showed before is remembered when it is opened, and put back by `restore`.
// - When the process ends, however it ends, the kernel removes its framebuffers and buffers and, nobody
//   else having the card open, puts the text console back by itself.

import { basename } from 'node:path';
import {
  DRM_CAP_DUMB_BUFFER,
  DRM_CAP_PRIME,
  DRM_CLIENT_CAP_ATOMIC,
  DRM_CLIENT_CAP_UNIVERSAL_PLANES,
  DRM_IOCTL_DROP_MASTER,
  DRM_IOCTL_GET_CAP,
  DRM_IOCTL_SET_CLIENT_CAP,
  DRM_IOCTL_SET_MASTER,
  DRM_IOCTL_VERSION,
  DRM_PRIME_CAP_EXPORT,
  DRM_PRIME_CAP_IMPORT,
  drmGetCap,
  drmSetClientCap,
  drmVersion,
} from '../../abi/drm.ts';
import {
  DRM_MODE_OBJECT_CONNECTOR,
  DRM_MODE_OBJECT_CRTC,
  DRM_MODE_OBJECT_PLANE,
} from '../../abi/drm-mode.ts';
import { SysError } from '../../runtime/errors.ts';
import { CardBuffers } from './buffers.ts';
import { type CardFile, openCardFile } from './card-file.ts';
import { type Properties, PropertyReader } from './properties.ts';
import { ask, askList, Room, repeatIoctl } from './requests.ts';
import {
  type CardConnector,
  type CardObjects,
  type CardPlane,
  readConnector,
  readObjects,
  readPlanes,
} from './resources.ts';

const VERSION = { name: 'DRM_IOCTL_VERSION', number: DRM_IOCTL_VERSION, layout: drmVersion };
const GET_CAP = { name: 'DRM_IOCTL_GET_CAP', number: DRM_IOCTL_GET_CAP, layout: drmGetCap };
const SET_CLIENT_CAP = {
  name: 'DRM_IOCTL_SET_CLIENT_CAP',
  number: DRM_IOCTL_SET_CLIENT_CAP,
  layout: drmSetClientCap,
};
const NO_ARGUMENT = new Uint8Array(0);

/** What says that somebody else is master, or that we may not be it. */
const MASTER_REFUSALS = ['EBUSY', 'EINVAL', 'EACCES', 'EPERM'];

export interface CardFacts {
  /** The driver's name, such as `vkms`. */
  readonly driver: string;
  /** Whether it sets modes atomically. */
  readonly atomic: boolean;
  /** Whether it has memory of its own to scan out. */
  readonly dumbBuffers: boolean;
  readonly prime: { readonly imports: boolean; readonly exports: boolean };
}

/** Asks a card what it is, and for its atomic interface. @throws SysError */
export function readFacts(file: CardFile): CardFacts {
  const prime = readCapability(file, DRM_CAP_PRIME);
  return {
    driver: readDriver(file),
    atomic:
      tellCapability(file, DRM_CLIENT_CAP_UNIVERSAL_PLANES) &&
      tellCapability(file, DRM_CLIENT_CAP_ATOMIC),
    dumbBuffers: readCapability(file, DRM_CAP_DUMB_BUFFER) !== 0,
    prime: {
      imports: (prime & DRM_PRIME_CAP_IMPORT) !== 0,
      exports: (prime & DRM_PRIME_CAP_EXPORT) !== 0,
    },
  };
}

function readDriver(file: CardFile): string {
  return askList((room) => {
    const name = new Room(room, 1);
    const given = { name: name.address, name_len: BigInt(room) };
    const answer = ask(file, VERSION, given, { context: `asking for the driver of ${file.path}` });
    const count = Number(answer.name_len);
    const bytes = new Uint8Array(name.view.buffer, 0, Math.min(count, room));
    return { count, result: Buffer.from(bytes).toString('utf8') };
  });
}

/** The value of a capability; 0 where the driver does not know it. */
function readCapability(file: CardFile, capability: number): number {
  const context = { context: `asking ${file.path} for capability ${capability}` };
  try {
    return Number(ask(file, GET_CAP, { capability: BigInt(capability) }, context).value);
  } catch (error) {
    if (error instanceof SysError) return 0;
    throw error;
  }
}

/** Says that we can do something. @returns whether the driver can, too */
function tellCapability(file: CardFile, capability: number): boolean {
  const context = { context: `asking ${file.path} for client capability ${capability}` };
  try {
    ask(file, SET_CLIENT_CAP, { capability: BigInt(capability), value: 1n }, context);
    return true;
  } catch (error) {
    if (error instanceof SysError) return false;
    throw error;
  }
}

export class Card implements Disposable {
  readonly file: CardFile;
  readonly facts: CardFacts;
  readonly objects: CardObjects;
  readonly planes: readonly CardPlane[];
  readonly buffers: CardBuffers;
  readonly #properties: PropertyReader;

  /** Owns `file`. @throws SysError when the card cannot set modes atomically */
  constructor(file: CardFile) {
    this.file = file;
    this.#properties = new PropertyReader(file);
    this.buffers = new CardBuffers(file);
    try {
      this.facts = readFacts(file);
      if (!this.facts.atomic) throw notAtomic(file, this.facts);
      this.objects = readObjects(file);
      this.planes = readPlanes(file);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** @throws SysError with what to do about it */
  static open(path: string): Card {
    return new Card(openCardFile(path));
  }

  /** For people: `card0 (vkms)`. */
  get title(): string {
    return `${basename(this.file.path)} (${this.facts.driver})`;
  }

  /** Becomes the one who sets modes, or stays it. @returns whether it worked @throws SysError */
  becomeMaster(): boolean {
    return this.#master('DRM_IOCTL_SET_MASTER', DRM_IOCTL_SET_MASTER);
  }

  /** Lets others set modes. */
  dropMaster(): void {
    this.#master('DRM_IOCTL_DROP_MASTER', DRM_IOCTL_DROP_MASTER);
  }

  /** The sockets that lead to screens, as they are now; see `readConnector`. @throws SysError */
  connectors({ probe }: { probe: boolean }): CardConnector[] {
    const found = this.objects.connectors.map((id) => readConnector(this.file, id, { probe }));
    return found.filter((connector) => connector !== undefined);
  }

  connectorProperties(id: number): Properties {
    return this.#properties.read({ id, type: DRM_MODE_OBJECT_CONNECTOR });
  }

  crtcProperties(id: number): Properties {
    return this.#properties.read({ id, type: DRM_MODE_OBJECT_CRTC });
  }

  planeProperties(id: number): Properties {
    return this.#properties.read({ id, type: DRM_MODE_OBJECT_PLANE });
  }

  /** Closes the file: what it still had is gone, and we are not master any more. */
  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }

  #master(name: string, number: number): boolean {
    const request = { name, number, argument: NO_ARGUMENT };
    try {
      repeatIoctl(this.file, request, { context: `the master's role on ${this.title}` });
      return true;
    } catch (error) {
      if (error instanceof SysError && MASTER_REFUSALS.includes(error.errnoName)) return false;
      throw error;
    }
  }
}

function notAtomic({ path }: CardFile, { driver }: CardFacts): SysError {
  return new SysError({
    call: 'DRM_IOCTL_SET_CLIENT_CAP',
    errnoName: 'EOPNOTSUPP',
    context: `${path}: its driver ${driver} cannot set modes atomically, which flips without tearing need`,
    remedy: 'use another card, or --output browser',
  });
}
