/*
 * The kernels of attention with AVX-512, and with its dot products of BF16 pairs.
 */
#include <string.h>

#include "tensor/attention.h"

#if defined(__x86_64__)
#include "tensor/vec_avx512.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

#define ROWS 8 /* 16 of 32 registers: enough to hide 4 cycles twice a cycle, or 6 once */

#define vec_max _mm512_max_ps
#define vec_sum _mm512_reduce_add_ps
#define vec_most _mm512_reduce_max_ps

AVX512 static inline vec vec_scaled(vec p, vec x, vec shifted)
{
	__m512i n = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
	__mmask16 seen = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.33f), _CMP_NLT_UQ);

	return _mm512_castsi512_ps(_mm512_maskz_add_epi32(seen, _mm512_castps_si512(p), n));
}

#define KERNEL(name) f32_##name
#define KERNEL_NAME "AVX-512"
#define TARGET AVX512
#define PAIR 1
#include "tensor/attention_kernels.h"

#undef KERNEL
#undef KERNEL_NAME
#undef TARGET
#undef PAIR
#define KERNEL(name) bf16_##name
#define KERNEL_NAME "AVX-512 BF16"
#define TARGET AVX512_BF16
#define PAIR 2

AVX512_BF16 static inline vec vec_word(uint32_t word)
{
	return _mm512_castsi512_ps(_mm512_set1_epi32((int)word));
}

AVX512_BF16 static inline vec vec_dot(vec a, vec b, vec c)
{
	return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

/* Two vectors rounded, one after the other. */
AVX512_BF16 static inline vec vec_halves(vec first, vec second)
{
	return (vec)_mm512_cvtne2ps_pbh(second, first);
}

/* The halves of that, number by number. */
AVX512_BF16 static inline vec vec_pairs(vec halves)
{
	const __m512i order =
	    _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
			     7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);

	return _mm512_castsi512_ps(
	    _mm512_permutexvar_epi16(order, _mm512_castps_si512(halves)));
}

AVX512_BF16 static inline void vec_store_half(float *first, float *second, vec halves)
{
	_mm256_storeu_ps(first, _mm512_castps512_ps256(halves));
	_mm256_storeu_ps(second, _mm512_extractf32x8_ps(halves, 1));
}

/* WIDTH numbers as BF16. */
AVX512_BF16 static inline void vec_round(uint16_t *to, vec x)
{
	_mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(x));
}

#include "tensor/attention_kernels.h"

const struct attention_kernels *attention_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
		   ? &f32_kernels
		   : NULL;
}

const struct attention_kernels *attention_avx512_bf16(void)
{
	return attention_avx512() && __builtin_cpu_supports("avx512bf16") ? &bf16_kernels
									  : NULL;
}

#else

const struct attention_kernels *attention_avx512(void)
{
	return NULL;
}

const struct attention_kernels *attention_avx512_bf16(void)
{
	return NULL;
}

#endif
