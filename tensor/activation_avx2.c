/*
 * The activations with AVX2 and fused multiply-adds.
 */
#include <string.h>

#include "tensor/activation.h"

#if defined(__x86_64__)
#include "tensor/vec_avx2.h"

#define TARGET __attribute__((target("avx2,fma")))
#define KERNEL(name) avx2_##name

#define vec_min _mm256_min_ps
#define vec_or _mm256_or_ps

/* The estimate there is has 12 bits, which takes as long to refine as this. */
TARGET static inline vec vec_inverse(vec x)
{
	return _mm256_div_ps(vec_all(1), x);
}

TARGET static inline vec vec_widen(const uint16_t *from)
{
	__m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));

	return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}

/* vector.h's vector_narrow. */
TARGET static inline void vec_narrow(uint16_t *to, vec x)
{
	__m256i bits = _mm256_castps_si256(x);
	__m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
	__m256i half = _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff));
	__m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
	__m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
	__m256i y = _mm256_blendv_epi8(_mm256_add_epi32(bits, half), quiet, nan);

	y = _mm256_srli_epi32(y, 16);
	y = _mm256_permute4x64_epi64(_mm256_packus_epi32(y, y), 0xd8);
	_mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(y));
}

TARGET static inline vec vec_sign(vec x)
{
	return _mm256_and_ps(x, vec_all(-0.0f));
}

TARGET static inline vec vec_abs(vec x)
{
	return _mm256_andnot_ps(vec_all(-0.0f), x);
}

TARGET static inline vec vec_shift(vec p, vec shifted)
{
	__m256i n = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);

	return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n));
}

TARGET static inline vec vec_zero_above(vec x, vec z, float most)
{
	return _mm256_and_ps(x, _mm256_cmp_ps(z, vec_all(most), _CMP_NGT_UQ));
}

TARGET static inline vec vec_zero_below(vec x, vec z, float least)
{
	return _mm256_and_ps(x, _mm256_cmp_ps(z, vec_all(least), _CMP_NLT_UQ));
}

TARGET static inline vec vec_choose(vec near, vec far, vec t, float edge)
{
	return _mm256_blendv_ps(near, far, _mm256_cmp_ps(t, vec_all(edge), _CMP_GT_OQ));
}

#include "tensor/activation_kernels.h"

activation_loop *activation_avx2(enum activation which)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
		   ? avx2_loops[which]
		   : NULL;
}

exp_loop *exp_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2_exp_row
									       : NULL;
}

#else

activation_loop *activation_avx2(enum activation which)
{
	(void)which;
	return NULL;
}

exp_loop *exp_avx2(void)
{
	return NULL;
}

#endif
