/*
 * LANES numbers at once, F32 or BF16 in memory and floats in between, as vectors of the
 * compiler: for loops whose sums must run in an order of their own at every width.
 */
#ifndef EDGEPIPE_TENSOR_LANES_H
#define EDGEPIPE_TENSOR_LANES_H

#include "tensor/vector.h"

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* LANES numbers, or one, from the at-th on, as floats. Macros, since a vector must not be
 * passed between functions of different instruction sets. */
#define LOAD(from, at, half)                                                                   \
	((half) ? (lanes)(__builtin_convertvector(                                             \
			      *(const halves *)((const uint16_t *)(from) + (at)), words)       \
			  << 16)                                                               \
		: *(const lanes *)((const float *)(from) + (at)))
#define ONE(from, at, half)                                                                    \
	((half) ? vector_widen(((const uint16_t *)(from))[at]) : ((const float *)(from))[at])

/* For functions that take a vector. */
#define INLINE static inline __attribute__((always_inline))

#endif
