// What the drawing programs share: one connector of the card with its mode, and dumb buffers as
// framebuffers. Plain ioctls (the headers of libdrm-dev), no library. Every failure ends the program with one
// line on stderr.
#ifndef KMS_H
#define KMS_H

#include <libdrm/drm.h>
#include <libdrm/drm_fourcc.h>
#include <libdrm/drm_mode.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_OBJECTS 32
#define MAX_MODES 128
#define MAX_CARDS 16
#define KMS_FORMATS "XR24|AR24|RG16"

struct screen {
	int fd;
	/* The place of the connector, and of its CRTC, in the card's lists. */
	unsigned index;
	uint32_t connector;
	uint32_t crtc;
	struct drm_mode_modeinfo mode;
};

struct framebuffer {
	uint32_t id;
	uint32_t fourcc;
	uint32_t pitch;
	uint32_t bytes_per_pixel;
	uint64_t size;
	uint8_t *pixels;
};

static inline void kms_fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline void kms_ioctl(int fd, unsigned long request, void *argument, const char *what)
{
	while (ioctl(fd, request, argument) < 0)
		if (errno != EINTR)
			kms_fail(what);
}

/* Opens the newest card: an older one that somebody still holds open outlives its device. */
static inline int kms_open_card(void)
{
	char path[sizeof("/dev/dri/card00")];

	for (int number = MAX_CARDS - 1; number >= 0; number--) {
		snprintf(path, sizeof(path), "/dev/dri/card%d", number);
		int fd = open(path, O_RDWR | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			kms_fail(path);
	}
	fprintf(stderr, "there is no card in /dev/dri\n");
	exit(1);
}

/* The connector number `index` of an open card, with that connector's CRTC and first mode. */
static inline struct screen kms_screen(int fd, unsigned index)
{
	struct screen screen = { .fd = fd, .index = index };
	uint32_t connectors[MAX_OBJECTS], crtcs[MAX_OBJECTS], encoders[MAX_OBJECTS];
	struct drm_mode_modeinfo modes[MAX_MODES];

	struct drm_mode_card_res resources = {
		.connector_id_ptr = (uintptr_t)connectors, .count_connectors = MAX_OBJECTS,
		.crtc_id_ptr = (uintptr_t)crtcs, .count_crtcs = MAX_OBJECTS,
	};
	kms_ioctl(screen.fd, DRM_IOCTL_MODE_GETRESOURCES, &resources, "GETRESOURCES");
	if (index >= resources.count_connectors || index >= resources.count_crtcs) {
		fprintf(stderr, "the card has %u connectors, not a number %u\n",
			resources.count_connectors, index);
		exit(1);
	}
	/* Only a call without room for modes makes the driver look which modes there are. */
	struct drm_mode_get_connector look = { .connector_id = connectors[index] };

	kms_ioctl(screen.fd, DRM_IOCTL_MODE_GETCONNECTOR, &look, "GETCONNECTOR");
	struct drm_mode_get_connector connector = {
		.connector_id = connectors[index],
		.modes_ptr = (uintptr_t)modes, .count_modes = MAX_MODES,
		.encoders_ptr = (uintptr_t)encoders, .count_encoders = MAX_OBJECTS,
	};
	kms_ioctl(screen.fd, DRM_IOCTL_MODE_GETCONNECTOR, &connector, "GETCONNECTOR");
	/* The kernel writes none when there are more than there is room for. */
	if (connector.count_modes == 0 || connector.count_modes > MAX_MODES) {
		fprintf(stderr, "connector %u has %u modes\n", index, connector.count_modes);
		exit(1);
	}
	screen.connector = connectors[index];
	screen.crtc = crtcs[index];
	screen.mode = modes[0];
	return screen;
}

/* Opens the card and takes one of its connectors. */
static inline struct screen kms_open(unsigned index)
{
	return kms_screen(kms_open_card(), index);
}

/* Ends the program when the card is gone, as it is once its backend has been away. */
static inline void kms_present(const struct screen *screen)
{
	struct drm_mode_card_res nothing = { 0 };

	kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETRESOURCES, &nothing, "the card is gone");
}

/* Takes the mode that the CRTC has now; ends the program when it has none. */
static inline void kms_use_current_mode(struct screen *screen)
{
	struct drm_mode_crtc command = { .crtc_id = screen->crtc };

	kms_ioctl(screen->fd, DRM_IOCTL_MODE_GETCRTC, &command, "GETCRTC");
	if (!command.mode_valid) {
		fprintf(stderr, "connector %u shows nothing\n", screen->index);
		exit(1);
	}
	screen->mode = command.mode;
}

/* The bits per pixel of a format by its FourCC in text; only those that xen-drm-front takes here. */
static inline uint32_t kms_format(const char *name, uint32_t *bits_per_pixel)
{
	static const struct { const char *name; uint32_t fourcc; uint32_t bits_per_pixel; } formats[] = {
		{ "XR24", DRM_FORMAT_XRGB8888, 32 },
		{ "AR24", DRM_FORMAT_ARGB8888, 32 },
		{ "RG16", DRM_FORMAT_RGB565, 16 },
	};
	for (size_t i = 0; i < sizeof(formats) / sizeof(*formats); i++)
		if (strcmp(name, formats[i].name) == 0) {
			*bits_per_pixel = formats[i].bits_per_pixel;
			return formats[i].fourcc;
		}
	fprintf(stderr, "the format %s is none of " KMS_FORMATS "\n", name);
	exit(2);
}

/* A dumb buffer as large as the mode, mapped, and a framebuffer of it. */
static inline struct framebuffer kms_framebuffer(const struct screen *screen, const char *format)
{
	uint32_t bits_per_pixel;
	uint32_t fourcc = kms_format(format, &bits_per_pixel);
	struct drm_mode_create_dumb dumb = {
		.width = screen->mode.hdisplay, .height = screen->mode.vdisplay, .bpp = bits_per_pixel,
	};
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_CREATE_DUMB, &dumb, "CREATE_DUMB");

	struct drm_mode_fb_cmd2 command = {
		.width = dumb.width, .height = dumb.height, .pixel_format = fourcc,
		.handles = { dumb.handle }, .pitches = { dumb.pitch },
	};
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_ADDFB2, &command, "ADDFB2");

	struct drm_mode_map_dumb map = { .handle = dumb.handle };
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_MAP_DUMB, &map, "MAP_DUMB");
	void *pixels = mmap(NULL, dumb.size, PROT_READ | PROT_WRITE, MAP_SHARED, screen->fd, map.offset);

	if (pixels == MAP_FAILED)
		kms_fail("mmap of the dumb buffer");
	return (struct framebuffer){
		.id = command.fb_id, .fourcc = fourcc, .pitch = dumb.pitch, .bytes_per_pixel = bits_per_pixel / 8,
		.size = dumb.size, .pixels = pixels,
	};
}

/* Sets the connector's mode with this framebuffer on it. */
static inline void kms_show(const struct screen *screen, const struct framebuffer *framebuffer)
{
	struct drm_mode_crtc command = {
		.crtc_id = screen->crtc, .fb_id = framebuffer->id,
		.set_connectors_ptr = (uintptr_t)&screen->connector, .count_connectors = 1,
		.mode = screen->mode, .mode_valid = 1,
	};
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_SETCRTC, &command, "SETCRTC");
}

/* Asks for a flip to this framebuffer; its event comes when the other one is not shown any more. */
static inline void kms_request_flip(const struct screen *screen, const struct framebuffer *framebuffer)
{
	struct drm_mode_crtc_page_flip command = {
		.crtc_id = screen->crtc, .fb_id = framebuffer->id, .flags = DRM_MODE_PAGE_FLIP_EVENT,
	};
	kms_ioctl(screen->fd, DRM_IOCTL_MODE_PAGE_FLIP, &command, "PAGE_FLIP");
}

/* Waits for the event of a flip; returns 0 when it does not come in time. */
static inline int kms_wait_for_flip(const struct screen *screen, int timeout_ms)
{
	struct pollfd card = { .fd = screen->fd, .events = POLLIN };
	char buffer[1024];

	if (poll(&card, 1, timeout_ms) <= 0)
		return 0;
	ssize_t got = read(screen->fd, buffer, sizeof(buffer));
	struct drm_event *event = (struct drm_event *)buffer;

	return got >= (ssize_t)sizeof(*event) && event->type == DRM_EVENT_FLIP_COMPLETE;
}

#endif
