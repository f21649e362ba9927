/*
 * The activations on any CPU, in loops that the compiler vectorises, and the choice of a set.
 */
#include "tensor/activation.h"
#include "tensor/internal.h"
#include "tensor/vector.h"

/* 2u, and its slope, of gelu's tanh u, from x and x². */
#define TANH_ARGUMENT(x, square)                                                               \
	((x) * (2 * GELU_SLOPE + 2 * GELU_SLOPE * GELU_CUBE * (square)))
#define TANH_SLOPE(square) (2 * GELU_SLOPE + 6 * GELU_SLOPE * GELU_CUBE * (square))

/* x/2 (1 + tanh u) is x / (1 + exp(-2u)), which cancels nothing. */
VECTOR static void gelu_tanh(float *const out[], const float *const in[], int n)
{
	float *y = out[0];
	const float *x = in[0];

	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = x[j] / (1 + vector_exp(-TANH_ARGUMENT(x[j], x[j] * x[j])));
}

VECTOR static void gelu_exact(float *const out[], const float *const in[], int n)
{
	float *y = out[0];
	const float *x = in[0];

	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = 0.5f * x[j] * (1 + vector_erf(x[j] * ROOT_HALF));
}

/* The logistic function of -z, 1 / (1 + e) with e = exp(z), whose rest is e times it: e is
 * never infinite, which would leave no rest; the function is 0 from there on. */
static inline float logistic(float z, float *e)
{
	uint32_t high = -(uint32_t)(z > 87), bits = vector_bits(z);

	*e = vector_exp(vector_float((bits & ~high) | (vector_bits(87) & high)));
	return vector_float(vector_bits(1 / (1 + *e)) & ~high);
}

/* y = x s(2u), s the logistic function, s' = s (1 - s), and 1 - s(2u) = exp(-2u) s(2u). */
VECTOR static void gelu_tanh_gradient(float *const out[], const float *const in[], int n)
{
	float *dx = out[0];
	const float *dy = in[0], *x = in[1];

	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float square = x[j] * x[j];
		float e, s = logistic(-TANH_ARGUMENT(x[j], square), &e);

		dx[j] = dy[j] * (s + x[j] * s * (e * s) * TANH_SLOPE(square));
	}
}

/* y = x/2 (1 + erf(x / sqrt 2)), erf' = 2 / sqrt pi exp(-x²/2) / sqrt 2. */
VECTOR static void gelu_exact_gradient(float *const out[], const float *const in[], int n)
{
	float *dx = out[0];
	const float *dy = in[0], *x = in[1];

	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float slope = 0.5f * GELU_SLOPE * x[j] * vector_exp(-0.5f * x[j] * x[j]);

		dx[j] = dy[j] * (0.5f * (1 + vector_erf(x[j] * ROOT_HALF)) + slope);
	}
}

VECTOR static void swiglu(float *const out[], const float *const in[], int n)
{
	float *y = out[0];
	const float *gate = in[0], *up = in[1];

	EACH_ALONE
	for (int j = 0; j < n; j++)
		y[j] = gate[j] / (1 + vector_exp(-gate[j])) * up[j];
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s), and 1 - s(g) = exp(-g) s(g). */
VECTOR static void swiglu_gradient(float *const out[], const float *const in[], int n)
{
	float *dgate = out[0], *dup = out[1];
	const float *dy = in[0], *gate = in[1], *up = in[2];

	EACH_ALONE
	for (int j = 0; j < n; j++) {
		float g = gate[j], u = up[j], d = dy[j];
		float e, s = logistic(-g, &e);

		dgate[j] = d * u * (s + g * s * (e * s));
		dup[j] = d * g * s;
	}
}

/* A row in chunks of floats. */
static void run(void (*map)(float *const out[], const float *const in[], int n),
		const struct matrix to[], int outs, const struct matrix from[], int ins)
{
	float buffer[ACTIVATION_OUT + ACTIVATION_IN][CHUNK], *out[ACTIVATION_OUT];
	const float *in[ACTIVATION_IN];

	for (int j = 0, n; (n = chunk_of(to[0], j)) > 0; j += n) {
		for (int k = 0; k < ins; k++)
			in[k] = chunk_in(from[k], 0, j, n, buffer[k]);
		for (int k = 0; k < outs; k++)
			out[k] = chunk_out(to[k], 0, j, buffer[ACTIVATION_IN + k]);
		map(out, in, n);
		for (int k = 0; k < outs; k++)
			chunk_done(to[k], 0, j, n, out[k]);
	}
}

#define LOOP(name, outs, ins)                                                                  \
	static void name##_row(const struct matrix out[], const struct matrix in[])            \
	{                                                                                      \
		run(name, out, outs, in, ins);                                                 \
	}

LOOP(gelu_tanh, 1, 1)
LOOP(gelu_exact, 1, 1)
LOOP(gelu_tanh_gradient, 1, 2)
LOOP(gelu_exact_gradient, 1, 2)
LOOP(swiglu, 1, 2)
LOOP(swiglu_gradient, 2, 3)

static activation_loop *const plain_loops[ACTIVATIONS] = {
    [ACTIVATION_GELU_TANH] = gelu_tanh_row,
    [ACTIVATION_GELU_EXACT] = gelu_exact_row,
    [ACTIVATION_GELU_TANH_GRADIENT] = gelu_tanh_gradient_row,
    [ACTIVATION_GELU_EXACT_GRADIENT] = gelu_exact_gradient_row,
    [ACTIVATION_SWIGLU] = swiglu_row,
    [ACTIVATION_SWIGLU_GRADIENT] = swiglu_gradient_row,
};

activation_loop *activation_loop_of(enum activation_set set, enum activation which)
{
	return set == ACTIVATION_AVX512 ? activation_avx512(which)
	       : set == ACTIVATION_AVX2 ? activation_avx2(which)
					: plain_loops[which];
}

activation_loop *activation_loop_best(enum activation which)
{
	activation_loop *loop = NULL;

	for (int set = ACTIVATION_SETS - 1; !loop; set--)
		loop = activation_loop_of((enum activation_set)set, which);
	return loop;
}

/* -- exponentials of a softmax ------------------------------------------------------------- */

static float exp_plain(uint16_t *y, const float *x, float most, int n)
{
	struct matrix out = matrix_of(DTYPE_BF16, y, 1, n);
	float e[CHUNK], sum = 0;

	for (int j = 0, some; (some = chunk_of(out, j)) > 0; j += some) {
		sum += exp_into(e, x + j, most, some);
		chunk_done(out, 0, j, some, e);
	}
	return sum;
}

exp_loop *exp_loop_of(enum activation_set set)
{
	return set == ACTIVATION_AVX512 ? exp_avx512()
	       : set == ACTIVATION_AVX2 ? exp_avx2()
					: exp_plain;
}

exp_loop *exp_loop_best(void)
{
	exp_loop *loop = NULL;

	for (int set = ACTIVATION_SETS - 1; !loop; set--)
		loop = exp_loop_of((enum activation_set)set);
	return loop;
}
