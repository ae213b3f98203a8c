// What a US keyboard types: evdev key codes (linux/input-event-codes.h) to characters, for the demo's
// guest that a person can type into.

/** Runs of neighbouring codes: the first code, what the keys type, and what they type with Shift. */
const RUNS: readonly (readonly [number, string, string])[] = [
  [2, '1234567890-=', '!@#$%^&*()_+'],
  [16, 'qwertyuiop[]', 'QWERTYUIOP{}'],
  [30, "asdfghjkl;'`", 'ASDFGHJKL:"~'],
  [43, '\\zxcvbnm,./', '|ZXCVBNM<>?'],
  [57, ' ', ' '],
];

export const KEY_BACKSPACE = 14;
export const KEY_ENTER = 28;
export const KEY_LEFTSHIFT = 42;
export const KEY_RIGHTSHIFT = 54;
export const BTN_LEFT = 0x110;
export const BTN_RIGHT = 0x111;

/** The character that a key types, or undefined for keys that type none. */
export function typed(code: number, shifted: boolean): string | undefined {
  for (const [first, plain, withShift] of RUNS) {
    const character = (shifted ? withShift : plain)[code - first];
    if (character !== undefined) return character;
  }
  return undefined;
}
