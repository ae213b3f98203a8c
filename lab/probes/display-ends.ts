// Both ends of a display on the real Xen, by our own backend and our own frontend, each with its own view of
// dom0 (a PV dom0 may map its own grants): buffers of the frontend's pages and buffers that the backend
// allocates. Prints one JSON line: for each check null, or what went wrong. The scenario display-ends runs it.
import assert from 'node:assert/strict';
import { DisplayBackend } from '../../src/display/backend.ts';
import { DisplayFrontend } from '../../src/display/frontend.ts';
import type { GuestDisplay } from '../../src/display/guest-display.ts';
import { ARGB8888, type PixelFormat, RGB565, XRGB8888 } from '../../src/display/pixel-format.ts';
import { type LinuxDomain, openLinuxDomain } from '../../src/linux/domain.ts';
import { BrowserOutput } from '../../src/outputs/browser/browser-output.ts';
import { systemRuntime } from '../../src/runtime/runtime.ts';
import { Scope } from '../../src/runtime/scope.ts';
import { DOM0 } from '../../src/xen/ids.ts';
import { BackendBus } from '../../src/xen/xenbus/backend-bus.ts';
import { Guests } from '../../src/xen/xenbus/guests.ts';
import { addDevice, removeDevice } from '../../src/xen/xenbus/toolstack.ts';
import { DEFAULT_BUDGET } from '../../src/zcopy/budget.ts';
import { openGuest } from '../../src/zcopy/guest.ts';
import { Ledger } from '../../src/zcopy/ledger.ts';

const SIZE = { width: 320, height: 240 };
const FORMATS: readonly PixelFormat[] = [XRGB8888, ARGB8888, RGB565];
const POOL_PAGES = 256;
const FLIPS = 20;

const runtime = systemRuntime();
const at = { backendDomid: DOM0, domid: DOM0, devid: 0 };
const device = { ...at, backendType: 'vdispl', frontendType: 'vdispl' };

interface Ends {
  readonly display: GuestDisplay;
  readonly output: BrowserOutput;
  readonly ledger: Ledger;
}

/** A backend on one domain and a connected frontend on another. */
async function open(scope: Scope, beAlloc: boolean): Promise<Ends> {
  const backendDomain: LinuxDomain = scope.own(await openLinuxDomain({ runtime }));
  const frontendDomain: LinuxDomain = scope.own(await openLinuxDomain({ runtime }));
  const { store } = backendDomain;
  const output = new BrowserOutput({ runtime });
  const ledger = new Ledger();
  const budget = { ...DEFAULT_BUDGET, poolPages: POOL_PAGES };
  const domain = backendDomain;
  const guests = new Guests(
    (domid) => openGuest({ runtime, domain, ledger, budget, domid, name: 'probe' }).context,
  );
  const driver = new DisplayBackend({ output });
  scope.own(await BackendBus.open({ runtime, domain, driver, guests }));
  const readOnlyFrontend = {
    'be-alloc': beAlloc ? '1' : '0',
    '0/resolution': `${SIZE.width}x${SIZE.height}`,
    '0/unique-id': 'probe',
  };
  await addDevice(store, device, { readOnlyFrontend });
  scope.defer(() => removeDevice(runtime, store, device));
  const display = await new Promise<GuestDisplay>((resolve, reject) => {
    const options = { runtime, domain: frontendDomain, onConnected: resolve, onFailed: reject };
    DisplayFrontend.open(options).then((frontend) => scope.own(frontend), reject);
  });
  return { display, output, ledger };
}

/** Draws into a buffer of each format, and sees exactly that where the output reads. */
async function drawAndSee({ display, output }: Ends): Promise<void> {
  for (const format of FORMATS) {
    const buffer = await display.createBuffer({ ...SIZE, format });
    assert(
      buffer.bytes.every((byte) => byte === 0),
      'black at first',
    );
    for (let byte = 0; byte < buffer.bytes.length; byte++) buffer.bytes[byte] = byte % 253;
    const framebuffer = await display.attach(buffer);
    await display.setMode(0, framebuffer);
    const shown = output.screen(DOM0, 0)?.shown;
    assert(shown !== undefined, 'a picture is shown');
    assert.equal(Buffer.compare(shown.bytes, buffer.bytes), 0, format.name);
    for (let flip = 0; flip < FLIPS; flip++) await display.flipped(0, framebuffer);
    await display.setMode(0, undefined);
    await display.destroyBuffer(buffer);
  }
}

async function check(beAlloc: boolean): Promise<void> {
  const scope = new Scope('probe');
  try {
    const ends = await open(scope, beAlloc);
    await drawAndSee(ends);
    const { buffers, poolPages, quarantinedPages } = ends.ledger.heldBy(DOM0);
    assert.deepEqual([buffers, poolPages, quarantinedPages], [0, 0, 0]);
  } finally {
    await scope.close();
  }
}

const results: Record<string, string | null> = {};
for (const [name, beAlloc] of [
  ['our frontend and our backend, over pages of the frontend', false],
  ['our frontend and our backend, over pages that the backend allocates', true],
] as const) {
  results[name] = await check(beAlloc).then(
    () => null,
    (error) => (error instanceof Error ? (error.stack ?? error.message) : String(error)),
  );
}
process.stdout.write(`${JSON.stringify({ results, figures: {} })}\n`);
