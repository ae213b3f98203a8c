// The number by which a guest's connector is known to people, scripts and viewers: one number space over all
// of a guest's displays (entries of `vdispl` in its xl configuration).
//
// Invariant: the number follows from the toolstack's own numbers alone, so that a connector has the same one
// whichever device came first, and after every restart of the daemon or the guest's driver; those of a guest's
// first display, which is all that most guests have, count from 0.

import { DEVID_MAX } from '../xen/xenbus/driver.ts';

/** Connectors of one display that are served; xen-drm-front has 4. */
export const CONNECTORS_MAX = 16;

/** The largest number that there is. */
export const CONNECTOR_NUMBER_MAX = connectorNumber(DEVID_MAX, CONNECTORS_MAX - 1);

/** The guest-wide number of connector `index` of display `devid`. */
export function connectorNumber(devid: number, index: number): number {
  return devid * CONNECTORS_MAX + index;
}
