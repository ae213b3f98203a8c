// The kernel's own price for page flips, with nothing of ours in between: flips between two dumb buffers of a
// connector as fast as the display goes, waiting for each flip's event.
//
//   kms-flip-bare CONNECTOR COUNT legacy|atomic
//
// Prints one line: {"flips": N, "wallMs": T, "userMs": T, "systemMs": T}, for the flips alone. A flip whose event
// does not come within 5 s ends the program with the status 1.
#include "cost.h"
#include "../guest-programs/atomic.h"
#include "../guest-programs/kms.h"

#define BUFFERS 2
#define EVENT_TIMEOUT_MS 5000

static void request_atomic_flip(const struct screen *screen, struct plane plane, uint32_t framebuffer)
{
	struct atomic_request request = { 0 };

	atomic_set(&request, plane.id, plane.fb_property, framebuffer);
	atomic_commit(screen->fd, &request, DRM_MODE_PAGE_FLIP_EVENT | DRM_MODE_ATOMIC_NONBLOCK);
}

int main(int argc, char **argv)
{
	int atomic = argc == 4 && strcmp(argv[3], "atomic") == 0;

	if (!atomic && (argc != 4 || strcmp(argv[3], "legacy") != 0)) {
		fprintf(stderr, "usage: kms-flip-bare CONNECTOR COUNT legacy|atomic\n");
		return 2;
	}
	struct screen screen = kms_open(atoi(argv[1]));
	unsigned wanted = strtoul(argv[2], NULL, 0);
	struct framebuffer framebuffers[BUFFERS];
	struct plane plane = { 0 };

	if (atomic)
		plane = atomic_primary_plane(&screen);
	for (int i = 0; i < BUFFERS; i++)
		framebuffers[i] = kms_framebuffer(&screen, "XR24");
	kms_show(&screen, &framebuffers[0]);

	struct cost before = cost_now();

	for (unsigned flip = 1; flip <= wanted; flip++) {
		const struct framebuffer *next = &framebuffers[flip % BUFFERS];

		if (atomic)
			request_atomic_flip(&screen, plane, next->id);
		else
			kms_request_flip(&screen, next);
		if (!kms_wait_for_flip(&screen, EVENT_TIMEOUT_MS)) {
			fprintf(stderr, "no event for flip %u\n", flip);
			return 1;
		}
	}
	printf("{\"flips\": %u, ", wanted);
	cost_print(before);
	printf("}\n");
	return 0;
}
