import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { evdevCode } from '../../src/outputs/browser/key-codes.ts';

/** KEY_* numbers as the kernel's header has them. */
const header = new Map(
  [
    ...readFileSync('/usr/include/linux/input-event-codes.h', 'utf8').matchAll(
      /^#define\s+(KEY_\w+)\s+(\d+|0x[0-9a-f]+)\b/gm,
    ),
  ].map(([, name, value]) => [name!, Number(value)]),
);

const letters = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'];
const digits = [...'0123456789'];
const functionKeys = Array.from({ length: 24 }, (_, index) => `F${index + 1}`);

/** The browser's names and the kernel's, as both specifications describe the keys. */
const PAIRS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(letters.map((letter) => [`Key${letter}`, letter])),
  ...Object.fromEntries(digits.map((digit) => [`Digit${digit}`, digit])),
  ...Object.fromEntries(digits.map((digit) => [`Numpad${digit}`, `KP${digit}`])),
  ...Object.fromEntries(functionKeys.map((key) => [key, key])),
  Escape: 'ESC',
  Minus: 'MINUS',
  Equal: 'EQUAL',
  Backspace: 'BACKSPACE',
  Tab: 'TAB',
  BracketLeft: 'LEFTBRACE',
  BracketRight: 'RIGHTBRACE',
  Enter: 'ENTER',
  ControlLeft: 'LEFTCTRL',
  Semicolon: 'SEMICOLON',
  Quote: 'APOSTROPHE',
  Backquote: 'GRAVE',
  ShiftLeft: 'LEFTSHIFT',
  Backslash: 'BACKSLASH',
  Comma: 'COMMA',
  Period: 'DOT',
  Slash: 'SLASH',
  ShiftRight: 'RIGHTSHIFT',
  NumpadMultiply: 'KPASTERISK',
  AltLeft: 'LEFTALT',
  Space: 'SPACE',
  CapsLock: 'CAPSLOCK',
  NumLock: 'NUMLOCK',
  ScrollLock: 'SCROLLLOCK',
  NumpadSubtract: 'KPMINUS',
  NumpadAdd: 'KPPLUS',
  NumpadDecimal: 'KPDOT',
  Lang5: 'ZENKAKUHANKAKU',
  IntlBackslash: '102ND',
  IntlRo: 'RO',
  Lang3: 'KATAKANA',
  Lang4: 'HIRAGANA',
  Convert: 'HENKAN',
  KanaMode: 'KATAKANAHIRAGANA',
  NonConvert: 'MUHENKAN',
  NumpadEnter: 'KPENTER',
  ControlRight: 'RIGHTCTRL',
  NumpadDivide: 'KPSLASH',
  PrintScreen: 'SYSRQ',
  AltRight: 'RIGHTALT',
  Home: 'HOME',
  ArrowUp: 'UP',
  PageUp: 'PAGEUP',
  ArrowLeft: 'LEFT',
  ArrowRight: 'RIGHT',
  End: 'END',
  ArrowDown: 'DOWN',
  PageDown: 'PAGEDOWN',
  Insert: 'INSERT',
  Delete: 'DELETE',
  AudioVolumeMute: 'MUTE',
  AudioVolumeDown: 'VOLUMEDOWN',
  AudioVolumeUp: 'VOLUMEUP',
  Power: 'POWER',
  NumpadEqual: 'KPEQUAL',
  Pause: 'PAUSE',
  NumpadComma: 'KPCOMMA',
  Lang1: 'HANGEUL',
  Lang2: 'HANJA',
  IntlYen: 'YEN',
  MetaLeft: 'LEFTMETA',
  MetaRight: 'RIGHTMETA',
  ContextMenu: 'COMPOSE',
  BrowserStop: 'STOP',
  Again: 'AGAIN',
  Props: 'PROPS',
  Undo: 'UNDO',
  Select: 'FRONT',
  Copy: 'COPY',
  Open: 'OPEN',
  Paste: 'PASTE',
  Find: 'FIND',
  Cut: 'CUT',
  Help: 'HELP',
  LaunchApp2: 'CALC',
  Sleep: 'SLEEP',
  WakeUp: 'WAKEUP',
  LaunchMail: 'MAIL',
  BrowserFavorites: 'BOOKMARKS',
  BrowserBack: 'BACK',
  BrowserForward: 'FORWARD',
  Eject: 'EJECTCD',
  MediaTrackNext: 'NEXTSONG',
  MediaPlayPause: 'PLAYPAUSE',
  MediaTrackPrevious: 'PREVIOUSSONG',
  MediaStop: 'STOPCD',
  BrowserHome: 'HOMEPAGE',
  BrowserRefresh: 'REFRESH',
  BrowserSearch: 'SEARCH',
  MediaSelect: 'MEDIA',
};

test('every key has the number that the kernel’s header gives it', () => {
  assert(header.size > 400, 'the header was not understood');
  for (const [key, name] of Object.entries(PAIRS)) {
    const expected = header.get(`KEY_${name}`);
    assert(expected !== undefined, `the header has no KEY_${name}`);
    assert.equal(evdevCode(key), expected, key);
  }
});

test('a key that Linux does not know has no number', () => {
  for (const key of ['', '-', 'Unidentified', 'Fn', 'toString']) {
    assert.equal(evdevCode(key), undefined);
  }
});
