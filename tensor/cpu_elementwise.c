/*
 * Kernels of the CPU that touch each element on its own: plain loops over rows, vectorised by
 * the compiler. Where an output may be an input, the pointers are not restrict (EACH_ALONE).
 */
#include <math.h>
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

/* What a kernel takes; each uses some. */
struct maps {
	struct matrix y, z, x, w;
	const int32_t *ids;
	float value;
	int size;
	bool flag;
};

#define ROWS(name) static void name(const void *arg, int first, int end)

/* -- sums and copies ----------------------------------------------------------------------- */

VECTOR static void add_row(float *y, const float *x, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] += x[j];
}

ROWS(copy_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++)
		memcpy(row_of(a->y, i), row_of(a->x, i), (size_t)a->y.cols * sizeof(float));
}

static void cpu_copy(struct device *dev, struct matrix y, struct matrix x)
{
	struct maps a = {.y = y, .x = x};

	run_rows(dev, copy_rows, &a, y.rows, (size_t)y.cols);
}

ROWS(fill_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++) {
		float *y = row_of(a->y, i);

		for (int j = 0; j < a->y.cols; j++)
			y[j] = a->value;
	}
}

static void cpu_fill(struct device *dev, struct matrix x, float value)
{
	struct maps a = {.y = x, .value = value};

	run_rows(dev, fill_rows, &a, x.rows, (size_t)x.cols);
}

ROWS(embed_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++) {
		memcpy(row_of(a->y, i), row_of(a->x, a->ids[i]),
		       (size_t)a->y.cols * sizeof(float));
		if (a->w.data)
			add_row(row_of(a->y, i), row_of(a->w, i % a->size), a->y.cols);
	}
}

static void cpu_embed(struct device *dev, struct matrix y, const int32_t *ids,
		      struct matrix tokens, struct matrix positions, int T)
{
	struct maps a = {.y = y, .x = tokens, .w = positions, .ids = ids, .size = T};

	run_rows(dev, embed_rows, &a, y.rows, (size_t)y.cols);
}

/* -- rope ---------------------------------------------------------------------------------- */

VECTOR static void rotate(float *restrict a, float *restrict b, const float *restrict cosine,
			  const float *restrict sine, float sign, int half)
{
	for (int j = 0; j < half; j++) {
		float s = sign * sine[j], turned = a[j] * cosine[j] - b[j] * s;

		b[j] = b[j] * cosine[j] + a[j] * s;
		a[j] = turned;
	}
}

ROWS(rope_rows)
{
	const struct maps *a = arg;
	int half = a->size / 2;

	for (int i = first; i < end; i++) {
		const float *table = row_of(a->x, i % a->x.rows);

		for (int j = 0; j < a->y.cols; j += a->size) {
			float *x = row_of(a->y, i) + j;

			rotate(x, x + half, table, table + half, a->value, half);
		}
	}
}

static void cpu_rope(struct device *dev, struct matrix x, struct matrix table, int head_size,
		     bool backward)
{
	struct maps a = {.y = x, .x = table, .size = head_size, .value = backward ? -1 : 1};

	run_rows(dev, rope_rows, &a, x.rows, (size_t)x.cols);
}

/* -- activations --------------------------------------------------------------------------- */

#define GELU_SLOPE 0.797884561f /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715f
#define ROOT_HALF 0.707106781f

/* x/2 (1 + tanh u) is x / (1 + exp(-2u)), which cancels nothing. */
VECTOR static void gelu_tanh(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++) {
		float u = GELU_SLOPE * (x[j] + GELU_CUBE * x[j] * x[j] * x[j]);

		y[j] = x[j] / (1 + vector_exp(-2 * u));
	}
}

VECTOR static void gelu_exact(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = 0.5f * x[j] * (1 + vector_erf(x[j] * ROOT_HALF));
}

/* y = x s(2u), s the logistic function, s' = s (1 - s), and 1 - s(z) = s(-z). */
VECTOR static void gelu_tanh_gradient(float *dx, const float *dy, const float *x, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float square = x[j] * x[j];
		float u = GELU_SLOPE * (x[j] + GELU_CUBE * square * x[j]);
		float du = GELU_SLOPE * (1 + 3 * GELU_CUBE * square);
		float s = 1 / (1 + vector_exp(-2 * u)), rest = 1 / (1 + vector_exp(2 * u));

		dx[j] = dy[j] * (s + 2 * x[j] * s * rest * du);
	}
}

/* y = x/2 (1 + erf(x / sqrt 2)), erf' = 2 / sqrt pi exp(-x²/2) / sqrt 2. */
VECTOR static void gelu_exact_gradient(float *dx, const float *dy, const float *x, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float slope = 0.5f * GELU_SLOPE * x[j] * vector_exp(-0.5f * x[j] * x[j]);

		dx[j] = dy[j] * (0.5f * (1 + vector_erf(x[j] * ROOT_HALF)) + slope);
	}
}

ROWS(gelu_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++) {
		if (a->flag)
			gelu_exact(row_of(a->y, i), row_of(a->x, i), a->y.cols);
		else
			gelu_tanh(row_of(a->y, i), row_of(a->x, i), a->y.cols);
	}
}

static void cpu_gelu(struct device *dev, struct matrix y, struct matrix x, enum gelu kind)
{
	struct maps a = {.y = y, .x = x, .flag = kind == GELU_EXACT};

	run_rows(dev, gelu_rows, &a, y.rows, 2 * (size_t)y.cols);
}

ROWS(gelu_gradient_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++) {
		float *dx = row_of(a->y, i);
		const float *dy = row_of(a->z, i), *x = row_of(a->x, i);

		if (a->flag)
			gelu_exact_gradient(dx, dy, x, a->y.cols);
		else
			gelu_tanh_gradient(dx, dy, x, a->y.cols);
	}
}

static void cpu_gelu_backward(struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind)
{
	struct maps a = {.y = dx, .z = dy, .x = x, .flag = kind == GELU_EXACT};

	run_rows(dev, gelu_gradient_rows, &a, dx.rows, 3 * (size_t)dx.cols);
}

VECTOR static void swiglu_row(float *y, const float *gate, const float *up, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = gate[j] / (1 + vector_exp(-gate[j])) * up[j];
}

ROWS(swiglu_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++)
		swiglu_row(row_of(a->y, i), row_of(a->x, i), row_of(a->w, i), a->y.cols);
}

static void cpu_swiglu(struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	struct maps a = {.y = y, .x = gate, .w = up};

	run_rows(dev, swiglu_rows, &a, y.rows, 2 * (size_t)y.cols);
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s), and 1 - s(g) = s(-g). */
VECTOR static void swiglu_gradient_row(float *dgate, float *dup, const float *dy,
				       const float *gate, const float *up, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float g = gate[j], u = up[j], d = dy[j];
		float s = 1 / (1 + vector_exp(-g)), rest = 1 / (1 + vector_exp(g));

		dgate[j] = d * u * (s + g * s * rest);
		dup[j] = d * g * s;
	}
}

/* Five matrices: more than the common struct holds. */
struct swiglu_gradients {
	struct matrix dgate, dup, dy, gate, up;
};

ROWS(swiglu_gradient_rows)
{
	const struct swiglu_gradients *a = arg;

	for (int i = first; i < end; i++)
		swiglu_gradient_row(row_of(a->dgate, i), row_of(a->dup, i), row_of(a->dy, i),
				    row_of(a->gate, i), row_of(a->up, i), a->dy.cols);
}

static void cpu_swiglu_backward(struct device *dev, struct matrix dgate, struct matrix dup,
				struct matrix dy, struct matrix gate, struct matrix up)
{
	struct swiglu_gradients a = {dgate, dup, dy, gate, up};

	run_rows(dev, swiglu_gradient_rows, &a, dy.rows, 3 * (size_t)dy.cols);
}

void cpu_elementwise_slots(struct kernels *k)
{
	k->copy = cpu_copy;
	k->fill = cpu_fill;
	k->embed = cpu_embed;
	k->rope = cpu_rope;
	k->gelu = cpu_gelu;
	k->gelu_backward = cpu_gelu_backward;
	k->swiglu = cpu_swiglu;
	k->swiglu_backward = cpu_swiglu_backward;
}
