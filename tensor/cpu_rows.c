/*
 * Rows of F32 or BF16 as floats: kernels have one inner loop, over floats, and BF16 is widened
 * and narrowed a chunk at a time, in a buffer that stays in the first cache.
 */
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

VECTOR static void widen(float *restrict y, const uint16_t *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = vector_widen(x[j]);
}

VECTOR static void narrow(uint16_t *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = vector_narrow(x[j]);
}

float *chunk_in(struct matrix m, int i, int j, int n, float buffer[CHUNK])
{
	if (m.dtype != DTYPE_BF16)
		return row_of(m, i) + j;
	widen(buffer, row_of_bf16(m, i) + j, n);
	return buffer;
}

float *chunk_out(struct matrix m, int i, int j, float buffer[CHUNK])
{
	return m.dtype == DTYPE_BF16 ? buffer : row_of(m, i) + j;
}

void chunk_done(struct matrix m, int i, int j, int n, const float *x)
{
	if (m.dtype == DTYPE_BF16)
		narrow(row_of_bf16(m, i) + j, x, n);
}

void chunk_copy(struct matrix y, struct matrix x, int i, int j, int n)
{
	if (y.dtype == DTYPE_BF16 && x.dtype == DTYPE_BF16)
		memcpy(row_of_bf16(y, i) + j, row_of_bf16(x, i) + j,
		       (size_t)n * sizeof(uint16_t));
	else if (y.dtype == DTYPE_BF16)
		narrow(row_of_bf16(y, i) + j, row_of(x, i) + j, n);
	else if (x.dtype == DTYPE_BF16)
		widen(row_of(y, i) + j, row_of_bf16(x, i) + j, n);
	else
		memcpy(row_of(y, i) + j, row_of(x, i) + j, (size_t)n * sizeof(float));
}
