/*
 * The adapter in the weights: W + scale B A of every adapted linear, computed in F32 and rounded
 * once to W's own type; all other tensors as they are, byte for byte.
 *
 * In a file W is (out, in) or, for GPT-2's Conv1D, (in, out). Row by row of the file:
 *
 *     (out, in):  row o  +=  scale Σ_r B[o, r] A[r, :]
 *     (in, out):  row i  +=  scale Σ_r A[r, i] Bᵀ[r, :]
 */
#include "model/merged.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)4 << 20) /* bytes of W that are in memory at a time, or one row */

/* A tensor's adapter, ready for its rows. */
struct addend {
	const struct lora_tensor *a;
	size_t rows, cols;	/* of the file's tensor */
	const float *left;	/* (rows, rank), or (rank, rows) where transposed */
	const float *right;	/* (rank, cols) */
	bool transposed;
	float *own;		/* Bᵀ, where that is right */
};

static void addend_open(struct addend *x, const struct merged_model *merge,
			const struct lora_tensor *a, const struct safetensor *tensor)
{
	const struct lora_tensor *b = a + 1;
	const float *value_a = merge->values + a->offset, *value_b = merge->values + b->offset;
	size_t rank = (size_t)a->rank;

	*x = (struct addend){.a = a,
			     .rows = (size_t)tensor->shape[0],
			     .cols = (size_t)tensor->shape[1],
			     .left = value_b,
			     .right = value_a,
			     .transposed = model_row(merge->weights->config, a->slot)->transposed};
	if (!x->transposed)
		return;
	x->own = xalloc(rank * x->cols * sizeof(float));
	for (size_t r = 0; r < rank; r++)
		for (size_t o = 0; o < x->cols; o++)
			x->own[r * x->cols + o] = value_b[o * rank + r];
	x->left = value_a;
	x->right = x->own;
}

/* w (cols) += scale times the row of the product. sum: room for a row. */
static void add_row(const struct addend *x, float *w, float *sum, size_t row)
{
	const size_t cols = x->cols, rank = (size_t)x->a->rank;

	memset(sum, 0, cols * sizeof(*sum));
	for (size_t r = 0; r < rank; r++) {
		const float *right = x->right + r * cols;
		float left = x->transposed ? x->left[r * x->rows + row] : x->left[row * rank + r];

		for (size_t i = 0; i < cols; i++)
			sum[i] += left * right[i];
	}
	for (size_t i = 0; i < cols; i++)
		w[i] += x->a->scale * sum[i];
}

/* The nearest binary16, ties to even. Doubles as an integer: what is cut off rounds up into the
 * exponent where it must, as far as infinity. */
static uint16_t f16_of(float x)
{
	uint32_t bits, sign;
	float magnitude = fabsf(x);

	memcpy(&bits, &x, sizeof(bits));
	sign = bits >> 16 & 0x8000;
	if (!(magnitude < 65520))	/* half way to 2^16, and NaN */
		return (uint16_t)(sign | (x != x ? 0x7e00 : 0x7c00));
	if (magnitude < 0x1p-14f)	/* subnormal: multiples of 2^-24, which rintf counts */
		return (uint16_t)(sign | (uint32_t)rintf(magnitude * 0x1p24f));
	bits &= 0x7fffffff;
	bits += 0xfff + (bits >> 13 & 1);
	return (uint16_t)(sign | ((bits >> 13) - (112 << 10)));
}

/* Rounds count numbers to a type of the file; false where one became infinite or NaN. */
static bool narrow(void *to, enum dtype dtype, const float *from, size_t count)
{
	uint16_t *half = to;
	bool finite = true;

	for (size_t i = 0; i < count; i++) {
		finite &= isfinite(from[i]) != 0;
		if (dtype == DTYPE_F32) {
			((float *)to)[i] = from[i];
		} else if (dtype == DTYPE_F64) {
			((double *)to)[i] = from[i];
		} else if (dtype == DTYPE_BF16) {
			half[i] = bf16_of(from[i]);
			finite &= (half[i] & 0x7f80) != 0x7f80;
		} else {
			half[i] = f16_of(from[i]);
			finite &= (half[i] & 0x7c00) != 0x7c00;
		}
	}
	return finite;
}

static int put_sum(struct safetensors_writer *writer, const struct addend *x,
		   const struct safetensor *tensor)
{
	size_t row_bytes = x->cols * dtype_bytes(tensor->dtype);
	size_t most = row_bytes < PIECE ? PIECE / row_bytes : 1;
	float *w = xalloc((most + 1) * x->cols * sizeof(float)), *sum = w + most * x->cols;
	void *out = xalloc(most * row_bytes);
	int rc = 0;

	for (size_t row = 0; row < x->rows && rc == 0; row += most) {
		size_t rows = x->rows - row < most ? x->rows - row : most;

		convert_to_f32(w, (const char *)tensor->data + row * row_bytes, tensor->dtype,
			       rows * x->cols);
		for (size_t i = 0; i < rows; i++)
			add_row(x, w + i * x->cols, sum, row + i);
		if (!narrow(out, tensor->dtype, w, rows * x->cols))
			rc = error(EXIT_DATA,
				   "cannot merge '%s': with the adapter a number of row %zu to %zu is "
				   "not finite in %s",
				   tensor->name, row, row + rows - 1, tensor->dtype_text);
		else
			rc = safetensors_put(writer, out, rows * row_bytes);
		safetensor_forget(tensor, (row + rows) * row_bytes);
	}
	free(out);
	free(w);
	return rc;
}

static int put_same(struct safetensors_writer *writer, const struct safetensor *tensor)
{
	int rc = 0;

	for (size_t at = 0; at < tensor->bytes && rc == 0; at += PIECE) {
		size_t bytes = tensor->bytes - at < PIECE ? tensor->bytes - at : PIECE;

		rc = safetensors_put(writer, (const char *)tensor->data + at, bytes);
		safetensor_forget(tensor, at + bytes);
	}
	return rc;
}

/* The A of a tensor's adapter, or null. */
static const struct lora_tensor *adapter_of(const struct merged_model *merge,
					    const struct safetensor *tensor)
{
	const struct lora *lora = merge->lora;

	for (int i = 0; i < lora->count; i += 2)
		if (weights_find(merge->weights, lora->tensor[i].slot, lora->tensor[i].block) ==
		    tensor)
			return &lora->tensor[i];
	return NULL;
}

int merged_put(struct safetensors_writer *writer, const struct merged_model *merge,
	       const struct safetensor *tensor)
{
	const struct lora_tensor *a = adapter_of(merge, tensor);
	struct addend x;

	if (!a)
		return put_same(writer, tensor);
	addend_open(&x, merge, a, tensor);
	int rc = put_sum(writer, &x, tensor);
	free(x.own);
	return rc;
}
