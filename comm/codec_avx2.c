/*
 * comm/codec_avx2.c - the codecs' inner loops with AVX2 and FMA: 8 floats at once. A fused
 * multiply-add stands only where its product is exact, so every bit is codec_scalar.c's.
 */
#include "comm/internal.h"

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define PIECE AVX2 static inline __attribute__((always_inline))

/* -- random numbers ------------------------------------------------------------------------ */

struct counters { __m256i word[4]; };

/* The keys of the rounds. */
struct keys { __m256i key[10][2]; };

AVX2 static void keys_make(struct keys *k, uint32_t key0, uint32_t key1)
{
	for (int round = 0; round < 10; round++) {
		k->key[round][0] = _mm256_set1_epi64x(key0);
		k->key[round][1] = _mm256_set1_epi64x(key1);
		key0 += 0x9e3779b9u;
		key1 += 0xbb67ae85u;
	}
}

/* The words in the low halves of 64 bits; multiplications do not read what is above them. */
PIECE struct counters philox_4(struct counters c, const struct keys *keys)
{
	const __m256i m0 = _mm256_set1_epi64x(0xd2511f53), m1 = _mm256_set1_epi64x(0xcd9e8d57);

	for (int round = 0; round < 10; round++) {
		__m256i p = _mm256_mul_epu32(m0, c.word[0]);
		__m256i q = _mm256_mul_epu32(m1, c.word[2]);

		c.word[0] = _mm256_xor_si256(_mm256_xor_si256(c.word[1], keys->key[round][0]),
					     _mm256_srli_epi64(q, 32));
		c.word[1] = q;
		c.word[2] = _mm256_xor_si256(_mm256_xor_si256(c.word[3], keys->key[round][1]),
					     _mm256_srli_epi64(p, 32));
		c.word[3] = p;
	}
	return c;
}

/* Counters lie in the lanes so that the unpacking of 128-bit pieces puts them in order. */
AVX2 static void avx2_noise(uint16_t *to, struct philox counter, uint32_t key0, uint32_t key1,
			    int count)
{
	__m256i at = _mm256_add_epi64(_mm256_set1_epi64x(counter.word[0]),
				      _mm256_setr_epi64x(0, 2, 1, 3));
	struct keys keys;

	keys_make(&keys, key0, key1);
	for (int i = 0; i < count; i += 4) {
		struct counters c = {{at, _mm256_set1_epi64x(counter.word[1]),
				      _mm256_set1_epi64x(counter.word[2]),
				      _mm256_set1_epi64x(counter.word[3])}};
		__m256i low, high;

		c = philox_4(c, &keys);
		low = _mm256_blend_epi32(c.word[0], _mm256_slli_epi64(c.word[1], 32), 0xaa);
		high = _mm256_blend_epi32(c.word[2], _mm256_slli_epi64(c.word[3], 32), 0xaa);
		_mm256_storeu_si256((__m256i *)(to + 8 * i), _mm256_unpacklo_epi64(low, high));
		_mm256_storeu_si256((__m256i *)(to + 8 * i + 16),
				    _mm256_unpackhi_epi64(low, high));
		at = _mm256_add_epi64(at, _mm256_set1_epi64x(4));
	}
}

/* -- pieces -------------------------------------------------------------------------------- */

PIECE __m256i magnitude(__m256 x)
{
	return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

PIECE __m256i words(const uint16_t *noise)
{
	return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)noise));
}

/* The i-th 8 of 64 channels; those that are not kept are 0. */
PIECE __m256 load_kept(const float *x, uint64_t keep, int i)
{
	const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
	__m256i bits;

	if (keep == ~(uint64_t)0)
		return _mm256_loadu_ps(x + 8 * i);
	bits = _mm256_and_si256(_mm256_set1_epi32((int)(keep >> 8 * i & 0xff)), bit);
	return _mm256_maskload_ps(x + 8 * i, _mm256_cmpeq_epi32(bits, bit));
}

/* x inverse in whole steps. */
PIECE __m256i nearest_steps(__m256 x, __m256 inverse)
{
	return _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
}

PIECE __m256i noisy_steps(__m256 x, __m256 inverse, const uint16_t *noise,
				       int levels)
{
	__m256 u = _mm256_fmadd_ps(_mm256_cvtepi32_ps(words(noise)), _mm256_set1_ps(0x1p-16f),
				   _mm256_set1_ps(0x1p-17f));
	__m256i q = _mm256_cvtps_epi32(
		_mm256_floor_ps(_mm256_add_ps(_mm256_mul_ps(x, inverse), u)));

	q = _mm256_min_epi32(q, _mm256_set1_epi32(levels));
	return _mm256_max_epi32(q, _mm256_set1_epi32(-levels));
}

/* Thirty-two numbers from 0 to 255, or with a sign, as bytes in order. */
PIECE __m256i in_order(__m256i bytes)
{
	return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* -- scales -------------------------------------------------------------------------------- */

/* The largest of each of four. */
PIECE __m128i largest_of_4(const __m256i m[4])
{
	__m256i a = _mm256_max_epi32(_mm256_unpacklo_epi32(m[0], m[1]),
				     _mm256_unpackhi_epi32(m[0], m[1]));
	__m256i b = _mm256_max_epi32(_mm256_unpacklo_epi32(m[2], m[3]),
				     _mm256_unpackhi_epi32(m[2], m[3]));
	__m256i c = _mm256_max_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));

	return _mm_max_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}

/* codec_scale and codec_inverse of four groups at once; the first `groups` are stored. */
PIECE void scales_of(float *scale, float inverse[4], __m128i size, float levels, float unit,
		     int groups)
{
	const __m128 least = _mm_set1_ps(0x1p-126f);
	__m128 s = _mm_div_ps(_mm_castsi128_ps(size), _mm_set1_ps(levels));
	__m128 some = _mm_castsi128_ps(_mm_cmpgt_epi32(size, _mm_setzero_si128()));
	__m128 wrong = _mm_castsi128_ps(_mm_cmpgt_epi32(size, _mm_set1_epi32(0x7f7fffff)));
	__m128i first = _mm_cmpgt_epi32(_mm_set1_epi32(groups), _mm_setr_epi32(0, 1, 2, 3));

	s = _mm_blendv_ps(s, _mm_max_ps(s, least), some);
	s = _mm_blendv_ps(s, _mm_castsi128_ps(_mm_set1_epi32(0x7fc00000)), wrong);
	_mm_storeu_ps(inverse, _mm_and_ps(_mm_andnot_ps(wrong, some),
					  _mm_div_ps(_mm_set1_ps(unit), s)));
	_mm_maskstore_ps(scale, first, s);
}

/* -- columns ------------------------------------------------------------------------------- */

/* Four rows at a time, so that the maxima are read and written a quarter as often. */
AVX2 static void avx2_most(int32_t *most, const float *x, size_t stride, int rows, int n)
{
	memset(most, 0, (size_t)n * sizeof *most);
	for (int r = 0; r < rows; r += 4, x += 4 * stride) {
		const float *row[4] = {x, r + 1 < rows ? x + stride : x,
				       r + 2 < rows ? x + 2 * stride : x,
				       r + 3 < rows ? x + 3 * stride : x};
		int j = 0;

		for (; j + 8 <= n; j += 8) {
			__m256i a = magnitude(_mm256_loadu_ps(row[0] + j));
			__m256i b = magnitude(_mm256_loadu_ps(row[1] + j));
			__m256i c = magnitude(_mm256_loadu_ps(row[2] + j));
			__m256i d = magnitude(_mm256_loadu_ps(row[3] + j));
			__m256i e = _mm256_loadu_si256((const __m256i *)(most + j));

			e = _mm256_max_epi32(_mm256_max_epi32(e, _mm256_max_epi32(a, b)),
					     _mm256_max_epi32(c, d));
			_mm256_storeu_si256((__m256i *)(most + j), e);
		}
		for (; j < n; j++)
			for (int i = 0; i < 4; i++) {
				int32_t size = (int32_t)(codec_bits(row[i][j]) & 0x7fffffff);

				most[j] = size > most[j] ? size : most[j];
			}
	}
}

/* -- bf16 ---------------------------------------------------------------------------------- */

/* The bf16 in the low halves. */
PIECE __m256i rounded(__m256 x, const uint16_t *noise)
{
	__m256i bits = _mm256_castps_si256(x), add;
	__m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
	__m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));

	if (noise)
		add = words(noise);
	else
		add = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(bits, 16),
							_mm256_set1_epi32(1)),
				       _mm256_set1_epi32(0x7fff));
	add = _mm256_add_epi32(bits, add);
	bits = _mm256_blendv_epi8(add, quiet, _mm256_castps_si256(nan));
	return _mm256_srli_epi32(bits, 16);
}

AVX2 static void avx2_bf16_encode(uint16_t *y, const float *x, size_t n, const uint16_t *noise)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		__m256i a = rounded(_mm256_loadu_ps(x + i), noise ? noise + i : NULL);
		__m256i b = rounded(_mm256_loadu_ps(x + i + 8), noise ? noise + i + 8 : NULL);

		_mm256_storeu_si256((__m256i *)(y + i),
				    _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8));
	}
	for (; i < n; i++)
		y[i] = codec_bf16(x[i], noise ? noise + i : NULL);
}

AVX2 static void avx2_bf16_decode(float *x, const uint16_t *y, size_t n)
{
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		_mm256_storeu_si256((__m256i *)(x + i), _mm256_slli_epi32(words(y + i), 16));
	for (; i < n; i++)
		x[i] = codec_float((uint32_t)y[i] << 16);
}

/* -- int8 ---------------------------------------------------------------------------------- */

/* Sixty-four steps as bytes; q has room for them. */
PIECE void int8_half(int8_t *q, const float *x, uint64_t keep, float inverse,
		     const uint16_t *noise)
{
	__m256 by = _mm256_set1_ps(inverse);
	__m256i s[8], bytes;

	for (int i = 0; i < 8; i++) {
		__m256 v = load_kept(x, keep, i);

		s[i] = noise ? noisy_steps(v, by, noise + 8 * i, 127) : nearest_steps(v, by);
	}
	for (int i = 0; i < 8; i += 4) {
		bytes = _mm256_packs_epi16(_mm256_packs_epi32(s[i], s[i + 1]),
					   _mm256_packs_epi32(s[i + 2], s[i + 3]));
		_mm256_storeu_si256((__m256i *)(q + 8 * i), in_order(bytes));
	}
}

PIECE __m256i half_most(const float *x, uint64_t keep)
{
	__m256i most = _mm256_setzero_si256();

	for (int i = 0; i < 8; i++)
		most = _mm256_max_epi32(most, magnitude(load_kept(x, keep, i)));
	return most;
}

PIECE __m256i int8_most(const float *x, const uint64_t keep[2])
{
	return _mm256_max_epi32(half_most(x, keep[0]), half_most(x + 64, keep[1]));
}

/* One group, of which n channels are stored. */
PIECE void int8_group(int8_t *q, const float *x, const uint64_t keep[2], float inverse, int n,
		      const uint16_t *noise)
{
	int8_t last[CODEC_INT8_GROUP], *to = n < CODEC_INT8_GROUP ? last : q;

	int8_half(to, x, keep[0], inverse, noise);
	int8_half(to + 64, x + 64, keep[1], inverse, noise ? noise + 64 : NULL);
	if (!(inverse > 0))
		memset(to, 0, CODEC_INT8_GROUP);
	if (to == last)
		memcpy(q, last, (size_t)n);
}

/* Four groups in each turn: they share the reduction and the divisions. */
AVX2 static void avx2_int8_encode(void *to, float *scale, const float *x, const uint64_t *keep,
				  int n, const uint16_t *noise)
{
	int groups = (n + CODEC_INT8_GROUP - 1) / CODEC_INT8_GROUP;
	int8_t *q = to;

	for (int g = 0; g < groups; g += 4, scale += 4) {
		float inverse[4];
		__m256i m[4];

		for (int i = 0; i < 4; i++)
			m[i] = g + i < groups ? int8_most(x + 128 * (g + i), keep + 2 * (g + i))
					      : _mm256_setzero_si256();
		scales_of(scale, inverse, largest_of_4(m), 127, 1, groups - g);
		for (int i = 0; i < 4 && g + i < groups; i++) {
			int j = (g + i) * CODEC_INT8_GROUP;

			if (noise)
				int8_group(q + j, x + j, keep + j / 64, inverse[i], n - j,
					   noise + j);
			else
				int8_group(q + j, x + j, keep + j / 64, inverse[i], n - j,
					   NULL);
		}
	}
}

/* The 8 bytes from q on. */
PIECE __m256 floats(const void *q)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(q)));
}

AVX2 static void avx2_int8_decode(float *x, const void *from, const float *scale, int n)
{
	const int8_t *q = from;
	int j = 0;

	for (; j + 8 <= n; j += 8)
		_mm256_storeu_ps(x + j, _mm256_mul_ps(floats(q + j),
				 _mm256_set1_ps(scale[j / CODEC_INT8_GROUP])));
	for (; j < n; j++)
		x[j] = (float)q[j] * scale[j / CODEC_INT8_GROUP];
}

/* -- int4 ---------------------------------------------------------------------------------- */

/* (a, b) = (a + b, a - b) */
PIECE void butterfly(__m256 *a, __m256 *b)
{
	__m256 sum = _mm256_add_ps(*a, *b);

	*b = _mm256_sub_ps(*a, *b);
	*a = sum;
}

/* Butterflies of distance 4 to 1: each lane meets its partner, with a minus where it is the
 * second of the two. Times 1 or -1 is exact. */
PIECE __m256 butterflies(__m256 v)
{
	v = _mm256_fmadd_ps(v, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1),
			    _mm256_permute2f128_ps(v, v, 1));
	v = _mm256_fmadd_ps(v, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1),
			    _mm256_permute_ps(v, 0x4e));
	return _mm256_fmadd_ps(v, _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1),
			       _mm256_permute_ps(v, 0xb1));
}

PIECE __m256i low_and_high(__m256i low, __m256i high)
{
	return _mm256_add_epi32(_mm256_add_epi32(low, _mm256_set1_epi32(8 + 8 * 16)),
				_mm256_slli_epi32(high, 4));
}

PIECE __m256i rotate(float rotated[64], const float *x, uint64_t keep)
{
	__m256i most = _mm256_setzero_si256();
	__m256 v[8];

	for (int i = 0; i < 8; i++)
		v[i] = load_kept(x, keep, i);
	for (int h = 4; h; h /= 2)
		for (int i = 0; i < 8; i++)
			if (!(i & h))
				butterfly(&v[i], &v[i + h]);
	for (int i = 0; i < 8; i++) {
		v[i] = butterflies(v[i]);
		most = _mm256_max_epi32(most, magnitude(v[i]));
		_mm256_storeu_ps(rotated + 8 * i, v[i]);
	}
	return most;
}

PIECE void int4_group(uint8_t *q, const float *v, float inverse, const uint16_t *noise)
{
	__m256 by = _mm256_set1_ps(inverse);
	__m256i s[8], bytes;

	for (int i = 0; i < 8; i++)
		s[i] = noise ? noisy_steps(_mm256_loadu_ps(v + 8 * i), by, noise + 8 * i, 7)
			     : nearest_steps(_mm256_loadu_ps(v + 8 * i), by);
	for (int i = 0; i < 4; i++)
		s[i] = low_and_high(s[i], s[i + 4]);
	bytes = _mm256_packus_epi16(_mm256_packus_epi32(s[0], s[1]),
				    _mm256_packus_epi32(s[2], s[3]));
	_mm256_storeu_si256((__m256i *)q, in_order(bytes));
	if (!(inverse > 0))
		memset(q, 0x88, 32);
}

AVX2 static void avx2_int4_encode(void *to, float *scale, const float *x, const uint64_t *keep,
				  int n, const uint16_t *noise)
{
	int groups = (n + CODEC_INT4_GROUP - 1) / CODEC_INT4_GROUP;
	uint8_t *q = to;

	for (int g = 0; g < groups; g += 4, scale += 4) {
		float rotated[4][CODEC_INT4_GROUP], inverse[4];
		__m256i m[4];

		for (int i = 0; i < 4; i++)
			m[i] = g + i < groups ? rotate(rotated[i], x + 64 * (g + i),
						       keep[g + i])
					      : _mm256_setzero_si256();
		scales_of(scale, inverse, largest_of_4(m), 7 * 64, 0x1p-6f, groups - g);
		for (int i = 0; i < 4 && g + i < groups; i++, q += 32)
			if (noise)
				int4_group(q, rotated[i], inverse[i], noise + 64 * (g + i));
			else
				int4_group(q, rotated[i], inverse[i], NULL);
	}
}

/* Four stages of sums within 16 bytes: they are 7 * 16 at most and fit a byte. A sign of -1
 * marks the lanes that are the second of their two. */
PIECE __m256i byte_stages(__m256i q)
{
	const __m256i lane = _mm256_broadcastsi128_si256(
		_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));

	for (int h = 1; h < 16; h *= 2) {
		__m256i bit = _mm256_set1_epi8((char)h);
		__m256i other = _mm256_shuffle_epi8(q, _mm256_xor_si256(lane, bit));
		__m256i second = _mm256_cmpeq_epi8(_mm256_and_si256(lane, bit), bit);
		__m256i sign = _mm256_or_si256(second, _mm256_set1_epi8(1));

		q = _mm256_add_epi8(other, _mm256_sign_epi8(q, sign));
	}
	return q;
}

/* The last two stages, between pieces of 16, are done in floats, exactly. */
PIECE void int4_group_decode(__m256 v[8], const uint8_t *from, float scale)
{
	__m256i pairs = _mm256_loadu_si256((const __m256i *)from), q[2];
	int8_t bytes[64];

	q[0] = _mm256_and_si256(pairs, _mm256_set1_epi8(15));
	q[1] = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), _mm256_set1_epi8(15));
	for (int i = 0; i < 2; i++)
		_mm256_storeu_si256((__m256i *)(bytes + 32 * i),
				    byte_stages(_mm256_sub_epi8(q[i], _mm256_set1_epi8(8))));
	for (int i = 0; i < 8; i++)
		v[i] = floats(bytes + 8 * i);
	for (int h = 2; h < 8; h *= 2)
		for (int i = 0; i < 8; i++)
			if (!(i & h))
				butterfly(&v[i], &v[i + h]);
	for (int i = 0; i < 8; i++)
		v[i] = _mm256_mul_ps(v[i], _mm256_set1_ps(scale));
}

AVX2 static void avx2_int4_decode(float *x, const void *from, const float *scale, int n)
{
	const uint8_t *q = from;
	__m256 v[8];
	int j = 0;

	for (; j + 64 <= n; j += 64, q += 32) {
		int4_group_decode(v, q, *scale++);
		for (int i = 0; i < 8; i++)
			_mm256_storeu_ps(x + j + 8 * i, v[i]);
	}
	if (j == n)
		return;
	int4_group_decode(v, q, *scale);
	memcpy(x + j, v, (size_t)(n - j) * sizeof *x);
}

static const struct codec_kernels kernels = {
	.name = "avx2",
	.noise = avx2_noise,
	.most = avx2_most,
	.bf16_encode = avx2_bf16_encode,
	.bf16_decode = avx2_bf16_decode,
	.int8_encode = avx2_int8_encode,
	.int8_decode = avx2_int8_decode,
	.int4_encode = avx2_int4_encode,
	.int4_decode = avx2_int4_decode,
};

const struct codec_kernels *codec_avx2(void)
{
	bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");

	return has ? &kernels : NULL;
}
#else
const struct codec_kernels *codec_avx2(void)
{
	return NULL;
}
#endif
