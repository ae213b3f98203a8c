// Guests that QEMU has lost: its emulation of AMD's virtualisation does two things that no processor does, and each leaves
// a trace that nothing else does. Whatever else a guest dies of is its own fault, or ours.
//
// - Astray: the state of Xen itself gets into the place of a guest's. When the guest goes on, it is at Xen's next
//   instruction (the one behind VMRUN) with Xen's code segment, stack and page tables, has none of that memory, and ends by
//   a triple fault. Xen's log has its registers.
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
/** Xen's code segment, and an address in the gigabyte where Xen's image is. */
const XEN_ADDRESS = /^RIP: +e008:\[<(ffff82d0[4-7][0-9a-f]{7})>\]/;
/** Xen's dump of a processor follows at once: a title, a rule, the processor, RIP, the context. */
const DUMP_LINES = 5;

/** The dump behind a triple fault, if it is one of a guest at an address of Xen's. */
function strayedAt(lines: readonly string[], fault: number): LostGuest | undefined {
  const [, domid, vcpu] = TRIPLE_FAULT.exec(lines[fault]!) ?? [];
  if (domid === undefined) return undefined;
  const dump = lines.slice(fault + 1, fault + 1 + DUMP_LINES);
  const ofGuest = dump.some((line) => line.includes(`CONTEXT: hvm guest (d${domid}v${vcpu})`));
  const [, address] = dump.map((line) => XEN_ADDRESS.exec(line)).find((found) => found) ?? [];
  if (!ofGuest || address === undefined) return undefined;
  return { guest: `domain ${domid}`, how: `went on at Xen's ${address}` };
}

/** Those that went astray, of a serial log or a part of one, in their order. */
export function strayedGuests(serial: string): LostGuest[] {
  // Dom0's console shares the line: what it says stands between Xen's lines, and in front of them.
  const lines = serial
    .split('\n')
    .filter((line) => line.includes(XEN_LINE))
    .map((line) => line.slice(line.indexOf(XEN_LINE) + XEN_LINE.length));
  return lines.flatMap((_, index) => strayedAt(lines, index) ?? []);
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
