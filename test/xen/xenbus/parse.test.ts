import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ProtocolViolation } from '../../../src/runtime/errors.ts';
import { distrust } from '../../../src/xen/untrusted.ts';
import {
  parseFlag,
  parseGref,
  parsePort,
  parseResolution,
  parseU32,
  parseVersion,
  parseVersions,
  required,
} from '../../../src/xen/xenbus/parse.ts';
import { parseState } from '../../../src/xen/xenbus/states.ts';

/** What a hostile guest writes where a number is expected (failure catalogue, X1). */
const NOT_NUMBERS = [
  '',
  ' ',
  ' 1',
  '1 ',
  '1\n',
  '\t1',
  '-1',
  '+1',
  '-0',
  '00',
  '01',
  '0x10',
  '0b1',
  '0o7',
  '1e3',
  '1.0',
  '.5',
  'NaN',
  'Infinity',
  '1_000',
  '1,2',
  '1\0',
  '٣',
  '4294967296',
  '18446744073709551616',
  '99999999999',
  '9'.repeat(1000),
];

function violation(reason: string) {
  return (error: unknown) => error instanceof ProtocolViolation && error.reason === reason;
}

test('a number is plain decimal below 2^32 and nothing else', () => {
  for (const content of NOT_NUMBERS) {
    for (const parser of [parseU32, parseGref, parsePort]) {
      assert.throws(() => parser(distrust(content), 'node'), violation('malformed-node'), content);
    }
  }
});

test('property: every u32 comes through, and any text is a u32 in its only spelling or refused', () => {
  fc.assert(
    fc.property(fc.nat(0xffff_ffff), (number) => {
      assert.equal(parseU32(distrust(String(number)), 'node'), number);
    }),
  );
  fc.assert(
    fc.property(fc.string(), (content) => {
      try {
        assert.equal(String(parseU32(distrust(content), 'node')), content);
      } catch (error) {
        assert(violation('malformed-node')(error));
      }
    }),
  );
});

test('references and ports are never 0, and ranges hold', () => {
  assert.throws(() => parseGref(distrust('0'), 'ref'), violation('out-of-range-node'));
  assert.throws(() => parsePort(distrust('0'), 'port'), violation('out-of-range-node'));
  assert.equal(parseGref(distrust('8'), 'ref'), 8);
  assert.equal(parsePort(distrust('4294967295'), 'port'), 0xffff_ffff);
  const range = { min: 2, max: 4 };
  assert.equal(parseU32(distrust('4'), 'node', range), 4);
  for (const outside of ['1', '5']) {
    assert.throws(
      () => parseU32(distrust(outside), 'node', range),
      violation('out-of-range-node'),
      outside,
    );
  }
});

test('resolutions are WIDTHxHEIGHT, neither zero nor beyond the bound', () => {
  assert.deepEqual(parseResolution(distrust('640x480'), 'resolution', 8192), {
    width: 640,
    height: 480,
  });
  const malformed = ['', 'x', '640', '640x', 'x480', '640x480x', '640X480', '640 x480', '-1x1'];
  for (const content of [...malformed, '1x1e3', '0x10', '4294967296x1', '640x480 ']) {
    // "0x10" is the hexadecimal trap: width 0 here, so it is refused for its range.
    const reason = content === '0x10' ? 'out-of-range-node' : 'malformed-node';
    assert.throws(
      () => parseResolution(distrust(content), 'resolution', 8192),
      violation(reason),
      content,
    );
  }
  for (const content of ['0x0', '0x480', '640x0', '8193x1', '1x8193']) {
    assert.throws(
      () => parseResolution(distrust(content), 'resolution', 8192),
      violation('out-of-range-node'),
      content,
    );
  }
});

test('a flag is on by "1" alone', () => {
  assert.equal(parseFlag(distrust('1')), true);
  assert.equal(parseFlag(undefined), false);
  for (const content of ['0', '', '2', '01', 'true', '1 ', 'yes']) {
    assert.equal(parseFlag(distrust(content)), false, content);
  }
});

test('versions: lists in order, a single choice out of what was offered, 1 when nothing is said', () => {
  assert.deepEqual(parseVersions(distrust('1'), 'versions'), [1]);
  assert.deepEqual(parseVersions(distrust('2,1,7'), 'versions'), [2, 1, 7]);
  for (const content of [
    '',
    ',',
    '1,',
    ',1',
    '1, 2',
    '01',
    '1,,2',
    'a',
    Array(17).fill('1').join(),
  ]) {
    assert.throws(
      () => parseVersions(distrust(content), 'versions'),
      violation('malformed-node'),
      content,
    );
  }
  const choice = { offered: [1, 2], whenAbsent: 1 };
  assert.equal(parseVersion(undefined, 'version', choice), 1);
  assert.equal(parseVersion(distrust('2'), 'version', choice), 2);
  assert.throws(
    () => parseVersion(distrust('3'), 'version', choice),
    violation('unsupported-version'),
  );
  assert.throws(
    () => parseVersion(distrust('1,2'), 'version', choice),
    violation('malformed-node'),
  );
  assert.throws(() => parseVersion(distrust(''), 'version', choice), violation('malformed-node'));
});

test('a node that must be there is missed by name, and messages quote little of what a guest wrote', () => {
  assert.throws(() => required(undefined, 'req-ring-ref'), /missing-node: req-ring-ref/);
  try {
    parseU32(distrust(`\n\u001b[2J${'x'.repeat(5000)}`), 'node');
    assert.fail('must throw');
  } catch (error) {
    const { message } = error as Error;
    assert(message.length < 200, `${message.length} characters`);
    assert(!message.includes('\n') && !message.includes('\u001b'));
  }
});

test('a state is one of nine digits; everything else is Unknown', () => {
  for (let state = 0; state <= 8; state++) assert.equal(parseState(distrust(String(state))), state);
  for (const content of ['', '9', '99', '-1', '04', '4 ', '0x4', 'Connected']) {
    assert.equal(parseState(distrust(content)), 0, content);
  }
  assert.equal(parseState(undefined), 0);
});
