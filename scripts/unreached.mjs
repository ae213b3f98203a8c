// Which branches of given files of src/ were never taken, out of what V8 wrote under NODE_V8_COVERAGE: its blocks
// that were entered no time, as lines of the TypeScript that they come from.
import { readdirSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** All ranges that V8 counted in a file, of every process that ran it: `count` summed by range. */
function rangesOf(folder, url) {
  const counts = new Map();
  for (const name of readdirSync(folder)) {
    const { result } = JSON.parse(readFileSync(`${folder}/${name}`, 'utf8'));
    for (const script of result.filter((each) => each.url === url)) {
      for (const { functionName, ranges } of script.functions) {
        for (const { startOffset, endOffset, count } of ranges) {
          const key = `${startOffset}-${endOffset}`;
          const before = counts.get(key) ?? { startOffset, endOffset, functionName, count: 0 };
          counts.set(key, { ...before, count: before.count + count });
        }
      }
    }
  }
  return [...counts.values()];
}

/** The place of an offset in a text. */
function placeOf(text, offset) {
  const before = text.slice(0, offset);
  const line = before.split('\n').length - 1;
  return { line, column: offset - (before.lastIndexOf('\n') + 1) };
}

/** A line for each branch that was not reached, by file; and how many of how many were. */
export function unreached(folder, files) {
  const lines = [];
  let branches = 0;
  let missed = 0;
  for (const file of files) {
    const path = `${root}dist/src/${file.replace(/\.ts$/, '.js')}`;
    const text = readFileSync(path, 'utf8');
    const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, 'utf8')));
    const source = readFileSync(`${root}src/${file}`, 'utf8').split('\n');
    const ranges = rangesOf(folder, `file://${path}`);
    if (ranges.length === 0) lines.push(`${file}: never loaded`);
    const places = ranges.map(({ startOffset, count }) => {
      // A block begins with its brace or with the blank before it: the code behind is what has a place.
      const skipped = /^[\s{};:?]*/.exec(text.slice(startOffset))[0].length;
      const { line, column } = placeOf(text, startOffset + skipped);
      const number = (map.findEntry(line, column).originalLine ?? 0) + 1;
      return { number, count, code: source[number - 1].trim() };
    });
    // What the compiler adds (for `using`) comes from the comment at the top.
    const ours = places.filter(({ code }) => !code.startsWith('//'));
    const blank = ours.filter(({ count }) => count === 0);
    branches += ours.length;
    missed += blank.length;
    for (const { number, code } of blank.sort((a, b) => a.number - b.number)) {
      lines.push(`${file}:${number}: ${code}`);
    }
  }
  lines.push(`${branches - missed} of ${branches} branches of ${files.length} files were reached`);
  return `${lines.join('\n')}\n`;
}
