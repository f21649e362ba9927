/*
 * Frozen linears with their LoRA adapters (Hu et al., "LoRA: low-rank adaptation of large
 * language models", 2021), as PEFT defines them:
 *
 *     u = scale dropout(x) Aᵀ
 *     y = x Wᵀ + bias + u Bᵀ
 *
 * and backward, with no gradient for the frozen W and bias:
 *
 *     du = scale dy B      dB += dyᵀ u      dA += duᵀ dropout(x)
 *     dx = dy W + dropout'(du A)
 *
 * u and du are written behind x and dy, whose products with W thereby include them.
 */
#include "model/block.h"

static struct matrix rows_with_tail(const struct run *run, void *memory, int cols, int tail)
{
	struct matrix m = matrix_of(run->work->dtype, memory, run->rows, cols);

	m.ld = (size_t)cols + (size_t)tail;
	return m;
}

struct matrix linear_input(const struct run *run, const struct linear *linear, void *memory)
{
	return rows_with_tail(run, memory, linear->in, linear->tail);
}

struct matrix linear_gradient(const struct run *run, const struct linear *linear, void *memory)
{
	return rows_with_tail(run, memory, linear->out, linear->tail);
}

struct matrix stream_copy(const struct run *run, const struct linear *linear, struct matrix d)
{
	if (linear->tail == 0 && run->work->dtype == d.dtype)
		return (struct matrix){0};
	return linear_gradient(run, linear, run->work->d_in);
}

struct matrix stream_gradient(const struct run *run, const struct linear *linear,
			      struct matrix d)
{
	struct matrix copy = stream_copy(run, linear, d);

	return copy.data ? copy : d;
}

bool linear_adapted(const struct linear *linear)
{
	return linear->tail > 0;
}

/* x with its tail. */
static struct matrix widened(struct matrix x, int tail)
{
	x.cols += tail;
	return x;
}

struct matrix linear_weight(const struct linear *linear, int out, int outs, int in, int ins)
{
	return linear->transposed
		   ? matrix_cols(matrix_rows(linear->w, in, ins), out, outs)
		   : matrix_cols(matrix_rows(linear->w, out, outs), in, ins);
}

/* y = x [W | B]ᵀ + bias + beta y, where x has its tail. */
static void forward_product(struct device *dev, struct matrix y, struct matrix x,
			    const struct linear *linear, float beta)
{
	struct matrix w = linear_weight(linear, 0, linear->out, 0, linear->in + linear->tail);

	if (linear->forward.data)
		dev->k.linear(dev, y, x, linear->forward, false, linear->bias, beta);
	else
		dev->k.linear(dev, y, x, w, !linear->transposed, linear->bias, beta);
}

/* Every row by itself: its bits are its own. */
static void few_product(struct device *dev, struct matrix y, struct matrix x,
			const struct linear *linear, float beta)
{
	struct matrix w = linear_weight(linear, 0, linear->out, 0, linear->in + linear->tail);

	dev->k.few(dev, y, x, w, !linear->transposed, linear->bias, 1, beta);
}

/* dx = dy [W; A], where dy has its tail. */
static void backward_product(struct device *dev, struct matrix dx, struct matrix dy,
			     const struct linear *linear)
{
	struct matrix none = {0};

	if (linear->backward.data)
		dev->k.linear(dev, dx, dy, linear->backward, false, none, 0);
	else
		dev->k.linear(
		    dev, dx, dy,
		    linear_weight(linear, 0, linear->out + linear->tail, 0, linear->in),
		    linear->transposed, none, 0);
}

static struct dropout mask_of(const struct run *run, const struct part *part)
{
	return (struct dropout){
	    .p = run->dropout,
	    .key0 = (uint32_t)run->seed ^ (uint32_t)(run->seed >> 32),
	    .key1 = part->number,
	    .step = run->step,
	    .first_sample = run->first_sample,
	    .tokens = run->tokens,
	    .spot = run->spot,
	};
}

/* What A multiplies: x, or x with some of it dropped, in the work buffer. */
static struct matrix adapter_input(const struct run *run, struct matrix x,
				   const struct part *part)
{
	struct matrix dropped;

	if (run->dropout == 0)
		return x;
	dropped = matrix_cols(run->work->dropped, 0, x.cols);
	run->dev->k.dropout(run->dev, dropped, x, mask_of(run, part));
	return dropped;
}

/* The columns that a part has in a tail which begins at column `first` of m. */
static struct matrix part_tail(struct matrix m, int first, const struct part *part)
{
	return matrix_cols(m, first + part->tail, part->rank);
}

/* An odd sum of ranks leaves one column of the tail to nobody. */
static void clear_padding(const struct run *run, struct matrix m, int first,
			  const struct linear *linear)
{
	int used = 0;

	for (int p = 0; p < linear->parts; p++)
		used += linear->part[p].adapted ? linear->part[p].rank : 0;
	if (used < linear->tail)
		run->dev->k.fill(run->dev, matrix_cols(m, first + used, linear->tail - used),
				 0);
}

void linear_forward(const struct run *run, struct matrix y, struct matrix u, struct matrix x,
		    const struct linear *linear, float beta)
{
	struct device *dev = run->dev;
	struct matrix tail = matrix_cols(x, linear->in, linear->tail);

	for (int p = 0; p < linear->parts; p++) {
		const struct part *part = &linear->part[p];

		if (part->adapted && run->few)
			dev->k.few(dev, part_tail(x, linear->in, part), x, part->a, true,
				   (struct matrix){0}, part->scale, 0);
		else if (part->adapted)
			dev->k.thin(dev, part_tail(x, linear->in, part),
				    adapter_input(run, x, part), false, part->a, true,
				    part->scale, 0);
	}
	clear_padding(run, x, linear->in, linear);
	if (linear->tail && u.data && u.data != tail.data)
		dev->k.copy(dev, u, tail);
	if (y.data && run->few)
		few_product(dev, y, widened(x, linear->tail), linear, beta);
	else if (y.data)
		forward_product(dev, y, widened(x, linear->tail), linear, beta);
}

/* du behind dy, and the gradients of A and B. */
static void part_backward(const struct run *run, struct matrix dy, struct matrix x,
			  struct matrix u, const struct linear *linear, const struct part *part)
{
	struct device *dev = run->dev;
	struct matrix du = part_tail(dy, linear->out, part);
	struct matrix dy_part = matrix_cols(dy, part->first, part->out);

	dev->k.thin(dev, du, dy_part, false, part->b, false, part->scale, 0);
	dev->k.thin(dev, part->grad_b, dy_part, true, part_tail(u, 0, part), false, 1, 1);
	dev->k.thin(dev, part->grad_a, du, true, adapter_input(run, x, part), false, 1, 1);
}

/* With dropout du A goes through the mask, which the product with W cannot do: A is zero in W's
 * rows then. */
static void dropped_backward(const struct run *run, struct matrix dx, struct matrix dy,
			     const struct linear *linear, const struct part *part)
{
	struct device *dev = run->dev;
	struct matrix d_dropped = matrix_cols(run->work->d_dropped, 0, linear->in);

	dev->k.thin(dev, d_dropped, part_tail(dy, linear->out, part), false, part->a,
		    false, 1, 0);
	dev->k.dropout_backward(dev, dx, d_dropped, mask_of(run, part));
}

void linear_backward(const struct run *run, struct matrix dx, struct matrix dy, struct matrix x,
		     struct matrix u, const struct linear *linear)
{
	struct device *dev = run->dev;

	for (int p = 0; p < linear->parts; p++)
		if (linear->part[p].adapted)
			part_backward(run, dy, x, u, linear, &linear->part[p]);
	if (!dx.data)
		return;
	clear_padding(run, dy, linear->out, linear);
	backward_product(dev, dx, widened(dy, linear->tail), linear);
	for (int p = 0; run->dropout > 0 && p < linear->parts; p++)
		if (linear->part[p].adapted)
			dropped_backward(run, dx, dy, linear, &linear->part[p]);
}

/* A linear that reads x and writes y, and its backward, which reads dy and writes dx. */
static void linear_ready(const struct run *run, const struct linear *linear, struct matrix y,
			 struct matrix x, float beta, struct matrix dx, struct matrix dy)
{
	x.data = dy.data = NULL;
	forward_product(run->dev, y, widened(x, linear->tail), linear, beta);
	backward_product(run->dev, dx, widened(dy, linear->tail), linear);
}

void block_ready(const struct run *run, const struct saved *s, const struct block *b,
		 struct matrix x)
{
	const struct work *w = run->work;
	struct matrix h1 = linear_input(run, &b->qkv, w->h),
		      h2 = linear_input(run, &b->up, w->h);
	struct matrix act = linear_input(run, &b->down, w->act);
	struct matrix d_up = linear_gradient(run, &b->up, w->d_up);

	linear_ready(run, &b->qkv, s->qkv, h1, 0, w->d_h,
		     linear_gradient(run, &b->qkv, w->d_qkv));
	linear_ready(run, &b->out, x, s->o, 1, w->d_o, stream_gradient(run, &b->out, x));
	linear_ready(run, &b->up, s->up, h2, 0, w->d_h, d_up);
	linear_ready(run, &b->down, x, act, 1,
		     matrix_cols(d_up, d_up.cols - act.cols, act.cols),
		     stream_gradient(run, &b->down, x));
}

void block_ready_forward(const struct run *run, const struct saved *s, const struct block *b,
			 struct matrix x)
{
	const struct work *w = run->work;
	const struct linear *linear[] = {&b->qkv, &b->out, &b->up, &b->down};
	struct matrix in[] = {linear_input(run, &b->qkv, w->h), s->o,
			      linear_input(run, &b->up, w->h),
			      linear_input(run, &b->down, w->act)};
	struct matrix out[] = {s->qkv, x, s->up, x};

	for (int i = 0; i < 4; i++) {
		in[i].data = NULL;
		forward_product(run->dev, out[i], widened(in[i], linear[i]->tail), linear[i],
				i % 2 == 0 ? 0 : 1);
	}
}

void block_attention(const struct run *run, const struct saved *s, struct matrix q,
		     struct matrix k, const struct block *b)
{
	const struct kernels *kernels = &run->dev->k;
	int n = run->new_rows;

	if (!run->cached) {
		kernels->attention(run->dev, s->o, s->lse, q, k, s->v, attention_of(run, b),
				   run->work->attention);
		return;
	}
	kernels->keep(run->dev, run->cached, matrix_rows(k, 0, n), matrix_rows(s->v, 0, n));
	kernels->attend(run->dev, matrix_rows(s->o, 0, n), matrix_rows(q, 0, n), run->cached);
}

/* The rows that B and A take in packed weights: of a part, the columns of its outputs; all at
 * once, as a tail may begin inside of what the library keeps together. */
static void pack_tails(struct device *dev, const struct linear *linear, bool dropout)
{
	for (int p = 0; p < linear->parts; p++) {
		const struct part *part = &linear->part[p];
		struct matrix b = matrix_cols(linear->forward_tail, part->first, part->out);

		if (!part->adapted)
			continue;
		dev->k.transpose(dev, matrix_rows(b, part->tail, part->a.rows), part->b);
		if (!dropout)
			dev->k.copy(
			    dev, matrix_rows(linear->backward_tail, part->tail, part->a.rows),
			    part->a);
	}
	dev->k.pack(dev, linear->forward, linear->in, 0, linear->forward_tail, false);
	dev->k.pack(dev, linear->backward, linear->out, 0, linear->backward_tail, false);
}

/* Where A and B of a part lie in w: B beside the part's rows of W, A below W; both turned where
 * W is. */
static void write_tails(struct device *dev, const struct linear *linear,
			const struct part *part, bool dropout)
{
	int rank = part->a.rows;
	struct matrix b = linear_weight(linear, part->first, part->out,
					linear->in + part->tail, rank);
	struct matrix a =
	    linear_weight(linear, linear->out + part->tail, rank, 0, linear->in);
	void (*write)(struct device *dev, struct matrix y, struct matrix x) =
	    linear->transposed ? dev->k.transpose : dev->k.copy;

	write(dev, b, part->b);
	if (!dropout)
		write(dev, a, part->a);
}

void linear_adapt(struct device *dev, const struct linear *linear, bool dropout)
{
	if (linear->tail && linear->forward.data) {
		pack_tails(dev, linear, dropout);
		return;
	}
	for (int p = 0; p < linear->parts; p++)
		if (linear->part[p].adapted)
			write_tails(dev, linear, &linear->part[p], dropout);
}
