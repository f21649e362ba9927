/*
 * The inner loops of thin products. Registers hold all sums: 3 rows by 8 ranks of dot products,
 * 8 ranks by 2 vectors of outer ones, so that a number that was loaded is used 3 or 8 times.
 * Without fused multiply-adds these loops would take twice as long, and the build lets no
 * compiler fuse, hence intrinsics.
 */

#include "tensor/thin.h"
#include "tensor/vector.h"

/* -- any CPU ------------------------------------------------------------------------------- */

VECTOR static void dots_plain(float sum[ROWS_AT_ONCE][RANKS], const float *x, const float *w,
			      size_t ld, int n)
{
	for (int i = 0; i < ROWS_AT_ONCE; i++) {
		for (int q = 0; q < RANKS; q++) {
			const float *a = x + (size_t)i * ld, *b = w + (size_t)q * ld;
			float lane[LANES] = {0};

			for (int j = 0; j < n; j += LANES)
				for (int l = 0; l < LANES; l++)
					lane[l] += a[j + l] * b[j + l];
			sum[i][q] += lanes_sum(lane);
		}
	}
}

VECTOR static void outer_plain(float *restrict y, const float *restrict d,
			       const float *restrict x, size_t ld, int rows, int n)
{
	for (int q = 0; q < RANKS; q++)
		for (int i = 0; i < rows; i++)
			for (int j = 0; j < n; j++)
				y[(size_t)q * ld + (size_t)j] +=
				    d[i * RANKS + q] * x[(size_t)i * ld + (size_t)j];
}

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx2,fma")))
/* Keeps a vector in a register: GCC would load it again for each of its uses. */
#define KEEP(v) __asm__("" : "+v"(v))

/* -- AVX2 and FMA -------------------------------------------------------------------------- */

/* The sums of eight vectors. */
AVX2 static inline __attribute__((always_inline)) __m256 sums_of(const __m256 v[RANKS])
{
	__m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
	__m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));

	return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
			     _mm256_permute2f128_ps(low, high, 0x31));
}

/* Four ranks at a time: 12 sums are what 16 registers hold. */
AVX2 static void dots_avx2(float sum[ROWS_AT_ONCE][RANKS], const float *x, const float *w,
			   size_t ld, int n)
{
	__m256 total[ROWS_AT_ONCE][RANKS];

	for (size_t half = 0; half < RANKS; half += 4) {
		const float *b = w + half * ld;
		__m256 s[ROWS_AT_ONCE][4];

		for (int i = 0; i < ROWS_AT_ONCE; i++)
			for (int q = 0; q < 4; q++)
				s[i][q] = _mm256_setzero_ps();
		for (size_t j = 0; j < (size_t)n; j += 8) {
			__m256 x0 = _mm256_loadu_ps(x + j), x1 = _mm256_loadu_ps(x + ld + j);
			__m256 x2 = _mm256_loadu_ps(x + 2 * ld + j);

#pragma GCC unroll 4
			for (size_t q = 0; q < 4; q++) {
				__m256 v = _mm256_loadu_ps(b + q * ld + j);

				s[0][q] = _mm256_fmadd_ps(x0, v, s[0][q]);
				s[1][q] = _mm256_fmadd_ps(x1, v, s[1][q]);
				s[2][q] = _mm256_fmadd_ps(x2, v, s[2][q]);
			}
		}
		for (int i = 0; i < ROWS_AT_ONCE; i++)
			for (size_t q = 0; q < 4; q++)
				total[i][half + q] = s[i][q];
	}
	for (int i = 0; i < ROWS_AT_ONCE; i++)
		_mm256_storeu_ps(sum[i],
				 _mm256_add_ps(_mm256_loadu_ps(sum[i]), sums_of(total[i])));
}

AVX2 static void outer_avx2(float *y, const float *d, const float *x, size_t ld, int rows,
			    int n)
{
	for (size_t j = 0; j < (size_t)n; j += 8) {
		__m256 s[RANKS];

		for (int q = 0; q < RANKS; q++)
			s[q] = _mm256_setzero_ps();
		for (size_t i = 0; i < (size_t)rows; i++) {
			__m256 v = _mm256_loadu_ps(x + i * ld + j);

#pragma GCC unroll 8
			for (size_t q = 0; q < RANKS; q++)
				s[q] =
				    _mm256_fmadd_ps(_mm256_set1_ps(d[i * RANKS + q]), v, s[q]);
		}
		for (size_t q = 0; q < RANKS; q++)
			_mm256_storeu_ps(y + q * ld + j,
					 _mm256_add_ps(_mm256_loadu_ps(y + q * ld + j), s[q]));
	}
}

/* -- AVX-512 ------------------------------------------------------------------------------- */

AVX512 static inline __attribute__((always_inline)) __m256 halves_sum(__m512 v)
{
	__m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1);

	return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(high));
}

AVX512 static void dots_avx512(float sum[ROWS_AT_ONCE][RANKS], const float *x, const float *w,
			       size_t ld, int n)
{
	__m512 s[ROWS_AT_ONCE][RANKS];

	for (int i = 0; i < ROWS_AT_ONCE; i++)
		for (int q = 0; q < RANKS; q++)
			s[i][q] = _mm512_setzero_ps();
	for (size_t j = 0; j < (size_t)n; j += 16) {
		__m512 x0 = _mm512_loadu_ps(x + j), x1 = _mm512_loadu_ps(x + ld + j);
		__m512 x2 = _mm512_loadu_ps(x + 2 * ld + j);

#pragma GCC unroll 8
		for (size_t q = 0; q < RANKS; q++) {
			__m512 v = _mm512_loadu_ps(w + q * ld + j);

			KEEP(v);
			s[0][q] = _mm512_fmadd_ps(x0, v, s[0][q]);
			s[1][q] = _mm512_fmadd_ps(x1, v, s[1][q]);
			s[2][q] = _mm512_fmadd_ps(x2, v, s[2][q]);
		}
	}
	for (int i = 0; i < ROWS_AT_ONCE; i++) {
		__m256 half[RANKS];

		for (int q = 0; q < RANKS; q++)
			half[q] = halves_sum(s[i][q]);
		_mm256_storeu_ps(sum[i], _mm256_add_ps(_mm256_loadu_ps(sum[i]), sums_of(half)));
	}
}

AVX512 static void outer_avx512(float *y, const float *d, const float *x, size_t ld, int rows,
				int n)
{
	for (size_t j = 0; j < (size_t)n; j += 32) {
		__m512 s[RANKS], t[RANKS];

		for (int q = 0; q < RANKS; q++)
			s[q] = t[q] = _mm512_setzero_ps();
		for (size_t i = 0; i < (size_t)rows; i++) {
			__m512 v = _mm512_loadu_ps(x + i * ld + j);
			__m512 u = _mm512_loadu_ps(x + i * ld + j + 16);

#pragma GCC unroll 8
			for (size_t q = 0; q < RANKS; q++) {
				__m512 factor = _mm512_set1_ps(d[i * RANKS + q]);

				KEEP(factor);
				s[q] = _mm512_fmadd_ps(factor, v, s[q]);
				t[q] = _mm512_fmadd_ps(factor, u, t[q]);
			}
		}
		for (size_t q = 0; q < RANKS; q++) {
			float *to = y + q * ld + j;

			_mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), s[q]));
			_mm512_storeu_ps(to + 16,
					 _mm512_add_ps(_mm512_loadu_ps(to + 16), t[q]));
		}
	}
}
#endif

bool thin_loops_of(enum thin_set set, struct thin_loops *loops)
{
#ifdef __x86_64__
	static const struct thin_loops all[] = {
	    {dots_plain, outer_plain}, {dots_avx2, outer_avx2}, {dots_avx512, outer_avx512}};
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	bool has[] = {true, avx2, avx2 && __builtin_cpu_supports("avx512f")};

	*loops = all[set];
	return has[set];
#else
	*loops = (struct thin_loops){dots_plain, outer_plain};
	return set == THIN_PLAIN;
#endif
}

struct thin_loops thin_loops(void)
{
	struct thin_loops loops;
	enum thin_set set = THIN_SETS - 1;

	while (!thin_loops_of(set, &loops))
		set--;
	return loops;
}
