// What a share is, in words and as JSON: one way to say it for every command.

import { pixelFormat } from '../../display/pixel-format.ts';
import type { ShareMetadata } from '../../share/metadata.ts';
import type { OfferedShare } from '../../share/offered-share.ts';

/** `bytes`, or `XR24 1920x1080 @60`. */
export function contentWords(content: ShareMetadata['content']): string {
  if (content.type === 'bytes') return 'bytes';
  const { format, width, height, refreshHz, modifier } = content;
  const rate = refreshHz === undefined ? '' : ` @${refreshHz}`;
  const layout = modifier === 0n ? '' : ` modifier 0x${modifier.toString(16)}`;
  return `${fourccText(format)} ${width}x${height}${rate}${layout}`;
}

/** The four letters, with a dot for what is none: it is shown on terminals. */
function fourccText(code: number): string {
  const letters = [0, 8, 16, 24].map((shift) => String.fromCharCode((code >>> shift) & 0xff));
  return letters.map((letter) => (/[\x21-\x7e]/.test(letter) ? letter : '.')).join('');
}

/** What scripts get. */
export interface ShareFacts {
  readonly id: string;
  readonly from: number;
  readonly kind: 'buffer' | 'stream';
  /** Of a buffer, or of a stream of bytes whose length is known; null otherwise. */
  readonly bytes: number | null;
  readonly slots: number;
  readonly slotBytes: number;
  readonly writable: boolean;
  readonly name: string;
  /** As `contentWords`. */
  readonly content: string;
}

export function factsOf(share: OfferedShare): ShareFacts {
  const { id, exporter: from, kind, slots, slotBytes, writable, metadata } = share;
  const { name, content } = metadata;
  return {
    id,
    from,
    kind,
    bytes: bytesOf(share) ?? null,
    slots,
    slotBytes,
    writable,
    name,
    content: contentWords(content),
  };
}

/** How many bytes come out of it, where that is known. */
export function bytesOf({ kind, slotBytes, metadata }: OfferedShare): number | undefined {
  if (kind === 'buffer') return slotBytes;
  return metadata.content.type === 'bytes' ? metadata.content.totalBytes : undefined;
}

/** Whether it can be shown here. */
export function isPicture({ metadata: { content } }: OfferedShare): boolean {
  return (
    content.type === 'picture' &&
    content.modifier === 0n &&
    pixelFormat(content.format) !== undefined
  );
}

const HEADINGS = ['ID', 'FROM', 'KIND', 'SIZE', 'NAME', 'CONTENT'];

/** The shares as a table for people. */
export function table(shares: readonly OfferedShare[]): string {
  const rows = [HEADINGS, ...shares.map(rowOf)];
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]!))
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

function rowOf(share: OfferedShare): string[] {
  const { id, from, kind, bytes, name, content } = factsOf(share);
  return [id, `${from}`, kind, bytes === null ? '-' : `${bytes}`, name || '-', content];
}
