// What a program that shares says of itself to people, as those do who print or measure it: it can be asked at any moment.

import type { Exporter } from '../../src/share/exporter.ts';
import type { Importer } from '../../src/share/importer.ts';
import type { Fence, FrameProducer } from '../../src/share/producer.ts';
import type { Sharing } from './sharer.ts';

export function noteExporter({ world, domain }: Sharing, exporter: Exporter): void {
  const refused = Object.keys(exporter.refused).length;
  world.trace.note('exporter', domain.domid, exporter.shares.length, refused);
  for (const share of exporter.shares) {
    const { state, releaseState, holders, opens, refused: reasons } = share;
    const kinds = Object.keys(reasons).length;
    world.trace.note(`share ${state}, ${releaseState}`, holders.length, opens, kinds);
  }
}

/** What became of a frame, and of the whole stream so far. */
export function noteFrame({ world, domain }: Sharing, producer: FrameProducer, fence: Fence): void {
  const { sequence, fate } = fence;
  world.trace.note(`frame ${fate}`, domain.domid, sequence, producer.dropped);
}

export function noteImporter({ world, domain }: Sharing, importer: Importer): void {
  const { offers, shares, refused } = importer;
  world.trace.note('importer', domain.domid, offers.length, shares.length, refused.size);
  for (const { slots, slotBytes } of offers) world.trace.note('offered', slots, slotBytes);
  for (const { metadata, holders, memory, withoutDmaBuf, releaseState } of shares) {
    const how = memory ? 'as a dma-buf' : (withoutDmaBuf ?? 'mapped');
    world.trace.note(`${releaseState} ${how}`, metadata.userBytes.length, holders.length);
  }
}
