/*
 * A table over a device's own, whose slots call it and have kept what each call took. A slot
 * returns when its work is done, so the time of the call is the op's.
 */
#include "tensor/internal.h"

/* Of a matrix that is read or written once; 0 of one that is not there. */
static double bytes_of(struct matrix m)
{
	return m.data ? (double)m.rows * m.cols * (double)dtype_bytes(m.dtype) : 0;
}

/* A product of (rows, inner) and (inner, cols), with beta as in struct kernels. */
static void keep_product(struct device *dev, double start_s, const char *slot,
			 enum timed_kind kind, struct matrix c, struct matrix a, int inner,
			 double read_bytes, float beta)
{
	timed_keep_call(dev, start_s,
	     &(struct timed_op){
		 .slot = slot,
		 .kind = kind,
		 .dtype = a.dtype,
		 .size = {c.rows, inner, c.cols},
		 .flops = 2.0 * c.rows * c.cols * inner,
		 .bytes = read_bytes + (beta == 0 ? 1 : 2) * bytes_of(c),
	     });
}

/* What is bound by its bytes; x is what its shape is named by. */
static void keep_pass(struct device *dev, double start_s, const char *slot, struct matrix x,
		      double bytes)
{
	timed_keep_call(dev, start_s,
	     &(struct timed_op){
		 .slot = slot,
		 .kind = TIMED_PASS,
		 .dtype = x.dtype,
		 .size = {x.rows, x.cols},
		 .bytes = bytes,
	     });
}

/* -- products ------------------------------------------------------------------------------ */

static void timed_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t,
			 struct matrix b, bool b_t, float alpha, float beta)
{
	double start_s = clock_s();

	dev->timed->inner.matmul(dev, c, a, a_t, b, b_t, alpha, beta);
	keep_product(dev, start_s, "matmul", TIMED_PRODUCT, c, a, a_t ? a.rows : a.cols,
		     bytes_of(a) + bytes_of(b), beta);
}

static void timed_linear(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
			 bool w_t, struct matrix bias, float beta)
{
	double start_s = clock_s();

	dev->timed->inner.linear(dev, y, x, w, w_t, bias, beta);
	if (!x.data)
		return; /* was made ready only */
	keep_product(dev, start_s, "linear", TIMED_PRODUCT, y, x, x.cols,
		     bytes_of(x) + bytes_of(w) + bytes_of(bias), beta);
}

static void timed_pack(struct device *dev, struct matrix w, int row, int col,
		       struct matrix part, bool part_t)
{
	double start_s = clock_s();

	dev->timed->inner.pack(dev, w, row, col, part, part_t);
	keep_pass(dev, start_s, "pack", part, 2 * bytes_of(part));
}

static void timed_thin(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	double start_s = clock_s();

	dev->timed->inner.thin(dev, c, a, a_t, b, b_t, alpha, beta);
	keep_product(dev, start_s, "thin", TIMED_THIN, c, a, a_t ? a.rows : a.cols,
		     bytes_of(a) + bytes_of(b), beta);
}

static void timed_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		      bool w_t, struct matrix bias, float alpha, float beta)
{
	double start_s = clock_s();

	dev->timed->inner.few(dev, y, x, w, w_t, bias, alpha, beta);
	keep_product(dev, start_s, "few", TIMED_PRODUCT, y, x, x.cols,
		     bytes_of(x) + bytes_of(w) + bytes_of(bias), beta);
}

/* -- attention ----------------------------------------------------------------------------- */

/* Pairs of a query and a key that it sees, of one head of T rows that attend to each other. */
static double span_pairs(double T, double W)
{
	return W <= 0 || W >= T ? T * (T + 1) / 2 : W * (W + 1) / 2 + (T - W) * W;
}

/* Of one head of all sequences, or segments. */
static double visible_pairs(struct device *dev, struct attention shape)
{
	struct segment segment;
	double pairs = 0;

	if (shape.segments == 0)
		return shape.sequences * span_pairs(shape.tokens, shape.window);
	for (int s = 0; s < shape.segments; s++) {
		dev->download(dev, &segment, shape.segment + s, sizeof segment);
		pairs += span_pairs(segment.tokens, shape.window);
	}
	return pairs;
}

static void keep_attention(struct device *dev, double start_s, const char *slot,
			   struct matrix q, struct attention shape, int products, double bytes)
{
	double pairs = visible_pairs(dev, shape) * shape.heads;

	timed_keep_call(dev, start_s,
	     &(struct timed_op){
		 .slot = slot,
		 .kind = TIMED_ATTENTION,
		 .dtype = q.dtype,
		 .size = {shape.sequences, shape.tokens, shape.heads, shape.kv_heads,
			  shape.head_size, shape.window},
		 .flops = products * 2.0 * pairs * shape.head_size,
		 .bytes = bytes,
	     });
}

static void timed_attention(struct device *dev, struct matrix o, struct matrix lse,
			    struct matrix q, struct matrix k, struct matrix v,
			    struct attention shape, void *scratch)
{
	double start_s = clock_s();

	dev->timed->inner.attention(dev, o, lse, q, k, v, shape, scratch);
	keep_attention(dev, start_s, "attention", q, shape, 2,
		       bytes_of(o) + bytes_of(lse) + bytes_of(q) + bytes_of(k) + bytes_of(v));
}

static void timed_keep(struct device *dev, const struct cached *cached, struct matrix k,
		       struct matrix v)
{
	double start_s = clock_s();

	dev->timed->inner.keep(dev, cached, k, v);
	keep_pass(dev, start_s, "keep", k, 2 * (bytes_of(k) + bytes_of(v)));
}

/* Without the keys and values: how many a token sees, the device alone knows. */
static void timed_attend(struct device *dev, struct matrix o, struct matrix q,
			 const struct cached *cached)
{
	double start_s = clock_s();

	dev->timed->inner.attend(dev, o, q, cached);
	keep_pass(dev, start_s, "attend", q, bytes_of(o) + bytes_of(q));
}

static void timed_attention_backward(struct device *dev, struct matrix dq, struct matrix dk,
				     struct matrix dv, struct matrix d_o, struct matrix q,
				     struct matrix k, struct matrix v, struct matrix o,
				     struct matrix lse, struct attention shape, void *scratch)
{
	double start_s = clock_s();

	dev->timed->inner.attention_backward(dev, dq, dk, dv, d_o, q, k, v, o, lse, shape,
					     scratch);
	keep_attention(dev, start_s, "attention_backward", q, shape, 4,
		       bytes_of(dq) + bytes_of(dk) + bytes_of(dv) + bytes_of(d_o) +
			   bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(o) +
			   bytes_of(lse));
}

/* -- passes over memory -------------------------------------------------------------------- */

static void timed_transpose(struct device *dev, struct matrix y, struct matrix x)
{
	double start_s = clock_s();

	dev->timed->inner.transpose(dev, y, x);
	keep_pass(dev, start_s, "transpose", x, bytes_of(y) + bytes_of(x));
}

static void timed_copy(struct device *dev, struct matrix y, struct matrix x)
{
	double start_s = clock_s();

	dev->timed->inner.copy(dev, y, x);
	keep_pass(dev, start_s, "copy", x, bytes_of(y) + bytes_of(x));
}

static void timed_fill(struct device *dev, struct matrix x, float value)
{
	double start_s = clock_s();

	dev->timed->inner.fill(dev, x, value);
	keep_pass(dev, start_s, "fill", x, bytes_of(x));
}

static void timed_embed(struct device *dev, struct matrix y, const int32_t *ids,
			const struct spot *spot, struct matrix tokens,
			struct matrix positions, int T)
{
	double start_s = clock_s();
	struct matrix rows = tokens, each = positions;

	dev->timed->inner.embed(dev, y, ids, spot, tokens, positions, T);
	rows.rows = y.rows;
	each.rows = T < y.rows ? T : y.rows;
	keep_pass(dev, start_s, "embed", y,
		  bytes_of(y) + (double)y.rows * sizeof *ids + bytes_of(rows) + bytes_of(each));
}

static void timed_layer_norm(struct device *dev, struct matrix y, struct matrix copy,
			     struct matrix stats, struct matrix x, struct matrix gain,
			     struct matrix bias, float epsilon)
{
	double start_s = clock_s();

	dev->timed->inner.layer_norm(dev, y, copy, stats, x, gain, bias, epsilon);
	keep_pass(dev, start_s, "layer_norm", x,
		  bytes_of(y) + bytes_of(copy) + bytes_of(stats) + bytes_of(x) +
		      bytes_of(gain) + bytes_of(bias));
}

static void timed_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				      struct matrix dy, struct matrix x, struct matrix stats,
				      struct matrix gain)
{
	double start_s = clock_s();

	dev->timed->inner.layer_norm_backward(dev, dx, copy, dy, x, stats, gain);
	keep_pass(dev, start_s, "layer_norm_backward", x,
		  2 * bytes_of(dx) + bytes_of(copy) + bytes_of(dy) + bytes_of(x) +
		      bytes_of(stats) + bytes_of(gain));
}

static void timed_rms_norm(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   float epsilon)
{
	double start_s = clock_s();

	dev->timed->inner.rms_norm(dev, y, copy, stats, x, gain, epsilon);
	keep_pass(dev, start_s, "rms_norm", x,
		  bytes_of(y) + bytes_of(copy) + bytes_of(stats) + bytes_of(x) +
		      bytes_of(gain));
}

static void timed_rms_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain, bool accumulate)
{
	double start_s = clock_s();

	dev->timed->inner.rms_norm_backward(dev, dx, copy, dy, x, stats, gain, accumulate);
	keep_pass(dev, start_s, "rms_norm_backward", x,
		  (accumulate ? 2 : 1) * bytes_of(dx) + bytes_of(copy) + bytes_of(dy) +
		      bytes_of(x) + bytes_of(stats) + bytes_of(gain));
}

static void timed_rope(struct device *dev, struct matrix x, const struct spot *spot,
		       struct matrix table, int head_size, bool backward)
{
	double start_s = clock_s();

	dev->timed->inner.rope(dev, x, spot, table, head_size, backward);
	keep_pass(dev, start_s, backward ? "rope_backward" : "rope", x,
		  2 * bytes_of(x) + bytes_of(table));
}

static void timed_gelu(struct device *dev, struct matrix y, struct matrix x, enum gelu kind)
{
	double start_s = clock_s();

	dev->timed->inner.gelu(dev, y, x, kind);
	keep_pass(dev, start_s, "gelu", x, bytes_of(y) + bytes_of(x));
}

static void timed_gelu_backward(struct device *dev, struct matrix dx, struct matrix dy,
				struct matrix x, enum gelu kind)
{
	double start_s = clock_s();

	dev->timed->inner.gelu_backward(dev, dx, dy, x, kind);
	keep_pass(dev, start_s, "gelu_backward", x, bytes_of(dx) + bytes_of(dy) + bytes_of(x));
}

static void timed_swiglu(struct device *dev, struct matrix y, struct matrix gate,
			 struct matrix up)
{
	double start_s = clock_s();

	dev->timed->inner.swiglu(dev, y, gate, up);
	keep_pass(dev, start_s, "swiglu", gate, bytes_of(y) + bytes_of(gate) + bytes_of(up));
}

static void timed_swiglu_backward(struct device *dev, struct matrix dgate, struct matrix dup,
				  struct matrix dy, struct matrix gate, struct matrix up)
{
	double start_s = clock_s();

	dev->timed->inner.swiglu_backward(dev, dgate, dup, dy, gate, up);
	keep_pass(dev, start_s, "swiglu_backward", gate,
		  bytes_of(dgate) + bytes_of(dup) + bytes_of(dy) + bytes_of(gate) +
		      bytes_of(up));
}

static void timed_dropout(struct device *dev, struct matrix y, struct matrix x,
			  struct dropout d)
{
	double start_s = clock_s();

	dev->timed->inner.dropout(dev, y, x, d);
	keep_pass(dev, start_s, "dropout", x, bytes_of(y) + bytes_of(x));
}

static void timed_dropout_backward(struct device *dev, struct matrix dx, struct matrix dy,
				   struct dropout d)
{
	double start_s = clock_s();

	dev->timed->inner.dropout_backward(dev, dx, dy, d);
	keep_pass(dev, start_s, "dropout_backward", dx, 2 * bytes_of(dx) + bytes_of(dy));
}

/* As if every row were trained: labels are not looked at here. */
static void timed_cross_entropy(struct device *dev, double *losses, struct matrix gradient,
				struct matrix logits, const int32_t *labels, float scale)
{
	double start_s = clock_s();

	dev->timed->inner.cross_entropy(dev, losses, gradient, logits, labels, scale);
	keep_pass(dev, start_s, "cross_entropy", logits,
		  bytes_of(gradient) + bytes_of(logits) +
		      logits.rows * (double)(sizeof *losses + sizeof *labels));
}

/* One product forward, one back: as if every row were trained. */
static void timed_head_loss(struct device *dev, double *losses, struct matrix d_h,
			    struct matrix h, struct matrix w, const int32_t *labels,
			    float scale, void *scratch)
{
	double start_s = clock_s(), products = d_h.data ? 2 : 1;

	dev->timed->inner.head_loss(dev, losses, d_h, h, w, labels, scale, scratch);
	if (!h.data)
		return; /* was made ready only */
	timed_keep_call(dev, start_s,
	     &(struct timed_op){
		 .slot = "head_loss",
		 .kind = TIMED_PRODUCT,
		 .dtype = h.dtype,
		 .size = {h.rows, h.cols, w.rows},
		 .flops = products * 2.0 * h.rows * h.cols * w.rows,
		 .bytes = bytes_of(d_h) + bytes_of(h) + bytes_of(w) +
			  h.rows * (double)(sizeof *losses + sizeof *labels),
	     });
}

static void timed_squared_norm(struct device *dev, double *sum, struct matrix x)
{
	double start_s = clock_s();

	dev->timed->inner.squared_norm(dev, sum, x);
	keep_pass(dev, start_s, "squared_norm", x, bytes_of(x) + sizeof *sum);
}

static void timed_adamw(struct device *dev, struct matrix p, struct matrix m, struct matrix v,
			struct matrix gradient, struct adamw settings)
{
	double start_s = clock_s();

	dev->timed->inner.adamw(dev, p, m, v, gradient, settings);
	keep_pass(dev, start_s, "adamw", p,
		  2 * (bytes_of(p) + bytes_of(m) + bytes_of(v)) + bytes_of(gradient));
}

/* -- the table ----------------------------------------------------------------------------- */

void timed_slots(struct kernels *k)
{
	k->matmul = timed_matmul;
	k->linear = timed_linear;
	k->pack = timed_pack;
	k->thin = timed_thin;
	k->few = timed_few;
	k->keep = timed_keep;
	k->attend = timed_attend;
	k->copy = timed_copy;
	k->transpose = timed_transpose;
	k->fill = timed_fill;
	k->embed = timed_embed;
	k->layer_norm = timed_layer_norm;
	k->layer_norm_backward = timed_layer_norm_backward;
	k->rms_norm = timed_rms_norm;
	k->rms_norm_backward = timed_rms_norm_backward;
	k->rope = timed_rope;
	k->attention = timed_attention;
	k->attention_backward = timed_attention_backward;
	k->gelu = timed_gelu;
	k->gelu_backward = timed_gelu_backward;
	k->swiglu = timed_swiglu;
	k->swiglu_backward = timed_swiglu_backward;
	k->dropout = timed_dropout;
	k->dropout_backward = timed_dropout_backward;
	k->cross_entropy = timed_cross_entropy;
	k->head_loss = timed_head_loss;
	k->squared_norm = timed_squared_norm;
	k->adamw = timed_adamw;
}
