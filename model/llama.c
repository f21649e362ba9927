/*
 * The block of LLaMA and its kin: Mistral (sliding window), Qwen2 (bias on q, k, v), Qwen3
 * (norms on queries and keys). Names as in transformers' LlamaDecoderLayer. Backward is the
 * forward in reverse, each part behind the forward line that it differentiates.
 */
#include "model/block.h"

/* What attention sees: queries and keys after norm and rotation. Without a norm they are
 * rotated where they are kept; with one, the raw ones are kept and these are computed again in
 * backward. */
static struct matrix queries(const struct run *run, const struct saved *s)
{
	return run->config->qk_norm ? run->work->q : s->q;
}

static struct matrix keys(const struct run *run, const struct saved *s)
{
	return run->config->qk_norm ? run->work->k : s->k;
}

/* y = the norm of every head of x, by itself; stats (n, heads). */
static void norm_heads(const struct run *run, struct matrix y, struct matrix stats,
		       struct matrix x, struct matrix gain)
{
	struct device *dev = run->dev;
	struct matrix none = {0};

	dev->k.rms_norm(dev, y, none, stats, x, gain, run->config->norm_epsilon);
}

static void norm_heads_backward(const struct run *run, struct matrix d, struct matrix x,
				struct matrix stats, struct matrix gain)
{
	struct device *dev = run->dev;
	struct matrix none = {0};

	dev->k.rms_norm_backward(dev, d, none, d, x, stats, gain, false);
}

static void rotate(const struct run *run, const struct saved *s, const struct block *b)
{
	struct device *dev = run->dev;
	struct matrix q = queries(run, s), k = keys(run, s);
	int D = run->config->head_size;

	if (run->config->qk_norm) {
		norm_heads(run, q, s->q_stats, s->q, b->q_norm);
		norm_heads(run, k, s->k_stats, s->k, b->k_norm);
	}
	dev->k.rope(dev, q, run->spot, run->work->rope, D, false);
	dev->k.rope(dev, k, run->spot, run->work->rope, D, false);
}

/* The gradients of queries and keys through the same. */
static void rotate_backward(const struct run *run, struct matrix d_q, struct matrix d_k,
			    const struct saved *s, const struct block *b)
{
	struct device *dev = run->dev;
	int D = run->config->head_size;

	dev->k.rope(dev, d_q, run->spot, run->work->rope, D, true);
	dev->k.rope(dev, d_k, run->spot, run->work->rope, D, true);
	if (!run->config->qk_norm)
		return;
	norm_heads_backward(run, d_q, s->q, s->q_stats, b->q_norm);
	norm_heads_backward(run, d_k, s->k, s->k_stats, b->k_norm);
}

void llama_forward(const struct run *run, struct matrix x, struct saved *s,
		   const struct block *b)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix h1 = linear_input(run, &b->qkv, w->h),
		      h2 = linear_input(run, &b->up, w->h);
	struct matrix act = linear_input(run, &b->down, w->act), none = {0};
	float epsilon = run->config->norm_epsilon;

	k->rms_norm(dev, h1, s->x1, s->stats1, x, b->norm1, epsilon);
	linear_forward(run, s->qkv, s->u_qkv, h1, &b->qkv, 0);
	rotate(run, s, b);
	block_attention(run, s, queries(run, s), keys(run, s), b);
	linear_forward(run, x, s->u_out, s->o, &b->out, 1);
	k->rms_norm(dev, h2, s->x2, s->stats2, x, b->norm2, epsilon);
	linear_forward(run, s->up, s->u_up, h2, &b->up, 0);
	k->swiglu(dev, act, s->gate_half, s->up_half);
	linear_forward(run, run->again ? none : x, s->u_down, act, &b->down, 1);
}

/* What forward did not keep of the MLP, from x2. */
static void mlp_again(const struct run *run, struct matrix h2, const struct saved *s,
		      const struct block *b)
{
	struct matrix none = {0};

	run->dev->k.rms_norm(run->dev, h2, none, s->stats2, s->x2, b->norm2,
			     run->config->norm_epsilon);
	linear_forward(run, s->up, s->u_up, h2, &b->up, 0);
}

/* An input that forward did not keep, computed again where an adapter's gradient needs it. */
static void norm_again(const struct run *run, struct matrix h, struct matrix x,
		       struct matrix stats, struct matrix gain, const struct linear *linear)
{
	struct matrix none = {0};

	if (linear_adapted(linear))
		run->dev->k.rms_norm(run->dev, h, none, stats, x, gain,
				     run->config->norm_epsilon);
}

void llama_backward(const struct run *run, struct matrix d, const struct saved *s,
		    const struct block *b, const struct linear *below, bool lowest)
{
	struct device *dev = run->dev;
	const struct kernels *k = &dev->k;
	const struct work *w = run->work;
	struct matrix h1 = linear_input(run, &b->qkv, w->h),
		      h2 = linear_input(run, &b->up, w->h);
	struct matrix act = linear_input(run, &b->down, w->act), none = {0};
	struct matrix d_qkv = linear_gradient(run, &b->qkv, w->d_qkv);
	struct matrix d_q = matrix_cols(d_qkv, 0, s->q.cols);
	struct matrix d_k = matrix_cols(d_qkv, s->q.cols, s->k.cols);
	struct matrix d_v = matrix_cols(d_qkv, s->q.cols + s->k.cols, s->v.cols);
	struct matrix d_both = linear_gradient(run, &b->up, w->d_up);
	struct matrix d_gate = matrix_cols(d_both, 0, act.cols);
	struct matrix d_up = matrix_cols(d_both, act.cols, act.cols);

	if (run->recompute == RECOMPUTE_MLP)
		mlp_again(run, h2, s, b);	/* How far down the gradient is wanted: below every adapted linear nothing is. */
	bool to_o = !lowest || linear_adapted(&b->qkv);
	bool to_x2 = to_o || linear_adapted(&b->out), to_up = to_x2 || linear_adapted(&b->up);

	/* x += down(swiglu(gate, up)) */
	if (linear_adapted(&b->down) && run->recompute != RECOMPUTE_BLOCK)
		k->swiglu(dev, act, s->gate_half, s->up_half);
	linear_backward(run, to_up ? d_up : none, stream_gradient(run, &b->down, d), act,
			s->u_down, &b->down);
	if (!to_up)
		return;
	k->swiglu_backward(dev, d_gate, d_up, d_up, s->gate_half, s->up_half);
	/* gate, up = up(norm2(x2)) */
	if (run->recompute == RECOMPUTE_NONE)
		norm_again(run, h2, s->x2, s->stats2, b->norm2, &b->up);
	linear_backward(run, to_x2 ? w->d_h : none, d_both, h2, s->u_up, &b->up);
	if (!to_x2)
		return;
	k->rms_norm_backward(dev, d, stream_copy(run, &b->out, d), w->d_h, s->x2, s->stats2,
			     b->norm2, true);
	/* x += out(o) */
	linear_backward(run, to_o ? w->d_o : none, stream_gradient(run, &b->out, d), s->o,
			s->u_out, &b->out);
	if (!to_o)
		return;
	/* o = attention(rotate(q), rotate(k), v) */
	if (run->config->qk_norm)
		rotate(run, s, b);
	k->attention_backward(dev, d_q, d_k, d_v, w->d_o, queries(run, s), keys(run, s), s->v,
			      s->o, s->lse, attention_of(run, b), w->attention);
	rotate_backward(run, d_q, d_k, s, b);
	/* q, k, v = qkv(norm1(x1)) */
	norm_again(run, h1, s->x1, s->stats1, b->norm1, &b->qkv);
	linear_backward(run, lowest ? none : w->d_h, d_qkv, h1, s->u_qkv, &b->qkv);
	if (!lowest)
		k->rms_norm_backward(dev, d, below ? stream_copy(run, below, d) : none, w->d_h,
				     s->x1, s->stats1, b->norm1, true);
}
