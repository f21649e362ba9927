/*
 * A GPT-2 block (Radford et al., 2019; names as in transformers' GPT2Block). Forward is ten lines; backward is
 * the same ten in reverse, each behind the forward line that it differentiates.
 */
#include "model/block.h"

void gpt2_forward(const struct run *run, struct matrix x, struct saved *s,
		  const struct block *b)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	float epsilon = run->config->norm_epsilon;

	k->layer_norm(dev, w->h, s->x1, s->stats1, x, b->norm1, b->norm1_bias, epsilon);
	linear_forward(run, s->qkv, s->u[SLOT_QKV], w->h, &b->qkv, 0);
	k->attention(dev, s->o, s->lse, s->q, s->k, s->v, b->attention, w->attention);
	linear_forward(run, x, s->u[SLOT_OUT], s->o, &b->out, 1);
	k->layer_norm(dev, w->h, s->x2, s->stats2, x, b->norm2, b->norm2_bias, epsilon);
	linear_forward(run, s->up, s->u[SLOT_UP], w->h, &b->up, 0);
	k->gelu(dev, w->act, s->up, run->config->gelu);
	linear_forward(run, x, s->u[SLOT_DOWN], w->act, &b->down, 1);
}

/* An input that forward did not keep, computed again where an adapter's gradient needs it. */
static void norm_again(const struct run *run, struct matrix x, struct matrix stats,
		       struct matrix gain, struct matrix bias, const struct linear *linear)
{
	struct matrix none = {0};

	if (linear->adapted)
		run->dev->k.layer_norm(run->dev, run->work->h, none, stats, x, gain, bias,
				       run->config->norm_epsilon);
}

void gpt2_backward(const struct run *run, struct matrix d, const struct saved *s,
		   const struct block *b, bool lowest)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix none = {0}, below = lowest ? none : w->d_h;

	/* y = down(gelu(up)) + x2 */
	if (b->down.adapted)
		k->gelu(dev, w->act, s->up, run->config->gelu);
	linear_backward(run, w->d_up, d, w->act, s->u[SLOT_DOWN], &b->down, false);
	k->gelu_backward(dev, w->d_up, w->d_up, s->up, run->config->gelu);
	/* up = up(norm2(x2)) */
	norm_again(run, s->x2, s->stats2, b->norm2, b->norm2_bias, &b->up);
	linear_backward(run, w->d_h, w->d_up, w->h, s->u[SLOT_UP], &b->up, false);
	k->layer_norm_backward(dev, d, none, w->d_h, s->x2, s->stats2, b->norm2);
	/* x2 = out(o) + x1 */
	linear_backward(run, w->d_o, d, s->o, s->u[SLOT_OUT], &b->out, false);
	/* o = attention(q, k, v) */
	k->attention_backward(dev, w->d_q, w->d_k, w->d_v, w->d_o, s->q, s->k, s->v, s->o,
			      s->lse, b->attention, w->attention);
	/* q, k, v = qkv(norm1(x1)) */
	norm_again(run, s->x1, s->stats1, b->norm1, b->norm1_bias, &b->qkv);
	linear_backward(run, below, w->d_qkv, w->h, s->u[SLOT_QKV], &b->qkv, false);
	if (!lowest)
		k->layer_norm_backward(dev, d, none, w->d_h, s->x1, s->stats1, b->norm1);
}
