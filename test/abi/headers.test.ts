// The declared ABI against the real one: a C program, generated from abiJson(), includes the headers of
// Debian's libxen-dev, linux-libc-dev and libdrm-dev and says what the compiler makes of every struct, union,
// field and constant; all of it must be what we declare. It is compiled as a guest of the oldest
// interface version would and as one of 4.14, and with Xen's headers for x86-64 and for arm64.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Arch, headers } from '../../src/abi/index.ts';
import { abiJson } from '../../src/abi/json.ts';
import { ANONYMOUS, type FieldSpecs, isLayout } from '../../src/abi/layout.ts';
import { xsdErrors } from '../../src/abi/xs-wire.ts';

/** Included before Xen's headers, while the compiler's own architecture is still the one defined. */
const SYSTEM_HEADERS = [
  'errno.h',
  'stddef.h',
  'stdint.h',
  'stdio.h',
  'string.h',
  'sys/ioctl.h',
  'linux/types.h',
];
const ARCH_MACRO: Readonly<Record<Arch, string>> = { x86_64: '__x86_64__', arm64: '__aarch64__' };

/** What must be in the JSON whatever else is: one name of each header, and the well-known ones. */
const MUST_HAVE_STRUCTS = [
  'xendispl_req',
  'xendispl_resp',
  'xendispl_evt',
  'xendispl_dbuf_create_req',
  'xendispl_page_directory',
  'xendispl_event_page',
  'xen_displif_sring',
  'xen_displif_sring_entry',
  'xenkbd_page',
  'xenkbd_in_event',
  'xenkbd_out_event',
  'xenkbd_mtouch',
  'grant_entry_v1',
  'gnttab_map_grant_ref',
  'evtchn_bind_interdomain',
  'shared_info',
  'vcpu_info',
  'xsd_sockmsg',
  'xenstore_domain_interface',
  'ioctl_gntdev_map_grant_ref',
  'ioctl_gntdev_dmabuf_exp_from_refs',
  'ioctl_gntdev_dmabuf_imp_to_refs',
  'ioctl_gntalloc_alloc_gref',
  'ioctl_evtchn_bind_interdomain',
  'privcmd_hypercall',
  'privcmd_mmapbatch_v2',
  'udmabuf_create',
  'dma_buf_sync',
  'dma_heap_allocation_data',
  'drm_mode_modeinfo',
  'drm_mode_atomic',
  'drm_event_vblank',
];
const MUST_HAVE_CONSTANTS = [
  'XENDISPL_OP_DBUF_CREATE',
  'XENDISPL_IN_RING_LEN',
  'XENKBD_IN_RING_LEN',
  'XENKBD_TYPE_MTOUCH',
  'GTF_permit_access',
  'GNTST_no_space',
  'EVTCHN_2L_NR_CHANNELS',
  'EVTCHNSTAT_interdomain',
  'DOMID_SELF',
  'XS_WATCH_EVENT',
  'XENSTORE_PAYLOAD_MAX',
  'XenbusStateConnected',
  'XEN_EINVAL',
  'IOCTL_GNTDEV_MAP_GRANT_REF',
  'IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS',
  'IOCTL_GNTALLOC_ALLOC_GREF',
  'IOCTL_EVTCHN_BIND_INTERDOMAIN',
  'IOCTL_PRIVCMD_MMAPBATCH_V2',
  '__HYPERVISOR_grant_table_op',
  'MFD_ALLOW_SEALING',
  'F_SEAL_WRITE',
  'UDMABUF_CREATE',
  'DMA_BUF_IOCTL_SYNC',
  'DMA_HEAP_IOCTL_ALLOC',
  'DRM_IOCTL_MODE_ATOMIC',
  'DRM_IOCTL_PRIME_FD_TO_HANDLE',
];
const MIN_STRUCTS = 70;
const MIN_FIELDS = 280;
const MIN_CONSTANTS = 230;
const MIN_STRINGS = 30;

/** How the C program is compiled, and which declarations that version of the headers does not have. */
interface Dialect {
  readonly options: readonly string[];
  readonly missing: RegExp;
}

/** The facts that the C program prints, one a line, as we declare them: `KEY value...`. */
function declaredFacts(arch: Arch): string[] {
  const { structs, constants } = abiJson(arch);
  const layouts = headers(arch).flatMap((header) => header.layouts);
  return [
    ...Object.entries(structs).flatMap(([name, { size, fields }]) => [
      `sizeof ${name} ${size}`,
      ...Object.entries(fields).map(
        ([field, { offset, size }]) => `field ${name} ${field} ${offset} ${size}`,
      ),
    ]),
    ...layouts.map(({ name, align }) => `align ${name} ${align}`),
    ...layouts.flatMap(({ name, specs }) =>
      scalarFields(specs, '').map(([field, signed]) => `signed ${name} ${field} ${signed}`),
    ),
    ...Object.entries(constants).map(([name, value]) => `constant ${name} ${value}`),
    ...stringConstants(arch).map(([name, value]) => `string ${name} ${value}`),
    ...xsdErrors.map((name, i) => `error ${i} ${name}`),
  ];
}

function stringConstants(arch: Arch): [string, string][] {
  return headers(arch).flatMap((header) => [...header.strings]);
}

/** Integer fields and whether they are signed (1) or not (0); inner ones by their path. */
function scalarFields(specs: FieldSpecs, path: string): [string, number][] {
  return Object.entries(specs).flatMap(([name, [, type]]): [string, number][] => {
    if (isLayout(type) && type.name === ANONYMOUS) {
      return scalarFields(type.specs, `${path}${name}.`);
    }
    if (!('cName' in type) || type.cName === 'void *') return [];
    return [[path + name, String(type.cName).startsWith('int') ? 1 : 0]];
  });
}

/** The program that prints the same facts as the compiler sees them. */
function program(arch: Arch, missing: RegExp): string {
  const { structs, constants } = abiJson(arch);
  const layouts = headers(arch).flatMap((header) => header.layouts);
  const tag = new Map(layouts.map(({ name, kind }) => [name, `${kind} ${name}`]));
  const member = (name: string, field: string) => `((${tag.get(name)} *)0)->${field}`;
  const lines = [
    ...Object.entries(structs).flatMap(([name, { fields }]) => [
      `printf("sizeof ${name} %zu\\n", sizeof(${tag.get(name)}));`,
      ...Object.keys(fields).map(
        (field) =>
          `printf("field ${name} ${field} %zu %zu\\n",` +
          ` offsetof(${tag.get(name)}, ${field}), sizeof(${member(name, field)}));`,
      ),
    ]),
    ...layouts.map(({ name }) => `printf("align ${name} %zu\\n", _Alignof(${tag.get(name)}));`),
    ...layouts.flatMap(({ name, specs }) =>
      scalarFields(specs, '').map(
        ([field]) =>
          `printf("signed ${name} ${field} %d\\n", (__typeof__(${member(name, field)}))-1 < 1);`,
      ),
    ),
    ...Object.keys(constants).map(
      (name) => `printf("constant ${name} %lld\\n", (long long)(${name}));`,
    ),
    ...stringConstants(arch).map(([name]) => `printf("string ${name} %s\\n", ${name});`),
    'for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)',
    '  printf("error %zu %s\\n", i, xsd_errors[i].errstring);',
  ];
  return [
    '#define _GNU_SOURCE',
    ...SYSTEM_HEADERS.map((name) => `#include <${name}>`),
    ...Object.values(ARCH_MACRO).map((macro) => `#undef ${macro}`),
    `#define ${ARCH_MACRO[arch]} 1`,
    ...headers(arch).map(({ include }) => `#include <${include}>`),
    'int main(void) {',
    ...lines.filter((line) => !missing.test(line)),
    'return 0;',
    '}',
    '',
  ].join('\n');
}

/** Runs a command; its own words are the failure's message. */
function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  assert.ok(error === undefined, `${command} cannot be run (install gcc and libc6-dev): ${error}`);
  assert.equal(status, 0, `${command} failed:\n${stderr}`);
  return stdout;
}

function compiledFacts(arch: Arch, { options, missing }: Dialect): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'xen-zcopy-abi-'));
  try {
    const [source, binary] = [join(folder, 'abi.c'), join(folder, 'abi')];
    writeFileSync(source, program(arch, missing));
    // xen/privcmd.h asks for this one, which Debian leaves out: Xen's own, under the kernel's name.
    mkdirSync(join(folder, 'xen/interface'), { recursive: true });
    writeFileSync(join(folder, 'xen/interface/xen.h'), '#include <xen/xen.h>\n');
    run('gcc', '-std=gnu11', '-Werror', `-I${folder}`, ...options, '-o', binary, source);
    return run(binary).trimEnd().split('\n');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The facts that only `facts` has: what differs is all that a failure shows. */
function without(facts: string[], others: string[]): string[] {
  const known = new Set(others);
  return facts.filter((fact) => !known.has(fact));
}

test('the headers to compare with are installed', () => {
  for (const { include, debianPackage } of headers('x86_64')) {
    const path = `/usr/include/${include}`;
    assert.ok(existsSync(path), `${path} is missing: apt-get install ${debianPackage}`);
  }
});

const DIALECTS: Readonly<Record<string, Dialect>> = {
  'of the oldest interface': { options: [], missing: /gnttab_get_version|GNTTABOP_get_version/ },
  // Debian 12's latest. Later ones shorten what we declare as `[1]` to a flexible array member.
  'of interface 4.14': { options: ['-D__XEN_INTERFACE_VERSION__=0x00040e00'], missing: /(?!)/ },
};
for (const arch of ['x86_64', 'arm64'] as const) {
  for (const [name, dialect] of Object.entries(DIALECTS)) {
    test(`every declaration is what the C compiler says, on ${arch}, ${name}`, () => {
      const compiled = compiledFacts(arch, dialect);
      const declared = declaredFacts(arch).filter((fact) => !dialect.missing.test(fact));
      assert.deepEqual(
        { declared: without(declared, compiled), compiled: without(compiled, declared) },
        { declared: [], compiled: [] },
      );
    });
  }
}

test('the JSON is not empty: every well-known name is in it', () => {
  for (const arch of ['x86_64', 'arm64'] as const) {
    const { structs, constants } = abiJson(arch);
    const fields = Object.values(structs).flatMap((entry) => Object.keys(entry.fields));
    assert.deepEqual(
      MUST_HAVE_STRUCTS.filter((name) => structs[name] === undefined),
      [],
    );
    assert.deepEqual(
      MUST_HAVE_CONSTANTS.filter((name) => constants[name] === undefined),
      [],
    );
    assert.ok(Object.keys(structs).length >= MIN_STRUCTS, `${Object.keys(structs).length} structs`);
    assert.ok(fields.length >= MIN_FIELDS, `${fields.length} fields`);
    const numbers = Object.keys(constants).length;
    assert.ok(numbers >= MIN_CONSTANTS, `${numbers} constants`);
    const strings = stringConstants(arch).length;
    assert.ok(strings >= MIN_STRINGS, `${strings} strings`);
  }
});
