// The JSON that comes in, checked as a whole before any of it is used. The limits are those of the input
// protocol (evdev codes up to KEY_MAX) and of good sense.

import { z } from 'zod';
import { DOMID_FIRST_RESERVED } from '../abi/xen.ts';
import { CONTROL_ACTIONS } from '../daemon/status.ts';
import { CONNECTOR_NUMBER_MAX } from '../display/connector-number.ts';
import type { InputEvent, ViewerMessage } from '../outputs/browser/protocol.ts';
import { HttpError } from './http-error.ts';

/** Largest evdev code (KEY_MAX, linux/input-event-codes.h); a frontend reads out of bounds beyond it. */
const KEY_MAX = 0x2ff;

/** Events of one request or message. */
export const MAX_INPUT_EVENTS = 1024;

/** Screens that one viewer may watch. */
export const MAX_WATCHED_SCREENS = 64;

/** Contacts that a person's hands, and a large table's guests, may have on a screen. */
const MAX_CONTACTS = 32;

/** Largest step of a relative motion or of the wheel, in either direction. */
const MAX_STEP = 0x7fff;

/** Largest absolute coordinate. */
const MAX_COORDINATE = 0xffff;

const step = z.int().min(-MAX_STEP).max(MAX_STEP);
const coordinate = z.int().min(0).max(MAX_COORDINATE);

const inputEvent = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('key'),
    code: z.int().min(1).max(KEY_MAX),
    pressed: z.boolean(),
  }),
  z.strictObject({ type: z.literal('motion'), dx: step, dy: step }),
  z.strictObject({ type: z.literal('position'), x: coordinate, y: coordinate }),
  z.strictObject({ type: z.literal('wheel'), delta: step }),
  z.strictObject({
    type: z.literal('touch'),
    contact: z
      .int()
      .min(0)
      .max(MAX_CONTACTS - 1),
    phase: z.enum(['down', 'move', 'up']),
    x: coordinate,
    y: coordinate,
  }),
]);

const inputEvents = z.array(inputEvent).max(MAX_INPUT_EVENTS);

const domid = z
  .int()
  .min(0)
  .max(DOMID_FIRST_RESERVED - 1);
const connector = z.int().min(0).max(CONNECTOR_NUMBER_MAX);
const frame = z.int().min(0).max(0xffff_ffff);

const viewerMessage = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('watch'),
    screens: z.array(z.strictObject({ domid, connector })).max(MAX_WATCHED_SCREENS),
  }),
  z.strictObject({ type: z.literal('drawn'), domid, connector, frame }),
  z.strictObject({ type: z.literal('input'), domid, events: inputEvents }),
  z.strictObject({ type: z.literal('release'), domid }),
]);

const controlRequest = z.strictObject({ action: z.enum(CONTROL_ACTIONS) });

/** @throws HttpError 400 naming the first thing that is wrong */
export function parseInputEvents(text: string): readonly InputEvent[] {
  return parse(inputEvents, text);
}

/** @throws HttpError 400 naming the first thing that is wrong */
export function parseViewerMessage(text: string): ViewerMessage {
  return parse(viewerMessage, text);
}

/** @throws HttpError 400 naming the first thing that is wrong */
export function parseControlRequest(text: string): z.infer<typeof controlRequest> {
  return parse(controlRequest, text);
}

function parse<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HttpError(400, 'this is not JSON');
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = z.core.toDotPath(issue?.path ?? []);
  throw new HttpError(400, where ? `${where}: ${issue?.message}` : `${issue?.message}`);
}
