/*
 * The kernels of attention in vectors of four that the compiler turns into what the CPU has:
 * for CPUs without AVX2, and others than x86.
 */
#include <string.h>

#include "tensor/attention.h"
#include "tensor/vector.h"

typedef float vec __attribute__((vector_size(16)));
typedef uint32_t vec_bits __attribute__((vector_size(16)));

#define TARGET
#define WIDTH 4
#define ROWS 4

static inline vec vec_load(const float *from)
{
	vec x;

	memcpy(&x, from, sizeof x);
	return x;
}

static inline void vec_store(float *to, vec x)
{
	memcpy(to, &x, sizeof x);
}

static inline vec vec_all(float x)
{
	return (vec){x, x, x, x};
}

#define vec_add(a, b) ((a) + (b))
#define vec_sub(a, b) ((a) - (b))
#define vec_mul(a, b) ((a) * (b))
#if defined(__aarch64__)
#include <arm_neon.h>
#define vec_fma(a, b, c) ((vec)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define vec_fnma(a, b, c) ((vec)vfmsq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#else
#define vec_fma(a, b, c) ((a) * (b) + (c))
#define vec_fnma(a, b, c) ((c) - (a) * (b))
#endif

/* b where a is not more, NaN among it. */
static inline vec vec_max(vec a, vec b)
{
	vec_bits more = (vec_bits)(a > b);

	return (vec)(((vec_bits)a & more) | ((vec_bits)b & ~more));
}

static inline vec vec_scaled(vec p, vec x, vec shifted)
{
	return (vec)(((vec_bits)p + ((vec_bits)shifted << 23)) &
		     ~(vec_bits)(x < vec_all(-87.33f)));
}

static inline float vec_sum(vec x)
{
	return (x[0] + x[2]) + (x[1] + x[3]);
}

static inline float vec_most(vec x)
{
	float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];

	return a > b ? a : b;
}

#define KERNEL(name) plain_##name
#define KERNEL_NAME "plain"
#define PAIR 1
#include "tensor/attention_kernels.h"

const struct attention_kernels *attention_plain(void)
{
	return &plain_kernels;
}
