/*
 * base/random.c - random numbers as a function of where they are used.
 *
 * A generator with a state gives other numbers when the work is cut elsewhere; a counter keyed
 * by (seed, step, sample, ...) gives the same numbers on every rank and in any order.
 */
#include "base/base.h"

#define PHILOX_ROUNDS 10

/* Multipliers and the Weyl sequence of the key: Salmon et al. (2011), section 3.3. */
struct philox philox(struct philox counter, uint32_t key0, uint32_t key1)
{
	uint32_t *c = counter.word;

	for (int round = 0; round < PHILOX_ROUNDS; round++) {
		uint64_t p = (uint64_t)0xd2511f53u * c[0];
		uint64_t q = (uint64_t)0xcd9e8d57u * c[2];

		c[0] = (uint32_t)(q >> 32) ^ c[1] ^ key0;
		c[1] = (uint32_t)q;
		c[2] = (uint32_t)(p >> 32) ^ c[3] ^ key1;
		c[3] = (uint32_t)p;
		key0 += 0x9e3779b9u;
		key1 += 0xbb67ae85u;
	}
	return counter;
}

/* Four would do for large halves (Luby and Rackoff, 1988); halves of one bit need more. */
#define FEISTEL_ROUNDS 8

struct feistel {
	uint32_t seed[2], epoch[2];
	int half;		/* bits of a half: the network permutes 0 .. 2^(2 half) - 1 */
};

static uint64_t feistel(const struct feistel *f, uint64_t value)
{
	uint64_t mask = ((uint64_t)1 << f->half) - 1;
	uint64_t left = value >> f->half, right = value & mask;

	for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
		struct philox at = {{(uint32_t)right, round, f->epoch[0], f->epoch[1]}};
		uint64_t next = left ^ (philox(at, f->seed[0], f->seed[1]).word[0] & mask);

		left = right;
		right = next;
	}
	return left << f->half | right;
}

/*
 * The network permutes a power of four that is at least count and less than four times count;
 * walking its cycle until it is back below count permutes 0..count-1 (Black and Rogaway, 2002).
 */
uint64_t shuffle_index(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t count)
{
	struct feistel f = {
		.seed = {(uint32_t)seed, (uint32_t)(seed >> 32)},
		.epoch = {(uint32_t)epoch, (uint32_t)(epoch >> 32)},
		.half = 1,
	};

	if (count < 2 || index >= count)
		return index;
	while (f.half < 32 && (count - 1) >> (2 * f.half))
		f.half++;
	do
		index = feistel(&f, index);
	while (index >= count);
	return index;
}
