// What the backend does about each state of its frontend, as data (xen/io/xenbus.h, and the recovery flow
// of displif.h). Written for the frontends as they are (xen-drm-front, xen-kbdfront):
//
// - xen-drm-front starts anew when the backend shows Closed or InitWait while it is connected, ignores
//   Closing, and publishes only when it sees InitWait while it is itself Initialising. It may get there
//   after our InitWait (its clients kept it Reconfiguring), so each arrival in Initialising is answered by
//   writing InitWait again: the write is what its watch sees. Its removal polls up to a second for InitWait.
// - xen-kbdfront publishes once, at probe, and goes Initialised without waiting for anybody. Closing and
//   Closed make it Closed, InitWait and Connected make it Connected, with the page and port it had.

import {
  XenbusStateClosed,
  XenbusStateClosing,
  XenbusStateConnected,
  XenbusStateInitialised,
  XenbusStateInitialising,
  XenbusStateInitWait,
  XenbusStateReconfigured,
  XenbusStateReconfiguring,
  XenbusStateUnknown,
} from '../../abi/xenbus.ts';
import { check, type Untrusted } from '../untrusted.ts';

/** A value that xenbus.h defines. */
export type XenbusState = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

const SINGLE_STATE = /^[0-8]$/;

/** The state in a `state` node; Unknown when there is none or when it is no state, as Linux reads it. */
export function parseState(value: Untrusted<string> | undefined): XenbusState {
  if (value === undefined) return XenbusStateUnknown;
  return check(value, (content) =>
    SINGLE_STATE.test(content) ? (Number(content) as XenbusState) : XenbusStateUnknown,
  );
}

/**
 * What a frontend's state asks of the backend.
 * - `rest`: nothing can be had from it now. Disconnect; show Closed and wait for another state.
 * - `invite`: it is (re)starting or gone for good. Disconnect; show InitWait, so that it can start.
 * - `serve`: it has published. Connect and show Connected.
 */
export type Wish = 'rest' | 'invite' | 'serve';

/** By the frontend's state; Connected is special, see `wishOf`. */
const WISHES: Readonly<Record<XenbusState, Wish>> = {
  [XenbusStateUnknown]: 'rest',
  [XenbusStateInitialising]: 'invite',
  [XenbusStateInitWait]: 'rest',
  [XenbusStateInitialised]: 'serve',
  [XenbusStateConnected]: 'serve',
  [XenbusStateClosing]: 'invite',
  [XenbusStateClosed]: 'invite',
  [XenbusStateReconfiguring]: 'rest',
  [XenbusStateReconfigured]: 'rest',
};

/**
 * The wish of a frontend in `state`. A Connected frontend that we are not connected to is left over from
 * another backend's life: when its class goes on with what it published (`resumable`, keyboards) it is
 * served, otherwise (displays: its rings have a history) it is invited, which makes it start anew.
 */
export function wishOf(
  state: XenbusState,
  { connected, resumable }: { connected: boolean; resumable: boolean },
): Wish {
  if (state === XenbusStateConnected && !connected && !resumable) return 'invite';
  return WISHES[state];
}

/** Before a backend may show one of these, a frontend must have been told that the old life is over. */
const GOODBYE: Readonly<Record<XenbusState, readonly XenbusState[]>> = {
  [XenbusStateUnknown]: [],
  [XenbusStateInitialising]: [],
  [XenbusStateInitWait]: [],
  [XenbusStateInitialised]: [XenbusStateClosing, XenbusStateClosed],
  [XenbusStateConnected]: [XenbusStateClosing, XenbusStateClosed],
  [XenbusStateClosing]: [XenbusStateClosed],
  [XenbusStateClosed]: [],
  [XenbusStateReconfiguring]: [XenbusStateClosing, XenbusStateClosed],
  [XenbusStateReconfigured]: [XenbusStateClosing, XenbusStateClosed],
};

/** The states to show, in order, to leave `shown` for good: none when nothing was promised in it. */
export function goodbye(shown: XenbusState): readonly XenbusState[] {
  return GOODBYE[shown];
}
