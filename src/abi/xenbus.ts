// xen/io/xenbus.h: the states that both ends of a split driver publish in their `state` nodes.
import { names } from './layout.ts';

export const XenbusStateUnknown = 0;
export const XenbusStateInitialising = 1;
export const XenbusStateInitWait = 2;
export const XenbusStateInitialised = 3;
export const XenbusStateConnected = 4;
export const XenbusStateClosing = 5;
export const XenbusStateClosed = 6;
export const XenbusStateReconfiguring = 7;
export const XenbusStateReconfigured = 8;

/** The C name of a state, for logs. */
export const xenbusStateName = names({
  XenbusStateUnknown,
  XenbusStateInitialising,
  XenbusStateInitWait,
  XenbusStateInitialised,
  XenbusStateConnected,
  XenbusStateClosing,
  XenbusStateClosed,
  XenbusStateReconfiguring,
  XenbusStateReconfigured,
});
