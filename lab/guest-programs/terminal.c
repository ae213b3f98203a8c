// Shows the kernel's first text console on a connector, so that a person can use the guest's screen: the
// unmodified xen-drm-front has no text console of its own. The keys need nothing from us: the kernel
// gives those of the PV keyboard to that console.
//
//   terminal CONNECTOR FONT            (FONT: a PSF version 1 font, 16 pixels high, unpacked)
//
// What stands on the console is read from /dev/vcsa1 (vcs(4)), which also says when it changes. Runs until
// the display goes; whoever started it starts it again.
#include "kms.h"

#include <termios.h>

#define BUFFERS 2
#define GLYPHS 256
#define GLYPH_WIDTH 8
#define GLYPH_HEIGHT 16
#define PSF1_HEADER_BYTES 4
#define VCSA_HEADER_BYTES 4
#define MAX_COLUMNS 255
#define MAX_ROWS 255
#define FLIP_TIMEOUT_MS 5000
#define LOOK_AGAIN_MS 1000

static uint8_t font[GLYPHS][GLYPH_HEIGHT];

/* What vcsa gives: the header, then a character and its attribute per cell. */
static struct {
	uint8_t rows, columns, cursor_x, cursor_y;
	uint16_t cells[MAX_ROWS * MAX_COLUMNS];
} console;

/* The cells as they were drawn into each framebuffer. */
static uint16_t drawn[BUFFERS][MAX_ROWS * MAX_COLUMNS];

/* The sixteen colours of text attributes, as XRGB8888. */
static const uint32_t colours[16] = {
	0x000000, 0x0000aa, 0x00aa00, 0x00aaaa, 0xaa0000, 0xaa00aa, 0xaa5500, 0xaaaaaa,
	0x555555, 0x5555ff, 0x55ff55, 0x55ffff, 0xff5555, 0xff55ff, 0xffff55, 0xffffff,
};

static void load_font(const char *path)
{
	uint8_t header[PSF1_HEADER_BYTES];
	FILE *file = fopen(path, "rb");

	if (file == NULL)
		kms_fail(path);
	if (fread(header, sizeof(header), 1, file) != 1 || header[0] != 0x36 || header[1] != 0x04 ||
	    header[3] != GLYPH_HEIGHT || fread(font, sizeof(font), 1, file) != 1) {
		fprintf(stderr, "%s: not a PSF version 1 font of 16 pixels\n", path);
		exit(1);
	}
	fclose(file);
}

/* Makes the console as large as the screen. */
static void resize_console(const struct screen *screen)
{
	unsigned columns = screen->mode.hdisplay / GLYPH_WIDTH;
	unsigned rows = screen->mode.vdisplay / GLYPH_HEIGHT;
	struct winsize size = {
		.ws_col = columns < MAX_COLUMNS ? columns : MAX_COLUMNS,
		.ws_row = rows < MAX_ROWS ? rows : MAX_ROWS,
	};
	int tty = open("/dev/tty1", O_RDWR | O_NOCTTY);

	if (tty < 0)
		kms_fail("/dev/tty1");
	kms_ioctl(tty, TIOCSWINSZ, &size, "TIOCSWINSZ");
	close(tty);
}

static void draw_cell(const struct framebuffer *framebuffer, unsigned row, unsigned column, uint16_t cell)
{
	const uint8_t *glyph = font[cell & 0xff];
	uint32_t foreground = colours[cell >> 8 & 0xf], background = colours[cell >> 12 & 0x7];
	uint8_t *line = framebuffer->pixels + (size_t)row * GLYPH_HEIGHT * framebuffer->pitch;

	for (unsigned y = 0; y < GLYPH_HEIGHT; y++, line += framebuffer->pitch) {
		uint32_t *pixels = (uint32_t *)line + column * GLYPH_WIDTH;

		for (unsigned x = 0; x < GLYPH_WIDTH; x++)
			pixels[x] = glyph[y] << x & 0x80 ? foreground : background;
	}
}

/* Reads the console and draws what differs from what this framebuffer has; returns how many cells. */
static unsigned update(int vcsa, const struct framebuffer *framebuffer, uint16_t *before)
{
	unsigned changes = 0;

	if (pread(vcsa, &console, sizeof(console), 0) < VCSA_HEADER_BYTES)
		kms_fail("/dev/vcsa1");
	for (unsigned row = 0; row < console.rows; row++) {
		for (unsigned column = 0; column < console.columns; column++) {
			unsigned index = row * console.columns + column;
			uint16_t cell = console.cells[index];

			/* The cursor is the cell with its colours swapped. */
			if (row == console.cursor_y && column == console.cursor_x)
				cell = (cell & 0xff) | (cell & 0x0f00) << 4 | (cell & 0x7000) >> 4;
			if (cell == before[index])
				continue;
			before[index] = cell;
			draw_cell(framebuffer, row, column, cell);
			changes++;
		}
	}
	return changes;
}

int main(int argc, char **argv)
{
	struct framebuffer framebuffers[BUFFERS];
	unsigned shown = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: terminal CONNECTOR FONT\n");
		return 2;
	}
	load_font(argv[2]);
	struct screen screen = kms_open(atoi(argv[1]));
	int vcsa = open("/dev/vcsa1", O_RDONLY);

	if (vcsa < 0)
		kms_fail("/dev/vcsa1");
	resize_console(&screen);
	/* A cell value that nothing has yet makes the first update draw everything. */
	memset(drawn, 0xff, sizeof(drawn));
	for (int i = 0; i < BUFFERS; i++)
		framebuffers[i] = kms_framebuffer(&screen, "XR24");
	update(vcsa, &framebuffers[shown], drawn[shown]);
	kms_show(&screen, &framebuffers[shown]);

	for (;;) {
		struct pollfd change = { .fd = vcsa, .events = POLLPRI };
		unsigned next = (shown + 1) % BUFFERS;

		/* A display that is gone says so only when it is asked; kms_present() ends the program then. */
		if (poll(&change, 1, LOOK_AGAIN_MS) == 0)
			kms_present(&screen);
		if (update(vcsa, &framebuffers[next], drawn[next]) == 0)
			continue;
		kms_request_flip(&screen, &framebuffers[next]);
		if (!kms_wait_for_flip(&screen, FLIP_TIMEOUT_MS)) {
			fprintf(stderr, "terminal: a flip did not complete\n");
			return 1;
		}
		shown = next;
	}
}
