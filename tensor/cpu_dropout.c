/*
 * Dropout on the CPU: Philox in LANES counters at once, since four channels a call of philox()
 * would cost as much as a product with a thin matrix. The words are base/random.c's, bit for
 * bit.
 */
#include "tensor/internal.h"
#include "tensor/vector.h"

/* Channels that LANES counters decide; CHUNK holds a whole number of them. */
#define SPAN (4 * LANES)

/*
 * factor[0..SPAN-1] = 1 / (1 - p) where kept, else 0, for the channels from 4 * group on. Words
 * lie in 64 bits, where vector units multiply 32 by 32 without shuffling.
 */
VECTOR static void factors(float factor[SPAN], const struct dropout *d, uint32_t sample,
			   uint32_t position, uint32_t group)
{
	float p = d->p, kept = 1 / (1 - d->p);
	uint64_t word[4][LANES];

	for (int l = 0; l < LANES; l++) {
		uint64_t c0 = d->step, c1 = sample, c2 = position, c3 = group + (uint32_t)l;
		uint32_t key0 = d->key0, key1 = d->key1;

		for (int round = 0; round < 10; round++) {
			uint64_t x = (uint64_t)0xd2511f53u * (uint32_t)c0;
			uint64_t y = (uint64_t)0xcd9e8d57u * (uint32_t)c2;

			c0 = y >> 32 ^ c1 ^ key0;
			c1 = (uint32_t)y;
			c2 = x >> 32 ^ c3 ^ key1;
			c3 = (uint32_t)x;
			key0 += 0x9e3779b9u;
			key1 += 0xbb67ae85u;
		}
		word[0][l] = c0;
		word[1][l] = c1;
		word[2][l] = c2;
		word[3][l] = c3;
	}
	for (int l = 0; l < LANES; l++)
		for (int w = 0; w < 4; w++)
			factor[4 * l + w] = philox_unit((uint32_t)word[w][l]) >= p ? kept : 0;
}

VECTOR static void multiply(float *y, const float *x, const float *factor, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = x[j] * factor[j];
}

VECTOR static void multiply_add(float *y, const float *x, const float *factor, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] += x[j] * factor[j];
}

struct drop {
	struct matrix y, x;
	struct dropout d;
	bool accumulate;
};

/* The factors of n channels from j on of row i; j is the first of a group. */
static void chunk_factors(float factor[CHUNK], const struct dropout *d, int i, int j, int n)
{
	struct spot at = {d->first_sample + (uint32_t)(i / d->tokens),
			   (uint32_t)(i % d->tokens)};

	if (d->spot)
		at = d->spot[i];
	for (int l = 0; l < n; l += SPAN)
		factors(factor + l, d, at.sample, at.position, (uint32_t)(j + l) / 4);
}

static void drop_rows(const void *arg, int first, int end)
{
	const struct drop *a = arg;
	float factor[CHUNK], in[CHUNK], out[CHUNK];

	for (int i = first; i < end; i++) {
		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *y = a->accumulate ? chunk_in(a->y, i, j, n, out)
						 : chunk_out(a->y, i, j, out);
			const float *x = chunk_in(a->x, i, j, n, in);

			chunk_factors(factor, &a->d, i, j, n);
			if (a->accumulate)
				multiply_add(y, x, factor, n);
			else
				multiply(y, x, factor, n);
			chunk_done(a->y, i, j, n, y);
		}
	}
}

static void cpu_dropout(struct device *dev, struct matrix y, struct matrix x, struct dropout d)
{
	struct drop a = {y, x, d, false};

	run_rows(dev, drop_rows, &a, x.rows, 4 * (size_t)x.cols);
}

static void cpu_dropout_backward(struct device *dev, struct matrix dx, struct matrix dy,
				 struct dropout d)
{
	struct drop a = {dx, dy, d, true};

	run_rows(dev, drop_rows, &a, dx.rows, 4 * (size_t)dx.cols);
}

void cpu_dropout_slots(struct kernels *k)
{
	k->dropout = cpu_dropout;
	k->dropout_backward = cpu_dropout_backward;
}
