// Shows a picture that the other side can compute too (pattern.h) on a connector, or on several at once, and
// keeps it until a signal comes:
//
//   paint CONNECTOR FORMAT SEED [CONNECTOR FORMAT SEED]...        (FORMAT: XR24, AR24 or RG16)
//
// Prints one line for each once it is shown: {"width": W, "height": H, "pitch": BYTES}. One program for all,
// as only one can be the card's master.
#include "pattern.h"
#include "wait.h"

#define WORDS 3

static void paint(int card, char **words)
{
	struct screen screen = kms_screen(card, atoi(words[0]));
	struct framebuffer framebuffer = kms_framebuffer(&screen, words[1]);

	pattern_fill(&framebuffer, screen.mode.hdisplay, screen.mode.vdisplay, strtoul(words[2], NULL, 0));
	kms_show(&screen, &framebuffer);
	printf("{\"width\": %u, \"height\": %u, \"pitch\": %u}\n", screen.mode.hdisplay,
	       screen.mode.vdisplay, framebuffer.pitch);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 1 + WORDS || (argc - 1) % WORDS != 0) {
		fprintf(stderr, "usage: paint CONNECTOR " KMS_FORMATS " SEED [CONNECTOR ...]...\n");
		return 2;
	}
	hold_signals();

	int card = kms_open_card();

	for (int i = 1; i < argc; i += WORDS)
		paint(card, argv + i);
	wait_for_signal();
	return 0;
}
