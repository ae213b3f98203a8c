// xen/evtchn.h of Linux (linux-libc-dev): /dev/xen/evtchn. The BIND calls return the local port;
// read() gives the ports that fired, as u32, masked until they are written back.
import { ioNone } from './ioctl.ts';
import { struct, u16, u32 } from './layout.ts';

export const ioctlEvtchnBindVirq = struct('ioctl_evtchn_bind_virq', 'Binds a virtual interrupt.', {
  virq: [0, u32, 'VIRQ_*'],
});
export const IOCTL_EVTCHN_BIND_VIRQ = ioNone('E', 0, ioctlEvtchnBindVirq.size);

export const ioctlEvtchnBindInterdomain = struct(
  'ioctl_evtchn_bind_interdomain',
  "Binds a new port to another domain's unbound port.",
  {
    remote_domain: [0, u32, 'domid'],
    remote_port: [4, u32, 'its port'],
  },
);
export const IOCTL_EVTCHN_BIND_INTERDOMAIN = ioNone('E', 1, ioctlEvtchnBindInterdomain.size);

export const ioctlEvtchnBindUnboundPort = struct(
  'ioctl_evtchn_bind_unbound_port',
  'Allocates a port that a domain may bind to.',
  { remote_domain: [0, u32, 'domid'] },
);
export const IOCTL_EVTCHN_BIND_UNBOUND_PORT = ioNone('E', 2, ioctlEvtchnBindUnboundPort.size);

export const ioctlEvtchnUnbind = struct('ioctl_evtchn_unbind', 'Closes a port.', {
  port: [0, u32, 'local port'],
});
export const IOCTL_EVTCHN_UNBIND = ioNone('E', 3, ioctlEvtchnUnbind.size);

export const ioctlEvtchnNotify = struct('ioctl_evtchn_notify', 'Sends to a port.', {
  port: [0, u32, 'local port'],
});
export const IOCTL_EVTCHN_NOTIFY = ioNone('E', 4, ioctlEvtchnNotify.size);

/** Empties the buffer that read() reads and clears its overflow. */
export const IOCTL_EVTCHN_RESET = ioNone('E', 5, 0);

export const ioctlEvtchnRestrictDomid = struct(
  'ioctl_evtchn_restrict_domid',
  'Lets the file be used with one remote domain only.',
  { domid: [0, u16, 'the remote domain'] },
);
export const IOCTL_EVTCHN_RESTRICT_DOMID = ioNone('E', 6, ioctlEvtchnRestrictDomid.size);
