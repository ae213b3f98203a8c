// Shows a picture that the other side can compute too, and keeps it until a signal comes:
//
//   paint CONNECTOR FORMAT SEED        (FORMAT: XR24 or RG16)
//
// The picture (its twin is lab/pattern.ts): every row has a generator of its own, xorshift32 with the
// shifts 13, 17, 5, started with (SEED + y) xor 0x9E3779B9, or 1 where that is 0. Pixel x is what the
// generator gives after x + 1 steps: its low 24 bits for XR24, with 0 in the unused byte, its low 16
// bits for RG16. What the row has beyond the pixels stays 0.
//
// Prints one line once it is shown: {"width": W, "height": H, "pitch": BYTES}.
#include "kms.h"

#include <signal.h>

static uint32_t xorshift32(uint32_t state)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static void fill(const struct framebuffer *framebuffer, unsigned width, unsigned height, uint32_t seed)
{
	for (unsigned y = 0; y < height; y++) {
		uint8_t *row = framebuffer->pixels + (size_t)y * framebuffer->pitch;
		uint32_t state = (seed + y) ^ 0x9E3779B9u;

		if (state == 0)
			state = 1;
		for (unsigned x = 0; x < width; x++) {
			state = xorshift32(state);
			if (framebuffer->bytes_per_pixel == 4)
				((uint32_t *)row)[x] = state & 0xffffff;
			else
				((uint16_t *)row)[x] = state & 0xffff;
		}
	}
}

int main(int argc, char **argv)
{
	sigset_t stop;
	int signal_number;

	if (argc != 4) {
		fprintf(stderr, "usage: paint CONNECTOR XR24|RG16 SEED\n");
		return 2;
	}
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	sigprocmask(SIG_BLOCK, &stop, NULL);

	struct screen screen = kms_open(atoi(argv[1]));
	struct framebuffer framebuffer = kms_framebuffer(&screen, argv[2]);

	fill(&framebuffer, screen.mode.hdisplay, screen.mode.vdisplay, strtoul(argv[3], NULL, 0));
	kms_show(&screen, &framebuffer);
	printf("{\"width\": %u, \"height\": %u, \"pitch\": %u}\n", screen.mode.hdisplay,
	       screen.mode.vdisplay, framebuffer.pitch);
	fflush(stdout);
	sigwait(&stop, &signal_number);
	return 0;
}
