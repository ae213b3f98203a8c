// The kernel's own price for other domains' pages, with nothing of ours in between:
//
//   gntdev-bare map DOMID ROUNDS        maps the refs and gives them back, ROUNDS times
//   gntdev-bare export DOMID ROUNDS     makes a dma-buf of them and waits until it is released, ROUNDS times
//
// The refs come on stdin, as decimal numbers with anything between them. `map` is MAP_GRANT_REF, mmap, one word
// read of each page, munmap, UNMAP_GRANT_REF; the sum of the words of the last round is printed, to show
// that the pages were there. `export` is EXP_FROM_REFS, close, EXP_WAIT_RELEASED.
//
// Prints one line: {"refs": N, "rounds": N, "sum": N, "wallMs": T, "userMs": T, "systemMs": T}. A call that
// fails ends the program with `CALL: ERRNO` on stderr and the status 1.
#define _GNU_SOURCE /* strerrorname_np */
#include "cost.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* The header uses two of Xen's types without declaring them. */
typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;
#include <xen/gntdev.h>

#define PAGE_BYTES 4096
#define MAX_REFS 65536
#define RELEASE_TIMEOUT_MS 5000

struct job {
	int device;
	uint32_t domid;
	uint32_t count;
	uint32_t *refs;
};

static void fail(const char *call)
{
	fprintf(stderr, "%s: %s\n", call, strerrorname_np(errno));
	exit(1);
}

static void read_refs(struct job *job)
{
	uint32_t ref;

	job->refs = calloc(MAX_REFS, sizeof(*job->refs));
	while (job->count < MAX_REFS) {
		int character = getchar();

		if (character == EOF)
			break;
		if (!isdigit(character))
			continue;
		ungetc(character, stdin);
		if (scanf("%u", &ref) == 1)
			job->refs[job->count++] = ref;
	}
}

static uint64_t map_and_unmap(const struct job *job)
{
	static struct ioctl_gntdev_map_grant_ref *request;
	size_t bytes = (size_t)job->count * PAGE_BYTES;
	uint64_t sum = 0;

	if (request == NULL) {
		request = calloc(1, sizeof(*request) + job->count * sizeof(request->refs[0]));
		for (uint32_t i = 0; i < job->count; i++)
			request->refs[i] = (struct ioctl_gntdev_grant_ref){ job->domid, job->refs[i] };
	}
	request->count = job->count;
	if (ioctl(job->device, IOCTL_GNTDEV_MAP_GRANT_REF, request) < 0)
		fail("MAP_GRANT_REF");

	volatile uint8_t *pages =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, job->device, request->index);

	if (pages == MAP_FAILED)
		fail("mmap");
	for (size_t at = 0; at < bytes; at += PAGE_BYTES)
		sum += *(volatile uint32_t *)(pages + at);
	munmap((void *)pages, bytes);

	struct ioctl_gntdev_unmap_grant_ref unmap = { .index = request->index, .count = job->count };

	if (ioctl(job->device, IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap) < 0)
		fail("UNMAP_GRANT_REF");
	return sum;
}

static uint64_t export_and_release(const struct job *job)
{
	static struct ioctl_gntdev_dmabuf_exp_from_refs *request;

	if (request == NULL) {
		request = calloc(1, sizeof(*request) + job->count * sizeof(request->refs[0]));
		memcpy(request->refs, job->refs, job->count * sizeof(request->refs[0]));
	}
	request->count = job->count;
	request->domid = job->domid;
	if (ioctl(job->device, IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, request) < 0)
		fail("EXP_FROM_REFS");
	close(request->fd);

	struct ioctl_gntdev_dmabuf_exp_wait_released wait = {
		.fd = request->fd, .wait_to_ms = RELEASE_TIMEOUT_MS,
	};
	/* ENOENT: it was released before anybody could wait. */
	if (ioctl(job->device, IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED, &wait) < 0 && errno != ENOENT)
		fail("EXP_WAIT_RELEASED");
	return 0;
}

int main(int argc, char **argv)
{
	int maps = argc == 4 && strcmp(argv[1], "map") == 0;
	int exports = argc == 4 && strcmp(argv[1], "export") == 0;
	struct job job = { .device = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC) };
	uint64_t sum = 0;

	if (!maps && !exports) {
		fprintf(stderr, "usage: gntdev-bare map|export DOMID ROUNDS <REFS\n");
		return 2;
	}
	if (job.device < 0)
		fail("/dev/xen/gntdev");
	job.domid = strtoul(argv[2], NULL, 0);
	unsigned rounds = strtoul(argv[3], NULL, 0);

	read_refs(&job);
	struct cost before = cost_now();

	for (unsigned round = 0; round < rounds; round++)
		sum = maps ? map_and_unmap(&job) : export_and_release(&job);
	printf("{\"refs\": %u, \"rounds\": %u, \"sum\": %llu, ", job.count, rounds, (unsigned long long)sum);
	cost_print(before);
	printf("}\n");
	return 0;
}
