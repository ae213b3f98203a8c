// A guest that does not use the library but talks to the hypervisor directly: it sends the messages that
// it was started with.

import { workerData } from 'node:worker_threads';
import type { StartInfo } from '../../../src/hypervisor/worker/messages.ts';

const { hypervisor, arguments: messages } = workerData as StartInfo;
hypervisor.on('message', () => {});
for (const message of messages as readonly unknown[]) hypervisor.postMessage(message);
