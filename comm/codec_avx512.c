/*
 * comm/codec_avx512.c - the codecs' inner loops with AVX-512: 16 floats at once. A fused
 * multiply-add stands only where its product is exact, so every bit is codec_scalar.c's.
 */
#include "comm/internal.h"

#ifdef __x86_64__
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define PIECE AVX512 static inline __attribute__((always_inline))
#define FLOOR (_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)

/* -- random numbers ------------------------------------------------------------------------ */

struct counters { __m512i word[4]; };

/* The keys of the rounds. */
struct keys { uint64_t key[10][2]; };

static struct keys keys_of(uint32_t key0, uint32_t key1)
{
	struct keys k;

	for (int round = 0; round < 10; round++) {
		k.key[round][0] = key0;
		k.key[round][1] = key1;
		key0 += 0x9e3779b9u;
		key1 += 0xbb67ae85u;
	}
	return k;
}

/* The words in the low halves of 64 bits; multiplications do not read what is above them. */
PIECE struct counters philox_8(struct counters c, const struct keys *keys)
{
	const __m512i m0 = _mm512_set1_epi64(0xd2511f53), m1 = _mm512_set1_epi64(0xcd9e8d57);

	for (int round = 0; round < 10; round++) {
		__m512i p = _mm512_mul_epu32(m0, c.word[0]);
		__m512i q = _mm512_mul_epu32(m1, c.word[2]);
		__m512i key0 = _mm512_set1_epi64((long long)keys->key[round][0]);
		__m512i key1 = _mm512_set1_epi64((long long)keys->key[round][1]);

		c.word[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(q, 32), c.word[1], key0,
						      0x96);
		c.word[1] = q;
		c.word[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p, 32), c.word[3], key1,
						      0x96);
		c.word[3] = p;
	}
	return c;
}

/* Counters lie in the lanes so that the unpacking of 128-bit pieces puts them in order. */
AVX512 static void avx512_noise(uint16_t *to, struct philox counter, uint32_t key0,
				uint32_t key1, int count)
{
	__m512i at = _mm512_add_epi64(_mm512_set1_epi64(counter.word[0]),
				      _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
	struct keys keys = keys_of(key0, key1);

	for (int i = 0; i < count; i += 8) {
		struct counters c = {{at, _mm512_set1_epi64(counter.word[1]),
				      _mm512_set1_epi64(counter.word[2]),
				      _mm512_set1_epi64(counter.word[3])}};
		__m512i low, high;

		c = philox_8(c, &keys);
		low = _mm512_mask_shuffle_epi32(c.word[0], 0xaaaa, c.word[1], 0xa0);
		high = _mm512_mask_shuffle_epi32(c.word[2], 0xaaaa, c.word[3], 0xa0);
		_mm512_storeu_si512(to + 8 * i, _mm512_unpacklo_epi64(low, high));
		_mm512_storeu_si512(to + 8 * i + 32, _mm512_unpackhi_epi64(low, high));
		at = _mm512_add_epi64(at, _mm512_set1_epi64(8));
	}
}

/* -- pieces -------------------------------------------------------------------------------- */

PIECE __mmask16 first_of(int n)
{
	return n >= 16 ? 0xffff : (__mmask16)((1 << n) - 1);
}

PIECE __m512i magnitude(__m512 x)
{
	return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

PIECE __m512i words(const uint16_t *noise)
{
	return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)noise));
}

/* x inverse in whole steps. */
PIECE __m512i nearest_steps(__m512 x, __m512 inverse)
{
	return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
}

PIECE __m512i noisy_steps(__m512 x, __m512 inverse, const uint16_t *noise,
					 int levels)
{
	__m512 u = _mm512_fmadd_ps(_mm512_cvtepi32_ps(words(noise)), _mm512_set1_ps(0x1p-16f),
				   _mm512_set1_ps(0x1p-17f));
	__m512i q = _mm512_cvt_roundps_epi32(_mm512_add_ps(_mm512_mul_ps(x, inverse), u),
					     FLOOR);

	q = _mm512_min_epi32(q, _mm512_set1_epi32(levels));
	return _mm512_max_epi32(q, _mm512_set1_epi32(-levels));
}

/* -- scales -------------------------------------------------------------------------------- */

/* The largest of each of four. */
PIECE __m128i largest_of_4(const __m512i m[4])
{
	__m512i a = _mm512_max_epi32(_mm512_unpacklo_epi32(m[0], m[1]),
				     _mm512_unpackhi_epi32(m[0], m[1]));
	__m512i b = _mm512_max_epi32(_mm512_unpacklo_epi32(m[2], m[3]),
				     _mm512_unpackhi_epi32(m[2], m[3]));
	__m512i c = _mm512_max_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
	__m256i d = _mm256_max_epi32(_mm512_castsi512_si256(c),
				     _mm512_extracti64x4_epi64(c, 1));

	return _mm_max_epi32(_mm256_castsi256_si128(d), _mm256_extracti128_si256(d, 1));
}

/* codec_scale and codec_inverse of all groups of a tile at once. */
PIECE void scales_of(float *scale, float inverse[16], const int32_t most[16], float levels,
		     float unit, int groups)
{
	__m512i size = _mm512_loadu_si512(most);
	__m512 s = _mm512_div_ps(_mm512_castsi512_ps(size), _mm512_set1_ps(levels));
	__mmask16 some = _mm512_cmpgt_epi32_mask(size, _mm512_setzero_si512());
	__mmask16 wrong = _mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(0x7f800000));

	s = _mm512_mask_max_ps(s, some, s, _mm512_set1_ps(0x1p-126f));
	s = _mm512_mask_blend_ps(wrong, s, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
	_mm512_storeu_ps(inverse, _mm512_maskz_div_ps(some & ~wrong, _mm512_set1_ps(unit), s));
	_mm512_mask_storeu_ps(scale, first_of(groups), s);
}

/* -- columns ------------------------------------------------------------------------------- */

/* Four rows at a time, so that the maxima are read and written a quarter as often. */
AVX512 static void avx512_most(int32_t *most, const float *x, size_t stride, int rows, int n)
{
	memset(most, 0, (size_t)n * sizeof *most);
	for (int r = 0; r < rows; r += 4, x += 4 * stride) {
		const float *x1 = r + 1 < rows ? x + stride : x;
		const float *x2 = r + 2 < rows ? x + 2 * stride : x;
		const float *x3 = r + 3 < rows ? x + 3 * stride : x;

		for (int j = 0; j < n; j += 16) {
			__mmask16 m = first_of(n - j);
			__m512i a = magnitude(_mm512_maskz_loadu_ps(m, x + j));
			__m512i b = magnitude(_mm512_maskz_loadu_ps(m, x1 + j));
			__m512i c = magnitude(_mm512_maskz_loadu_ps(m, x2 + j));
			__m512i d = magnitude(_mm512_maskz_loadu_ps(m, x3 + j));
			__m512i e = _mm512_maskz_loadu_epi32(m, most + j);

			e = _mm512_max_epi32(_mm512_max_epi32(e, _mm512_max_epi32(a, b)),
					     _mm512_max_epi32(c, d));
			if (m == 0xffff)
				_mm512_storeu_si512(most + j, e);
			else
				_mm512_mask_storeu_epi32(most + j, m, e);
		}
	}
}

/* -- bf16 ---------------------------------------------------------------------------------- */

/* Bits whose upper halves are the bf16. */
PIECE __m512i rounded(__m512 x, const uint16_t *noise)
{
	__m512i bits = _mm512_castps_si512(x), add;
	__mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);

	if (noise)
		add = words(noise);
	else
		add = _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(bits, 16),
							_mm512_set1_epi32(1)),
				       _mm512_set1_epi32(0x7fff));
	add = _mm512_add_epi32(bits, add);
	return _mm512_mask_or_epi32(add, nan, bits, _mm512_set1_epi32(0x400000));
}

AVX512 static void avx512_bf16_encode(uint16_t *y, const float *x, size_t n,
				      const uint16_t *noise)
{
	const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
						14, 15);
	/* 1, 3, 5 .. 63 */
	const __m512i upper = _mm512_add_epi32(_mm512_mullo_epi32(lanes,
								  _mm512_set1_epi32(0x40004)),
					       _mm512_set1_epi32(0x30001));
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		__m512i a = rounded(_mm512_loadu_ps(x + i), noise ? noise + i : NULL);
		__m512i b = rounded(_mm512_loadu_ps(x + i + 16), noise ? noise + i + 16 : NULL);

		_mm512_storeu_si512(y + i, _mm512_permutex2var_epi16(a, upper, b));
	}
	for (; i < n; i++)
		y[i] = codec_bf16(x[i], noise ? noise + i : NULL);
}

AVX512 static void avx512_bf16_decode(float *x, const uint16_t *y, size_t n)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		_mm512_storeu_si512(x + i, _mm512_slli_epi32(words(y + i), 16));
	for (; i < n; i++)
		x[i] = codec_float((uint32_t)y[i] << 16);
}

/* -- int8 ---------------------------------------------------------------------------------- */

/* Sixty-four steps as bytes, in order; the first n of them are stored. */
PIECE void store_bytes(int8_t *q, __m512i a, __m512i b, __m512i c, __m512i d,
				      int n)
{
	const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7,
						11, 15);
	__m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));

	bytes = _mm512_permutexvar_epi32(order, bytes);
	if (n >= 64)
		_mm512_storeu_si512(q, bytes);
	else if (n > 0)
		_mm512_mask_storeu_epi8(q, ((__mmask64)1 << n) - 1, bytes);
}

/* The i-th 16 of 64 channels. Masks are slow to make, and most of the time all are kept. */
PIECE __m512 load_kept(const float *x, uint64_t keep, int i)
{
	if (keep == ~(uint64_t)0)
		return _mm512_loadu_ps(x + 16 * i);
	return _mm512_maskz_loadu_ps((__mmask16)(keep >> 16 * i), x + 16 * i);
}

PIECE __m512i int8_most(const float *x, const uint64_t *keep)
{
	__m512i most = _mm512_setzero_si512(), other = most;

	for (int i = 0; i < 4; i++) {
		most = _mm512_max_epi32(most, magnitude(load_kept(x, keep[0], i)));
		other = _mm512_max_epi32(other, magnitude(load_kept(x + 64, keep[1], i)));
	}
	return _mm512_max_epi32(most, other);
}

PIECE void int8_scales(float *scale, float inverse[16], const float *x, const uint64_t *keep,
		       int groups)
{
	int32_t most[16] = {0};

	for (int g = 0; g < groups; g += 4) {
		__m512i m[4];

		for (int i = 0; i < 4; i++)
			m[i] = g + i < groups ? int8_most(x + 128 * (g + i), keep + 2 * (g + i))
					      : _mm512_setzero_si512();
		_mm_storeu_si128((__m128i *)(most + g), largest_of_4(m));
	}
	scales_of(scale, inverse, most, 127, 1, groups);
}

/* Half a group, of which n channels are stored. */
PIECE void int8_half(int8_t *q, const float *x, uint64_t keep, float inverse, int n,
		     const uint16_t *noise)
{
	__m512 by = _mm512_set1_ps(inverse);
	__m512i s[4];

	for (int i = 0; i < 4; i++) {
		__m512 v = load_kept(x, keep, i);

		s[i] = noise ? noisy_steps(v, by, noise + 16 * i, 127) : nearest_steps(v, by);
	}
	store_bytes(q, s[0], s[1], s[2], s[3], n);
}

PIECE void int8_tile(int8_t *q, float *scale, const float *x, const uint64_t *keep, int n,
		     const uint16_t *noise)
{
	int groups = (n + CODEC_INT8_GROUP - 1) / CODEC_INT8_GROUP;
	float inverse[16];

	int8_scales(scale, inverse, x, keep, groups);
	for (int j = 0; j < n; j += 64) {
		float by = inverse[j / CODEC_INT8_GROUP];

		int8_half(q + j, x + j, keep[j / 64], by, n - j, noise ? noise + j : NULL);
		if (!(by > 0))
			memset(q + j, 0, (size_t)(n - j < 64 ? n - j : 64));
	}
}

AVX512 static void avx512_int8_encode(void *to, float *scale, const float *x,
				      const uint64_t *keep, int n, const uint16_t *noise)
{
	if (noise)
		int8_tile(to, scale, x, keep, n, noise);
	else
		int8_tile(to, scale, x, keep, n, NULL);
}

PIECE __m512 times(__m128i q, __m512 scale)
{
	return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale);
}

AVX512 static void avx512_int8_decode(float *x, const void *from, const float *scale, int n)
{
	const int8_t *q = from;
	int j = 0;

	for (; j + 16 <= n; j += 16)
		_mm512_storeu_ps(x + j, times(_mm_loadu_si128((const __m128i *)(q + j)),
					      _mm512_set1_ps(scale[j / CODEC_INT8_GROUP])));
	for (; j < n; j++)
		x[j] = (float)q[j] * scale[j / CODEC_INT8_GROUP];
}

/* -- int4 ---------------------------------------------------------------------------------- */

/* (a, b) = (a + b, a - b) */
PIECE void butterfly(__m512 *a, __m512 *b)
{
	__m512 sum = _mm512_add_ps(*a, *b);

	*b = _mm512_sub_ps(*a, *b);
	*a = sum;
}

/* Butterflies of distance 8 to 1: each lane meets its partner, with a minus where it is the
 * second of the two. Times 1 or -1 is exact. */
PIECE __m512 butterflies(__m512 v)
{
	const __m512 one = _mm512_set1_ps(1), minus = _mm512_set1_ps(-1);

	v = _mm512_fmadd_ps(v, _mm512_mask_blend_ps(0xff00, one, minus),
			    _mm512_shuffle_f32x4(v, v, 0x4e));
	v = _mm512_fmadd_ps(v, _mm512_mask_blend_ps(0xf0f0, one, minus),
			    _mm512_shuffle_f32x4(v, v, 0xb1));
	v = _mm512_fmadd_ps(v, _mm512_mask_blend_ps(0xcccc, one, minus),
			    _mm512_permute_ps(v, 0x4e));
	return _mm512_fmadd_ps(v, _mm512_mask_blend_ps(0xaaaa, one, minus),
			       _mm512_permute_ps(v, 0xb1));
}

PIECE __m512i low_and_high(__m512i low, __m512i high)
{
	return _mm512_add_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(8 + 8 * 16)),
				_mm512_slli_epi32(high, 4));
}

PIECE __m512i rotate(float rotated[64], const float *x, uint64_t keep)
{
	__m512i most = _mm512_setzero_si512();
	__m512 v[4];

	for (int i = 0; i < 4; i++)
		v[i] = load_kept(x, keep, i);
	butterfly(&v[0], &v[2]);
	butterfly(&v[1], &v[3]);
	butterfly(&v[0], &v[1]);
	butterfly(&v[2], &v[3]);
	for (int i = 0; i < 4; i++) {
		v[i] = butterflies(v[i]);
		most = _mm512_max_epi32(most, magnitude(v[i]));
		_mm512_store_ps(rotated + 16 * i, v[i]);
	}
	return most;
}

PIECE void int4_group(uint8_t *q, const float *v, float inverse, const uint16_t *noise)
{
	__m512 by = _mm512_set1_ps(inverse);
	__m512i s[4];

	for (int i = 0; i < 4; i++)
		s[i] = noise ? noisy_steps(_mm512_load_ps(v + 16 * i), by, noise + 16 * i, 7)
			     : nearest_steps(_mm512_load_ps(v + 16 * i), by);
	_mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(low_and_high(s[0], s[2])));
	_mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(low_and_high(s[1], s[3])));
	if (!(inverse > 0))
		memset(q, 0x88, 32);
}

AVX512 static void avx512_int4_encode(void *to, float *scale, const float *x,
				      const uint64_t *keep, int n, const uint16_t *noise)
{
	int groups = (n + CODEC_INT4_GROUP - 1) / CODEC_INT4_GROUP;
	_Alignas(64) float rotated[CODEC_TILE];
	int32_t most[16] = {0};
	float inverse[16];
	uint8_t *q = to;

	for (int g = 0; g < groups; g += 4) {
		__m512i m[4];

		for (int i = 0; i < 4; i++)
			m[i] = g + i < groups ? rotate(rotated + 64 * (g + i),
						       x + 64 * (g + i), keep[g + i])
					      : _mm512_setzero_si512();
		_mm_storeu_si128((__m128i *)(most + g), largest_of_4(m));
	}
	scales_of(scale, inverse, most, 7 * 64, 0x1p-6f, groups);
	for (int g = 0; g < groups; g++, q += 32)
		if (noise)
			int4_group(q, rotated + 64 * g, inverse[g], noise + 64 * g);
		else
			int4_group(q, rotated + 64 * g, inverse[g], NULL);
}

/* One stage of sums within 16 bytes. second: the lanes that are the second of their two. */
PIECE __m512i byte_stage(__m512i q, __m128i partner, __mmask64 second)
{
	__m512i other = _mm512_shuffle_epi8(q, _mm512_broadcast_i32x4(partner));

	return _mm512_mask_sub_epi8(_mm512_add_epi8(other, q), second, other, q);
}

/* The sums of four stages are 7 * 16 at most and fit a byte; the rest is floats, exactly. */
PIECE void int4_group_decode(__m512 v[4], const uint8_t *from, float scale)
{
	const __m128i lane = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
					   15);
	__m256i pairs = _mm256_loadu_si256((const __m256i *)from);
	__m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(pairs),
				       _mm256_srli_epi16(pairs, 4), 1);

	q = _mm512_sub_epi8(_mm512_and_si512(q, _mm512_set1_epi8(15)), _mm512_set1_epi8(8));
	q = byte_stage(q, _mm_xor_si128(lane, _mm_set1_epi8(1)), 0xaaaaaaaaaaaaaaaa);
	q = byte_stage(q, _mm_xor_si128(lane, _mm_set1_epi8(2)), 0xcccccccccccccccc);
	q = byte_stage(q, _mm_xor_si128(lane, _mm_set1_epi8(4)), 0xf0f0f0f0f0f0f0f0);
	q = byte_stage(q, _mm_xor_si128(lane, _mm_set1_epi8(8)), 0xff00ff00ff00ff00);
	v[0] = times(_mm512_castsi512_si128(q), _mm512_set1_ps(1));
	v[1] = times(_mm512_extracti32x4_epi32(q, 1), _mm512_set1_ps(1));
	v[2] = times(_mm512_extracti32x4_epi32(q, 2), _mm512_set1_ps(1));
	v[3] = times(_mm512_extracti32x4_epi32(q, 3), _mm512_set1_ps(1));
	butterfly(&v[0], &v[1]);
	butterfly(&v[2], &v[3]);
	butterfly(&v[0], &v[2]);
	butterfly(&v[1], &v[3]);
	for (int i = 0; i < 4; i++)
		v[i] = _mm512_mul_ps(v[i], _mm512_set1_ps(scale));
}

AVX512 static void avx512_int4_decode(float *x, const void *from, const float *scale, int n)
{
	const uint8_t *q = from;
	__m512 v[4];
	int j = 0;

	for (; j + 64 <= n; j += 64, q += 32) {
		int4_group_decode(v, q, *scale++);
		for (int i = 0; i < 4; i++)
			_mm512_storeu_ps(x + j + 16 * i, v[i]);
	}
	if (j == n)
		return;
	int4_group_decode(v, q, *scale);
	memcpy(x + j, v, (size_t)(n - j) * sizeof *x);
}

static const struct codec_kernels kernels = {
	.name = "avx512",
	.noise = avx512_noise,
	.most = avx512_most,
	.bf16_encode = avx512_bf16_encode,
	.bf16_decode = avx512_bf16_decode,
	.int8_encode = avx512_int8_encode,
	.int8_decode = avx512_int8_decode,
	.int4_encode = avx512_int4_encode,
	.int4_decode = avx512_int4_decode,
};

const struct codec_kernels *codec_avx512(void)
{
	bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
		   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");

	return has ? &kernels : NULL;
}
#else
const struct codec_kernels *codec_avx512(void)
{
	return NULL;
}
#endif
