// Shows a picture that the other side can compute too (pattern.h), and keeps it until a signal comes:
//
//   paint CONNECTOR FORMAT SEED        (FORMAT: XR24, AR24 or RG16)
//
// Prints one line once it is shown: {"width": W, "height": H, "pitch": BYTES}.
#include "pattern.h"
#include "wait.h"

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: paint CONNECTOR " KMS_FORMATS " SEED\n");
		return 2;
	}
	hold_signals();

	struct screen screen = kms_open(atoi(argv[1]));
	struct framebuffer framebuffer = kms_framebuffer(&screen, argv[2]);

	pattern_fill(&framebuffer, screen.mode.hdisplay, screen.mode.vdisplay, strtoul(argv[3], NULL, 0));
	kms_show(&screen, &framebuffer);
	printf("{\"width\": %u, \"height\": %u, \"pitch\": %u}\n", screen.mode.hdisplay,
	       screen.mode.vdisplay, framebuffer.pitch);
	fflush(stdout);
	wait_for_signal();
	return 0;
}
