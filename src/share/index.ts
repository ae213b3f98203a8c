// `xen-zcopy/share`: any buffer to any domain, by name, for programs. A domain to share with comes from a
// provider: `xen-zcopy/linux` on a Xen host, `xen-zcopy/hypervisor` in the process.

export type { Patience } from './condition.ts';
export type { AcquireOptions, FrameConsumer, ReadableFrame } from './consumer.ts';
export type { ExportedShare, ExportState, WithdrawOptions } from './exported-share.ts';
export {
  type BufferRequest,
  Exporter,
  type ExporterOptions,
  type ProgramIdentity,
  type StreamRequest,
} from './exporter.ts';
export type { ImportEnd, ImportedShare, OpenOptions } from './imported-share.ts';
export { Importer, type ImporterOptions } from './importer.ts';
export {
  type BytesContent,
  type ColourSpace,
  type PictureContent,
  type ShareMetadata,
  UNSPECIFIED_COLOUR,
  USER_BYTES_MAX,
} from './metadata.ts';
export type { OfferedShare } from './offered-share.ts';
export { type AcceptRule, DEFAULT_RULE, type ShareKind, type SharePolicy } from './policy.ts';
export type {
  Fence,
  FrameFate,
  FrameProducer,
  PublishedFacts,
  WhenFull,
  WritableFrame,
} from './producer.ts';
export { ShareError, type ShareErrorReason } from './share-error.ts';
export type { ShareEvent, ShareEventType } from './share-events.ts';
export { parseShareId, type ShareId } from './share-id.ts';
export type { ExistingBuffers, NewPages, ShareMemory } from './slots.ts';
