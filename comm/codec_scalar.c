/*
 * comm/codec_scalar.c - the codecs' inner loops in plain C: what a frame is, to the bit, and
 * what runs where there is no AVX2. The other kernels do the same operations in the same order.
 */
#include "comm/internal.h"

#include <math.h>

static void scalar_noise(uint16_t *to, struct philox counter, uint32_t key0, uint32_t key1,
			 int count)
{
	for (int i = 0; i < count; i++, counter.word[0]++) {
		struct philox p = philox(counter, key0, key1);

		for (int w = 0; w < 4; w++) {
			to[8 * i + 2 * w] = (uint16_t)p.word[w];
			to[8 * i + 2 * w + 1] = (uint16_t)(p.word[w] >> 16);
		}
	}
}

static int32_t magnitude(float x)
{
	return (int32_t)(codec_bits(x) & 0x7fffffff);
}

static int32_t largest(const float *x, int n)
{
	int32_t most = 0;

	for (int j = 0; j < n; j++)
		most = magnitude(x[j]) > most ? magnitude(x[j]) : most;
	return most;
}

static void scalar_most(int32_t *most, const float *x, size_t stride, int rows, int n)
{
	memset(most, 0, (size_t)n * sizeof *most);
	for (int r = 0; r < rows; r++, x += stride)
		for (int j = 0; j < n; j++)
			most[j] = magnitude(x[j]) > most[j] ? magnitude(x[j]) : most[j];
}

static void scalar_bf16_encode(uint16_t *y, const float *x, size_t n, const uint16_t *noise)
{
	for (size_t i = 0; i < n; i++)
		y[i] = codec_bf16(x[i], noise ? noise + i : NULL);
}

static void scalar_bf16_decode(float *x, const uint16_t *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = codec_float((uint32_t)y[i] << 16);
}

/* The group from `first` on, with zeros for what is not kept. */
static void load_group(float *v, const float *x, const uint64_t *keep, int first, int group)
{
	for (int j = 0; j < group; j++)
		v[j] = keep[(first + j) / 64] >> (first + j) % 64 & 1 ? x[first + j] : 0;
}

/* v in whole steps, levels at most either way. The noise has mean 1/2, so the result has v. */
static int steps(float v, const uint16_t *noise, int levels)
{
	int q = (int)(noise ? floorf(v + ((float)*noise + 0.5f) * 0x1p-16f) : rintf(v));

	return q > levels ? levels : q < -levels ? -levels : q;
}

static void scalar_int8_encode(void *to, float *scale, const float *x, const uint64_t *keep,
			       int n, const uint16_t *noise)
{
	int8_t *q = to;

	for (int first = 0; first < n; first += CODEC_INT8_GROUP) {
		int count = n - first < CODEC_INT8_GROUP ? n - first : CODEC_INT8_GROUP;
		float v[CODEC_INT8_GROUP], inverse;

		load_group(v, x, keep, first, CODEC_INT8_GROUP);
		*scale = codec_scale(largest(v, CODEC_INT8_GROUP), 127);
		inverse = codec_inverse(*scale++, 1);
		memset(q + first, 0, (size_t)count);
		for (int j = 0; inverse > 0 && j < count; j++)
			q[first + j] = (int8_t)steps(v[j] * inverse,
						     noise ? noise + first + j : NULL, 127);
	}
}

static void scalar_int8_decode(float *x, const void *from, const float *scale, int n)
{
	const int8_t *q = from;

	for (int j = 0; j < n; j++)
		x[j] = (float)q[j] * scale[j / CODEC_INT8_GROUP];
}

/*
 * v = H v, unnormalised (H H = 64): butterflies of distance 32 first and 1 last, the order that
 * every kernel keeps, since it decides how the sums are rounded.
 */
static void rotate(float v[CODEC_INT4_GROUP])
{
	for (int h = CODEC_INT4_GROUP / 2; h; h /= 2)
		for (int j = 0; j < CODEC_INT4_GROUP; j++)
			if (!(j & h)) {
				float a = v[j], b = v[j + h];

				v[j] = a + b;
				v[j + h] = a - b;
			}
}

/*
 * q = H v in steps of most / 7, and since v = H (H v) / 64, the scale is most / (7 * 64). Two
 * steps a byte, 8 more than they are: j in the low bits, j + 32 in the high ones.
 */
static void scalar_int4_encode(void *to, float *scale, const float *x, const uint64_t *keep,
			       int n, const uint16_t *noise)
{
	uint8_t *q = to;

	for (int first = 0; first < n; first += CODEC_INT4_GROUP, q += 32) {
		float v[CODEC_INT4_GROUP], inverse;
		int step[CODEC_INT4_GROUP] = {0};

		load_group(v, x, keep, first, CODEC_INT4_GROUP);
		rotate(v);
		*scale = codec_scale(largest(v, CODEC_INT4_GROUP), 7 * 64);
		inverse = codec_inverse(*scale++, 0x1p-6f);
		for (int j = 0; inverse > 0 && j < CODEC_INT4_GROUP; j++)
			step[j] = steps(v[j] * inverse, noise ? noise + first + j : NULL, 7);
		for (int j = 0; j < 32; j++)
			q[j] = (uint8_t)((step[j] + 8) | (step[j + 32] + 8) << 4);
	}
}

/* The sums are whole numbers up to 448: exact in any order. */
static void scalar_int4_decode(float *x, const void *from, const float *scale, int n)
{
	const uint8_t *q = from;

	for (int first = 0; first < n; first += CODEC_INT4_GROUP, q += 32, scale++) {
		float v[CODEC_INT4_GROUP];

		for (int j = 0; j < 32; j++) {
			v[j] = (float)((q[j] & 15) - 8);
			v[j + 32] = (float)((q[j] >> 4) - 8);
		}
		rotate(v);
		for (int j = 0; j < CODEC_INT4_GROUP && first + j < n; j++)
			x[first + j] = v[j] * *scale;
	}
}

static const struct codec_kernels kernels = {
	.name = "scalar",
	.noise = scalar_noise,
	.most = scalar_most,
	.bf16_encode = scalar_bf16_encode,
	.bf16_decode = scalar_bf16_decode,
	.int8_encode = scalar_int8_encode,
	.int8_decode = scalar_int8_decode,
	.int4_encode = scalar_int4_encode,
	.int4_decode = scalar_int4_decode,
};

const struct codec_kernels *codec_scalar(void)
{
	return &kernels;
}
