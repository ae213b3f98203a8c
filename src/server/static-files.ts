// The viewer page's files: a fixed table, read once at the start. No path of a request ever reaches the
// file system.

import { readFileSync } from 'node:fs';
import { SysError } from '../runtime/errors.ts';

export interface StaticFile {
  readonly type: string;
  readonly body: Buffer;
}

/** Where the build puts the page, seen from where it puts this module. */
const PAGE_FOLDER = new URL('../../web/', import.meta.url);

const FILES: readonly (readonly [path: string, file: string, type: string])[] = [
  ['/', 'index.html', 'text/html; charset=utf-8'],
  ['/main.js', 'main.js', 'text/javascript; charset=utf-8'],
  ['/main.js.map', 'main.js.map', 'application/json'],
  ['/style.css', 'style.css', 'text/css; charset=utf-8'],
  ['/icon.svg', 'icon.svg', 'image/svg+xml'],
];

/** The page by request path. @throws SysError when the page was not built */
export function loadStaticFiles(): ReadonlyMap<string, StaticFile> {
  return new Map(
    FILES.map(([path, file, type]) => [path, { type, body: readPageFile(file) }] as const),
  );
}

function readPageFile(file: string): Buffer {
  try {
    return readFileSync(new URL(file, PAGE_FOLDER));
  } catch (error) {
    throw new SysError({
      call: 'read',
      errnoName: (error as NodeJS.ErrnoException).code ?? 'EIO',
      context: `reading the viewer page's ${file}`,
      remedy: 'build it: npm run build',
    });
  }
}
