// `xen-zcopy/linux`: this domain on a real Xen host, for programs.

export { type LinuxDomain, type LinuxDomainOptions, openLinuxDomain } from './domain.ts';
export {
  type HostPathName,
  type HostReport,
  probeHost,
  requireServable,
} from './host.ts';
