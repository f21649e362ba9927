/*
 * A GPT-2 block (Radford et al., 2019; names as in transformers' GPT2Block). Forward is ten
 * lines; backward is the same ten in reverse, each behind the forward line that it
 * differentiates.
 */
#include "model/block.h"

void gpt2_forward(const struct run *run, struct matrix x, struct saved *s,
		  const struct block *b)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix h1 = linear_input(run, &b->qkv, w->h),
		      h2 = linear_input(run, &b->up, w->h);
	struct matrix act = linear_input(run, &b->down, w->act), none = {0};
	float epsilon = run->config->norm_epsilon;

	k->layer_norm(dev, h1, s->x1, s->stats1, x, b->norm1, b->norm1_bias, epsilon);
	linear_forward(run, s->qkv, s->u_qkv, h1, &b->qkv, 0);
	block_attention(run, s, s->q, s->k, b);
	linear_forward(run, x, s->u_out, s->o, &b->out, 1);
	k->layer_norm(dev, h2, s->x2, s->stats2, x, b->norm2, b->norm2_bias, epsilon);
	linear_forward(run, s->up, s->u_up, h2, &b->up, 0);
	k->gelu(dev, act, s->up, run->config->gelu);
	linear_forward(run, run->again ? none : x, s->u_down, act, &b->down, 1);
}

/* What forward did not keep of the MLP, from x2. */
static void mlp_again(const struct run *run, struct matrix h2, const struct saved *s,
		      const struct block *b)
{
	struct matrix none = {0};

	run->dev->k.layer_norm(run->dev, h2, none, s->stats2, s->x2, b->norm2, b->norm2_bias,
			       run->config->norm_epsilon);
	linear_forward(run, s->up, s->u_up, h2, &b->up, 0);
}

/* An input that forward did not keep, computed again where an adapter's gradient needs it. */
static void norm_again(const struct run *run, struct matrix h, struct matrix x,
		       struct matrix stats, struct matrix gain, struct matrix bias,
		       const struct linear *linear)
{
	struct matrix none = {0};

	if (linear_adapted(linear))
		run->dev->k.layer_norm(run->dev, h, none, stats, x, gain, bias,
				       run->config->norm_epsilon);
}

void gpt2_backward(const struct run *run, struct matrix d, const struct saved *s,
		   const struct block *b, const struct linear *below, bool lowest)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix h1 = linear_input(run, &b->qkv, w->h),
		      h2 = linear_input(run, &b->up, w->h);
	struct matrix act = linear_input(run, &b->down, w->act), none = {0};
	struct matrix d_up = linear_gradient(run, &b->up, w->d_up);
	struct matrix d_qkv = linear_gradient(run, &b->qkv, w->d_qkv);
	int C = run->config->width;
	/* How far down the gradient is wanted: below every adapted linear nothing is. */
	bool to_o = !lowest || linear_adapted(&b->qkv);
	bool to_x2 = to_o || linear_adapted(&b->out), to_up = to_x2 || linear_adapted(&b->up);

	if (run->recompute == RECOMPUTE_MLP)
		mlp_again(run, h2, s, b);
	/* x += down(gelu(up)) */
	if (linear_adapted(&b->down) && run->recompute != RECOMPUTE_BLOCK)
		k->gelu(dev, act, s->up, run->config->gelu);
	linear_backward(run, to_up ? d_up : none, stream_gradient(run, &b->down, d), act,
			s->u_down, &b->down);
	if (!to_up)
		return;
	k->gelu_backward(dev, d_up, d_up, s->up, run->config->gelu);
	/* up = up(norm2(x2)) */
	if (run->recompute == RECOMPUTE_NONE)
		norm_again(run, h2, s->x2, s->stats2, b->norm2, b->norm2_bias, &b->up);
	linear_backward(run, to_x2 ? w->d_h : none, d_up, h2, s->u_up, &b->up);
	if (!to_x2)
		return;
	k->layer_norm_backward(dev, d, stream_copy(run, &b->out, d), w->d_h, s->x2, s->stats2,
			       b->norm2);
	/* x += out(o) */
	linear_backward(run, to_o ? w->d_o : none, stream_gradient(run, &b->out, d), s->o,
			s->u_out, &b->out);
	if (!to_o)
		return;
	/* o = attention(q, k, v) */
	k->attention_backward(dev, matrix_cols(d_qkv, 0, C), matrix_cols(d_qkv, C, C),
			      matrix_cols(d_qkv, 2 * C, C), w->d_o, s->q, s->k, s->v, s->o,
			      s->lse, attention_of(run, b), w->attention);
	/* q, k, v = qkv(norm1(x1)) */
	norm_again(run, h1, s->x1, s->stats1, b->norm1, b->norm1_bias, &b->qkv);
	linear_backward(run, lowest ? none : w->d_h, d_qkv, h1, s->u_qkv, &b->qkv);
	if (!lowest)
		k->layer_norm_backward(dev, d, below ? stream_copy(run, below, d) : none,
				       w->d_h, s->x1, s->stats1, b->norm1);
}
