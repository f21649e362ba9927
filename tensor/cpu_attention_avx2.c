/*
 * The kernels of attention with AVX2 and fused multiply-adds.
 */
#include <string.h>

#include "tensor/attention.h"

#if defined(__x86_64__)
#include "tensor/vec_avx2.h"

#define TARGET __attribute__((target("avx2,fma")))

#define ROWS 4 /* 8 of 16 registers */

#define vec_max _mm256_max_ps

TARGET static inline vec vec_scaled(vec p, vec x, vec shifted)
{
	__m256i n = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
	__m256 seen = _mm256_cmp_ps(x, _mm256_set1_ps(-87.33f), _CMP_NLT_UQ);

	return _mm256_and_ps(seen,
			     _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n)));
}

TARGET static inline float vec_sum(vec x)
{
	__m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	y = _mm_add_ps(y, _mm_movehl_ps(y, y));
	return _mm_cvtss_f32(y) + _mm_cvtss_f32(_mm_movehdup_ps(y));
}

TARGET static inline float vec_most(vec x)
{
	__m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	y = _mm_max_ps(y, _mm_movehl_ps(y, y));
	return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

#define KERNEL(name) avx2_##name
#define KERNEL_NAME "AVX2"
#define PAIR 1
#include "tensor/attention_kernels.h"

const struct attention_kernels *attention_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2_kernels
									       : NULL;
}

#else

const struct attention_kernels *attention_avx2(void)
{
	return NULL;
}

#endif
