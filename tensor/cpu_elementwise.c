/*
 * Kernels of the CPU that touch each element on its own: plain loops over chunks of rows,
 * vectorised by the compiler. Where an output may be an input, the pointers are not restrict
 * (EACH_ALONE).
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
		chunk_copy(a->y, a->x, i, 0, a->y.cols);
}

static void cpu_copy(struct device *dev, struct matrix y, struct matrix x)
{
	struct maps a = {.y = y, .x = x};

	run_rows(dev, copy_rows, &a, y.rows, (size_t)y.cols);
}

ROWS(fill_rows)
{
	const struct maps *a = arg;

	for (int i = first; i < end; i++)
		if (a->y.dtype == DTYPE_BF16)
			for (int j = 0; j < a->y.cols; j++)
				row_of_bf16(a->y, i)[j] = bf16_of(a->value);
		else
			for (int j = 0; j < a->y.cols; j++)
				row_of(a->y, i)[j] = a->value;
}

static void cpu_fill(struct device *dev, struct matrix x, float value)
{
	struct maps a = {.y = x, .value = value};

	run_rows(dev, fill_rows, &a, x.rows, (size_t)x.cols);
}

/* Rows of a table lie as its file has them, aligned to nothing. */
ROWS(embed_rows)
{
	const struct maps *a = arg;
	size_t bytes = dtype_bytes(a->x.dtype);
	float out[CHUNK];

	for (int i = first; i < end; i++) {
		const char *token = (char *)a->x.data + (size_t)a->ids[i] * a->x.ld * bytes;

		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *y = chunk_out(a->y, i, j, out);

			convert_to_f32(y, token + (size_t)j * bytes, a->x.dtype, (size_t)n);
			if (a->w.data)
				add_row(y, row_of(a->w, i % a->size) + j, n);
			chunk_done(a->y, i, j, n, y);
		}
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

/* The same on BF16: a head is too short to be worth a buffer. */
VECTOR static void rotate_bf16(uint16_t *restrict a, uint16_t *restrict b,
			       const float *restrict cosine, const float *restrict sine,
			       float sign, int half)
{
	for (int j = 0; j < half; j++) {
		float s = sign * sine[j], c = cosine[j];
		float x = vector_widen(a[j]), y = vector_widen(b[j]);

		b[j] = vector_narrow(y * c + x * s);
		a[j] = vector_narrow(x * c - y * s);
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
			uint16_t *x16 = row_of_bf16(a->y, i) + j;

			if (a->y.dtype == DTYPE_BF16)
				rotate_bf16(x16, x16 + half, table, table + half, a->value,
					    half);
			else
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

/* 2u, and its slope, of gelu's tanh u, from x and x². */
#define TANH_ARGUMENT(x, square)                                                               \
	((x) * (2 * GELU_SLOPE + 2 * GELU_SLOPE * GELU_CUBE * (square)))
#define TANH_SLOPE(square) (2 * GELU_SLOPE + 6 * GELU_SLOPE * GELU_CUBE * (square))

/* x/2 (1 + tanh u) is x / (1 + exp(-2u)), which cancels nothing. */
VECTOR static void gelu_tanh(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = x[j] / (1 + vector_exp(-TANH_ARGUMENT(x[j], x[j] * x[j])));
}

VECTOR static void gelu_exact(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = 0.5f * x[j] * (1 + vector_erf(x[j] * ROOT_HALF));
}

/* The e of a logistic function s = 1 / (1 + e) whose rest 1 - s = e s is wanted too: never
 * infinite, which would leave no rest; s is below 1e-37 from there on. */
static inline float logistic_exp(float z)
{
	uint32_t high = -(uint32_t)(z > 87), bits = vector_bits(z);

	return vector_exp(vector_float((bits & ~high) | (vector_bits(87) & high)));
}

/* y = x s(2u), s the logistic function, s' = s (1 - s), and 1 - s(2u) = exp(-2u) s(2u). */
VECTOR static void gelu_tanh_gradient(float *dx, const float *dy, const float *x, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float square = x[j] * x[j];
		float e = logistic_exp(-TANH_ARGUMENT(x[j], square)), s = 1 / (1 + e);

		dx[j] = dy[j] * (s + x[j] * s * (e * s) * TANH_SLOPE(square));
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

	void (*map)(float *y, const float *x, int n) = a->flag ? gelu_exact : gelu_tanh;
	float in[CHUNK], out[CHUNK];

	for (int i = first; i < end; i++) {
		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *y = chunk_out(a->y, i, j, out);

			map(y, chunk_in(a->x, i, j, n, in), n);
			chunk_done(a->y, i, j, n, y);
		}
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

	void (*map)(float *dx, const float *dy, const float *x, int n) =
	    a->flag ? gelu_exact_gradient : gelu_tanh_gradient;
	float in[2][CHUNK], out[CHUNK];

	for (int i = first; i < end; i++) {
		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *dx = chunk_out(a->y, i, j, out);

			map(dx, chunk_in(a->z, i, j, n, in[0]), chunk_in(a->x, i, j, n, in[1]),
			    n);
			chunk_done(a->y, i, j, n, dx);
		}
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
	float in[2][CHUNK], out[CHUNK];

	for (int i = first; i < end; i++) {
		for (int j = 0, n; (n = chunk_of(a->y, j)) > 0; j += n) {
			float *y = chunk_out(a->y, i, j, out);

			swiglu_row(y, chunk_in(a->x, i, j, n, in[0]),
				   chunk_in(a->w, i, j, n, in[1]), n);
			chunk_done(a->y, i, j, n, y);
		}
	}
}

static void cpu_swiglu(struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	struct maps a = {.y = y, .x = gate, .w = up};

	run_rows(dev, swiglu_rows, &a, y.rows, 2 * (size_t)y.cols);
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s), and 1 - s(g) = exp(-g) s(g). */
VECTOR static void swiglu_gradient_row(float *dgate, float *dup, const float *dy,
				       const float *gate, const float *up, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float g = gate[j], u = up[j], d = dy[j];
		float e = logistic_exp(-g), s = 1 / (1 + e);

		dgate[j] = d * u * (s + g * s * (e * s));
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
	float in[3][CHUNK], out[2][CHUNK];

	for (int i = first; i < end; i++) {
		for (int j = 0, n; (n = chunk_of(a->dy, j)) > 0; j += n) {
			float *dgate = chunk_out(a->dgate, i, j, out[0]);
			float *dup = chunk_out(a->dup, i, j, out[1]);

			swiglu_gradient_row(dgate, dup, chunk_in(a->dy, i, j, n, in[0]),
					    chunk_in(a->gate, i, j, n, in[1]),
					    chunk_in(a->up, i, j, n, in[2]), n);
			chunk_done(a->dgate, i, j, n, dgate);
			chunk_done(a->dup, i, j, n, dup);
		}
	}
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
