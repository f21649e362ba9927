/*
 * tests/check_kernels.c - every slot of the CPU table equals the reference, gives the same bits
 * for any number of threads, and the same bits again behind far pointers and under a clock.
 *
 * A slot is run by one function on any device: it makes its inputs from counters, and gives its
 * outputs back with the gaps between their rows, so that a stray write is seen too.
 *
 * links: tensor base
 */
#include "tensor/tensor.h"
#include "tensor/thin.h"
#include "tests/numbers.h"
#include "tests/suite.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 64

/* One run of a slot on a device. */
struct run {
	struct device *dev;
	void *memory[MOST];
	int memories;
	uint32_t inputs; /* so far: the key of the next one's numbers */
	unsigned bf16;	 /* bit i: matrix i of those that may be of any dtype is BF16 */
	int any;	 /* of them so far */
	float *out;	 /* all outputs, one after the other */
	size_t count;
	size_t ends[MOST]; /* of the outputs */
	enum dtype dtypes[MOST];
	int outs;
};

/* n = B * T rows; the other letters are the slot's. */
struct sizes {
	int B, T, C, H, G, D, window;
	int gap; /* ld - cols of every matrix */
	int rank; /* of LoRA; 0: D */
};

static void *on_device(struct run *r, const void *data, size_t bytes)
{
	void *memory = r->dev->alloc(r->dev, bytes);

	ck_assert_ptr_nonnull(memory);
	ck_assert_int_lt(r->memories, MOST);
	r->memory[r->memories++] = memory;
	r->dev->upload(r->dev, memory, data, bytes);
	return memory;
}

/* A matrix of numbers in (-size, size), gaps included: reading a gap is seen in the result. */
static struct matrix input(struct run *r, int rows, int cols, int gap, float size)
{
	size_t count = (size_t)rows * (size_t)(cols + gap);
	float *data = xalloc(count * sizeof *data);
	uint32_t key = ++r->inputs;

	for (size_t i = 0; i < count; i++)
		data[i] = size * mixed_number(key, i);
	struct matrix m = matrix(on_device(r, data, count * sizeof *data), rows, cols);

	m.ld = (size_t)(cols + gap);
	free(data);
	return m;
}

/* The same as BF16. */
static struct matrix input_bf16(struct run *r, int rows, int cols, int gap, float size)
{
	size_t count = (size_t)rows * (size_t)(cols + gap);
	uint16_t *data = xalloc(count * sizeof *data);
	uint32_t key = ++r->inputs;

	for (size_t i = 0; i < count; i++)
		data[i] = bf16_of(size * mixed_number(key, i));
	struct matrix m =
	    matrix_of(DTYPE_BF16, on_device(r, data, count * sizeof *data), rows, cols);

	m.ld = (size_t)(cols + gap);
	free(data);
	return m;
}

/* The same as what the run has it be. */
static struct matrix any(struct run *r, int rows, int cols, int gap, float size)
{
	return r->bf16 >> r->any++ & 1 ? input_bf16(r, rows, cols, gap, size)
				       : input(r, rows, cols, gap, size);
}

/* Gives back a matrix that a slot wrote or must leave alone. */
static void output(struct run *r, struct matrix m)
{
	size_t count = (size_t)m.rows * m.ld, bytes = count * dtype_bytes(m.dtype);
	void *data = xalloc(bytes);

	r->out = realloc(r->out, (r->count + count) * sizeof *r->out);
	r->dev->download(r->dev, data, m.data, bytes);
	convert_to_f32(r->out + r->count, data, m.dtype, count);
	r->count += count;
	r->dtypes[r->outs] = m.dtype;
	r->ends[r->outs++] = r->count;
	free(data);
}

/* -- one function a slot ------------------------------------------------------------------- */

static void run_linear(struct run *r, const struct sizes *s)
{
	static const float factors[][2] = {{1, 0}, {0.5f, 1}, {-2, 0.25f}, {1, 1}};
	int m = s->B * s->T, n = s->C, inner = s->D;

	for (int i = 0; i < 4; i++) {
		bool a_t = i & 1, b_t = i & 2;
		struct matrix a = input(r, a_t ? inner : m, a_t ? m : inner, s->gap, 1);
		struct matrix b = input(r, b_t ? n : inner, b_t ? inner : n, s->gap, 1);
		struct matrix c = input(r, m, n, s->gap, 1);

		r->dev->k.matmul(r->dev, c, a, a_t, b, b_t, factors[i][0], factors[i][1]);
		output(r, c);
		if (a_t)
			continue;
		r->dev->k.linear(r->dev, c, a, b, b_t, input(r, 1, n, 0, 1), factors[i][1]);
		output(r, c);
	}
}

static void run_thin(struct run *r, const struct sizes *s)
{
	static const float factors[][2] = {{1, 0}, {0.5f, 1}, {-2, 0.25f}, {1, 1}};
	int m = s->B * s->T, n = s->C < 3000 ? s->C : 3000, inner = s->D;

	for (int i = 0; i < 4; i++) {
		bool a_t = i & 1, b_t = i & 2;
		struct matrix a = any(r, a_t ? inner : m, a_t ? m : inner, s->gap, 1);
		struct matrix b = any(r, b_t ? n : inner, b_t ? inner : n, s->gap, 1);
		struct matrix c = any(r, m, n, s->gap, 1);

		r->dev->k.thin(r->dev, c, a, a_t, b, b_t, factors[i][0], factors[i][1]);
		output(r, c);
	}
}

/* What training makes of a rank: u = x aᵀ, du = s dy b, the gradients of b and a, dx += du a; u
 * and du lie in the tail of wide rows. */
static void run_lora(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T, rank = s->rank ? s->rank : s->D;
	int K = s->C < 3000 ? s->C : 3000, N = K + 3;
	struct matrix x = any(r, n, K, s->gap, 1), dy = any(r, n, N, s->gap, 1);
	struct matrix wide = any(r, n, K + rank, s->gap, 1);
	struct matrix dwide = any(r, n, N + rank, s->gap, 1);
	struct matrix u = matrix_cols(wide, K, rank), du = matrix_cols(dwide, N, rank);
	struct matrix a = input(r, rank, K, 0, 1), b = input(r, N, rank, 0, 1);
	struct matrix grad_a = input(r, rank, K, 0, 1), grad_b = input(r, N, rank, 0, 1);
	struct matrix dx = any(r, n, K, s->gap, 1);

	r->dev->k.thin(r->dev, grad_b, dy, true, u, false, 0.5f, 1);
	r->dev->k.thin(r->dev, grad_a, du, true, x, false, 1, 1);
	r->dev->k.thin(r->dev, dx, du, false, a, false, 1, 1);
	output(r, dx);
	r->dev->k.thin(r->dev, dx, du, false, a, false, 1, 0);
	r->dev->k.thin(r->dev, u, x, false, a, true, 1, 0);
	r->dev->k.thin(r->dev, du, dy, false, b, false, 0.5f, 0);
	output(r, wide);
	output(r, dwide);
	output(r, grad_b);
	output(r, grad_a);
	output(r, dx);
}

/* What cannot be copied without rounding, and rounding itself: ties, a carry into the exponent,
 * the largest, what becomes infinite, infinity, NaNs of which only low bits are set. */
static const uint32_t rounded[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x3f817fff, 0x3fffffff,
				   0x7f7f7fff, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000,
				   0x00000001, 0x80008001, 0x00018000, 0x80000000, 0x7f800001,
				   0xff80ffff, 0x7fffffff, 0xffffffff};

static void run_copy(struct run *r, const struct sizes *s)
{
	struct matrix y = any(r, s->B * s->T, s->C, s->gap, 1);
	struct matrix x = any(r, s->B * s->T, s->C, s->gap + 1, 1);
	struct matrix z = any(r, s->B * s->T, s->C, s->gap, 1);

	if (x.dtype == DTYPE_F32 && (size_t)s->C >= sizeof rounded / sizeof *rounded)
		r->dev->upload(r->dev, x.data, rounded, sizeof rounded);
	r->dev->k.copy(r->dev, y, x);
	r->dev->k.fill(r->dev, z, 0.3f);
	output(r, y);
	output(r, z);
}

/* Samples of 1, 2, ... rows, the last one cut off, none longer than T; their numbers are no order. */
static const struct spot *spots(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T;
	struct spot *spot = xalloc((size_t)n * sizeof *spot);
	uint32_t sample = 1, position = 0;

	for (int i = 0; i < n; i++, position++) {
		if (position == sample % (uint32_t)s->T + 1 || position == (uint32_t)s->T) {
			sample++;
			position = 0;
		}
		spot[i] = (struct spot){sample * 7 % 5, position};
	}
	const struct spot *there = on_device(r, spot, (size_t)n * sizeof *spot);

	free(spot);
	return there;
}

static void run_embed(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T, V = 53;
	int32_t *ids = xalloc((size_t)n * sizeof *ids);

	for (int i = 0; i < n; i++)
		ids[i] = i * 31 % V;
	const int32_t *far_ids = on_device(r, ids, (size_t)n * sizeof *ids);
	struct matrix y = input(r, n, s->C, s->gap, 1), tokens = any(r, V, s->C, s->gap, 1);

	struct matrix positions = input(r, s->T, s->C, 0, 1);

	r->dev->k.embed(r->dev, y, far_ids, NULL, tokens, positions, s->T);
	output(r, y);
	r->dev->k.embed(r->dev, y, far_ids, spots(r, s), tokens, positions, s->T);
	output(r, y);
	if (tokens.dtype == DTYPE_BF16)
		tokens.dtype = DTYPE_F16;
	r->dev->k.embed(r->dev, y, far_ids, NULL, tokens, (struct matrix){0}, s->T);
	output(r, y);
	free(ids);
}

static void run_layer_norm(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T;
	struct matrix x = input(r, n, s->C, s->gap, 5), y = any(r, n, s->C, s->gap, 1);
	struct matrix stats = input(r, n, 2, 1, 1), gain = input(r, 1, s->C, 0, 2);
	struct matrix dx = input(r, n, s->C, s->gap, 1), dy = any(r, n, s->C, s->gap + 1, 1);
	struct matrix copy = any(r, n, s->C, s->gap, 1), again = any(r, n, s->C, s->gap, 1);
	struct matrix kept = any(r, n, s->C, s->gap, 1);

	r->dev->k.linear(r->dev, x, input(r, n, 1, 0, 0), input(r, 1, s->C, 0, 0), false,
			 input(r, 1, s->C, 0, 100), 1); /* outlying channels */
	r->dev->k.copy(r->dev, kept, x);
	r->dev->k.layer_norm(r->dev, y, copy, stats, kept, gain, input(r, 1, s->C, 0, 1),
			     1e-5f);
	r->dev->k.layer_norm_backward(r->dev, dx, again, dy, kept, stats, gain);
	output(r, copy);
	output(r, again);
	output(r, y);
	output(r, stats);
	output(r, dx);
}

static void run_rms_norm(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T;
	struct matrix x = any(r, n, s->C, s->gap, 5), y = any(r, n, s->C, s->gap, 1);
	struct matrix stats = input(r, n, 1, 1, 1), gain = input(r, 1, s->C, 0, 2);
	struct matrix dx = any(r, n, s->C, s->gap, 1), dy = any(r, n, s->C, s->gap, 1);
	struct matrix copy = any(r, n, s->C, s->gap, 1), none = {0};

	r->dev->k.rms_norm(r->dev, y, copy, stats, x, gain, 1e-6f);
	output(r, copy);
	r->dev->k.rms_norm_backward(r->dev, dx, copy, dy, x, stats, gain, true);
	output(r, copy);
	output(r, y);
	output(r, stats);
	output(r, dx);
	r->dev->k.rms_norm_backward(r->dev, dx, none, dy, x, stats, gain, false);
	output(r, dx);
	r->dev->k.rms_norm_backward(r->dev, dy, none, dy, x, stats, gain, false);
	output(r, dy);
}

/* Rows of some heads, each normed by itself. */
static void run_rms_norm_heads(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T, C = s->H * s->D;
	struct matrix x = any(r, n, C, s->gap, 5), y = any(r, n, C, s->gap, 1);
	struct matrix stats = input(r, n, s->H, 1, 1), gain = input(r, 1, s->D, 0, 2);
	struct matrix dy = any(r, n, C, s->gap, 1), copy = any(r, n, C, s->gap, 1), none = {0};

	r->dev->k.rms_norm(r->dev, y, copy, stats, x, gain, 1e-6f);
	output(r, copy);
	output(r, y);
	output(r, stats);
	r->dev->k.rms_norm_backward(r->dev, dy, none, dy, x, stats, gain, false);
	output(r, dy);
}

static void run_rope(struct run *r, const struct sizes *s)
{
	struct matrix x = any(r, s->B * s->T, s->H * s->D, s->gap, 1);
	struct matrix table = input(r, s->T, s->D, 0, 1);

	r->dev->k.rope(r->dev, x, NULL, table, s->D, false);
	output(r, x);
	r->dev->k.rope(r->dev, x, NULL, table, s->D, true);
	output(r, x);
	r->dev->k.rope(r->dev, x, spots(r, s), table, s->D, false);
	output(r, x);
}

static void run_attention(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T, wide = s->H * s->D, narrow = s->G * s->D;
	struct attention shape = {s->B, s->T, s->H, s->G, s->D, 0.7f, s->window, 0, NULL};
	struct matrix q = input(r, n, wide, s->gap, 2), k = input(r, n, narrow, s->gap + 3, 2);
	struct matrix v = input(r, n, narrow, s->gap, 1), o = input(r, n, wide, s->gap, 1);
	struct matrix lse = input(r, n, s->H, 1, 1), d_o = input(r, n, wide, s->gap, 1);
	struct matrix dq = input(r, n, wide, s->gap + 2, 1), dk = input(r, n, narrow, 5, 1);
	struct matrix dv = input(r, n, narrow, s->gap, 1);
	size_t bytes = r->dev->k.attention_scratch(pool_threads(r->dev->pool), shape, DTYPE_F32);
	char *noise = xalloc(bytes);

	memset(noise, 0xff, bytes); /* NaN: scratch brings nothing along */
	void *scratch = on_device(r, noise, bytes);

	r->dev->k.attention(r->dev, o, lse, q, k, v, shape, scratch);
	r->dev->upload(r->dev, scratch, noise, bytes);
	r->dev->k.attention_backward(r->dev, dq, dk, dv, d_o, q, k, v, o, lse, shape, scratch);
	output(r, o);
	output(r, lse);
	output(r, dq);
	output(r, dk);
	output(r, dv);
	free(noise);
}

static void run_gelu(struct run *r, const struct sizes *s)
{
	for (enum gelu kind = GELU_TANH; kind <= GELU_EXACT; kind++) {
		struct matrix x = any(r, s->B * s->T, s->C, s->gap, 12);
		struct matrix y = any(r, s->B * s->T, s->C, s->gap, 1);
		struct matrix dy = any(r, s->B * s->T, s->C, s->gap, 1);

		r->dev->k.gelu(r->dev, y, x, kind);
		output(r, y);
		r->dev->k.gelu_backward(r->dev, y, dy, x, kind);
		output(r, y);
		r->dev->k.gelu_backward(r->dev, dy, dy, x, kind);
		output(r, dy);
	}
}

static void run_swiglu(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T;
	struct matrix gate = any(r, n, s->C, s->gap, 120), up = any(r, n, s->C, 2, 1);
	struct matrix y = any(r, n, s->C, s->gap, 1), dgate = any(r, n, s->C, 1, 1);
	struct matrix dy = any(r, n, s->C, s->gap, 1);

	r->dev->k.swiglu(r->dev, y, gate, up);
	output(r, y);
	r->dev->k.swiglu_backward(r->dev, dgate, dy, dy, gate, up);
	output(r, dgate);
	output(r, dy);
}

static void run_dropout(struct run *r, const struct sizes *s)
{
	struct matrix x = any(r, s->B * s->T, s->C, s->gap, 1);
	struct matrix y = any(r, s->B * s->T, s->C, s->gap, 1);
	struct dropout d = {
	    .p = 0.3f, .key0 = 5, .key1 = 6, .step = 7, .first_sample = 8, .tokens = s->T};

	r->dev->k.dropout(r->dev, y, x, d);
	output(r, y);
	r->dev->k.dropout_backward(r->dev, y, x, d);
	output(r, y);
	d.spot = spots(r, s);
	r->dev->k.dropout(r->dev, y, x, d);
	output(r, y);
	r->dev->k.dropout_backward(r->dev, y, x, d);
	output(r, y);
	d.p = 0;
	r->dev->k.dropout(r->dev, y, x, d);
	output(r, y);
	r->dev->k.dropout(r->dev, x, x, d);
	output(r, x);
}

/* losses as an output, which are floats. */
static void output_losses(struct run *r, const double *far_losses, int n)
{
	double *losses = xalloc((size_t)n * sizeof *losses);
	float *shown = xalloc((size_t)n * sizeof *shown);

	r->dev->download(r->dev, losses, far_losses, (size_t)n * sizeof *losses);
	for (int i = 0; i < n; i++)
		shown[i] = (float)losses[i];
	output(r, matrix(on_device(r, shown, (size_t)n * sizeof *shown), n, 1));
	free(losses);
	free(shown);
}

/* BF16 in the place of an F32 matrix, row by row. */
static struct matrix in_place_of(struct matrix m)
{
	m.dtype = DTYPE_BF16;
	m.ld *= 2;
	return m;
}

static void run_cross_entropy(struct run *r, const struct sizes *s)
{
	int n = s->B * s->T;
	int32_t *labels = xalloc((size_t)n * sizeof *labels);
	double *losses = xalloc((size_t)n * sizeof *losses);
	struct matrix logits = input(r, n, s->C, s->gap, 30), none = {0};
	struct matrix apart = any(r, n, s->C, s->gap, 1);
	struct matrix place = apart.dtype == DTYPE_BF16 ? in_place_of(logits) : logits;

	for (int i = 0; i < n; i++)
		losses[i] = 7;
	for (int i = 0; i < n; i++)
		labels[i] = i % 3 == 2 ? -100 : i * 1031 % s->C;
	const int32_t *far_labels = on_device(r, labels, (size_t)n * sizeof *labels);
	double *far_losses = on_device(r, losses, (size_t)n * sizeof *losses);
	struct matrix gradients[] = {none, apart, place};

	for (int i = 0; i < 3; i++) {
		r->dev->k.cross_entropy(r->dev, far_losses, gradients[i], logits, far_labels,
					0.25f);
		output_losses(r, far_losses, n);
		if (i == 0)
			output(r, logits);
		else if (i == 1)
			output(r, gradients[i]);
	}
	/* In place only the gradient is promised: not what is left of the logits beside it. */
	r->dev->k.copy(r->dev, apart, place);
	output(r, apart);
	free(labels);
	free(losses);
}

static void run_optimizer(struct run *r, const struct sizes *s)
{
	struct adamw a = {.learning_rate = 1e-2,
			  .beta1 = 0.9,
			  .beta2 = 0.999,
			  .epsilon = 1e-8,
			  .weight_decay = 0.1,
			  .grad_scale = 0.5f,
			  .step = 1};
	struct matrix p = input(r, s->B * s->T, s->C, s->gap, 1);
	struct matrix m = input(r, s->B * s->T, s->C, 0, 1),
		      v = input(r, s->B * s->T, s->C, 0, 1);
	struct matrix g = input(r, s->B * s->T, s->C, s->gap, 1), norm = input(r, 1, 2, 0, 1);

	r->dev->k.fill(r->dev, m, 0);
	r->dev->k.fill(r->dev, v, 0);
	for (; a.step <= 3; a.step++)
		r->dev->k.adamw(r->dev, p, m, v, g, a);
	r->dev->k.squared_norm(r->dev, norm.data, g);
	output(r, p);
	output(r, m);
	output(r, v);
	output(r, norm);
}

/* -- the tables ---------------------------------------------------------------------------- */

/* Odd sizes, one row, one head, rows of one, more than one tile or block or piece. */
static const struct sizes sizes[] = {
    {.B = 1, .T = 1, .C = 1, .H = 1, .G = 1, .D = 2},
    {.B = 2, .T = 3, .C = 5, .H = 2, .G = 1, .D = 4, .gap = 3},
    {.B = 1, .T = 16, .C = 16, .H = 4, .G = 4, .D = 16},
    {.B = 3, .T = 37, .C = 67, .H = 6, .G = 2, .D = 10, .gap = 1, .window = 5},
    {.B = 1, .T = 200, .C = 300, .H = 3, .G = 3, .D = 32, .gap = 4},
    {.B = 1, .T = 129, .C = 1100, .H = 2, .G = 1, .D = 8, .gap = 16, .window = 1},
    {.B = 2, .T = 300, .C = 130, .H = 2, .G = 1, .D = 20, .window = 40},
    {.B = 1, .T = 601, .C = 8, .H = 1, .G = 1, .D = 64, .gap = 8, .window = 150},
    {.B = 1, .T = 7, .C = 2500, .H = 5, .G = 5, .D = 6, .window = 7},
    {.B = 1, .T = 2, .C = 33000, .H = 1, .G = 1, .D = 128},
    {.B = 2, .T = 130, .C = 800, .H = 1, .G = 1, .D = 70, .gap = 5},
    {.B = 1, .T = 130, .C = 40, .H = 1, .G = 1, .D = 1},
    {.B = 1, .T = 9, .C = 700, .H = 1, .G = 1, .D = 4, .gap = 1, .rank = 260},
};

/* All F32, all BF16, and mixtures. */
static const unsigned dtypes[] = {0, ~0u, 0x33333333, 0xaaaaaaaa, 0x96969699};

#define DTYPES ((int)(sizeof dtypes / sizeof *dtypes))

/*
 * Allowed difference from the reference, as a part of the largest number of the output. The
 * reference sums in double; the CPU sums products in float, in OpenBLAS's order. Where that is
 * not 0 and the output is BF16, its neighbour is allowed too: a little before rounding decides.
 */
static const struct slot {
	const char *name;
	void (*run)(struct run *r, const struct sizes *s);
	float tolerance;
	int dtypes; /* how many combinations of dtypes to try */
} slots[] = {
    {"matmul linear", run_linear, 2e-6f, 1}, /* sums of up to 128 in float */
    {"thin", run_thin, 2e-6f, DTYPES}, /* the same, with fused operations */
    {"thin", run_lora, 3e-6f, DTYPES}, /* sums of up to 3000 */
    {"copy fill", run_copy, 0, DTYPES}, /* the same operations */
    {"embed", run_embed, 0, DTYPES},
    {"layer_norm", run_layer_norm, 2e-6f, DTYPES}, /* x - mean in float, x 20 times its spread */
    {"rms_norm", run_rms_norm, 2e-6f, DTYPES}, /* in rows of one, all cancels */
    {"rms_norm", run_rms_norm_heads, 5e-6f, DTYPES}, /* the same, of one number */
    {"rope", run_rope, 0, DTYPES},
    {"attention", run_attention, 5e-6f, 1}, /* exp of scores up to 100 rounds at 100 ulp */
    {"gelu", run_gelu, 1e-6f, DTYPES},	    /* exp(-2u): u rounds at 10 and more */
    {"swiglu", run_swiglu, 1e-6f, DTYPES},
    {"dropout", run_dropout, 0, DTYPES}, /* the same random words */
    {"cross_entropy", run_cross_entropy, 1e-6f, DTYPES},
    {"adamw squared_norm", run_optimizer, 1e-6f, 1},
};

#define SIZES ((int)(sizeof sizes / sizeof *sizes))
#define SLOTS ((int)(sizeof slots / sizeof *slots))
#define PRODUCTS 2 /* the first slots, as far as libraries compute them */

static struct run run_on(const char *device, int threads, const struct slot *slot,
			 const struct sizes *s, unsigned bf16)
{
	struct run r = {.dev = device_open(device, threads), .bf16 = bf16};

	ck_assert_ptr_nonnull(r.dev);
	slot->run(&r, s);
	for (int i = 0; i < r.memories; i++)
		r.dev->free(r.dev, r.memory[i]);
	device_close(r.dev);
	return r;
}

static void same_bits(const struct run *a, const struct run *b, const char *what,
		      const struct slot *slot, int size)
{
	ck_assert_uint_eq(a->count, b->count);
	for (size_t i = 0; i < a->count; i++)
		if (memcmp(a->out + i, b->out + i, sizeof *a->out) != 0)
			ck_abort_msg("%s: %s, sizes %d, BF16 %x, number %zu: %.9g is not %.9g",
				     slot->name, what, size, a->bf16, i, b->out[i], a->out[i]);
}

/* Whether got is want, as far as an output of that dtype, whose largest number is most, allows. */
static bool is_close(float want, float got, enum dtype dtype, float tolerance, float most)
{
	float allowed = tolerance * most;

	if (dtype == DTYPE_BF16 && tolerance > 0)
		allowed += fmaxf(fabsf(want), fabsf(got)) * 0x1p-7f;
	if (want == got || (isnan(want) && isnan(got)))
		return true;
	return fabsf(want - got) <= allowed;
}

static void close_to(const struct run *want, const struct run *got, const struct slot *slot,
		     int size)
{
	size_t i = 0;

	ck_assert_uint_eq(want->count, got->count);
	for (int o = 0; o < want->outs; o++) {
		float most = 0.1f; /* what cancels to nothing has no scale of its own */

		for (size_t j = i; j < want->ends[o]; j++)
			most = fmaxf(most, fabsf(want->out[j]));
		for (; i < want->ends[o]; i++)
			if (!is_close(want->out[i], got->out[i], want->dtypes[o],
				      slot->tolerance, most))
				ck_abort_msg("%s: sizes %d, BF16 %x, output %d: %.9g is not "
					     "%.9g (most %g)",
					     slot->name, size, want->bf16, o, got->out[i],
					     want->out[i], most);
	}
}

START_TEST(slot_equals_reference)
{
	const struct slot *slot = &slots[_i];

	for (int i = 0; i < SIZES * slot->dtypes; i++) {
		int size = i / slot->dtypes;
		unsigned bf16 = dtypes[i % slot->dtypes];
		struct run want = run_on("reference", 1, slot, &sizes[size], bf16);
		struct run got = run_on("cpu", 1, slot, &sizes[size], bf16);

		close_to(&want, &got, slot, size);
		free(want.out);
		free(got.out);
	}
}
END_TEST

START_TEST(slot_same_bits_on_any_threads_and_far)
{
	const struct slot *slot = &slots[_i];

	for (int i = 0; i < SIZES * slot->dtypes; i += slot->dtypes > 1 ? DTYPES - 1 : 1) {
		int size = i / slot->dtypes;
		unsigned bf16 = dtypes[i % slot->dtypes];
		struct run want = run_on("cpu", 1, slot, &sizes[size], bf16);

		for (int threads = 2; threads <= 4; threads++) {
			struct run got = run_on("cpu", threads, slot, &sizes[size], bf16);

			same_bits(&want, &got, "threads", slot, size);
			free(got.out);
		}
		struct run got = run_on("far", 2, slot, &sizes[size], bf16);

		same_bits(&want, &got, "far", slot, size);
		free(got.out);
		free(want.out);
	}
}
END_TEST

/* Every word of a slot's name was called. */
static void calls_are_kept(const struct device *dev, const char *names)
{
	char copy[64], *save, *name;

	snprintf(copy, sizeof copy, "%s", names);
	for (name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
		bool found = false;

		for (int i = 0; i < dev->timed->count; i++)
			found |= !strcmp(dev->timed->op[i].slot, name);
		ck_assert_msg(found, "%s was not timed", name);
	}
}

START_TEST(slot_same_bits_timed)
{
	const struct slot *slot = &slots[_i];
	const int size = 3; /* of which no two are equal */

	for (int i = 0; i < slot->dtypes; i++) {
		unsigned bf16 = dtypes[i];
		struct run want = run_on("cpu", 1, slot, &sizes[size], bf16);
		struct run got = {.dev = device_open("cpu", 2), .bf16 = bf16};

		ck_assert_ptr_nonnull(got.dev);
		timed_open(got.dev, 64);
		timed_start(got.dev);
		slot->run(&got, &sizes[size]);
		timed_stop(got.dev);
		same_bits(&want, &got, "timed", slot, size);
		calls_are_kept(got.dev, slot->name);
		for (int m = 0; m < got.memories; m++)
			got.dev->free(got.dev, got.memory[m]);
		device_close(got.dev);
		free(got.out);
		free(want.out);
	}
}
END_TEST

/* Every set of inner loops that this CPU has, since the slot takes the best alone. */
START_TEST(thin_loops_are_equal)
{
	enum { LD = 96, N = 64, ROWS = 7 };
	float x[ROWS * LD], w[RANKS * LD], d[ROWS * RANKS];
	struct thin_loops loops;

	for (int i = 0; i < ROWS * LD; i++)
		x[i] = mixed_number(1, (size_t)i);
	for (int i = 0; i < RANKS * LD; i++)
		w[i] = mixed_number(2, (size_t)i);
	for (int i = 0; i < ROWS * RANKS; i++)
		d[i] = mixed_number(3, (size_t)i);
	if (!thin_loops_of((enum thin_set)_i, &loops)) {
		printf("thin_loops_are_equal: set %d skipped, not on this CPU\n", _i);
		return;
	}
	float sum[ROWS_AT_ONCE][RANKS], y[RANKS * LD];

	memcpy(sum, d, sizeof sum);
	memcpy(y, w, sizeof y);
	loops.dots(sum, x, w, LD, N);
	loops.outer(y, d, x, LD, ROWS, N);
	for (int i = 0; i < ROWS_AT_ONCE * RANKS; i++) {
		double want = d[i];

		for (int j = 0; j < N; j++)
			want += (double)x[i / RANKS * LD + j] * w[i % RANKS * LD + j];
		ck_assert(fabs(want - sum[i / RANKS][i % RANKS]) <= 4e-6);
	}
	for (int i = 0; i < RANKS * LD; i++) {
		double want = w[i];

		for (int l = 0; l < ROWS && i % LD < N; l++)
			want += (double)d[l * RANKS + i / LD] * x[l * LD + i % LD];
		ck_assert(fabs(want - y[i]) <= 2e-6);
	}
}
END_TEST

/* -- tables and memory --------------------------------------------------------------------- */

#define SLOT_COUNT (sizeof(struct kernels) / sizeof(void (*)(void)))

static void slots_of(struct kernels k, void (*slot[SLOT_COUNT])(void))
{
	memcpy(slot, &k, sizeof k);
}

START_TEST(no_table_has_a_hole)
{
	struct kernels tables[] = {kernels_ref, kernels_cpu(), kernels_far()};
	void (*slot[SLOT_COUNT])(void);

	for (int t = 0; t < 3; t++) {
		slots_of(tables[t], slot);
		for (size_t i = 0; i < SLOT_COUNT; i++)
			ck_assert_msg(slot[i] != NULL, "%s: slot %zu", tables[t].name, i);
	}
}
END_TEST

/* Only attention_scratch, head_scratch and packed_bytes take no pointer, so only they may be the CPU's. */
START_TEST(far_wraps_every_slot)
{
	void (*far[SLOT_COUNT])(void), (*cpu[SLOT_COUNT])(void);
	int same = 0;

	slots_of(kernels_far(), far);
	slots_of(kernels_cpu(), cpu);
	for (size_t i = 0; i < SLOT_COUNT; i++)
		same += far[i] == cpu[i];
	ck_assert_int_eq(same, 3);
	ck_assert(kernels_far().attention_scratch == kernels_cpu().attention_scratch);
	ck_assert(kernels_far().packed_bytes == kernels_cpu().packed_bytes);
}
END_TEST

/* Whatever computes is timed: all but the name and a question. */
START_TEST(timed_wraps_every_slot)
{
	void (*timed[SLOT_COUNT])(void), (*cpu[SLOT_COUNT])(void);
	struct device *dev = device_open("cpu", 1);
	int same = 0;

	ck_assert_ptr_nonnull(dev);
	timed_open(dev, 1);
	slots_of(dev->k, timed);
	slots_of(kernels_cpu(), cpu);
	for (size_t i = 0; i < SLOT_COUNT; i++)
		same += timed[i] == cpu[i];
	ck_assert_int_eq(same, 4);
	ck_assert(dev->k.packed_bytes == kernels_cpu().packed_bytes);
	ck_assert(dev->k.name == kernels_cpu().name);
	ck_assert(dev->k.attention_scratch == kernels_cpu().attention_scratch);
	device_close(dev);
}
END_TEST

/* How a child that reads one byte there ends: the signal, or 0. */
static int touch(const void *memory)
{
	int status;
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGBUS, SIG_DFL);
		_exit(*(const volatile char *)memory);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

START_TEST(far_memory_faults_when_touched)
{
	struct device *far = device_open("far", 1), *cpu = device_open("cpu", 1);
	void *there = far->alloc(far, 100), *here = cpu->alloc(cpu, 100);
	int signal = touch(there);

	ck_assert_msg(signal == SIGSEGV || signal == SIGBUS, "signal %d", signal);
	ck_assert_int_eq(touch(here), 0);
	ck_assert(!far->host_memory && cpu->host_memory);
	far->free(far, there);
	cpu->free(cpu, here);
	device_close(far);
	device_close(cpu);
}
END_TEST

START_TEST(memory_is_aligned_and_zero)
{
	static const char *const devices[] = {"cpu", "reference", "far"};
	static const size_t sizes[] = {0, 1, 63, 65, 4096, 5 << 20};
	struct device *dev = device_open(devices[_i], 1);

	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		char *memory = dev->alloc(dev, sizes[s]), *back = xalloc(sizes[s] + 1);

		ck_assert_ptr_nonnull(memory);
		ck_assert_uint_eq((uintptr_t)memory % SLAB_ALIGN, 0);
		memset(back, 1, sizes[s] + 1);
		dev->download(dev, back, memory, sizes[s]);
		ck_assert_ptr_eq(memchr(back, 1, sizes[s] + 1), back + sizes[s]);
		dev->upload(dev, memory, "x", sizes[s] ? 1 : 0);
		dev->free(dev, memory);
		free(back);
	}
	dev->free(dev, NULL);
	device_close(dev);
}
END_TEST

START_TEST(too_much_memory_is_an_error)
{
	struct device *dev = device_open("cpu", 1);

	error_hold();
	ck_assert_ptr_null(dev->alloc(dev, SIZE_MAX - 100));
	ck_assert_int_eq(error_code(), EXIT_CONFIG);
	ck_assert_ptr_null(device_open("abacus", 1));
	ck_assert_ptr_nonnull(strstr(error_text(), "'abacus'"));
	error_clear();
	device_close(dev);
}
END_TEST

START_TEST(the_reference_takes_one_thread)
{
	struct device *cpu = device_open("cpu", 2), *reference = device_open("reference", 2);
	char text[128];

	ck_assert_int_eq(pool_threads(cpu->pool), 2);
	ck_assert_ptr_nonnull(strstr(cpu_describe(text, sizeof text), "OpenBLAS "));
	ck_assert_int_eq(pool_threads(reference->pool), 1);
	ck_assert_ptr_null(reference->onednn);
	device_close(cpu);
	device_close(reference);
}
END_TEST

#if defined(__x86_64__)
/* What this program says when started with a core forced: see main. */
static int better_core(const char *argument)
{
	int status;
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		setenv("OPENBLAS_CORETYPE", "Haswell", 1);
		execl("/proc/self/exe", "check_kernels", argument, (char *)0);
		_exit(99);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* A Haswell core on a CPU with AVX-512 is a wrong choice, unless the user made it. */
START_TEST(a_better_core_is_named)
{
	if (!__builtin_cpu_supports("avx2")) {
		printf("a_better_core_is_named: skipped, no AVX2\n");
		return;
	}
	ck_assert_int_eq(better_core("core-by-user"), 0);
	ck_assert_int_eq(better_core("core-by-openblas"), !!__builtin_cpu_supports("avx512vl"));
}
END_TEST
#endif

/* 1 where OpenBLAS should be started again with SkylakeX, 0 where not. */
static int say_core(bool by_user)
{
	if (!by_user)
		unsetenv("OPENBLAS_CORETYPE");
	const char *core = blas_better_core();

	return !core ? 0 : strcmp(core, "SkylakeX") ? 98 : 1;
}

/* With beta 0, c may hold anything; with NaN in a row of logits, its loss says so. */
START_TEST(not_a_number)
{
	struct device *dev = device_open(_i ? "cpu" : "reference", 1);
	float a[6] = {1, 2, 3, 4, 5, 6}, c[4] = {NAN, NAN, NAN, NAN}, x[3] = {1, NAN, 2};
	int32_t label = 0;
	double loss = 0;

	dev->k.matmul(dev, matrix(c, 2, 2), matrix(a, 2, 3), false, matrix(a, 2, 3), true, 1,
		      0);
	ck_assert(c[0] == 14 && c[1] == 32 && c[2] == 32 && c[3] == 77);
	dev->k.cross_entropy(dev, &loss, (struct matrix){0}, matrix(x, 1, 3), &label, 1);
	ck_assert(isnan(loss));
	device_close(dev);
}
END_TEST

/* The softmax of one score is 1 whatever the score: its gradient is 0, not what rounding leaves. */
START_TEST(one_key_has_no_gradient)
{
	const struct sizes s = {.B = 2, .T = 70, .H = 4, .G = 2, .D = 5, .window = 1};
	const struct slot attention = {"attention", run_attention, 0, 1};
	struct run r = run_on("cpu", 2, &attention, &s, 0);

	for (int out = 2; out <= 3; out++) { /* dq and dk, gaps left out */
		size_t first = r.ends[out - 1], ld = (r.ends[out] - first) / (size_t)(s.B * s.T);
		size_t cols = (size_t)(out == 2 ? s.H * s.D : s.G * s.D);

		for (size_t i = 0; i < ld * (size_t)(s.B * s.T); i++)
			ck_assert(i % ld >= cols || r.out[first + i] == 0);
	}
	free(r.out);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc > 1 && !strncmp(argv[1], "core-", 5))
		return say_core(!strcmp(argv[1], "core-by-user"));

	Suite *suite = suite_create("kernels");
	/* products: what OpenBLAS and oneDNN compute, and so another instruction set can change */
	TCase *products = tcase_create("products"), *tables = tcase_create("tables");
	TCase *memory = tcase_create("memory");

	tcase_set_timeout(products, 120);
	tcase_add_loop_test(products, slot_equals_reference, 0, PRODUCTS);
	tcase_add_loop_test(products, slot_same_bits_on_any_threads_and_far, 0, PRODUCTS);
	tcase_add_loop_test(products, slot_same_bits_timed, 0, PRODUCTS);
	tcase_add_loop_test(products, not_a_number, 0, 2);
	tcase_set_timeout(tables, 120);
	tcase_add_loop_test(tables, slot_equals_reference, PRODUCTS, SLOTS);
	tcase_add_loop_test(tables, slot_same_bits_on_any_threads_and_far, PRODUCTS, SLOTS);
	tcase_add_loop_test(tables, slot_same_bits_timed, PRODUCTS, SLOTS);
	tcase_add_loop_test(tables, thin_loops_are_equal, 0, THIN_SETS);
	tcase_add_test(tables, no_table_has_a_hole);
	tcase_add_test(tables, far_wraps_every_slot);
	tcase_add_test(tables, timed_wraps_every_slot);
	tcase_add_test(tables, one_key_has_no_gradient);
	tcase_add_test(memory, far_memory_faults_when_touched);
	tcase_add_loop_test(memory, memory_is_aligned_and_zero, 0, 3);
	tcase_add_test(memory, too_much_memory_is_an_error);
	tcase_add_test(memory, the_reference_takes_one_thread);
#if defined(__x86_64__)
	tcase_add_test(memory, a_better_core_is_named);
#endif
	suite_add_tcase(suite, products);
	suite_add_tcase(suite, tables);
	suite_add_tcase(suite, memory);
	return run_suite(suite);
}
