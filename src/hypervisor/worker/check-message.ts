// The shape of what a guest's thread sends, wake-ups apart: hypercalls, and word of views that are gone.

import { checkCall } from '../remote/check-request.ts';
import { integer, malformed, object } from '../remote/checks.ts';
import type { CallMessage } from '../remote/messages.ts';
import type { DroppedMessage } from './messages.ts';

/** Closed windows in one message. */
const MAX_DROPPED = 64 * 1024;

/** @throws ProtocolViolation `malformed-hypercall` for anything that is not a message of a guest */
export function checkMessage(message: unknown): CallMessage | DroppedMessage {
  const fields = object(message);
  return fields.dropped === undefined ? checkCall(fields) : { dropped: windows(fields.dropped) };
}

function windows(value: unknown): readonly number[] {
  if (Array.isArray(value) && value.length <= MAX_DROPPED) return value.map((id) => integer(id));
  throw malformed('a list of windows belongs there');
}
