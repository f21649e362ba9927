/*
 * The far device: the CPU kernels behind pointers that fault when the host touches them, as a
 * GPU's would. Every slot brings its pointers near and calls the CPU's; what forgets to go
 * through the device is found by a test on a machine that has no GPU.
 */
#include "tensor/internal.h"

/* A null pointer stays null: it means that there is nothing. */
static void *near(const struct device *dev, const void *far)
{
	return far ? (void *)((uintptr_t)far - (uintptr_t)dev->offset) : NULL;
}

static struct matrix near_matrix(const struct device *dev, struct matrix m)
{
	m.data = near(dev, m.data);
	return m;
}

#define NEAR(m) near_matrix(dev, m)

static void far_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	kernels_cpu().matmul(dev, NEAR(c), NEAR(a), a_t, NEAR(b), b_t, alpha, beta);
}

static void far_linear(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		       bool w_t, struct matrix bias, float beta)
{
	kernels_cpu().linear(dev, NEAR(y), NEAR(x), NEAR(w), w_t, NEAR(bias), beta);
}

static void far_pack(struct device *dev, struct matrix w, int row, int col, struct matrix part,
		     bool part_t)
{
	kernels_cpu().pack(dev, NEAR(w), row, col, part, part_t);
}

static void far_thin(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		     struct matrix b, bool b_t, float alpha, float beta)
{
	kernels_cpu().thin(dev, NEAR(c), NEAR(a), a_t, NEAR(b), b_t, alpha, beta);
}

static void far_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		    bool w_t, struct matrix bias, float alpha, float beta)
{
	kernels_cpu().few(dev, NEAR(y), NEAR(x), NEAR(w), w_t, NEAR(bias), alpha, beta);
}

static struct cached near_cached(const struct device *dev, const struct cached *far)
{
	struct cached c = *far;

	c.keys = near(dev, c.keys);
	c.values = near(dev, c.values);
	c.sequence = near(dev, c.sequence);
	c.position = near(dev, c.position);
	return c;
}

static void far_keep(struct device *dev, const struct cached *cached, struct matrix k,
		     struct matrix v)
{
	struct cached c = near_cached(dev, cached);

	kernels_cpu().keep(dev, &c, NEAR(k), NEAR(v));
}

static void far_attend(struct device *dev, struct matrix o, struct matrix q,
		       const struct cached *cached)
{
	struct cached c = near_cached(dev, cached);

	kernels_cpu().attend(dev, NEAR(o), NEAR(q), &c);
}

static void far_copy(struct device *dev, struct matrix y, struct matrix x)
{
	kernels_cpu().copy(dev, NEAR(y), NEAR(x));
}

static void far_transpose(struct device *dev, struct matrix y, struct matrix x)
{
	kernels_cpu().transpose(dev, NEAR(y), NEAR(x));
}

static void far_fill(struct device *dev, struct matrix x, float value)
{
	kernels_cpu().fill(dev, NEAR(x), value);
}

static void far_embed(struct device *dev, struct matrix y, const int32_t *ids,
		      const struct spot *spot, struct matrix tokens, struct matrix positions,
		      int T)
{
	kernels_cpu().embed(dev, NEAR(y), near(dev, ids), near(dev, spot), NEAR(tokens),
			    NEAR(positions), T);
}

static void far_layer_norm(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   struct matrix bias, float epsilon)
{
	kernels_cpu().layer_norm(dev, NEAR(y), NEAR(copy), NEAR(stats), NEAR(x), NEAR(gain),
				 NEAR(bias), epsilon);
}

static void far_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain)
{
	kernels_cpu().layer_norm_backward(dev, NEAR(dx), NEAR(copy), NEAR(dy), NEAR(x),
					  NEAR(stats), NEAR(gain));
}

static void far_rms_norm(struct device *dev, struct matrix y, struct matrix copy,
			 struct matrix stats, struct matrix x, struct matrix gain,
			 float epsilon)
{
	kernels_cpu().rms_norm(dev, NEAR(y), NEAR(copy), NEAR(stats), NEAR(x), NEAR(gain),
			       epsilon);
}

static void far_rms_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				  struct matrix dy, struct matrix x, struct matrix stats,
				  struct matrix gain, bool accumulate)
{
	kernels_cpu().rms_norm_backward(dev, NEAR(dx), NEAR(copy), NEAR(dy), NEAR(x),
					NEAR(stats), NEAR(gain), accumulate);
}

static void far_rope(struct device *dev, struct matrix x, const struct spot *spot,
		     struct matrix table, int head_size, bool backward)
{
	kernels_cpu().rope(dev, NEAR(x), near(dev, spot), NEAR(table), head_size, backward);
}

static void far_attention(struct device *dev, struct matrix o, struct matrix lse,
			  struct matrix q, struct matrix k, struct matrix v,
			  struct attention shape, void *scratch)
{
	shape.segment = near(dev, shape.segment);
	kernels_cpu().attention(dev, NEAR(o), NEAR(lse), NEAR(q), NEAR(k), NEAR(v), shape,
				near(dev, scratch));
}

static void far_attention_backward(struct device *dev, struct matrix dq, struct matrix dk,
				   struct matrix dv, struct matrix d_o, struct matrix q,
				   struct matrix k, struct matrix v, struct matrix o,
				   struct matrix lse, struct attention shape, void *scratch)
{
	shape.segment = near(dev, shape.segment);
	kernels_cpu().attention_backward(dev, NEAR(dq), NEAR(dk), NEAR(dv), NEAR(d_o), NEAR(q),
					 NEAR(k), NEAR(v), NEAR(o), NEAR(lse), shape,
					 near(dev, scratch));
}

static void far_gelu(struct device *dev, struct matrix y, struct matrix x, enum gelu kind)
{
	kernels_cpu().gelu(dev, NEAR(y), NEAR(x), kind);
}

static void far_gelu_backward(struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind)
{
	kernels_cpu().gelu_backward(dev, NEAR(dx), NEAR(dy), NEAR(x), kind);
}

static void far_swiglu(struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	kernels_cpu().swiglu(dev, NEAR(y), NEAR(gate), NEAR(up));
}

static void far_swiglu_backward(struct device *dev, struct matrix dgate, struct matrix dup,
				struct matrix dy, struct matrix gate, struct matrix up)
{
	kernels_cpu().swiglu_backward(dev, NEAR(dgate), NEAR(dup), NEAR(dy), NEAR(gate),
				      NEAR(up));
}

static void far_dropout(struct device *dev, struct matrix y, struct matrix x, struct dropout d)
{
	d.spot = near(dev, d.spot);
	kernels_cpu().dropout(dev, NEAR(y), NEAR(x), d);
}

static void far_dropout_backward(struct device *dev, struct matrix dx, struct matrix dy,
				 struct dropout d)
{
	d.spot = near(dev, d.spot);
	kernels_cpu().dropout_backward(dev, NEAR(dx), NEAR(dy), d);
}

static void far_cross_entropy(struct device *dev, double *losses, struct matrix gradient,
			      struct matrix logits, const int32_t *labels, float scale)
{
	kernels_cpu().cross_entropy(dev, near(dev, losses), NEAR(gradient), NEAR(logits),
				    near(dev, labels), scale);
}

static void far_head_loss(struct device *dev, double *losses, struct matrix d_h,
			  struct matrix h, struct matrix w, const int32_t *labels, float scale,
			  void *scratch)
{
	kernels_cpu().head_loss(dev, near(dev, losses), NEAR(d_h), NEAR(h), NEAR(w),
				near(dev, labels), scale, near(dev, scratch));
}

static void far_squared_norm(struct device *dev, double *sum, struct matrix x)
{
	kernels_cpu().squared_norm(dev, near(dev, sum), NEAR(x));
}

static void far_adamw(struct device *dev, struct matrix p, struct matrix m, struct matrix v,
		      struct matrix gradient, struct adamw settings)
{
	kernels_cpu().adamw(dev, NEAR(p), NEAR(m), NEAR(v), NEAR(gradient), settings);
}

struct kernels kernels_far(void)
{
	struct kernels k = kernels_cpu();

	k.name = "far";
	k.matmul = far_matmul;
	k.linear = far_linear;
	k.pack = far_pack;
	k.thin = far_thin;
	k.few = far_few;
	k.keep = far_keep;
	k.attend = far_attend;
	k.copy = far_copy;
	k.transpose = far_transpose;
	k.fill = far_fill;
	k.embed = far_embed;
	k.layer_norm = far_layer_norm;
	k.layer_norm_backward = far_layer_norm_backward;
	k.rms_norm = far_rms_norm;
	k.rms_norm_backward = far_rms_norm_backward;
	k.rope = far_rope;
	k.attention = far_attention;
	k.attention_backward = far_attention_backward;
	k.gelu = far_gelu;
	k.gelu_backward = far_gelu_backward;
	k.swiglu = far_swiglu;
	k.swiglu_backward = far_swiglu_backward;
	k.dropout = far_dropout;
	k.dropout_backward = far_dropout_backward;
	k.cross_entropy = far_cross_entropy;
	k.head_loss = far_head_loss;
	k.squared_norm = far_squared_norm;
	k.adamw = far_adamw;
	return k;
}
