// Grants pages of its own to dom0, writable, and keeps them granted until a signal comes:
//
//   grant COUNT
//
// Every page is full of its index, as 32-bit words. Prints one line: {"refs": [REF, ...]}. The pages of
// one call are as many as the module xen-gntalloc allows (its parameter `limit`, which init raises when the module
// is loaded by then, and 1024 otherwise).
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen/gntalloc.h>

#define PAGE_BYTES 4096
#define DOM0 0

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

int main(int argc, char **argv)
{
	unsigned count = argc == 2 ? strtoul(argv[1], NULL, 0) : 0;

	if (count == 0 || count > UINT16_MAX) {
		fprintf(stderr, "usage: grant COUNT\n");
		return 2;
	}
	hold_signals();

	int device = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	struct ioctl_gntalloc_alloc_gref *request =
		calloc(1, sizeof(*request) + count * sizeof(request->gref_ids[0]));

	if (device < 0)
		fail("/dev/xen/gntalloc");
	*request = (struct ioctl_gntalloc_alloc_gref){
		.domid = DOM0, .flags = GNTALLOC_FLAG_WRITABLE, .count = count,
	};
	if (ioctl(device, IOCTL_GNTALLOC_ALLOC_GREF, request) < 0)
		fail("ALLOC_GREF");

	uint32_t *words = mmap(NULL, (size_t)count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device,
			       request->index);

	if (words == MAP_FAILED)
		fail("mmap of the pages");
	for (size_t at = 0; at < (size_t)count * PAGE_BYTES / sizeof(*words); at++)
		words[at] = at / (PAGE_BYTES / sizeof(*words));
	printf("{\"refs\": [");
	for (unsigned i = 0; i < count; i++)
		printf("%s%u", i == 0 ? "" : ", ", request->gref_ids[i]);
	printf("]}\n");
	fflush(stdout);
	wait_for_signal();
	return 0;
}
