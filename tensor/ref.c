/*
 * The scalar reference: every kernel in its plainest form, each forward with its backward right
 * after it, sums in double. The other tables start as copies of this one and are compared with
 * it.
 *
 * A backward quotes the line of the forward that it differentiates; dx stands for d loss / dx.
 * Compiled twice: as float here, and by the tests as double (REAL and KERNELS_REF defined
 * before this file is included) so that finite differences can tell a wrong gradient from
 * rounding.
 */
#include <math.h>
#include <string.h>

#include "tensor/internal.h"

#ifndef REAL
#define REAL float
#define KERNELS_REF kernels_ref
#endif

#define UNUSED __attribute__((unused))

static REAL *row(struct matrix m, int i)
{
	return (REAL *)m.data + (size_t)i * m.ld;
}

/* Element (i, j), whatever it is stored as. */
static double value(struct matrix m, int i, int j)
{
	const uint16_t *half = (uint16_t *)m.data + (size_t)i * m.ld + (size_t)j;
	float x;

	if (m.dtype == DTYPE_BF16)
		return bf16_value(*half);
	if (m.dtype != DTYPE_F16)
		return row(m, i)[j];
	convert_to_f32(&x, half, m.dtype, 1);
	return x;
}

static void set(struct matrix m, int i, int j, double x)
{
	if (m.dtype == DTYPE_BF16)
		((uint16_t *)m.data)[(size_t)i * m.ld + (size_t)j] = bf16_of((float)x);
	else
		row(m, i)[j] = x;
}

/* -- linear -------------------------------------------------------------------------------- */

/* Element (i, j) of op(a) op(b). */
static double product(struct matrix a, bool a_t, struct matrix b, bool b_t, int i, int j)
{
	int inner = a_t ? a.rows : a.cols;
	double sum = 0;

	for (int l = 0; l < inner; l++)
		sum += value(a, a_t ? l : i, a_t ? i : l) * value(b, b_t ? j : l, b_t ? l : j);
	return sum;
}

static void ref_matmul(UNUSED struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	for (int i = 0; i < c.rows; i++) {
		for (int j = 0; j < c.cols; j++) {
			double sum = alpha * product(a, a_t, b, b_t, i, j);

			set(c, i, j, beta == 0 ? sum : sum + beta * value(c, i, j));
		}
	}
}

static void ref_linear(UNUSED struct device *dev, struct matrix y, struct matrix x,
		       struct matrix w, bool w_t, struct matrix bias, float beta)
{
	for (int i = 0; x.data && i < y.rows; i++) {
		for (int j = 0; j < y.cols; j++) {
			double sum = product(x, false, w, w_t, i, j);

			if (bias.data)
				sum += value(bias, 0, j);
			set(y, i, j, beta == 0 ? sum : sum + beta * value(y, i, j));
		}
	}
}

static size_t ref_packed_bytes(UNUSED int inner, UNUSED int cols)
{
	return 0;
}

static void ref_pack(UNUSED struct device *dev, UNUSED struct matrix w, UNUSED int row,
		     UNUSED int col, UNUSED struct matrix part, UNUSED bool part_t)
{
}

static void ref_copy(UNUSED struct device *dev, struct matrix y, struct matrix x)
{
	for (int i = 0; i < y.rows; i++)
		for (int j = 0; j < y.cols; j++)
			set(y, i, j, value(x, i, j));
}

static void ref_transpose(UNUSED struct device *dev, struct matrix y, struct matrix x)
{
	for (int i = 0; i < y.rows; i++)
		for (int j = 0; j < y.cols; j++)
			set(y, i, j, value(x, j, i));
}

static void ref_fill(UNUSED struct device *dev, struct matrix x, float value)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(x, i, j, value);
}

static void ref_embed(UNUSED struct device *dev, struct matrix y, const int32_t *ids,
		      const struct spot *spot, struct matrix tokens, struct matrix positions,
		      int T)
{
	for (int i = 0; i < y.rows; i++) {
		int position = spot ? (int)spot[i].position : i % T;

		for (int j = 0; j < y.cols; j++)
			set(y, i, j,
			    value(tokens, ids[i], j) +
				(positions.data ? value(positions, position, j) : 0));
	}
}

/* -- norms --------------------------------------------------------------------------------- */

static void ref_layer_norm(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   struct matrix bias, float epsilon)
{
	const REAL *g = row(gain, 0), *b = row(bias, 0);
	int C = x.cols;

	for (int i = 0; i < x.rows; i++) {
		double mean = 0, variance = 0;

		for (int j = 0; j < C; j++)
			mean += value(x, i, j);
		mean /= C;
		for (int j = 0; j < C; j++)
			variance += (value(x, i, j) - mean) * (value(x, i, j) - mean);
		double rstd = 1 / sqrt(variance / C + epsilon);

		for (int j = 0; j < C; j++)
			set(y, i, j, (value(x, i, j) - mean) * rstd * g[j] + b[j]);
		row(stats, i)[0] = mean;
		row(stats, i)[1] = rstd;
	}
	if (copy.data)
		ref_copy(dev, copy, x);
}

/*
 * y = xhat * g + b, xhat = (x - mean) * rstd. With d = dy * g: mean takes mean(d) away, rstd
 * takes xhat * mean(d * xhat) away.
 */
static void ref_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain)
{
	const REAL *g = row(gain, 0);
	int C = x.cols;

	for (int i = 0; i < x.rows; i++) {
		double mean = row(stats, i)[0], rstd = row(stats, i)[1];
		double sum = 0, sum_xhat = 0;

		for (int j = 0; j < C; j++) {
			double d = value(dy, i, j) * g[j];

			sum += d;
			sum_xhat += d * (value(x, i, j) - mean) * rstd;
		}
		for (int j = 0; j < C; j++) {
			double xhat = (value(x, i, j) - mean) * rstd;
			double d = value(dy, i, j) * g[j] - sum / C - xhat * sum_xhat / C;

			set(dx, i, j, value(dx, i, j) + rstd * d);
		}
	}
	if (copy.data)
		ref_copy(dev, copy, dx);
}

/* Columns at .. at + C - 1 of row i, its part number part. */
static void ref_rms_part(struct matrix y, struct matrix stats, struct matrix x,
			 struct matrix gain, float epsilon, int i, int part)
{
	int C = gain.cols, at = part * C;
	double squares = 0;

	for (int j = 0; j < C; j++)
		squares += value(x, i, at + j) * value(x, i, at + j);
	double rstd = 1 / sqrt(squares / C + epsilon);

	for (int j = 0; j < C; j++)
		set(y, i, at + j, value(x, i, at + j) * rstd * row(gain, 0)[j]);
	row(stats, i)[part] = rstd;
}

static void ref_rms_norm(struct device *dev, struct matrix y, struct matrix copy,
			 struct matrix stats, struct matrix x, struct matrix gain,
			 float epsilon)
{
	for (int i = 0; i < x.rows; i++)
		for (int part = 0; part < x.cols / gain.cols; part++)
			ref_rms_part(y, stats, x, gain, epsilon, i, part);
	if (copy.data)
		ref_copy(dev, copy, x);
}

/* y = x * rstd * g, rstd = (mean(x²) + epsilon)^(-1/2), so d rstd / dx = -rstd³ x / C. */
static void ref_rms_part_backward(struct matrix dx, struct matrix dy, struct matrix x,
				  struct matrix stats, struct matrix gain, bool accumulate,
				  int i, int part)
{
	const REAL *g = row(gain, 0);
	int C = gain.cols, at = part * C;
	double rstd = row(stats, i)[part], sum = 0;

	for (int j = 0; j < C; j++)
		sum += value(dy, i, at + j) * g[j] * value(x, i, at + j);
	for (int j = at; j < at + C; j++) {
		double d = rstd * (value(dy, i, j) * g[j - at] -
				   value(x, i, j) * rstd * rstd * sum / C);

		set(dx, i, j, accumulate ? value(dx, i, j) + d : d);
	}
}

static void ref_rms_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				  struct matrix dy, struct matrix x, struct matrix stats,
				  struct matrix gain, bool accumulate)
{
	for (int i = 0; i < x.rows; i++)
		for (int part = 0; part < x.cols / gain.cols; part++)
			ref_rms_part_backward(dx, dy, x, stats, gain, accumulate, i, part);
	if (copy.data)
		ref_copy(dev, copy, dx);
}

/* -- rope ---------------------------------------------------------------------------------- */

/*
 * (a, b) -> (a cos - b sin, b cos + a sin). The transpose of a rotation is the rotation by the
 * opposite angle: backward changes the sign of sin.
 */
static void ref_rope(UNUSED struct device *dev, struct matrix x, const struct spot *spot,
		     struct matrix table, int head_size, bool backward)
{
	int half = head_size / 2;

	for (int i = 0; i < x.rows; i++) {
		int position = spot ? (int)spot[i].position : i % table.rows;
		const REAL *cosine = row(table, position), *sine = cosine + half;

		for (int first = 0; first < x.cols; first += head_size) {
			for (int j = 0; j < half; j++) {
				REAL s = backward ? -sine[j] : sine[j], c = cosine[j];
				REAL a = value(x, i, first + j);
				REAL b = value(x, i, first + half + j);

				set(x, i, first + j, a * c - b * s);
				set(x, i, first + half + j, b * c + a * s);
			}
		}
	}
}

/* -- attention ----------------------------------------------------------------------------- */

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

/* The first key that query i of its span sees; i, j and matrices count from its start here and below. */
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
		struct matrix own_o = rows_from(o, rows.first), own_q = rows_from(q, rows.first);
		struct matrix own_k = rows_from(k, rows.first), own_v = rows_from(v, rows.first);

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

/* -- activations --------------------------------------------------------------------------- */

#define GELU_SLOPE 0.79788456080286535588 /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715

static double gelu_of(double x, enum gelu kind)
{
	if (kind == GELU_EXACT)
		return 0.5 * x * (1 + erf(x * M_SQRT1_2));
	return 0.5 * x * (1 + tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x)));
}

/* x/2 (1 + erf(x/sqrt 2)), whose erf' = 2/sqrt pi exp(-x²/2) / sqrt 2; x/2 (1 + tanh u), whose
 * tanh' = 1 - tanh². */
static double gelu_slope(double x, enum gelu kind)
{
	if (kind == GELU_EXACT)
		return 0.5 * (1 + erf(x * M_SQRT1_2)) +
		       0.5 * x * GELU_SLOPE * exp(-0.5 * x * x);
	double t = tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
	double du = GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x);

	return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
}

static void ref_gelu(UNUSED struct device *dev, struct matrix y, struct matrix x,
		     enum gelu kind)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(y, i, j, gelu_of(value(x, i, j), kind));
}

/* y = gelu_of(x) */
static void ref_gelu_backward(UNUSED struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(dx, i, j, value(dy, i, j) * gelu_slope(value(x, i, j), kind));
}

static void ref_swiglu(UNUSED struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	for (int i = 0; i < y.rows; i++) {
		for (int j = 0; j < y.cols; j++) {
			double g = value(gate, i, j);

			set(y, i, j, g / (1 + exp(-g)) * value(up, i, j));
		}
	}
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s). */
static void ref_swiglu_backward(UNUSED struct device *dev, struct matrix dgate,
				struct matrix dup, struct matrix dy, struct matrix gate,
				struct matrix up)
{
	for (int i = 0; i < dy.rows; i++) {
		for (int j = 0; j < dy.cols; j++) {
			double g = value(gate, i, j), u = value(up, i, j);
			double s = 1 / (1 + exp(-g)), d = value(dy, i, j);

			set(dgate, i, j, d * u * s * (1 + g * (1 - s)));
			set(dup, i, j, d * g * s);
		}
	}
}

/* -- dropout ------------------------------------------------------------------------------- */

/* 1 / (1 - p) where channel j of row i is kept, else 0. */
static REAL dropout_factor(struct dropout d, int i, int j)
{
	uint32_t sample = d.first_sample + (uint32_t)(i / d.tokens);
	struct spot at = d.spot ? d.spot[i]
				  : (struct spot){sample, (uint32_t)(i % d.tokens)};
	struct philox counter = {{d.step, at.sample, at.position, (uint32_t)j / 4}};
	uint32_t word = philox(counter, d.key0, d.key1).word[j % 4];

	return philox_unit(word) >= d.p ? 1 / (1 - d.p) : 0;
}

static void ref_dropout(UNUSED struct device *dev, struct matrix y, struct matrix x,
			struct dropout d)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(y, i, j, value(x, i, j) * dropout_factor(d, i, j));
}

/* y = x * factor */
static void ref_dropout_backward(UNUSED struct device *dev, struct matrix dx, struct matrix dy,
				 struct dropout d)
{
	for (int i = 0; i < dx.rows; i++) {
		for (int j = 0; j < dx.cols; j++) {
			REAL d_kept = value(dy, i, j) * dropout_factor(d, i, j);

			set(dx, i, j, value(dx, i, j) + d_kept);
		}
	}
}

/* -- loss ---------------------------------------------------------------------------------- */

/*
 * loss = log(sum of exp(logit)) - logit[label], taken after the largest logit; so dlogit = p -
 * 1 at the label and p elsewhere.
 */
static double cross_entropy_row(struct matrix gradient, struct matrix logits, int i, int label,
				double scale)
{
	int V = logits.cols;
	double most = -INFINITY, sum = 0;

	for (int j = 0; j < V; j++)
		most = fmax(most, value(logits, i, j));
	for (int j = 0; j < V; j++)
		sum += exp(value(logits, i, j) - most);
	double loss = log(sum) - (value(logits, i, label) - most);

	for (int j = 0; gradient.data && j < V; j++)
		set(gradient, i, j,
		    (exp(value(logits, i, j) - most) / sum - (j == label)) * scale);
	return loss;
}

static void ref_cross_entropy(UNUSED struct device *dev, double *losses, struct matrix gradient,
			      struct matrix logits, const int32_t *labels, float scale)
{
	for (int i = 0; i < logits.rows; i++) {
		losses[i] = 0;
		if (labels[i] >= 0)
			losses[i] = cross_entropy_row(gradient, logits, i, labels[i], scale);
		for (int j = 0; labels[i] < 0 && gradient.data && j < logits.cols; j++)
			set(gradient, i, j, 0);
	}
}

/* Logit j of row i. */
static double logit(struct matrix h, struct matrix w, int i, int j)
{
	return product(h, false, w, true, i, j);
}

/* Nothing is kept of a row: its logits are computed for the largest, their sum and the gradient. */
static double head_row(struct matrix d_h, struct matrix h, struct matrix w, int i, int label,
		       double scale)
{
	double most = -INFINITY, sum = 0, picked = logit(h, w, i, label);

	for (int j = 0; j < w.rows; j++)
		most = fmax(most, logit(h, w, i, j));
	for (int j = 0; j < w.rows; j++)
		sum += exp(logit(h, w, i, j) - most);
	for (int j = 0; d_h.data && j < w.rows; j++) {
		double d = (exp(logit(h, w, i, j) - most) / sum - (j == label)) * scale;

		for (int l = 0; l < w.cols; l++)
			row(d_h, i)[l] += d * value(w, j, l);
	}
	return log(sum) - (picked - most);
}

static void ref_head_loss(UNUSED struct device *dev, double *losses, struct matrix d_h,
			  struct matrix h, struct matrix w, const int32_t *labels, float scale,
			  UNUSED void *scratch)
{
	for (int i = 0; h.data && i < h.rows; i++) {
		for (int l = 0; d_h.data && l < h.cols; l++)
			row(d_h, i)[l] = 0;
		losses[i] = labels[i] < 0 ? 0 : head_row(d_h, h, w, i, labels[i], scale);
	}
}

static size_t ref_head_scratch(UNUSED int threads, UNUSED int rows, UNUSED int C)
{
	return 0;
}

/* -- optimizer --
--------------------------------------------------------------------------- */

static void ref_squared_norm(UNUSED struct device *dev, double *sum, struct matrix x)
{
	double total = 0;

	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			total += (double)row(x, i)[j] * row(x, i)[j];
	*sum = total;
}

static void ref_adamw(UNUSED struct device *dev, struct matrix p, struct matrix m,
		      struct matrix v, struct matrix gradient, struct adamw a)
{
	double step_size = a.learning_rate / (1 - pow(a.beta1, (double)a.step));
	double root = sqrt(1 - pow(a.beta2, (double)a.step));

	for (int i = 0; i < p.rows; i++) {
		for (int j = 0; j < p.cols; j++) {
			REAL *param = &row(p, i)[j], *first = &row(m, i)[j],
			     *second = &row(v, i)[j];
			double g = row(gradient, i)[j] * (double)a.grad_scale;

			*first = a.beta1 * *first + (1 - a.beta1) * g;
			*second = a.beta2 * *second + (1 - a.beta2) * g * g;
			*param = *param * (1 - a.learning_rate * a.weight_decay) -
				 step_size * *first / (sqrt(*second) / root + a.epsilon);
		}
	}
}

const struct kernels KERNELS_REF = {
    .name = "reference",
    .matmul = ref_matmul,
    .linear = ref_linear,
    .packed_bytes = ref_packed_bytes,
    .pack = ref_pack,
    .thin = ref_matmul,
    .few = ref_few,
    .copy = ref_copy,
    .transpose = ref_transpose,
    .fill = ref_fill,
    .embed = ref_embed,
    .layer_norm = ref_layer_norm,
    .layer_norm_backward = ref_layer_norm_backward,
    .rms_norm = ref_rms_norm,
    .rms_norm_backward = ref_rms_norm_backward,
    .rope = ref_rope,
    .attention = ref_attention,
    .attention_backward = ref_attention_backward,
    .attention_scratch = ref_attention_scratch,
    .keep = ref_keep,
    .attend = ref_attend,
    .gelu = ref_gelu,
    .gelu_backward = ref_gelu_backward,
    .swiglu = ref_swiglu,
    .swiglu_backward = ref_swiglu_backward,
    .dropout = ref_dropout,
    .dropout_backward = ref_dropout_backward,
    .cross_entropy = ref_cross_entropy,
    .head_loss = ref_head_loss,
    .head_scratch = ref_head_scratch,
    .squared_norm = ref_squared_norm,
    .adamw = ref_adamw,
};
