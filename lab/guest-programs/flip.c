// Flips between two framebuffers, waiting for each flip's event, and reports how that went:
//
//   flip CONNECTOR FORMAT COUNT RATE   (FORMAT: XR24, AR24 or RG16; RATE in flips a second, 0: no pause)
//
// Frame N (the first is 0) has N written into its top left corner: 32 squares of 8x8 pixels side by
// side, the most significant bit first, all bits of the square's pixels set for 1 and clear for 0.
//
// Prints {"started": true} when the mode is set, and at the end one line:
// {"flips": N, "timeouts": N, "late": N, "elapsedMs": T, "minMs": T, "medianMs": T, "maxMs": T}
// Intervals are those between the events of two flips. `late` counts flips that could not be asked for
// at their time because the one before was not done. A flip whose event does not come within 5 s
// counts as timeout and ends the run.
#include "kms.h"

#include <time.h>

#define BUFFERS 2
#define EVENT_TIMEOUT_MS 5000
#define SQUARE 8
#define BITS 32

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000.0 + now.tv_nsec / 1e6;
}

static void sleep_until(double when_ms)
{
	struct timespec when = { .tv_sec = (time_t)(when_ms / 1000) };

	when.tv_nsec = (long)((when_ms - when.tv_sec * 1000.0) * 1e6);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
		;
}

static void draw_number(const struct framebuffer *framebuffer, uint32_t number)
{
	size_t square_bytes = SQUARE * framebuffer->bytes_per_pixel;

	for (unsigned y = 0; y < SQUARE; y++)
		for (unsigned bit = 0; bit < BITS; bit++)
			memset(framebuffer->pixels + y * framebuffer->pitch + bit * square_bytes,
			       number >> (BITS - 1 - bit) & 1 ? 0xff : 0, square_bytes);
}

static int compare(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;

	return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: flip CONNECTOR " KMS_FORMATS " COUNT RATE\n");
		return 2;
	}
	struct screen screen = kms_open(atoi(argv[1]));
	unsigned wanted = strtoul(argv[3], NULL, 0);
	double period_ms = atof(argv[4]) > 0 ? 1000.0 / atof(argv[4]) : 0;
	struct framebuffer framebuffers[BUFFERS];
	double *intervals = calloc(wanted + 1, sizeof(*intervals));
	unsigned flips = 0, timeouts = 0, late = 0;

	for (int i = 0; i < BUFFERS; i++)
		framebuffers[i] = kms_framebuffer(&screen, argv[2]);
	draw_number(&framebuffers[0], 0);
	kms_show(&screen, &framebuffers[0]);
	printf("{\"started\": true}\n");
	fflush(stdout);

	double started = now_ms(), due = started, last = started;

	while (flips < wanted && timeouts == 0) {
		const struct framebuffer *next = &framebuffers[(flips + 1) % BUFFERS];

		due += period_ms;
		if (period_ms > 0 && now_ms() > due) {
			late++;
			due = now_ms();
		}
		draw_number(next, flips + 1);
		if (period_ms > 0)
			sleep_until(due);
		kms_request_flip(&screen, next);
		if (!kms_wait_for_flip(&screen, EVENT_TIMEOUT_MS)) {
			timeouts++;
			break;
		}
		double done = now_ms();

		intervals[flips++] = done - last;
		last = done;
	}
	qsort(intervals, flips, sizeof(*intervals), compare);
	printf("{\"flips\": %u, \"timeouts\": %u, \"late\": %u, \"elapsedMs\": %.3f, \"minMs\": %.3f, "
	       "\"medianMs\": %.3f, \"maxMs\": %.3f}\n",
	       flips, timeouts, late, last - started, flips ? intervals[0] : 0, intervals[flips / 2],
	       flips ? intervals[flips - 1] : 0);
	return timeouts == 0 ? 0 : 1;
}
