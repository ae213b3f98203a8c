// What goes over the machine's socket, beside hypercalls and their answers: how a process enters, asks for
// names, and learns that its domain is over. The machine's words are trusted, a process's are checked.

import type { SysErrorDetails } from '../../runtime/errors.ts';
import type { DomId, Port } from '../../xen/ids.ts';
import { checkCall } from '../remote/check-request.ts';
import { boolean, integer, malformed, object, text } from '../remote/checks.ts';
import type { AnswerMessage, CallMessage, WAKE_UP } from '../remote/messages.ts';

/** Of this protocol: both ends must have the same. */
export const PROTOCOL_VERSION = 1;

/** From a process, first of all: it wants to be a domain of this name. */
export interface EnterMessage {
  readonly enter: string;
  readonly version: number;
}

/** From a process: which domain has that name; with `wait`, as soon as one has. */
export interface LookUpMessage {
  readonly lookUp: number;
  readonly name: string;
  readonly wait: boolean;
}

/** From a process: the answer to a look-up is not wanted any more. */
export interface ForgetMessage {
  readonly forget: number;
}

export type FromProcess = CallMessage | LookUpMessage | ForgetMessage;

/** Where the machine's memory is, and by what it is known. */
export interface MachineFileRef {
  /** The file is /proc/PID/fd/FD. */
  readonly pid: number;
  readonly fd: number;
  readonly device: string;
  readonly inode: string;
  readonly bytes: number;
}

/** What a domain in another process finds when it starts (a real one's start info page). */
export interface Welcome {
  readonly domid: DomId;
  readonly maxGrantFrames: number;
  readonly maxExtentOrder: number;
  readonly memory: MachineFileRef;
  readonly sharedInfoFrame: number;
  readonly doorbellFrame: number;
  /** Of the grant table, as it is now. */
  readonly grantFrames: Uint32Array;
  readonly store: { readonly frame: number; readonly port: Port };
}

export type LookUpAnswer =
  | { readonly lookUp: number; readonly domid: DomId }
  | { readonly lookUp: number; readonly error: SysErrorDetails };

/** The domain does not run any more, and why: the process lets go of everything and closes the connection. */
export interface OverMessage {
  readonly over: string;
}

export type ToProcess =
  | typeof WAKE_UP
  | { readonly welcome: Welcome }
  | { readonly refused: SysErrorDetails }
  | AnswerMessage
  | LookUpAnswer
  | OverMessage;

/** A longer text is no name at all, and ends the connection. */
const MAX_TEXT_LENGTH = 4096;

/** @throws ProtocolViolation */
export function checkEnter(message: unknown): EnterMessage {
  const { enter, version } = object(message);
  return { enter: text(enter, MAX_TEXT_LENGTH), version: integer(version) };
}

/** Everything but the first message and wake-ups. @throws ProtocolViolation */
export function checkFromProcess(message: unknown): FromProcess {
  const fields = object(message);
  if ('lookUp' in fields) {
    const { lookUp, name, wait } = fields;
    return { lookUp: integer(lookUp), name: text(name, MAX_TEXT_LENGTH), wait: boolean(wait) };
  }
  if ('forget' in fields) return { forget: integer(fields.forget) };
  if ('call' in fields) return checkCall(fields);
  throw malformed('a message of no known kind');
}
