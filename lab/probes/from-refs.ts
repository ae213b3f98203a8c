// What a buffer of a guest's refs costs with our core: made of the refs, read-only, and released, as often as
// asked. The twin of gntdev-bare, which does it with bare ioctls; prints what that prints. The refs come on stdin,
// as decimal numbers with anything between them. Arguments: DOMID ROUNDS.
import { readFileSync } from 'node:fs';
import { openLinuxDomain } from '../../src/linux/domain.ts';
import { PAGE_SIZE } from '../../src/posix/mapping.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { domId, gref } from '../../src/xen/ids.ts';
import { Zcopy } from '../../src/zcopy/zcopy.ts';

const WARM_UP_ROUNDS = 20;

const domid = domId(Number(process.argv[2]));
const rounds = Number(process.argv[3]);
const numbers = readFileSync(0, 'utf8').match(/\d+/g) ?? [];
const refs = numbers.map((word) => gref(Number(word)));

const runtime = systemRuntime();
const domain = await openLinuxDomain({ runtime });
const zcopy = new Zcopy({ runtime, domain });

async function round(read: (bytes: () => Uint8Array) => void): Promise<void> {
  const buffer = await zcopy.fromRefs({ domid, refs });
  read(() => buffer.bytes);
  await buffer.release();
}

/** The sum of the first words of all pages, to show that they are there. */
let sum = 0;
await round((bytesOf) => {
  const { buffer, byteOffset, byteLength } = bytesOf();
  const view = new DataView(buffer, byteOffset, byteLength);
  for (let at = 0; at < byteLength; at += PAGE_SIZE) sum += view.getUint32(at, true);
});
// Some more before, so that what is measured is compiled code.
for (let done = 0; done < WARM_UP_ROUNDS; done++) await round(() => {});
const cpu = process.cpuUsage();
const startMs = runtime.nowMs();
for (let done = 0; done < rounds; done++) await round(() => {});
const wallMs = runtime.nowMs() - startMs;
const { user, system } = process.cpuUsage(cpu);
await domain[Symbol.asyncDispose]();
const cost = { wallMs, userMs: user / 1000, systemMs: system / 1000 };
process.stdout.write(`${JSON.stringify({ refs: refs.length, rounds, sum, ...cost })}\n`);
