/*
 * Cross-entropy and AdamW on the CPU. squared_norm stays the reference's: its order of
 * summation is part of its contract, and its tensors are small.
 */
#include <math.h>
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

struct losses {
	double *losses;
	struct matrix gradient, logits;
	const int32_t *labels;
	float scale;
};

VECTOR static float row_largest(const float *x, int n)
{
	return row_most(x, n);
}

VECTOR static float row_exp(float *y, const float *x, float most, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = vector_exp(x[j] - most);
	return row_sum(y, n);
}

float largest_of(const float *x, int n)
{
	return row_largest(x, n);
}

float exp_into(float *y, const float *x, float most, int n)
{
	return row_exp(y, x, most, n);
}

/* y = x factor; y may be x. */
VECTOR static void scale_into(float *y, const float *x, float factor, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = x[j] * factor;
}

/* The sum of e = exp(logit - most), a chunk in float, then on in double; with keep, which may
 * be the logits, keep = e. */
static double exp_sum(float *keep, const float *logits, int V, float most)
{
	float chunk[CHUNK];
	double sum = 0;

	for (int j = 0; j < V; j += CHUNK)
		sum += (double)exp_into(keep ? keep + j : chunk, logits + j, most,
					V - j < CHUNK ? V - j : CHUNK);
	return sum;
}

/*
 * dlogit = (p - 1 at the label and p elsewhere) * scale, from e = exp(logit - most). Where the
 * gradient lies in the logits' place the e were kept there; as F32 it is written over what was
 * just read, as BF16 behind it.
 */
static void gradient_row(const struct losses *a, int i, int label, float most, double sum,
			 float picked)
{
	bool kept = a->gradient.data == a->logits.data;
	const float *logits = row_of(a->logits, i);
	double p = exp((double)picked - most) / sum;
	float out[CHUNK];

	for (int j = 0, n; (n = chunk_of(a->gradient, j)) > 0; j += n) {
		float *y = chunk_out(a->gradient, i, j, out);

		if (!kept)
			exp_into(y, logits + j, most, n);
		scale_into(y, kept ? logits + j : y, (float)(a->scale / sum), n);
		if (label >= j && label < j + n)
			y[label - j] = (float)((p - 1) * a->scale);
		chunk_done(a->gradient, i, j, n, y);
	}
}

static void clear_row(struct matrix m, int i)
{
	size_t bytes = dtype_bytes(m.dtype);

	memset((char *)m.data + (size_t)i * m.ld * bytes, 0, (size_t)m.cols * bytes);
}

static double loss_row(const struct losses *a, int i, int label)
{
	float *logits = row_of(a->logits, i);
	int V = a->logits.cols;
	float most = largest_of(logits, V), picked = logits[label];
	double sum =
	    exp_sum(a->gradient.data == a->logits.data ? logits : NULL, logits, V, most);

	if (a->gradient.data)
		gradient_row(a, i, label, most, sum, picked);
	return log(sum) - ((double)picked - most);
}

static void loss_rows(const void *arg, int first, int end)
{
	const struct losses *a = arg;

	for (int i = first; i < end; i++) {
		a->losses[i] = 0;
		if (a->labels[i] >= 0)
			a->losses[i] = loss_row(a, i, a->labels[i]);
		else if (a->gradient.data)
			clear_row(a->gradient, i);
	}
}

static void cpu_cross_entropy(struct device *dev, double *losses, struct matrix gradient,
			      struct matrix logits, const int32_t *labels, float scale)
{
	struct losses a = {losses, gradient, logits, labels, scale};

	run_rows(dev, loss_rows, &a, logits.rows, 2 * (size_t)logits.cols);
}

/* -- optimizer ----------------------------------------------------------------------------- */

/* The settings, worked out once in double as torch does and rounded once. */
struct update {
	struct matrix p, m, v, gradient;
	float decay, take1, keep2, take2, step_size, root, epsilon, grad_scale;
};

VECTOR static void update_row(float *restrict p, float *restrict m, float *restrict v,
			      const float *restrict gradient, const struct update *restrict u,
			      int n)
{
	float decay = u->decay, take1 = u->take1, keep2 = u->keep2, take2 = u->take2;
	float step_size = u->step_size, root = u->root, epsilon = u->epsilon;
	float grad_scale = u->grad_scale;

	for (int j = 0; j < n; j++) {
		float g = gradient[j] * grad_scale;

		m[j] += take1 * (g - m[j]);
		v[j] = v[j] * keep2 + take2 * g * g;
		p[j] = p[j] * decay - step_size * m[j] / (sqrtf(v[j]) / root + epsilon);
	}
}

static void update_rows(const void *arg, int first, int end)
{
	const struct update *u = arg;

	for (int i = first; i < end; i++)
		update_row(row_of(u->p, i), row_of(u->m, i), row_of(u->v, i),
			   row_of(u->gradient, i), u, u->p.cols);
}

static void cpu_adamw(struct device *dev, struct matrix p, struct matrix m, struct matrix v,
		      struct matrix gradient, struct adamw a)
{
	struct update u = {
	    .p = p,
	    .m = m,
	    .v = v,
	    .gradient = gradient,
	    .decay = (float)(1 - a.learning_rate * a.weight_decay),
	    .take1 = (float)(1 - a.beta1),
	    .keep2 = (float)a.beta2,
	    .take2 = (float)(1 - a.beta2),
	    .step_size = (float)(a.learning_rate / (1 - pow(a.beta1, (double)a.step))),
	    .root = (float)sqrt(1 - pow(a.beta2, (double)a.step)),
	    .epsilon = (float)a.epsilon,
	    .grad_scale = a.grad_scale,
	};

	run_rows(dev, update_rows, &u, p.rows, 4 * (size_t)p.cols);
}

void cpu_loss_slots(struct kernels *k)
{
	k->cross_entropy = cpu_cross_entropy;
	k->adamw = cpu_adamw;
}
