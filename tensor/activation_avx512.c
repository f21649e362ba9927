/*
 * The activations with AVX-512.
 */
#include <string.h>

#include "tensor/activation.h"

#if defined(__x86_64__)
#include "tensor/vec_avx512.h"

#define TARGET __attribute__((target("avx512f,avx2,fma")))
#define KERNEL(name) avx512_##name

#define vec_min _mm512_min_ps
#define vec_abs _mm512_abs_ps

/* One step of Newton's: from 14 bits to 23. */
TARGET static inline vec vec_inverse(vec x)
{
	vec y = _mm512_rcp14_ps(x);

	return vec_fma(y, vec_fnma(x, y, vec_all(1)), y);
}

TARGET static inline vec vec_widen(const uint16_t *from)
{
	__m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));

	return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

/* vector.h's vector_narrow. */
TARGET static inline void vec_narrow(uint16_t *to, vec x)
{
	__m512i bits = _mm512_castps_si512(x);
	__m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
	__m512i half = _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff));
	__mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
	__m512i y = _mm512_add_epi32(bits, half);

	y = _mm512_mask_or_epi32(y, nan, bits, _mm512_set1_epi32(0x400000));
	_mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16)));
}

TARGET static inline vec vec_sign(vec x)
{
	return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x),
						    _mm512_set1_epi32((int)0x80000000)));
}

TARGET static inline vec vec_or(vec a, vec b)
{
	return _mm512_castsi512_ps(
	    _mm512_or_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

TARGET static inline vec vec_shift(vec p, vec shifted)
{
	__m512i n = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);

	return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), n));
}

TARGET static inline vec vec_zero_above(vec x, vec z, float most)
{
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, vec_all(most), _CMP_NGT_UQ), x);
}

TARGET static inline vec vec_zero_below(vec x, vec z, float least)
{
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, vec_all(least), _CMP_NLT_UQ), x);
}

TARGET static inline vec vec_choose(vec near, vec far, vec t, float edge)
{
	return _mm512_mask_mov_ps(near, _mm512_cmp_ps_mask(t, vec_all(edge), _CMP_GT_OQ), far);
}

#include "tensor/activation_kernels.h"

activation_loop *activation_avx512(enum activation which)
{
	return __builtin_cpu_supports("avx512f") ? avx512_loops[which] : NULL;
}

exp_loop *exp_avx512(void)
{
	return __builtin_cpu_supports("avx512f") ? avx512_exp_row : NULL;
}

#else

activation_loop *activation_avx512(enum activation which)
{
	(void)which;
	return NULL;
}

exp_loop *exp_avx512(void)
{
	return NULL;
}

#endif
