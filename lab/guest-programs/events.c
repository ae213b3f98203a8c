// Prints what arrives on every input device, as JSON lines, until COUNT events came or SECONDS passed:
//
//   events SECONDS COUNT
//
// First line: {"devices": ["NAME", ...]}, once all are open and nothing can be missed any more; then one
// line an event: {"device": "NAME", "type": T, "code": C, "value": V}, numbers as in input-event-codes.h.
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEVICES 32
#define NAME_BYTES 80

static struct pollfd devices[MAX_DEVICES];
static char names[MAX_DEVICES][NAME_BYTES];
static int device_count;

static void fail(const char *what)
{
	fprintf(stderr, "events: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void open_devices(void)
{
	glob_t found;

	if (glob("/dev/input/event*", 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc && device_count < MAX_DEVICES; i++) {
		int fd = open(found.gl_pathv[i], O_RDONLY | O_NONBLOCK);

		if (fd < 0)
			fail(found.gl_pathv[i]);
		if (ioctl(fd, EVIOCGNAME(NAME_BYTES), names[device_count]) < 0)
			fail("EVIOCGNAME");
		devices[device_count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	globfree(&found);
}

/* Reads what one device has; returns how many events that were, -1 when the device is gone. */
static int drain(int index)
{
	struct input_event events[64];
	int count = 0;

	for (;;) {
		ssize_t got = read(devices[index].fd, events, sizeof(events));

		if (got < 0 && errno == EAGAIN)
			return count;
		if (got <= 0)
			return -1;
		for (size_t i = 0; i < got / sizeof(events[0]); i++, count++)
			printf("{\"device\": \"%s\", \"type\": %u, \"code\": %u, \"value\": %d}\n",
			       names[index], events[i].type, events[i].code, events[i].value);
	}
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: events SECONDS COUNT\n");
		return 2;
	}
	long long deadline = now_ms() + atoll(argv[1]) * 1000;
	long wanted = atol(argv[2]);

	setvbuf(stdout, NULL, _IOLBF, 0);
	open_devices();
	printf("{\"devices\": [");
	for (int i = 0; i < device_count; i++)
		printf("%s\"%s\"", i ? ", " : "", names[i]);
	printf("]}\n");

	while (wanted > 0 && now_ms() < deadline) {
		if (poll(devices, device_count, deadline - now_ms()) < 0)
			fail("poll");
		for (int i = 0; i < device_count; i++) {
			if (devices[i].revents == 0)
				continue;
			int count = drain(i);

			if (count < 0)
				devices[i].fd = -1;
			else
				wanted -= count;
		}
	}
	return 0;
}
