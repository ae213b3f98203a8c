// dom0's KMS card, which the lab builds: two outputs, and two ways to learn what each of them really shows.
// A program here is the card's master, as the daemon is elsewhere.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { until } from '../../../src/runtime/runtime.ts';
import { attach } from '../../attached.ts';
import { type PaintFormat, paintedPixels } from '../../pattern.ts';
import { expectedCrc, expectedReadback, readCrc } from '../../vkms.ts';

/** The mode that vkms prefers. */
const MODE = { width: 1024, height: 768 };
const OUTPUTS = [0, 1];
const FORMATS: readonly PaintFormat[] = ['XR24', 'AR24', 'RG16'];
const SHOWN_TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 250;
const FLIPS = 30;
const FILE = '/run/readback';

const machine = await attach(import.meta);
const { dom0 } = machine;
/** The process in dom0 that shows a picture now. */
let painter: string | undefined;

before(async () => {
  await machine.reset();
  await dom0.shell('modprobe vkms');
});
afterEach(async () => {
  if (painter !== undefined) await dom0.stop(painter);
  painter = undefined;
});
after(() => dom0.close());

/** Paints on an output, with what is composed there read back into FILE, and leaves it shown. */
async function paintOutput(output: number, format: PaintFormat, seed: number): Promise<void> {
  // A log of its own in each run: one of the same name goes on where it was.
  const name = `painter-${process.pid}-${seed}`;
  const argv = ['vkms-readback', `${output}`, FILE, format, `${seed}`];
  await dom0.start({ name, argv, environment: {} });
  painter = name;
  const shown = async () => {
    const { running } = (await dom0.processState(name))!;
    const said = await dom0.log(name);
    if (!running) throw new Error(`${argv.join(' ')} ended: ${said}`);
    if (said === '') return false;
    assert.deepEqual(JSON.parse(said), MODE);
    return true;
  };
  const timing = { timeoutMs: SHOWN_TIMEOUT_MS, intervalMs: POLL_INTERVAL_MS };
  await until(dom0.runtime, shown, { what: 'the picture is shown and read back', ...timing });
}

test('vkms has two outputs that are connected, and two that write back', async () => {
  // Nobody has asked yet what is connected.
  const detect = 'for file in card*-Virtual-*/status; do echo detect >$file; done';
  const line = `cd /sys/class/drm && ${detect} && grep -H . card*-*/status`;
  assert.deepEqual(
    (await dom0.shell(line))
      .replaceAll(/^card\d+-/gm, '')
      .trimEnd()
      .split('\n'),
    [
      'Virtual-1/status:connected',
      'Virtual-2/status:connected',
      'Writeback-1/status:unknown',
      'Writeback-2/status:unknown',
    ],
  );
});

for (const output of OUTPUTS) {
  for (const format of FORMATS) {
    test(`output ${output} shows a picture in ${format}: its pixels and its checksum are the computed ones`, async () => {
      const seed = 100 * output + FORMATS.indexOf(format);
      await paintOutput(output, format, seed);
      const picture = { format, pixels: paintedPixels({ ...MODE, format, seed }) };
      assert.equal(Buffer.compare(await dom0.readFile(FILE), expectedReadback(picture)), 0);
      assert.equal(await readCrc(dom0, output), expectedCrc(picture));
      // One pixel of another colour is another checksum.
      picture.pixels[0]! ^= 1;
      assert.notEqual(await readCrc(dom0, output), expectedCrc(picture));
    });
  }

  for (const kind of ['legacy', 'atomic']) {
    test(`page flips on output ${output}, ${kind}, have a price`, async (t) => {
      const report = await dom0.output(['kms-flip-bare', `${output}`, `${FLIPS}`, kind]);
      assert.equal((JSON.parse(report) as { flips: number }).flips, FLIPS);
      t.diagnostic(report.trimEnd());
    });
  }
}

test('an output whose program has ended is black', async () => {
  const pixels = new Uint8Array(MODE.width * MODE.height * 4);
  assert.equal(await readCrc(dom0, 0), expectedCrc({ format: 'XR24', pixels }));
});
