// The HTTP API: what each route answers. Access has been checked when a handler runs: the view has only what
// the asker's token reaches, and routes that act on a guest are not run for tokens that may only look.

import type { GuestInput } from '../input/guest-input.ts';
import { screenPng } from '../outputs/image/png.ts';
import { UsageError } from '../runtime/errors.ts';
import { type DomId, domId } from '../xen/ids.ts';
import { insideArea, sendInput } from './guest-hands.ts';
import { HttpError } from './http-error.ts';
import { parseControlRequest, parseInputEvents } from './messages.ts';
import type { Metrics } from './metrics.ts';
import type { PermittedView } from './permitted-view.ts';
import { Turns } from './turns.ts';

export interface Answer {
  readonly type: string;
  readonly body: Buffer | string;
}

/** A request whose access was checked. */
export interface Question {
  readonly view: PermittedView;
  /** The groups of the route's path. */
  readonly parameters: readonly string[];
  /** JSON text, empty for GET. */
  readonly body: string;
}

export interface Route {
  /** POST routes act on a guest. */
  readonly method: 'GET' | 'POST';
  readonly path: RegExp;
  handle(question: Question): Promise<Answer>;
}

const JSON_TYPE = 'application/json; charset=utf-8';

/** An answer in JSON. */
export function jsonAnswer(value: unknown): Answer {
  return { type: JSON_TYPE, body: `${JSON.stringify(value)}\n` };
}

export function apiRoutes(metrics: Metrics): readonly Route[] {
  const pictures = new Turns('pictures');
  return [
    {
      method: 'GET',
      path: /^\/api\/status$/,
      handle: async ({ view }) => jsonAnswer(view.served()),
    },
    {
      method: 'GET',
      path: /^\/api\/guests\/(\d{1,5})\/displays\/(\d{1,7})\.png$/,
      handle: (question) => pictures.take(() => pictureOf(question)),
    },
    {
      method: 'POST',
      path: /^\/api\/guests\/(\d{1,5})\/input$/,
      handle: async (question) => postInput(question),
    },
    {
      method: 'POST',
      path: /^\/api\/guests\/(\d{1,5})\/control$/,
      handle: postControl,
    },
    {
      method: 'GET',
      path: /^\/metrics$/,
      handle: async ({ view }) => {
        view.permit.checkReachesAll();
        return { type: metrics.contentType, body: await metrics.text() };
      },
    },
  ];
}

function guestNumber(text: string | undefined): DomId {
  try {
    return domId(Number(text));
  } catch {
    throw new HttpError(404, `${text} is not a domain's number`);
  }
}

async function pictureOf({ view, parameters }: Question): Promise<Answer> {
  const domid = guestNumber(parameters[0]);
  const connector = Number(parameters[1]);
  const screen = view.screen(domid, connector);
  if (!screen) throw new HttpError(404, `guest ${domid} has no display ${connector} connected`);
  const png = await screenPng(screen);
  if (!png) throw new HttpError(409, `display ${connector} of guest ${domid} shows nothing now`);
  return { type: 'image/png', body: png };
}

function postInput({ view, parameters, body }: Question): Answer {
  const domid = guestNumber(parameters[0]);
  const events = parseInputEvents(body);
  const input = view.input(domid);
  if (!input) throw new HttpError(404, `guest ${domid} has no keyboard or pointer`);
  if (input.state !== 'connected') {
    throw new HttpError(409, `the input of guest ${domid} is ${input.state}, not connected`);
  }
  checkPositions(events, input);
  for (const event of events) sendInput(input, event);
  for (const display of view.status().guests.find((row) => row.domid === domid)?.displays ?? []) {
    view.screen(domid, display.connector)?.stir();
  }
  return jsonAnswer({ sent: events.length });
}

/** @throws HttpError 400 when a position lies outside the guest's area */
function checkPositions(events: ReturnType<typeof parseInputEvents>, { area }: GuestInput): void {
  const outside = events.findIndex((event) => !insideArea(event, area));
  if (outside < 0) return;
  throw new HttpError(400, `[${outside}]: the guest's area is ${area.width}x${area.height}`);
}

async function postControl({ view, parameters, body }: Question): Promise<Answer> {
  const { controls } = view;
  if (!controls) {
    throw new HttpError(404, "guests are started and stopped by this host's toolstack");
  }
  const domid = guestNumber(parameters[0]);
  const { action } = parseControlRequest(body);
  try {
    await controls.act(domid, action);
  } catch (error) {
    if (error instanceof UsageError) throw new HttpError(409, error.message);
    throw error;
  }
  return jsonAnswer({ done: action });
}
