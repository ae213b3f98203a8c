// From the browser's name of a physical key (KeyboardEvent.code, W3C "UI Events KeyboardEvent code
// Values") to the Linux evdev code of the same key (linux/input-event-codes.h), whatever its layout types.

/** Runs of neighbouring evdev codes: the first code and the keys from there on; `-` has no key. */
const RUNS: readonly (readonly [code: number, keys: string])[] = [
  [1, 'Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal'],
  [14, 'Backspace Tab KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight'],
  [28, 'Enter ControlLeft KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote'],
  [42, 'ShiftLeft Backslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight'],
  [55, 'NumpadMultiply AltLeft Space CapsLock F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock'],
  [71, 'Numpad7 Numpad8 Numpad9 NumpadSubtract Numpad4 Numpad5 Numpad6 NumpadAdd'],
  [79, 'Numpad1 Numpad2 Numpad3 Numpad0 NumpadDecimal'],
  [85, 'Lang5 IntlBackslash F11 F12 IntlRo Lang3 Lang4 Convert KanaMode NonConvert'],
  [96, 'NumpadEnter ControlRight NumpadDivide PrintScreen AltRight'],
  [102, 'Home ArrowUp PageUp ArrowLeft ArrowRight End ArrowDown PageDown Insert Delete'],
  [113, 'AudioVolumeMute AudioVolumeDown AudioVolumeUp Power NumpadEqual - Pause - NumpadComma'],
  [122, 'Lang1 Lang2 IntlYen MetaLeft MetaRight ContextMenu BrowserStop Again Props Undo Select'],
  [133, 'Copy Open Paste Find Cut Help - LaunchApp2 - Sleep WakeUp'],
  [155, 'LaunchMail BrowserFavorites - BrowserBack BrowserForward - Eject - MediaTrackNext'],
  [164, 'MediaPlayPause MediaTrackPrevious MediaStop'],
  [172, 'BrowserHome BrowserRefresh'],
  [183, 'F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24'],
  [217, 'BrowserSearch'],
  [226, 'MediaSelect'],
];

const codes = new Map<string, number>();
for (const [first, keys] of RUNS) {
  keys.split(' ').forEach((key, index) => {
    if (key !== '-') codes.set(key, first + index);
  });
}

/** The evdev code of a physical key, or undefined when Linux knows no such key. */
export function evdevCode(key: string): number | undefined {
  return codes.get(key);
}
