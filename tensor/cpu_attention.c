/*
 * Attention on the CPU: a block of queries of one head at a time, its scores against all keys
 * that any of them sees, made and used by OpenBLAS on strided views (nothing is copied) while
 * they lie in the second cache. Of the probabilities only lse, the log-sum-exp of every row, is
 * kept.
 *
 * A piece of work is one block (forward) or one key/value head of one sequence (backward, where
 * dk and dv sum over the query heads of the group and over their blocks in that order), so that
 * no sum depends on which thread does what.
 */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

#define BLOCK 64

struct heads {
	struct matrix dq, dk, dv, d_o; /* backward */
	struct matrix q, k, v, o, lse;
	struct attention shape;
	float *scratch;
	size_t width; /* floats in a row of scores */
	int blocks;   /* of a sequence */
};

/* Queries first..first+rows-1 of head h of sequence s, and the keys that they see. */
struct block {
	int s, h, kv, first, rows;
	int key, keys;
};

/* Floats in a row of scores: all keys a block may see, whole cache lines, and one line more
 * lest all rows fall on the same cache sets. */
static size_t width_of(struct attention shape)
{
	int keys = shape.tokens;

	if (shape.window > 0 && shape.window < shape.tokens - BLOCK)
		keys = shape.window + BLOCK;
	return ((size_t)keys + LANES - 1) / LANES * LANES + LANES;
}

/* Scores and, for backward, their gradients; lines for delta. */
static size_t thread_floats(struct attention shape)
{
	return 2 * BLOCK * width_of(shape) + BLOCK;
}

/* All matrices of backward in F32, where they are stored as BF16. */
static size_t widened_floats(struct attention shape)
{
	size_t n = (size_t)shape.sequences * (size_t)shape.tokens;

	return n * (size_t)shape.head_size *
	       (3 * (size_t)shape.heads + 4 * (size_t)shape.kv_heads);
}

static size_t cpu_attention_scratch(int threads, struct attention shape, enum dtype dtype)
{
	size_t floats = (size_t)threads * thread_floats(shape);

	if (dtype == DTYPE_BF16)
		floats += widened_floats(shape);
	return floats * sizeof(float);
}

static struct heads heads_of(struct matrix q, struct matrix k, struct matrix v, struct matrix o,
			     struct matrix lse, struct attention shape, void *scratch)
{
	return (struct heads){
	    .q = q,
	    .k = k,
	    .v = v,
	    .o = o,
	    .lse = lse,
	    .shape = shape,
	    .scratch = scratch,
	    .width = width_of(shape),
	    .blocks = (shape.tokens - 1) / BLOCK + 1,
	};
}

static struct block block_of(const struct attention *shape, int s, int h, int index)
{
	struct block b = {.s = s, .h = h, .first = index * BLOCK};

	b.kv = h / (shape->heads / shape->kv_heads);
	b.rows = shape->tokens - b.first < BLOCK ? shape->tokens - b.first : BLOCK;
	if (shape->window > 0 && b.first >= shape->window)
		b.key = b.first - shape->window + 1;
	b.keys = b.first + b.rows - b.key;
	return b;
}

/* Head h of token i of sequence s. */
static float *head_of(const struct heads *a, struct matrix m, int s, int i, int h)
{
	return row_of(m, s * a->shape.tokens + i) + (size_t)h * (size_t)a->shape.head_size;
}

/* The keys that query i of a block sees: from *low to before *high, counted from the block's
 * first key. */
static void visible(const struct heads *a, const struct block *b, int i, int *low, int *high)
{
	int query = b->first + i, first = query - a->shape.window + 1;

	*low = a->shape.window > 0 && first > b->key ? first - b->key : 0;
	*high = query - b->key + 1;
}

/* Scaled scores of a block: scale q kᵀ. */
static void scores(const struct heads *a, const struct block *b, float *s)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, b->rows, b->keys,
		    a->shape.head_size, a->shape.scale, head_of(a, a->q, b->s, b->first, b->h),
		    (int)a->q.ld, head_of(a, a->k, b->s, b->key, b->kv), (int)a->k.ld, 0, s,
		    (int)a->width);
}

/* x = exp(x - most), and their sum. */
VECTOR static float exp_row(float *x, int n, float most)
{
	for (int j = 0; j < n; j++)
		x[j] = vector_exp(x[j] - most);
	return row_sum(x, n);
}

VECTOR static float most_of(const float *x, int n)
{
	return row_most(x, n);
}

VECTOR static void divide_row(float *x, int n, float divisor)
{
	for (int j = 0; j < n; j++)
		x[j] /= divisor;
}

static void hide(float *row, int low, int high, int keys)
{
	memset(row, 0, (size_t)low * sizeof *row);
	memset(row + high, 0, (size_t)(keys - high) * sizeof *row);
}

/* -- forward ------------------------------------------------------------------------------- */

static void attend_block(void *arg, int index, int thread)
{
	const struct heads *a = arg;
	int H = a->shape.heads, D = a->shape.head_size, low, high;
	/* The longest blocks first: the short ones fill the end evenly. */
	struct block b = block_of(&a->shape, index % (a->shape.sequences * H) / H, index % H,
				  a->blocks - 1 - index / (a->shape.sequences * H));
	float *p = a->scratch + (size_t)thread * thread_floats(a->shape), sums[BLOCK];
	float *o = head_of(a, a->o, b.s, b.first, b.h);

	scores(a, &b, p);
	for (int i = 0; i < b.rows; i++) {
		float *row = p + (size_t)i * a->width;

		visible(a, &b, i, &low, &high);
		float most = most_of(row + low, high - low);

		sums[i] = exp_row(row + low, high - low, most);
		hide(row, low, high, b.keys);
		row_of(a->lse, b.s * a->shape.tokens + b.first + i)[b.h] = most + logf(sums[i]);
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, b.rows, D, b.keys, 1, p,
		    (int)a->width, head_of(a, a->v, b.s, b.key, b.kv), (int)a->v.ld, 0, o,
		    (int)a->o.ld);
	for (int i = 0; i < b.rows; i++)
		divide_row(o + (size_t)i * a->o.ld, D, sums[i]);
}

static void attention_f32(struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch)
{
	struct heads a = heads_of(q, k, v, o, lse, shape, scratch);

	pool_run(dev->pool, shape.sequences * shape.heads * a.blocks, attend_block, &a);
}

/* -- backward ------------------------------------------------------------------------------ */

VECTOR static float dot(const float *x, const float *y, int n)
{
	float lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += x[j + l] * y[j + l];
	for (int l = 0; j + l < n; l++)
		lane[l] += x[j + l] * y[j + l];
	return lanes_sum(lane);
}

VECTOR static void probabilities(float *x, int n, float lse)
{
	for (int j = 0; j < n; j++)
		x[j] = vector_exp(x[j] - lse);
}

/* ds = scale p (dp - delta) */
VECTOR static void score_gradient(float *restrict dp, const float *restrict p, int n,
				  float delta, float scale)
{
	for (int j = 0; j < n; j++)
		dp[j] = scale * p[j] * (dp[j] - delta);
}

/* p = exp(scale q kᵀ - lse) of a block; what is not seen is 0. */
static void recompute(const struct heads *a, const struct block *b, float *p)
{
	int low, high;

	scores(a, b, p);
	for (int i = 0; i < b->rows; i++) {
		float *row = p + (size_t)i * a->width;

		visible(a, b, i, &low, &high);
		probabilities(row + low, high - low,
			      row_of(a->lse, b->s * a->shape.tokens + b->first + i)[b->h]);
		hide(row, low, high, b->keys);
	}
}

/*
 * o = p v, p = softmax(scale q kᵀ):
 * dv += pᵀ do; dp = do vᵀ; ds = scale p (dp - p.dp); dq = ds k; dk += dsᵀ q. p.dp is do.o, but so a
 * query that sees one key alone gets 0 and not the rounding of two sums, which Adam would follow.
 */
static void block_gradient(const struct heads *a, const struct block *b, float *p, float *ds)
{
	int D = a->shape.head_size, ld = (int)a->width;
	const float *k = head_of(a, a->k, b->s, b->key, b->kv);
	const float *q = head_of(a, a->q, b->s, b->first, b->h);
	const float *d_o = head_of(a, a->d_o, b->s, b->first, b->h);

	recompute(a, b, p);
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, b->keys, D, b->rows, 1, p, ld, d_o,
		    (int)a->d_o.ld, 1, head_of(a, a->dv, b->s, b->key, b->kv), (int)a->dv.ld);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, b->rows, b->keys, D, 1, d_o,
		    (int)a->d_o.ld, head_of(a, a->v, b->s, b->key, b->kv), (int)a->v.ld, 0, ds,
		    ld);
	for (int i = 0; i < b->rows; i++) {
		float *dp = ds + (size_t)i * a->width, *row = p + (size_t)i * a->width;

		score_gradient(dp, row, b->keys, dot(dp, row, b->keys), a->shape.scale);
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, b->rows, D, b->keys, 1, ds, ld,
		    k, (int)a->k.ld, 0, head_of(a, a->dq, b->s, b->first, b->h), (int)a->dq.ld);
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, b->keys, D, b->rows, 1, ds, ld, q,
		    (int)a->q.ld, 1, head_of(a, a->dk, b->s, b->key, b->kv), (int)a->dk.ld);
}

static void head_gradient(void *arg, int index, int thread)
{
	const struct heads *a = arg;
	int s = index / a->shape.kv_heads, kv = index % a->shape.kv_heads;
	int group = a->shape.heads / a->shape.kv_heads;
	size_t bytes = (size_t)a->shape.head_size * sizeof(float);
	float *p = a->scratch + (size_t)thread * thread_floats(a->shape);

	for (int i = 0; i < a->shape.tokens; i++) {
		memset(head_of(a, a->dk, s, i, kv), 0, bytes);
		memset(head_of(a, a->dv, s, i, kv), 0, bytes);
	}
	for (int h = kv * group; h < (kv + 1) * group; h++) {
		for (int index = 0; index < a->blocks; index++) {
			struct block b = block_of(&a->shape, s, h, index);

			block_gradient(a, &b, p, p + BLOCK * a->width);
		}
	}
}

static void attention_backward_f32(struct device *dev, struct matrix dq, struct matrix dk,
				   struct matrix dv, struct matrix d_o, struct matrix q,
				   struct matrix k, struct matrix v, struct matrix lse,
				   struct attention shape, void *scratch)
{
	struct heads a = heads_of(q, k, v, (struct matrix){0}, lse, shape, scratch);

	a.dq = dq;
	a.dk = dk;
	a.dv = dv;
	a.d_o = d_o;
	pool_run(dev->pool, shape.sequences * shape.kv_heads, head_gradient, &a);
}

/* -- BF16: widened, computed as F32, and rounded ------------------------------------------- */

static struct matrix taken(float **scratch, struct matrix like)
{
	struct matrix m = matrix(*scratch, like.rows, like.cols);

	*scratch += (size_t)like.rows * (size_t)like.cols;
	return m;
}

static struct matrix widened(float **scratch, struct matrix m)
{
	struct matrix wide = taken(scratch, m);

	for (int i = 0; i < m.rows; i++)
		convert_to_f32(row_of(wide, i), (uint16_t *)m.data + (size_t)i * m.ld, m.dtype,
			       (size_t)m.cols);
	return wide;
}

static void round_to(struct matrix m, struct matrix wide)
{
	for (int i = 0; i < m.rows; i++)
		for (int j = 0; j < m.cols; j++)
			((uint16_t *)m.data)[(size_t)i * m.ld + (size_t)j] =
				bf16_of(row_of(wide, i)[j]);
}

static void cpu_attention(struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch)
{
	struct matrix wide = o;
	float *rest = scratch;

	if (o.dtype == DTYPE_BF16) {
		wide = taken(&rest, o);
		q = widened(&rest, q);
		k = widened(&rest, k);
		v = widened(&rest, v);
	}
	attention_f32(dev, wide, lse, q, k, v, shape, rest);
	if (o.dtype == DTYPE_BF16)
		round_to(o, wide);
}

static void cpu_attention_backward(struct device *dev, struct matrix dq, struct matrix dk,
				   struct matrix dv, struct matrix d_o, struct matrix q,
				   struct matrix k, struct matrix v, struct matrix o,
				   struct matrix lse, struct attention shape, void *scratch)
{
	struct matrix wide_dq = dq, wide_dk = dk, wide_dv = dv;
	float *rest = scratch;

	(void)o;
	if (dq.dtype == DTYPE_BF16) {
		wide_dq = taken(&rest, dq);
		wide_dk = taken(&rest, dk);
		wide_dv = taken(&rest, dv);
		d_o = widened(&rest, d_o);
		q = widened(&rest, q);
		k = widened(&rest, k);
		v = widened(&rest, v);
	}
	attention_backward_f32(dev, wide_dq, wide_dk, wide_dv, d_o, q, k, v, lse, shape, rest);
	if (dq.dtype == DTYPE_BF16) {
		round_to(dq, wide_dq);
		round_to(dk, wide_dk);
		round_to(dv, wide_dv);
	}
}

void cpu_attention_slots(struct kernels *k)
{
	k->attention = cpu_attention;
	k->attention_backward = cpu_attention_backward;
	k->attention_scratch = cpu_attention_scratch;
}
