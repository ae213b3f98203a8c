// The picture that the other side can compute too (its twin is lab/pattern.ts).
//
// Every row has a generator of its own, xorshift32 with the shifts 13, 17, 5, started with
// (SEED + y) xor 0x9E3779B9, or 1 where that is 0. Pixel x is what the generator gives after x + 1
// steps: all 32 bits for AR24, the low 24 for XR24, with 0 in the unused byte, the low 16 for RG16.
// What the row has beyond the pixels stays 0.
#ifndef PATTERN_H
#define PATTERN_H

#include "kms.h"

static inline uint32_t pattern_next(uint32_t state)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static inline void pattern_fill(const struct framebuffer *framebuffer, unsigned width,
				unsigned height, uint32_t seed)
{
	uint32_t mask = framebuffer->fourcc == DRM_FORMAT_ARGB8888 ? 0xffffffff : 0xffffff;

	for (unsigned y = 0; y < height; y++) {
		uint8_t *row = framebuffer->pixels + (size_t)y * framebuffer->pitch;
		uint32_t state = (seed + y) ^ 0x9E3779B9u;

		if (state == 0)
			state = 1;
		for (unsigned x = 0; x < width; x++) {
			state = pattern_next(state);
			if (framebuffer->bytes_per_pixel == 4)
				((uint32_t *)row)[x] = state & mask;
			else
				((uint16_t *)row)[x] = state & 0xffff;
		}
	}
}

#endif
