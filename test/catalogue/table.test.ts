// docs/catalogue.md says which test each case of the failure catalogue has. This keeps it true: every test that it
// names is there, every group of cases has some, and no case of this folder is missing from it.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const GROUPS = [
  ...['R1', 'R2', 'R3', 'R4', 'R5', 'R6', 'R7', 'R8'],
  ...['G1', 'G2', 'G3', 'G4', 'G5', 'G6'],
  ...['X1', 'X2', 'X3', 'X4'],
  ...['P1', 'P2', 'P3', 'P4', 'P5'],
];

const table = readFileSync(`${ROOT}docs/catalogue.md`, 'utf8');

/** Where a file that the table names is: `lab/...` are scenarios, all others tests. */
function pathOf(file: string): string {
  const scenario = file.startsWith('lab/') ? file.slice('lab/'.length) : undefined;
  return `${ROOT}${scenario ? `lab/scenarios/${scenario}` : `test/${file}`}.test.ts`;
}

interface Citation {
  readonly file: string;
  /** A part of a test's name; empty where the file as a whole is meant. */
  readonly name: string;
}

function citations(): Citation[] {
  const rows = table.split('\n').filter((line) => line.startsWith('| '));
  const cells = rows.flatMap((row) => row.split(' | ').slice(1));
  return cells
    .flatMap((cell) => cell.replace(/ ?\|$/, '').split('<br>'))
    .flatMap((part) => {
      const match = /^\|? ?`([a-z0-9/-]+)`(?:: (.+?))?\s*$/.exec(part);
      return match ? [{ file: match[1]!, name: match[2] ?? '' }] : [];
    });
}

/** A name as it may stand in the source, whatever its quotation marks. */
function stands(text: string, name: string): boolean {
  return text.includes(name) || text.includes(name.replaceAll("'", "\\'"));
}

test('every test that the catalogue names is there', () => {
  const cited = citations();
  assert(cited.length > 100, `${cited.length} citations`);
  const missing = cited.filter(({ file, name }) => {
    const path = pathOf(file);
    return !existsSync(path) || !stands(readFileSync(path, 'utf8'), name);
  });
  assert.deepEqual(missing, []);
});

test('every group of the catalogue has its cases', () => {
  const missing = GROUPS.filter((group) => !table.includes(`\n| ${group} |`));
  assert.deepEqual(missing, []);
});

test('no case of this folder is missing from the catalogue', () => {
  const folder = `${ROOT}test/catalogue/`;
  const uncited = readdirSync(folder)
    .filter((file) => file.endsWith('.test.ts') && file !== 'table.test.ts')
    .flatMap((file) => {
      const text = readFileSync(`${folder}${file}`, 'utf8');
      const names = [...text.matchAll(/^ *test\(\s*(['"`])((?:\\.|(?!\1).)+)\1/gm)].map(
        (m) => m[2]!,
      );
      const cited = citations().filter(
        (each) => each.file === `catalogue/${file.slice(0, -'.test.ts'.length)}`,
      );
      return names
        .map((name) => name.replaceAll("\\'", "'"))
        .filter((name) => !cited.some((each) => name.includes(each.name)));
    });
  assert.deepEqual(uncited, []);
});
