/*
 * The activations and their gradients, a row at a time, per instruction set.
 *
 * AVX2 and AVX-512 fuse multiplications and additions and read and write BF16 in the same
 * loop; the plain set does neither. So the bits of two sets differ. A number's result depends
 * on no other number, nor on its place in the row.
 */
#ifndef EDGEPIPE_TENSOR_ACTIVATION_H
#define EDGEPIPE_TENSOR_ACTIVATION_H

#include "tensor/tensor.h"

enum activation {
	ACTIVATION_GELU_TANH, /* y; x */
	ACTIVATION_GELU_EXACT,
	ACTIVATION_GELU_TANH_GRADIENT, /* dx; dy, x */
	ACTIVATION_GELU_EXACT_GRADIENT,
	ACTIVATION_SWIGLU,	    /* y; gate, up */
	ACTIVATION_SWIGLU_GRADIENT, /* dgate, dup; dy, gate, up */
	ACTIVATIONS
};
/* Outputs and inputs, at most. */
enum { ACTIVATION_OUT = 2, ACTIVATION_IN = 3 };

/* Matrices of one row, of one length, each F32 or BF16; an output may be an input. */
typedef void activation_loop(const struct matrix out[], const struct matrix in[]);

enum activation_set { ACTIVATION_PLAIN, ACTIVATION_AVX2, ACTIVATION_AVX512, ACTIVATION_SETS };
/* Null where this CPU does not have the set. */
activation_loop *activation_loop_of(enum activation_set set, enum activation which);
/* That of the best set that it has. */
activation_loop *activation_loop_best(enum activation which);

/* Each null where the CPU does not have it, or the compiler's target is not x86. */
activation_loop *activation_avx2(enum activation which);
activation_loop *activation_avx512(enum activation which);

/* y = exp(x - most) as BF16, n numbers none of which is above most; returns the sum of the
 * exponentials, in an order of the set's. */
typedef float exp_loop(uint16_t *y, const float *x, float most, int n);
exp_loop *exp_loop_of(enum activation_set set);
exp_loop *exp_loop_best(void);
exp_loop *exp_avx2(void);
exp_loop *exp_avx512(void);

/* Of the tanh form: sqrt(2 / pi), and what its cube is multiplied by. */
#define GELU_SLOPE 0.797884561f
#define GELU_CUBE 0.044715f
#define ROOT_HALF 0.707106781f

#endif
