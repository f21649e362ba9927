/*
 * The numbers of matrices as the reference reads and writes them: whatever they are stored as,
 * a double in between. REAL is what F32 stands for: float, or double where ref.c is compiled
 * so.
 */
#ifndef EDGEPIPE_TENSOR_REF_VALUES_H
#define EDGEPIPE_TENSOR_REF_VALUES_H

#include "tensor/internal.h"

#ifndef REAL
#define REAL float
#define KERNELS_REF kernels_ref
#endif

#define UNUSED __attribute__((unused))

static inline REAL *row(struct matrix m, int i)
{
	return (REAL *)m.data + (size_t)i * m.ld;
}

/* Element (i, j), whatever it is stored as. */
static inline double value(struct matrix m, int i, int j)
{
	const uint16_t *half = (uint16_t *)m.data + (size_t)i * m.ld + (size_t)j;
	float x;

	if (m.dtype == DTYPE_BF16)
		return bf16_value(*half);
	if (m.dtype != DTYPE_F16)
		return row(m, i)[j];
	convert_to_f32(&x, half, m.dtype, 1);
	return x;
}

static inline void set(struct matrix m, int i, int j, double x)
{
	if (m.dtype == DTYPE_BF16)
		((uint16_t *)m.data)[(size_t)i * m.ld + (size_t)j] = bf16_of((float)x);
	else
		row(m, i)[j] = x;
}

#endif
