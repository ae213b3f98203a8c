// The status as it is served: what the daemon says, and what the asker may do. Plain data, shared with the
// viewer page.

import type { DaemonStatus } from '../daemon/status.ts';

export interface ServedStatus extends DaemonStatus {
  /** What the token of this request allows. */
  readonly access: {
    /** Whether guests may exist that are not listed. */
    readonly limited: boolean;
    /** Whether input and actions are refused. */
    readonly viewOnly: boolean;
  };
}
