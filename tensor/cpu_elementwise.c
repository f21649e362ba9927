/*
 * Kernels of the CPU that touch each element on its own: plain loops over chunks of rows,
 * vectorised by the compiler. Where an output may be an input, the pointers are not restrict
 * (EACH_ALONE).
 */
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

/* What a kernel takes; each uses some. */
struct maps {
	struct matrix y, x, w;
	const int32_t *ids;
	const struct spot *spot;
	float value;
	int size;
};

#define ROWS(name) static void name(const void *arg, int first, int end)

/* -- sums and copies ----------------------------------------------------------------------- */

VECTOR static void add_row(float *y, const float *x, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] += x[j];
}

ROWS(copy_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++)
		chunk_copy(a->y, a->x, i, 0, a->y.cols);
}

static void cpu_copy(struct device *dev, struct matrix y, struct matrix x)
{
	struct maps a = {.y = y, .x = x};

	run_rows(dev, copy_rows, &a, y.rows, (size_t)y.cols);
}

ROWS(fill_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++)
		if (a->y.dtype == DTYPE_BF16)
			for (int j = 0; j < a->y.cols; j++)
				row_of_bf16(a->y, i)[j] = bf16_of(a->value);
		else
			for (int j = 0; j < a->y.cols; j++)
				row_of(a->y, i)[j] = a->value;
}

static void cpu_fill(struct device *dev, struct matrix x, float value)
{
	struct maps a = {.y = x, .value = value};

	run_rows(dev, fill_rows, &a, x.rows, (size_t)x.cols);
}

static int position_of(const struct spot *spot, int i, int T)
{
	return spot ? (int)spot[i].position : i % T;
}

/* Rows of a table lie as its file has them, aligned to nothing. */
ROWS(embed_rows)
{
	const struct maps *a = arg;
	size_t bytes = dtype_bytes(a->x.dtype);
	float out[CHUNK];

	for (int i = first; i < end; i++) {
		const char *token = (char *)a->x.data + (size_t)a->ids[i] * a->x.ld * bytes;
		int position = position_of(a->spot, i, a->size);

		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *y = chunk_out(a->y, i, j, out);

			convert_to_f32(y, token + (size_t)j * bytes, a->x.dtype, (size_t)n);
			if (a->w.data)
				add_row(y, row_of(a->w, position) + j, n);
			chunk_done(a->y, i, j, n, y);
		}
	}
}

static void cpu_embed(struct device *dev, struct matrix y, const int32_t *ids,
		      const struct spot *spot, struct matrix tokens, struct matrix positions,
		      int T)
{
	struct maps a = {
	    .y = y, .x = tokens, .w = positions, .ids = ids, .spot = spot, .size = T};

	run_rows(dev, embed_rows, &a, y.rows, (size_t)y.cols);
}

/* -- rope ---------------------------------------------------------------------------------- */

VECTOR static void rotate(float *restrict a, float *restrict b, const float *restrict cosine,
			  const float *restrict sine, float sign, int half)
{
	for (int j = 0; j < half; j++) {
		float s = sign * sine[j], turned = a[j] * cosine[j] - b[j] * s;

		b[j] = b[j] * cosine[j] + a[j] * s;
		a[j] = turned;
	}
}

/* The same on BF16: a head is too short to be worth a buffer. */
VECTOR static void rotate_bf16(uint16_t *restrict a, uint16_t *restrict b,
			       const float *restrict cosine, const float *restrict sine,
			       float sign, int half)
{
	for (int j = 0; j < half; j++) {
		float s = sign * sine[j], c = cosine[j];
		float x = vector_widen(a[j]), y = vector_widen(b[j]);

		b[j] = vector_narrow(y * c + x * s);
		a[j] = vector_narrow(x * c - y * s);
	}
}

ROWS(rope_rows)
{
	const struct maps *a = arg;
	int half = a->size / 2;

	for (int i = first; i < end; i++) {
		const float *table = row_of(a->x, position_of(a->spot, i, a->x.rows));

		for (int j = 0; j < a->y.cols; j += a->size) {
			float *x = row_of(a->y, i) + j;
			uint16_t *x16 = row_of_bf16(a->y, i) + j;

			if (a->y.dtype == DTYPE_BF16)
				rotate_bf16(x16, x16 + half, table, table + half, a->value,
					    half);
			else
				rotate(x, x + half, table, table + half, a->value, half);
		}
	}
}

static void cpu_rope(struct device *dev, struct matrix x, const struct spot *spot,
		     struct matrix table, int head_size, bool backward)
{
	struct maps a = {.y = x,
			 .x = table,
			 .spot = spot,
			 .size = head_size,
			 .value = backward ? -1 : 1};

	run_rows(dev, rope_rows, &a, x.rows, (size_t)x.cols);
}

void cpu_elementwise_slots(struct kernels *k)
{
	k->copy = cpu_copy;
	k->fill = cpu_fill;
	k->embed = cpu_embed;
	k->rope = cpu_rope;
}
