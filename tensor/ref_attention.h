/*
 * The scalar reference of causal self-attention: scores, their softmax and the sum of values,
 * query by query; backward recomputes the probabilities.
 */
#ifndef EDGEPIPE_TENSOR_REF_ATTENTION_H
#define EDGEPIPE_TENSOR_REF_ATTENTION_H

#include <math.h>
#include <string.h>

#include "tensor/ref_values.h"

/* Rows that attend to each other: how many such spans there are, and number s. */
static int spans(struct attention shape)
{
	return shape.segments > 0 ? shape.segments : shape.sequences;
}

static struct segment span(struct attention shape, int s)
{
	return shape.segments > 0 ? shape.segment[s]
				  : (struct segment){s * shape.tokens, shape.tokens, 0};
}

/* As matrix_rows, also where numbers are double. */
static struct matrix rows_from(struct matrix m, int first)
{
	if (m.dtype == DTYPE_BF16)
		m.data = (uint16_t *)m.data + (size_t)first * m.ld;
	else
		m.data = row(m, first);
	return m;
}

/* The first key that query i of its span sees; i, j and matrices count from its start here and
 * below. */
static int first_key(struct attention shape, int i)
{
	return shape.window > 0 && i >= shape.window ? i - shape.window + 1 : 0;
}

/* Number d of head h of token i. */
static double head_value(struct matrix m, struct attention shape, int i, int h, int d)
{
	return value(m, i, h * shape.head_size + d);
}

/* Head ah of token i of a, times head bh of token j of b. */
static double head_dot(struct attention shape, struct matrix a, int i, int ah,
		       struct matrix b, int j, int bh)
{
	double sum = 0;

	for (int d = 0; d < shape.head_size; d++)
		sum += head_value(a, shape, i, ah, d) * head_value(b, shape, j, bh, d);
	return sum;
}

/* Doubles: a probability of every token; in backward two heads, and a number of every query. */
static size_t ref_attention_scratch(UNUSED int threads, struct attention shape,
				    UNUSED enum dtype dtype)
{
	size_t T = (size_t)shape.tokens;

	return (T + 2 * (size_t)shape.head_size + T * (size_t)shape.heads) * sizeof(double);
}

/* One query of one head; p has room for a probability of every token. Returns its lse. */
static double attend(struct matrix o, struct matrix q, struct matrix k, struct matrix v,
		     struct attention shape, int i, int h, double *p)
{
	int kv = h / (shape.heads / shape.kv_heads), first = first_key(shape, i);
	double most = -INFINITY, sum = 0;

	for (int j = first; j <= i; j++) {
		p[j] = shape.scale * head_dot(shape, q, i, h, k, j, kv);
		most = fmax(most, p[j]);
	}
	for (int j = first; j <= i; j++)
		sum += p[j] = exp(p[j] - most);
	for (int d = 0; d < shape.head_size; d++) {
		double out = 0;

		for (int j = first; j <= i; j++)
			out += p[j] / sum * head_value(v, shape, j, kv, d);
		set(o, i, h * shape.head_size + d, out);
	}
	return most + log(sum);
}

static void ref_attention(UNUSED struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch)
{
	for (int s = 0; s < spans(shape); s++) {
		struct segment rows = span(shape, s);
		struct matrix own_o = rows_from(o, rows.first),
			      own_q = rows_from(q, rows.first);
		struct matrix own_k = rows_from(k, rows.first),
			      own_v = rows_from(v, rows.first);

		for (int h = 0; h < shape.heads; h++)
			for (int i = 0; i < rows.tokens; i++)
				row(lse, rows.first + i)[h] =
				    attend(own_o, own_q, own_k, own_v, shape, i, h, scratch);
	}
}

/* What backward takes. */
struct attention_gradients {
	struct matrix dq, dk, dv, d_o, q, k, v, lse;
	struct attention shape;
	double *delta; /* (tokens, heads) of a sequence: the sum of p dp over the keys */
};

/* p = exp(scale q.k - lse), o = sum of p v, so dp = do.v. */
static double probability(const struct attention_gradients *g, int i, int j, int h,
			  double *dp)
{
	int kv = h / (g->shape.heads / g->shape.kv_heads);

	*dp = head_dot(g->shape, g->d_o, i, h, g->v, j, kv);
	return exp(g->shape.scale * head_dot(g->shape, g->q, i, h, g->k, j, kv) -
		   row(g->lse, i)[h]);
}

/* The sum of p dp is do.o, but o may be stored in BF16. */
static void probability_sums(const struct attention_gradients *g)
{
	for (int i = 0; i < g->shape.tokens; i++) {
		for (int h = 0; h < g->shape.heads; h++) {
			double *sum = &g->delta[(size_t)i * g->shape.heads + h], dp;

			*sum = 0;
			for (int j = first_key(g->shape, i); j <= i; j++) {
				double p = probability(g, i, j, h, &dp);

				*sum += p * dp;
			}
		}
	}
}

/* The score before the softmax gets p (dp - sum of p dp). Returns it times scale. */
static double score_gradient(const struct attention_gradients *g, int i, int j, int h,
			     double *p)
{
	double dp;

	*p = probability(g, i, j, h, &dp);
	return *p * (dp - g->delta[(size_t)i * g->shape.heads + h]) * g->shape.scale;
}

/* score = scale q.k: dq = sum over the keys of dscore k. */
static void query_gradient(const struct attention_gradients *g, int i, int h, double *dq)
{
	int kv = h / (g->shape.heads / g->shape.kv_heads), D = g->shape.head_size;
	double p;

	memset(dq, 0, (size_t)D * sizeof *dq);
	for (int j = first_key(g->shape, i); j <= i; j++) {
		double ds = score_gradient(g, i, j, h, &p);

		for (int d = 0; d < D; d++)
			dq[d] += ds * head_value(g->k, g->shape, j, kv, d);
	}
	for (int d = 0; d < D; d++)
		set(g->dq, i, h * D + d, dq[d]);
}

/* score = scale q.k, o = sum of p v: dk = sum of dscore q, dv = sum of p do, over the queries
 * that see key j, of every head of the group. */
static void key_gradient(const struct attention_gradients *g, int j, int kv, double *dk,
			 double *dv)
{
	int group = g->shape.heads / g->shape.kv_heads, D = g->shape.head_size;
	double p;

	memset(dk, 0, (size_t)D * sizeof *dk);
	memset(dv, 0, (size_t)D * sizeof *dv);
	for (int h = kv * group; h < (kv + 1) * group; h++) {
		for (int i = j; i < g->shape.tokens && first_key(g->shape, i) <= j; i++) {
			double ds = score_gradient(g, i, j, h, &p);

			for (int d = 0; d < D; d++) {
				dk[d] += ds * head_value(g->q, g->shape, i, h, d);
				dv[d] += p * head_value(g->d_o, g->shape, i, h, d);
			}
		}
	}
	for (int d = 0; d < D; d++) {
		set(g->dk, j, kv * D + d, dk[d]);
		set(g->dv, j, kv * D + d, dv[d]);
	}
}

static void ref_attention_backward(UNUSED struct device *dev, struct matrix dq,
				   struct matrix dk, struct matrix dv, struct matrix d_o,
				   struct matrix q, struct matrix k, struct matrix v,
				   UNUSED struct matrix o, struct matrix lse,
				   struct attention shape, void *scratch)
{
	double *sums = scratch;

	for (int s = 0; s < spans(shape); s++) {
		struct segment rows = span(shape, s);
		struct attention_gradients g = {
		    rows_from(dq, rows.first),	rows_from(dk, rows.first),
		    rows_from(dv, rows.first),	rows_from(d_o, rows.first),
		    rows_from(q, rows.first),	rows_from(k, rows.first),
		    rows_from(v, rows.first),	rows_from(lse, rows.first),
		    shape,			sums + 2 * shape.head_size};

		g.shape.tokens = rows.tokens;
		probability_sums(&g);
		for (int i = 0; i < rows.tokens; i++) {
			for (int h = 0; h < shape.heads; h++)
				query_gradient(&g, i, h, sums);
			for (int h = 0; h < shape.kv_heads; h++)
				key_gradient(&g, i, h, sums, sums + shape.head_size);
		}
	}
}

#endif
