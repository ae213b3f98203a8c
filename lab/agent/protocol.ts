// What the lab says to its agent in dom0 and what comes back: JSON over HTTP, one route for one job,
// every request with the boot's token in `x-lab-token`. Files travel as plain bytes.
//
//   GET    /health                     → 204 once the agent runs
//   POST   /run                        RunRequest → RunResult
//   POST   /processes                  StartRequest → ProcessState
//   DELETE /processes                  → 204 after all of them have been killed
//   GET    /processes/NAME             → ProcessState, or null
//   DELETE /processes/NAME?signal=&timeoutMs=  → ProcessState, after the process has ended
//   GET    /files?path=                → the bytes
//   PUT    /files?path=                the bytes → 204; folders on the way are made
//   POST   /guests/DOMID/console       opens it → 204
//   POST   /guests/DOMID/run           GuestRunRequest → RunResult

/** A command to run in dom0 to its end. */
export interface RunRequest {
  readonly argv: readonly string[];
  /** After this long the command is killed, and `signal` of the result says so. */
  readonly timeoutMs: number;
}

/** How a command ended and what it said. */
export interface RunResult {
  /** The exit status; null when a signal ended the command. */
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process to leave running; its output goes to `/var/log/NAME.log`. */
export interface StartRequest {
  readonly name: string;
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

/** A process started before, as it is now. */
export interface ProcessState {
  readonly pid: number;
  readonly running: boolean;
  readonly code: number | null;
  readonly signal: string | null;
}

/** A shell command to run in a guest, over its console, to its end. */
export interface GuestRunRequest {
  readonly command: string;
  readonly timeoutMs: number;
}

/** The header that carries the token of this boot. */
export const TOKEN_HEADER = 'x-lab-token';

/** The port on which the agent listens in dom0. */
export const AGENT_PORT = 8471;
