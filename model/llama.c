/*
 * The block of LLaMA and its kin: Mistral (sliding window), Qwen2 (bias on q, k, v), Qwen3 (norms on queries
 * and keys). Names as in transformers' LlamaDecoderLayer. Backward is the forward in reverse, each part behind
 * the forward line that it differentiates.
 */
#include "model/block.h"

/* A matrix of n rows of heads seen as n * heads rows of one head. */
static struct matrix by_head(struct matrix x, int head_size)
{
	return matrix(x.data, x.rows * (x.cols / head_size), head_size);
}

/* What attention sees: queries and keys after norm and rotation. Without a norm they are rotated where they
 * are kept; with one, the raw ones are kept and these are computed again in backward. */
static struct matrix queries(const struct run *run, const struct saved *s)
{
	return run->config->qk_norm ? run->work->q : s->q;
}

static struct matrix keys(const struct run *run, const struct saved *s)
{
	return run->config->qk_norm ? run->work->k : s->k;
}

static void rotate(const struct run *run, const struct saved *s, const struct block *b)
{
	struct device *dev = run->dev;
	struct matrix q = queries(run, s), k = keys(run, s), none = {0};
	int D = run->config->head_size;
	float epsilon = run->config->norm_epsilon;

	if (run->config->qk_norm) {
		dev->k.rms_norm(dev, by_head(q, D), none, s->q_stats, by_head(s->q, D), b->q_norm,
				epsilon);
		dev->k.rms_norm(dev, by_head(k, D), none, s->k_stats, by_head(s->k, D), b->k_norm,
				epsilon);
	}
	dev->k.rope(dev, q, run->work->rope, D, false);
	dev->k.rope(dev, k, run->work->rope, D, false);
}

/* The gradients of queries and keys through the same. */
static void rotate_backward(const struct run *run, const struct saved *s, const struct block *b)
{
	struct device *dev = run->dev;
	const struct work *w = run->work;
	struct matrix none = {0};
	int D = run->config->head_size;

	dev->k.rope(dev, w->d_q, w->rope, D, true);
	dev->k.rope(dev, w->d_k, w->rope, D, true);
	if (!run->config->qk_norm)
		return;
	dev->k.rms_norm_backward(dev, by_head(w->d_q, D), none, by_head(w->d_q, D), by_head(s->q, D),
				 s->q_stats, b->q_norm, false);
	dev->k.rms_norm_backward(dev, by_head(w->d_k, D), none, by_head(w->d_k, D), by_head(s->k, D),
				 s->k_stats, b->k_norm, false);
}

void llama_forward(const struct run *run, struct matrix x, struct saved *s,
		   const struct block *b)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	float epsilon = run->config->norm_epsilon;

	k->rms_norm(dev, w->h, s->x1, s->stats1, x, b->norm1, epsilon);
	linear_forward(run, s->q, s->u[SLOT_Q], w->h, &b->q, 0);
	linear_forward(run, s->k, s->u[SLOT_K], w->h, &b->k, 0);
	linear_forward(run, s->v, s->u[SLOT_V], w->h, &b->v, 0);
	rotate(run, s, b);
	k->attention(dev, s->o, s->lse, queries(run, s), keys(run, s), s->v, b->attention,
		     w->attention);
	linear_forward(run, x, s->u[SLOT_OUT], s->o, &b->out, 1);
	k->rms_norm(dev, w->h, s->x2, s->stats2, x, b->norm2, epsilon);
	linear_forward(run, s->gate, s->u[SLOT_GATE], w->h, &b->gate, 0);
	linear_forward(run, s->up, s->u[SLOT_UP], w->h, &b->up, 0);
	k->swiglu(dev, w->act, s->gate, s->up);
	linear_forward(run, x, s->u[SLOT_DOWN], w->act, &b->down, 1);
}

void llama_backward(const struct run *run, struct matrix d, const struct saved *s,
		    const struct block *b, bool lowest)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix none = {0}, below = lowest ? none : w->d_h;
	float epsilon = run->config->norm_epsilon;

	/* y = down(swiglu(gate, up)) + x2 */
	if (b->down.adapted)
		k->swiglu(dev, w->act, s->gate, s->up);
	linear_backward(run, w->d_up, d, w->act, s->u[SLOT_DOWN], &b->down, false);
	k->swiglu_backward(dev, w->d_gate, w->d_up, w->d_up, s->gate, s->up);
	/* gate, up = gate(norm2(x2)), up(norm2(x2)) */
	if (b->gate.adapted || b->up.adapted)
		k->rms_norm(dev, w->h, none, s->stats2, s->x2, b->norm2, epsilon);
	linear_backward(run, w->d_h, w->d_up, w->h, s->u[SLOT_UP], &b->up, false);
	linear_backward(run, w->d_h, w->d_gate, w->h, s->u[SLOT_GATE], &b->gate, true);
	k->rms_norm_backward(dev, d, none, w->d_h, s->x2, s->stats2, b->norm2, true);
	/* x2 = out(o) + x1 */
	linear_backward(run, w->d_o, d, s->o, s->u[SLOT_OUT], &b->out, false);
	/* o = attention(rotate(q), rotate(k), v) */
	if (run->config->qk_norm)
		rotate(run, s, b);
	k->attention_backward(dev, w->d_q, w->d_k, w->d_v, w->d_o, queries(run, s), keys(run, s),
			      s->v, s->o, s->lse, b->attention, w->attention);
	rotate_backward(run, s, b);
	/* q, k, v = q(norm1(x1)), k(norm1(x1)), v(norm1(x1)) */
	if (b->q.adapted || b->k.adapted || b->v.adapted)
		k->rms_norm(dev, w->h, none, s->stats1, s->x1, b->norm1, epsilon);
	linear_backward(run, below, w->d_v, w->h, s->u[SLOT_V], &b->v, false);
	linear_backward(run, below, w->d_k, w->h, s->u[SLOT_K], &b->k, true);
	linear_backward(run, below, w->d_q, w->h, s->u[SLOT_Q], &b->q, true);
	if (!lowest)
		k->rms_norm_backward(dev, d, none, w->d_h, s->x1, s->stats1, b->norm1, true);
}
