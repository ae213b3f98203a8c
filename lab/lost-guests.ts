// Guests that QEMU has lost: its emulation of AMD's virtualisation does things that no processor does, and they leave
// traces that nothing else does. Whatever else a guest dies of is its own fault, or ours.
//
// - Faulted thrice: the guest ends by a triple fault. Linux has a handler for every exception, with a stack of its own for
//   those that need one: it gets there only when the processor's tables or registers are not what it made them. Nobody is
//   ever granted a page of these, so neither a backend nor a mistake of ours can do that. Seen were the state of Xen
//   itself in the guest's place (it went on at the instruction behind VMRUN, with Xen's segments, stack and page tables),
//   and a kernel in perfect order at an instruction that touches no memory, behind an RDTSC which Xen emulates.
// - Interrupted twice: an interrupt that Xen injects is delivered, and at some later moment (QEMU leaves its number in
//   `exception_index`) once more, though the guest has interrupts off by then. Its kernel panics; the trace on
//   its console has the frame of Xen's callback on top of a place with IF clear.

/** A guest that QEMU has lost, in words for people. */
export interface LostGuest {
  readonly guest: string;
  readonly how: string;
}

const XEN_LINE = '(XEN) ';
const TRIPLE_FAULT = /^d(\d+)v(\d+) Triple fault/;
const PLACE = /^RIP: +([0-9a-f]{4}:\[<[0-9a-f]{16}>\])/;
/** Xen's dump of a processor follows at once: a title, a rule, the processor, RIP, the context. */
const DUMP_LINES = 5;

/** The guest whose dump is behind a triple fault. */
function faultedAt(lines: readonly string[], fault: number): LostGuest | undefined {
  const [, domid, vcpu] = TRIPLE_FAULT.exec(lines[fault]!) ?? [];
  if (domid === undefined) return undefined;
  const dump = lines.slice(fault + 1, fault + 1 + DUMP_LINES);
  const ofGuest = dump.some((line) => line.includes(`CONTEXT: hvm guest (d${domid}v${vcpu})`));
  const [, place] = dump.map((line) => PLACE.exec(line)).find((found) => found) ?? [];
  if (!ofGuest || place === undefined) return undefined;
  return { guest: `domain ${domid}`, how: `ended by a triple fault at ${place}` };
}

/** Those that ended by a triple fault, of a serial log or a part of one, in their order. */
export function faultedGuests(serial: string): LostGuest[] {
  // Dom0's console shares the line: what it says stands between Xen's lines, and in front of them.
  const lines = serial
    .split('\n')
    .filter((line) => line.includes(XEN_LINE))
    .map((line) => line.slice(line.indexOf(XEN_LINE) + XEN_LINE.length));
  return lines.flatMap((_, index) => faultedAt(lines, index) ?? []);
}

/** The frame of the callback's entry, from which its handler was called, and the place that it interrupted. */
const CALLBACK_FRAME = /\] +asm_sysvec_xen_hvm_callback\+0x/;
const INTERRUPTED = /\] RIP: [0-9a-f]{4}:(\S+)$/;
const FLAGS = /\] RSP: \S+ EFLAGS: ([0-9a-f]{8})$/;
const INTERRUPT_FLAG = 0x200;

/** Where the callback of this frame has interrupted the kernel, if that was impossible. */
function impossibleInterrupt(lines: readonly string[], frame: number): string | undefined {
  if (!CALLBACK_FRAME.test(lines[frame]!)) return undefined;
  // RIP, the code there, RSP with the flags.
  const [, place] = INTERRUPTED.exec(lines[frame + 1] ?? '') ?? [];
  const [, flags] = FLAGS.exec(lines[frame + 3] ?? '') ?? [];
  if (place === undefined || flags === undefined) return undefined;
  return (Number.parseInt(flags, 16) & INTERRUPT_FLAG) === 0 ? place : undefined;
}

/** Whether a guest, whose console this is, was interrupted while it had interrupts off. */
export function doublyInterrupted(guest: string, console: string): LostGuest | undefined {
  const lines = console.split('\n').map((line) => line.trimEnd());
  const [place] = lines.flatMap((_, index) => impossibleInterrupt(lines, index) ?? []);
  if (place === undefined) return undefined;
  return { guest, how: `was interrupted with interrupts off, at ${place}` };
}
