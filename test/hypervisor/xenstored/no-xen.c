/*
 * Lets Debian's xenstored run on a machine without Xen, by LD_PRELOAD: what it asks of the hypervisor
 * is answered from files in XENSTORED_RUNDIR. A domain's ring page is the file page-DOMID; an event for xenstored
 * is a port number written into the FIFO evtchn; events for the domains are dropped, they look by themselves.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

enum { FIRST_PORT = 100, VIRQ_PORT = 1, PAGE_BYTES = 4096 };

static char handle;
static int events = -1;

static const char *in_rundir(char *path, size_t size, const char *name, unsigned int number)
{
	snprintf(path, size, "%s/%s", getenv("XENSTORED_RUNDIR"), name);
	if (number != ~0u)
		snprintf(path + strlen(path), size - strlen(path), "-%u", number);
	return path;
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild, unsigned int flags)
{
	return (xc_interface *)&handle;
}

int xc_interface_close(xc_interface *xch)
{
	return 0;
}

/* Every domain is alive. */
int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int count, xc_dominfo_t *info)
{
	memset(info, 0, sizeof(*info));
	info->domid = first;
	return 1;
}

xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned int flags)
{
	return (xengnttab_handle *)&handle;
}

int xengnttab_close(xengnttab_handle *xgt)
{
	return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t count)
{
	return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
	char path[256];
	int fd = open(in_rundir(path, sizeof(path), "page", domid), O_RDWR);
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(xengnttab_handle *xgt, void *page, uint32_t count)
{
	return munmap(page, PAGE_BYTES);
}

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned int flags)
{
	char path[256];

	events = open(in_rundir(path, sizeof(path), "evtchn", ~0u), O_RDWR | O_NONBLOCK);
	return (xenevtchn_handle *)&handle;
}

xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *logger, int fd, unsigned int flags)
{
	events = fd;
	return (xenevtchn_handle *)&handle;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
	return events;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
	return VIRQ_PORT;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid, evtchn_port_t remote)
{
	return FIRST_PORT + domid;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
	uint32_t port;

	return read(events, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

/* The port and the ring page of the control domain come from files of the kernel. */
int open(const char *path, int flags, ...)
{
	static int (*next)(const char *, int, ...);
	char instead[256];
	va_list arguments;
	int mode;

	va_start(arguments, flags);
	mode = va_arg(arguments, int);
	va_end(arguments);
	if (!next)
		next = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	if (!strcmp(path, "/proc/xen/xsd_port"))
		path = in_rundir(instead, sizeof(instead), "xsd_port", ~0u);
	else if (!strcmp(path, "/proc/xen/xsd_kva") || !strcmp(path, "/dev/xen/xenbus") ||
		 !strcmp(path, "/proc/xen/xenbus"))
		path = in_rundir(instead, sizeof(instead), "page", 0);
	return next(path, flags, mode);
}
