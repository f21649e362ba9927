/*
 * tests/numbers.h - numbers to fill matrices with: made from counters, so that every device gets the same, and by a mixer of
 * integers in place of Philox, since a test of kernels makes hundreds of millions.
 */
#ifndef EDGEPIPE_TESTS_NUMBERS_H
#define EDGEPIPE_TESTS_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* In [-1, 1), of 24 bits. */
static inline float mixed_number(uint32_t key, size_t index)
{
	uint32_t x = (uint32_t)index * 0x9e3779b1u + key * 0x85ebca77u;

	x = (x ^ x >> 16) * 0x7feb352du;
	x = (x ^ x >> 15) * 0x846ca68bu;
	return (float)((x ^ x >> 16) >> 8) * 0x1p-23f - 1;
}

#endif
