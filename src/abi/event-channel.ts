// xen/event_channel.h: event channels as the hypervisor numbers them. Only the 2-level ABI, whose
// bitmaps lie in shared_info (shared-info-x86.ts, shared-info-arm.ts); the FIFO ABI is not used.
import { ANONYMOUS, names, struct, u16, u32, union } from './layout.ts';

export const EVTCHNOP_bind_interdomain = 0;
export const EVTCHNOP_bind_virq = 1;
export const EVTCHNOP_bind_pirq = 2;
export const EVTCHNOP_close = 3;
export const EVTCHNOP_send = 4;
export const EVTCHNOP_status = 5;
export const EVTCHNOP_alloc_unbound = 6;
export const EVTCHNOP_bind_ipi = 7;
export const EVTCHNOP_bind_vcpu = 8;
export const EVTCHNOP_unmask = 9;
export const EVTCHNOP_reset = 10;

/** Ports of a domain: one bit each in 64 words of 64 bits. */
export const EVTCHN_2L_NR_CHANNELS = 64 * 64;

export const evtchnAllocUnbound = struct(
  'evtchn_alloc_unbound',
  'Allocates a port that a domain may bind to.',
  {
    dom: [0, u16, 'the owner, or DOMID_SELF'],
    remote_dom: [2, u16, 'the domain that may bind'],
    port: [4, u32, 'out: the new port'],
  },
);

export const evtchnBindInterdomain = struct(
  'evtchn_bind_interdomain',
  "Binds a new port to another domain's unbound port.",
  {
    remote_dom: [0, u16, 'the other domain'],
    remote_port: [4, u32, 'its port'],
    local_port: [8, u32, 'out: the new port'],
  },
);

export const evtchnBindVirq = struct('evtchn_bind_virq', 'Binds a virtual interrupt.', {
  virq: [0, u32, 'VIRQ_*'],
  vcpu: [4, u32, 'the virtual CPU'],
  port: [8, u32, 'out: the new port'],
});

export const BIND_PIRQ__WILL_SHARE = 1;

export const evtchnBindPirq = struct('evtchn_bind_pirq', 'Binds a physical interrupt.', {
  pirq: [0, u32, 'the interrupt'],
  flags: [4, u32, 'BIND_PIRQ__*'],
  port: [8, u32, 'out: the new port'],
});

export const evtchnBindIpi = struct('evtchn_bind_ipi', 'Binds to a virtual CPU of our own.', {
  vcpu: [0, u32, 'the virtual CPU'],
  port: [4, u32, 'out: the new port'],
});

export const evtchnClose = struct('evtchn_close', 'Closes a port.', {
  port: [0, u32, 'the port'],
});

export const evtchnSend = struct('evtchn_send', 'Sends to the other end of a port.', {
  port: [0, u32, 'the local port'],
});

export const EVTCHNSTAT_closed = 0;
export const EVTCHNSTAT_unbound = 1;
export const EVTCHNSTAT_interdomain = 2;
export const EVTCHNSTAT_pirq = 3;
export const EVTCHNSTAT_virq = 4;
export const EVTCHNSTAT_ipi = 5;

/** The C name of a port's status, for logs. */
export const evtchnStatusName = names({
  EVTCHNSTAT_closed,
  EVTCHNSTAT_unbound,
  EVTCHNSTAT_interdomain,
  EVTCHNSTAT_pirq,
  EVTCHNSTAT_virq,
  EVTCHNSTAT_ipi,
});

export const evtchnStatus = struct('evtchn_status', 'Tells what a port is bound to.', {
  dom: [0, u16, 'the owner, or DOMID_SELF'],
  port: [4, u32, 'the port'],
  status: [8, u32, 'out: EVTCHNSTAT_*'],
  vcpu: [12, u32, 'out: the virtual CPU it notifies'],
  u: [
    16,
    union(ANONYMOUS, 'By status.', {
      unbound: [
        0,
        struct(ANONYMOUS, 'An unbound port.', { dom: [0, u16, 'the domain that may bind'] }),
        'EVTCHNSTAT_unbound',
      ],
      interdomain: [
        0,
        struct(ANONYMOUS, 'A bound port.', {
          dom: [0, u16, 'the other domain'],
          port: [4, u32, 'its port'],
        }),
        'EVTCHNSTAT_interdomain',
      ],
      pirq: [0, u32, 'EVTCHNSTAT_pirq'],
      virq: [0, u32, 'EVTCHNSTAT_virq'],
    }),
    'out: by status',
  ],
});

export const evtchnBindVcpu = struct('evtchn_bind_vcpu', 'Moves a port to a virtual CPU.', {
  port: [0, u32, 'the port'],
  vcpu: [4, u32, 'the virtual CPU'],
});

export const evtchnUnmask = struct('evtchn_unmask', 'Unmasks a port, delivering what is pending.', {
  port: [0, u32, 'the port'],
});

export const evtchnReset = struct('evtchn_reset', 'Closes all ports of a domain.', {
  dom: [0, u16, 'the domain, or DOMID_SELF'],
});
