/*
 * A frozen linear with its LoRA adapter (Hu et al., "LoRA: low-rank adaptation of large language models",
 * 2021), as PEFT defines it:
 *
 *     u = dropout(x) Aᵀ
 *     y = x Wᵀ + bias + scale u Bᵀ
 *
 * and backward, with no gradient for the frozen W and bias:
 *
 *     du = scale dy B      dB += scale dyᵀ u      dA += duᵀ dropout(x)
 *     dx = dy W + dropout'(du A)
 */
#include "model/block.h"

static struct dropout mask_of(const struct run *run, const struct linear *linear)
{
	return (struct dropout){
		.p = run->dropout,
		.key0 = (uint32_t)run->seed ^ (uint32_t)(run->seed >> 32),
		.key1 = linear->number,
		.step = run->step,
		.first_sample = run->first_sample,
		.tokens = run->tokens,
	};
}

/* What A multiplies: x, or x with some of it dropped, in the work buffer. */
static struct matrix adapter_input(const struct run *run, struct matrix x,
				   const struct linear *linear)
{
	struct matrix dropped;

	if (run->dropout == 0)
		return x;
	dropped = matrix_cols(run->work->dropped, 0, linear->in);
	run->dev->k.dropout(run->dev, dropped, x, mask_of(run, linear));
	return dropped;
}

void linear_forward(const struct run *run, struct matrix y, struct matrix u, struct matrix x,
		    const struct linear *linear, float beta)
{
	struct device *dev = run->dev;

	dev->k.linear(dev, y, x, linear->w, !linear->transposed, linear->bias, beta);
	if (!linear->adapted)
		return;
	dev->k.thin(dev, u, adapter_input(run, x, linear), false, linear->a, true, 1, 0);
	dev->k.thin(dev, y, u, false, linear->b, true, run->lora_scale, 1);
}

static void adapter_backward(const struct run *run, struct matrix dx, struct matrix dy,
			     struct matrix x, struct matrix u, const struct linear *linear)
{
	struct device *dev = run->dev;
	struct matrix du = run->work->du;

	dev->k.thin(dev, du, dy, false, linear->b, false, run->lora_scale, 0);
	dev->k.thin(dev, linear->grad_b, dy, true, u, false, run->lora_scale, 1);
	dev->k.thin(dev, linear->grad_a, du, true, adapter_input(run, x, linear), false, 1, 1);
	if (!dx.data)
		return;
	if (run->dropout == 0) {
		dev->k.thin(dev, dx, du, false, linear->a, false, 1, 1);
		return;
	}
	struct matrix d_dropped = matrix_cols(run->work->d_dropped, 0, linear->in);

	dev->k.thin(dev, d_dropped, du, false, linear->a, false, 1, 0);
	dev->k.dropout_backward(dev, dx, d_dropped, mask_of(run, linear));
}

void linear_backward(const struct run *run, struct matrix dx, struct matrix dy, struct matrix x,
		     struct matrix u, const struct linear *linear, bool accumulate)
{
	struct device *dev = run->dev;

	if (dx.data)
		dev->k.matmul(dev, dx, dy, false, linear->w, linear->transposed, 1,
			      accumulate ? 1 : 0);
	if (linear->adapted)
		adapter_backward(run, dx, dy, x, u, linear);
}
