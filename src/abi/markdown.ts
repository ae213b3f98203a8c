// The declared ABI as Markdown, for people: each header with its constants and the tables of its
// structs and unions, out of the declarations themselves.
import { type Arch, type Header, HOST_ARCH, headers } from './index.ts';
import { ANONYMOUS, type AnyLayout, type AnyType, type FieldSpecs, isLayout } from './layout.ts';

/** The reference of everything declared in abi/, as it is on `arch`. */
export function abiMarkdown(arch: Arch = HOST_ARCH): string {
  return ['# ABI reference', ...headers(arch).map(headerSection)].join('\n\n').concat('\n');
}

function headerSection({ include, debianPackage, layouts, constants, strings }: Header): string {
  return [
    `## ${include}`,
    `From ${debianPackage}.`,
    ...table(
      ['constant', 'value'],
      [...constants].map(([name, value]) => [name, numeral(value)]),
    ),
    ...table(
      ['string', 'value'],
      [...strings].map(([name, value]) => [name, `"${value}"`]),
    ),
    ...layouts.map(layoutSection),
  ].join('\n\n');
}

function layoutSection(layout: AnyLayout): string {
  return [
    `### ${layout.kind} ${layout.name}`,
    `${layout.doc} ${layout.size} bytes.`,
    ...table(['offset', 'size', 'type', 'field', ''], fieldRows(layout.specs, '', 0)),
  ].join('\n\n');
}

function fieldRows(specs: FieldSpecs, path: string, base: number): string[][] {
  return Object.entries(specs).flatMap(([name, [offset, type, doc]]) => {
    const at = base + offset;
    const own = [String(at), String(type.size), typeName(type), path + name, doc];
    const inner = isLayout(type) && type.name === ANONYMOUS;
    return inner ? [own, ...fieldRows(type.specs, `${path}${name}.`, at)] : [own];
  });
}

function typeName(type: AnyType): string {
  if (isLayout(type)) return `${type.kind} ${type.name}`.trim();
  if ('cName' in type) return String(type.cName);
  return type.kind;
}

/** Large numbers are masks, ioctl numbers and limits, which people know in hexadecimal. */
function numeral(value: number): string {
  return value < 0x10 ? String(value) : `0x${value.toString(16)} (${value})`;
}

/** A table as a list of one paragraph, or of none when it has no rows. */
function table(head: string[], rows: string[][]): string[] {
  if (rows.length === 0) return [];
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`;
  return [[line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')];
}
