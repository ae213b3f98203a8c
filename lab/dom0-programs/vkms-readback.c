// What a CRTC of vkms composes, pixel by pixel, through its writeback connector:
//
//   vkms-readback CONNECTOR FILE [FORMAT SEED]
//
// Writes rows of XRGB8888 without anything between them to FILE. With FORMAT and SEED it first paints that picture
// (pattern.h) on the connector; without, it reads what is there. Prints one line when the file is whole:
// {"width": W, "height": H}, and then keeps the picture until a signal comes.
//
// A commit needs the DRM master, so this reads nothing while another program owns the card: its CRTC's checksum
// is what can be had then (lab/vkms.ts).
#include "../guest-programs/atomic.h"
#include "../guest-programs/pattern.h"
#include "../guest-programs/wait.h"

#define FENCE_TIMEOUT_MS 5000

/* The writeback connector that the screen's CRTC can feed. */
static uint32_t find_writeback(const struct screen *screen)
{
	uint32_t connectors[MAX_OBJECTS], crtcs[MAX_OBJECTS], encoders[MAX_OBJECTS];
	struct drm_mode_card_res resources = {
		.connector_id_ptr = (uintptr_t)connectors, .count_connectors = MAX_OBJECTS,
		.crtc_id_ptr = (uintptr_t)crtcs, .count_crtcs = MAX_OBJECTS,
	};
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETRESOURCES, &resources, "GETRESOURCES");
	for (uint32_t i = 0; i < resources.count_connectors; i++) {
		struct drm_mode_modeinfo modes[1];
		struct drm_mode_get_connector connector = {
			.connector_id = connectors[i], .modes_ptr = (uintptr_t)modes, .count_modes = 1,
			.encoders_ptr = (uintptr_t)encoders, .count_encoders = MAX_OBJECTS,
		};
		kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETCONNECTOR, &connector, "GETCONNECTOR");
		if (connector.connector_type != DRM_MODE_CONNECTOR_WRITEBACK)
			continue;
		struct drm_mode_get_encoder encoder = { .encoder_id = encoders[0] };

		kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETENCODER, &encoder, "GETENCODER");
		if (encoder.possible_crtcs >> screen->index & 1)
			return connectors[i];
	}
	fprintf(stderr, "connector %u has no writeback connector\n", screen->index);
	exit(1);
}

/* Has the CRTC compose one frame into `target` as well, and waits until it is there. */
static void capture(const struct screen *screen, uint32_t writeback, const struct framebuffer *target)
{
	struct atomic_request request = { 0 };
	int fence = -1;

	const struct { const char *name; uint64_t value; } changes[] = {
		{ "CRTC_ID", screen->crtc },
		{ "WRITEBACK_FB_ID", target->id },
		{ "WRITEBACK_OUT_FENCE_PTR", (uintptr_t)&fence },
	};
	for (size_t i = 0; i < sizeof(changes) / sizeof(*changes); i++) {
		uint32_t property = atomic_property(screen->fd, writeback, DRM_MODE_OBJECT_CONNECTOR,
						    changes[i].name, NULL);

		atomic_set(&request, writeback, property, changes[i].value);
	}
	atomic_commit(screen->fd, &request, DRM_MODE_ATOMIC_ALLOW_MODESET);

	struct pollfd done = { .fd = fence, .events = POLLIN };

	if (poll(&done, 1, FENCE_TIMEOUT_MS) != 1) {
		fprintf(stderr, "the frame does not come\n");
		exit(1);
	}
	close(fence);
}

static void save(const char *path, const struct framebuffer *framebuffer, unsigned width, unsigned height)
{
	FILE *file = fopen(path, "w");

	if (file == NULL)
		kms_fail(path);
	for (unsigned y = 0; y < height; y++)
		fwrite(framebuffer->pixels + (size_t)y * framebuffer->pitch, framebuffer->bytes_per_pixel,
		       width, file);
	if (fclose(file) != 0)
		kms_fail(path);
}

int main(int argc, char **argv)
{
	if (argc != 3 && argc != 5) {
		fprintf(stderr, "usage: vkms-readback CONNECTOR FILE [" KMS_FORMATS " SEED]\n");
		return 2;
	}
	hold_signals();

	struct screen screen = kms_open(atoi(argv[1]));

	if (argc == 5) {
		struct framebuffer picture = kms_framebuffer(&screen, argv[3]);

		pattern_fill(&picture, screen.mode.hdisplay, screen.mode.vdisplay,
			     strtoul(argv[4], NULL, 0));
		kms_show(&screen, &picture);
	} else {
		kms_use_current_mode(&screen);
	}
	struct framebuffer target = kms_framebuffer(&screen, "XR24");

	atomic_capability(screen.fd, DRM_CLIENT_CAP_ATOMIC);
	atomic_capability(screen.fd, DRM_CLIENT_CAP_WRITEBACK_CONNECTORS);
	capture(&screen, find_writeback(&screen), &target);
	save(argv[2], &target, screen.mode.hdisplay, screen.mode.vdisplay);
	printf("{\"width\": %u, \"height\": %u}\n", screen.mode.hdisplay, screen.mode.vdisplay);
	fflush(stdout);
	wait_for_signal();
	return 0;
}
