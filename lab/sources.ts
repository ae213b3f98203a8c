// Where the parts of the lab that are not TypeScript lie in this repository, seen from dist/lab/.
import { fileURLToPath } from 'node:url';

/** The root of the repository, with a slash at its end. */
export const REPOSITORY = fileURLToPath(new URL('../../', import.meta.url));

export const DOM0_INIT = `${REPOSITORY}lab/images/dom0-init`;
export const GUEST_INIT = `${REPOSITORY}lab/images/guest-init`;
export const GUEST_PROGRAMS_FOLDER = `${REPOSITORY}lab/guest-programs`;
export const DOM0_PROGRAMS_FOLDER = `${REPOSITORY}lab/dom0-programs`;
/** The compiled agent, before bundling. */
export const AGENT_ENTRY = `${REPOSITORY}dist/lab/agent/agent.js`;
export const NODE_MODULES = `${REPOSITORY}node_modules`;
