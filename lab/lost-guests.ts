// Guests that QEMU has lost, as Xen's log tells them from all others. QEMU's emulation of AMD's virtualisation sometimes
// writes the state of Xen itself into the place of a guest's: when the guest goes on, it is at Xen's next instruction
// (the one behind VMRUN), with Xen's code segment, stack and page tables, has none of that memory, and ends by a triple fault.
//
// A guest that ends by a fault of its own, or of ours, has an address of its own there: it is not taken for a lost one.

/** A guest that QEMU has lost. */
export interface LostGuest {
  readonly domid: number;
  /** Where it went on, an address of Xen's. */
  readonly address: string;
}

const XEN_LINE = '(XEN) ';
const TRIPLE_FAULT = /^d(\d+)v(\d+) Triple fault/;
/** Xen's code segment, and an address in the gigabyte where Xen's image is. */
const XEN_ADDRESS = /^RIP: +e008:\[<(ffff82d0[4-7][0-9a-f]{7})>\]/;
/** Xen's dump of a processor follows at once: a title, a rule, the processor, RIP, the context. */
const DUMP_LINES = 5;

/** The dump behind a triple fault, if it is one of a guest at an address of Xen's. */
function lostGuest(lines: readonly string[], fault: number): LostGuest | undefined {
  const [, domid, vcpu] = TRIPLE_FAULT.exec(lines[fault]!) ?? [];
  if (domid === undefined) return undefined;
  const dump = lines.slice(fault + 1, fault + 1 + DUMP_LINES);
  const ofGuest = dump.some((line) => line.includes(`CONTEXT: hvm guest (d${domid}v${vcpu})`));
  const [, address] = dump.map((line) => XEN_ADDRESS.exec(line)).find((found) => found) ?? [];
  return ofGuest && address !== undefined ? { domid: Number(domid), address } : undefined;
}

/** Those of a serial log, or of a part of one, in their order. */
export function lostGuests(serial: string): LostGuest[] {
  // Dom0's console shares the line: what it says stands between Xen's lines, and in front of them.
  const lines = serial
    .split('\n')
    .filter((line) => line.includes(XEN_LINE))
    .map((line) => line.slice(line.indexOf(XEN_LINE) + XEN_LINE.length));
  return lines.flatMap((_, index) => lostGuest(lines, index) ?? []);
}
