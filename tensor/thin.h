/*
 * The inner loops of thin products, per instruction set: on floats in the first cache, packed
 * so that none has a tail. All of a set's sums are fused, so the bits of two sets differ.
 */
#ifndef EDGEPIPE_TENSOR_THIN_H
#define EDGEPIPE_TENSOR_THIN_H

#include <stdbool.h>
#include <stddef.h>

/* Ranks that a loop takes at once, and rows of a dot product. */
#define RANKS 8
#define ROWS_AT_ONCE 3
/* What numbers of columns are rounded up to. */
#define STEP 32

struct thin_loops {
	/* sum[i][q] += the sum over j < n of x[i * ld + j] * w[q * ld + j]. */
	void (*dots)(float sum[ROWS_AT_ONCE][RANKS], const float *x, const float *w, size_t ld,
		     int n);
	/* y[q * ld + j] += the sum over i < rows of d[i * RANKS + q] * x[i * ld + j], j < n. */
	void (*outer)(float *y, const float *d, const float *x, size_t ld, int rows, int n);
};

enum thin_set { THIN_PLAIN, THIN_AVX2, THIN_AVX512, THIN_SETS };
/* False where this CPU does not have the set. */
bool thin_loops_of(enum thin_set set, struct thin_loops *loops);
/* Those of the best set that it has. */
struct thin_loops thin_loops(void);

#endif
