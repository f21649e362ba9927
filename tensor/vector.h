/*
 * Scalar functions and row sums that the compiler turns into vector code.
 *
 * No branch and no conversion that may trap, so that loops over them vectorise at every width;
 * and sums run in LANES partial sums whatever the width, so that AVX-512, AVX2 and SSE give the
 * same bits (fused multiply-adds are off in the whole build).
 */
#ifndef EDGEPIPE_TENSOR_VECTOR_H
#define EDGEPIPE_TENSOR_VECTOR_H

#include <stdint.h>
#include <string.h>

/*
 * Compiles a function for several instruction sets and picks one when the program is loaded. By
 * feature, not by "arch=haswell", which matches Intel's model numbers only. Clang 14 cannot,
 * and the sanitizers' start-up does not stand such functions.
 */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                         \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define VECTOR __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define VECTOR
#endif

/* Before a loop whose pointers may be equal but never overlap otherwise: no element meets
 * another, so it may be vectorised without a check. */
#if defined(__clang__)
#define EACH_ALONE _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH_ALONE _Pragma("GCC ivdep")
#endif

#define LANES 16

static inline float vector_float(uint32_t bits)
{
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

static inline uint32_t vector_bits(float x)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	return bits;
}

/* bfloat16 is the upper half of a float. */
static inline float vector_widen(uint16_t half)
{
	return vector_float((uint32_t)half << 16);
}

/* bf16_of without a branch: to nearest, ties to even; a NaN stays one. */
static inline uint16_t vector_narrow(float x)
{
	uint32_t bits = vector_bits(x), nan = -(uint32_t)(x != x);
	uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1);

	return (uint16_t)(((nearest & ~nan) | ((bits | 0x400000) & nan)) >> 16);
}

/*
 * exp to 0.7 ulp: 2^n p(f) with x = n ln 2 + f, |f| <= ln 2 / 2, ln 2 in two parts and Cephes'
 * polynomial. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. 0 below
 * -87.33 (no subnormals), infinity above 88.37; NaN stays NaN.
 */
static inline float vector_exp(float x)
{
	float shifted = x * 1.44269504f + 0x1.8p23f;
	float n = shifted - 0x1.8p23f;
	float f = x - n * 0.693359375f - n * -2.12194440e-4f;
	float p = 1.9875691500e-4f;

	p = p * f + 1.3981999507e-3f;
	p = p * f + 8.3334519073e-3f;
	p = p * f + 4.1665795894e-2f;
	p = p * f + 1.6666665459e-1f;
	p = p * f + 5.0000001201e-1f;
	p = p * (f * f) + f + 1.0f;
	uint32_t low = -(uint32_t)(x < -87.33f), high = -(uint32_t)(x > 88.37f);
	uint32_t bits = vector_bits(p) + (vector_bits(shifted) << 23);

	return vector_float((bits & ~low & ~high) | (0x7f800000 & high));
}

/*
 * erf to 2 ulp, after Norbert Juffa's published fits: near 0 a polynomial in x², else 1 - exp
 * of a polynomial in |x|. Both are computed and one is taken by its bits.
 */
static inline float vector_erf(float x)
{
	float t = vector_float(vector_bits(x) & 0x7fffffff), s = x * x;
	float far = -1.72853470e-5f * t + 3.83197126e-4f;
	float near = -5.96761703e-4f;

	far = far * s + (-3.88396438e-3f * t + 2.42546219e-2f);
	far = far * t - 1.06777877e-1f;
	far = far * t - 6.34846687e-1f;
	far = far * t - 1.28717512e-1f;
	far = 1.0f - vector_exp(far * t - t);
	near = near * s + 4.99119423e-3f;
	near = near * s - 2.67681349e-2f;
	near = near * s + 1.12819925e-1f;
	near = near * s - 3.76125336e-1f;
	near = near * s + 1.28379166e-1f;
	near = near * x + x;
	uint32_t outside = -(uint32_t)(t > 0.927734375f), sign = vector_bits(x) & 0x80000000;

	return vector_float((vector_bits(near) & ~outside) |
			    ((vector_bits(far) | sign) & outside));
}

/* Sums of LANES partial sums, pairwise. */
static inline float lanes_sum(float lane[LANES])
{
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			lane[l] += lane[l + width];
	return lane[0];
}

static inline double lanes_sum_double(double lane[LANES])
{
	for (int width = LANES / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			lane[l] += lane[l + width];
	return lane[0];
}

/* The largest of a row; NaN is passed over. */
static inline float row_most(const float *x, int n)
{
	float lane[LANES];
	int j = 0;

	for (int l = 0; l < LANES; l++)
		lane[l] = -__builtin_inff();
	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
	for (int l = 0; j + l < n; l++)
		lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
	for (int l = 1; l < LANES; l++)
		lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
	return lane[0];
}

static inline float row_sum(const float *x, int n)
{
	float lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += x[j + l];
	for (int l = 0; j + l < n; l++)
		lane[l] += x[j + l];
	return lanes_sum(lane);
}

#endif
