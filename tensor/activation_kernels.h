/*
 * The loops of activation.h over vectors of any width: included once for every instruction set,
 * which before defines
 *   KERNEL(name), TARGET
 *   vec of WIDTH floats, vec_load, vec_store, vec_all (one number in all lanes), vec_add,
 *   vec_sub, vec_mul, vec_fma (a b + c), vec_fnma (c - a b), vec_min (its second argument where
 *   one is NaN), vec_inverse (of 1 to 1e38, to 1 ulp or so)
 *   vec_widen, vec_narrow (from and to memory of BF16), vec_abs, vec_sign (its bit alone),
 *   vec_or, vec_shift (a power of two, from the low bits of its second argument, onto its
 *   first), vec_zero_above and _below (0 where z is that), vec_choose (far where t > edge)
 */
#include "tensor/exp_kernels.h"

/* Beyond it exp is nothing, or its inverse is. */
#define MOST 87.0f

#define INLINE TARGET static inline __attribute__((always_inline))

/* For x <= MOST; 0 below -MOST. */
INLINE vec KERNEL(exp)(vec x)
{
	vec shifted, p = KERNEL(exp_parts)(x, &shifted);

	return vec_zero_below(vec_shift(p, shifted), x, -MOST);
}

/*
 * The logistic function of -z, 1 / (1 + e) with e = exp(z), whose rest is e times it. e is
 * held where it and its inverse are numbers; the function is 0 from there on, so that it times
 * an infinity is no number, as it should be.
 */
INLINE vec KERNEL(logistic)(vec z, vec *e)
{
	*e = KERNEL(exp)(vec_min(vec_all(MOST), z));
	return vec_zero_above(vec_inverse(vec_add(vec_all(1), *e)), z, MOST);
}

/* vector.h's vector_erf, fused. */
INLINE vec KERNEL(erf)(vec x)
{
	vec t = vec_abs(x), s = vec_mul(x, x);
	vec far = vec_fma(vec_all(-1.72853470e-5f), t, vec_all(3.83197126e-4f));
	vec next = vec_fma(vec_all(-3.88396438e-3f), t, vec_all(2.42546219e-2f));
	vec near = vec_all(-5.96761703e-4f);

	far = vec_fma(far, s, next);
	far = vec_fma(far, t, vec_all(-1.06777877e-1f));
	far = vec_fma(far, t, vec_all(-6.34846687e-1f));
	far = vec_fma(far, t, vec_all(-1.28717512e-1f));
	far = vec_sub(vec_all(1), KERNEL(exp)(vec_sub(vec_mul(far, t), t)));
	near = vec_fma(near, s, vec_all(4.99119423e-3f));
	near = vec_fma(near, s, vec_all(-2.67681349e-2f));
	near = vec_fma(near, s, vec_all(1.12819925e-1f));
	near = vec_fma(near, s, vec_all(-3.76125336e-1f));
	near = vec_fma(near, s, vec_all(1.28379166e-1f));
	near = vec_fma(near, x, x);
	return vec_choose(near, vec_or(far, vec_sign(x)), t, 0.927734375f);
}

/* -- one vector ---------------------------------------------------------------------------- */

/* -2u of gelu's tanh u, from x and x². */
INLINE vec KERNEL(argument)(vec x, vec square)
{
	return vec_mul(x, vec_fma(vec_all(-2 * GELU_SLOPE * GELU_CUBE), square,
				  vec_all(-2 * GELU_SLOPE)));
}

/* x/2 (1 + tanh u) is x / (1 + exp(-2u)), which cancels nothing. */
INLINE void KERNEL(gelu_tanh)(vec out[], const vec in[])
{
	vec x = in[0], e;

	out[0] = vec_mul(x, KERNEL(logistic)(KERNEL(argument)(x, vec_mul(x, x)), &e));
}

/* y = x s(2u), s the logistic function, s' = s (1 - s), and 1 - s(2u) = exp(-2u) s(2u). */
INLINE void KERNEL(gelu_tanh_gradient)(vec out[], const vec in[])
{
	vec x = in[1], square = vec_mul(x, x), e;
	vec s = KERNEL(logistic)(KERNEL(argument)(x, square), &e);
	vec slope = vec_fma(vec_all(6 * GELU_SLOPE * GELU_CUBE), square,
			    vec_all(2 * GELU_SLOPE));

	out[0] = vec_mul(in[0],
			 vec_fma(vec_mul(vec_mul(x, s), vec_mul(e, s)), slope, s));
}

/* 0.5 (1 + erf(x / sqrt 2)), the share of x that passes. */
INLINE vec KERNEL(share)(vec x)
{
	vec half = vec_all(0.5f);

	return vec_fma(half, KERNEL(erf)(vec_mul(x, vec_all(ROOT_HALF))), half);
}

/* x times its share. */
INLINE void KERNEL(gelu_exact)(vec out[], const vec in[])
{
	out[0] = vec_mul(in[0], KERNEL(share)(in[0]));
}

/* erf' = 2 / sqrt pi exp(-x²/2) / sqrt 2. */
INLINE void KERNEL(gelu_exact_gradient)(vec out[], const vec in[])
{
	vec x = in[1], half = vec_mul(vec_all(-0.5f), x);
	vec slope = vec_mul(vec_all(0.5f * GELU_SLOPE), KERNEL(exp)(vec_mul(half, x)));

	out[0] = vec_mul(in[0], vec_fma(slope, x, KERNEL(share)(x)));
}

/* gate s(gate) up, s the logistic function. */
INLINE void KERNEL(swiglu)(vec out[], const vec in[])
{
	vec gate = in[0], e;
	vec s = KERNEL(logistic)(vec_sub(vec_all(0), gate), &e);

	out[0] = vec_mul(vec_mul(gate, s), in[1]);
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s), and 1 - s(g) = exp(-g) s(g). */
INLINE void KERNEL(swiglu_gradient)(vec out[], const vec in[])
{
	vec d = in[0], g = in[1], up = in[2], e;
	vec s = KERNEL(logistic)(vec_sub(vec_all(0), g), &e), passed = vec_mul(g, s);

	out[0] = vec_mul(vec_mul(d, up), vec_fma(passed, vec_mul(e, s), s));
	out[1] = vec_mul(d, passed);
}

/* -- a row --------------------------------------------------------------------------------- */

/* A vector of each input, from number j on. */
INLINE void KERNEL(take)(vec in[], const struct matrix from[], int ins, int j)
{
#pragma GCC unroll 3
	for (int k = 0; k < ins; k++)
		in[k] = from[k].dtype == DTYPE_BF16
			    ? vec_widen((const uint16_t *)from[k].data + j)
			    : vec_load((const float *)from[k].data + j);
}

/* Stores one of each output. */
INLINE void KERNEL(give)(const struct matrix to[], const vec out[], int outs, int j)
{
#pragma GCC unroll 2
	for (int k = 0; k < outs; k++)
		if (to[k].dtype == DTYPE_BF16)
			vec_narrow((uint16_t *)to[k].data + j, out[k]);
		else
			vec_store((float *)to[k].data + j, out[k]);
}

/* The numbers from j on, fewer than WIDTH, as one whole vector in buffers. */
static void KERNEL(rest)(activation_loop *loop, const struct matrix to[], int outs,
			 const struct matrix from[], int ins, int j)
{
	float buffer[ACTIVATION_OUT + ACTIVATION_IN][WIDTH] = {{0}};
	struct matrix out[ACTIVATION_OUT], in[ACTIVATION_IN];
	size_t left = (size_t)(to[0].cols - j);

	for (int k = 0; k < ins; k++) {
		size_t bytes = dtype_bytes(from[k].dtype);

		in[k] = matrix_of(from[k].dtype, buffer[k], 1, WIDTH);
		memcpy(buffer[k], (const char *)from[k].data + (size_t)j * bytes, left * bytes);
	}
	for (int k = 0; k < outs; k++)
		out[k] = matrix_of(to[k].dtype, buffer[ACTIVATION_IN + k], 1, WIDTH);
	loop(out, in);
	for (int k = 0; k < outs; k++) {
		size_t bytes = dtype_bytes(to[k].dtype);

		memcpy((char *)to[k].data + (size_t)j * bytes, out[k].data, left * bytes);
	}
}

#define LOOP(name, outs, ins)                                                                  \
	TARGET static void KERNEL(name##_row)(const struct matrix out[],                       \
					      const struct matrix in[])                        \
	{                                                                                      \
		struct matrix to[ACTIVATION_OUT] = {out[0], out[(outs) - 1]};                  \
		struct matrix from[ACTIVATION_IN] = {in[0], in[(ins) > 1], in[(ins) - 1]};     \
		vec y[ACTIVATION_OUT], x[ACTIVATION_IN];                                       \
		int j = 0;                                                                     \
                                                                                               \
		for (; j + WIDTH <= to[0].cols; j += WIDTH) {                                  \
			KERNEL(take)(x, from, ins, j);                                         \
			KERNEL(name)(y, x);                                                    \
			KERNEL(give)(to, y, outs, j);                                          \
		}                                                                              \
		if (j < to[0].cols)                                                            \
			KERNEL(rest)(KERNEL(name##_row), to, outs, from, ins, j);              \
	}

LOOP(gelu_tanh, 1, 1)
LOOP(gelu_exact, 1, 1)
LOOP(gelu_tanh_gradient, 1, 2)
LOOP(gelu_exact_gradient, 1, 2)
LOOP(swiglu, 1, 2)
LOOP(swiglu_gradient, 2, 3)

static activation_loop *const KERNEL(loops)[ACTIVATIONS] = {
    [ACTIVATION_GELU_TANH] = KERNEL(gelu_tanh_row),
    [ACTIVATION_GELU_EXACT] = KERNEL(gelu_exact_row),
    [ACTIVATION_GELU_TANH_GRADIENT] = KERNEL(gelu_tanh_gradient_row),
    [ACTIVATION_GELU_EXACT_GRADIENT] = KERNEL(gelu_exact_gradient_row),
    [ACTIVATION_SWIGLU] = KERNEL(swiglu_row),
    [ACTIVATION_SWIGLU_GRADIENT] = KERNEL(swiglu_gradient_row),
};

/* -- exponentials of a softmax ------------------------------------------------------------- */

/* What is left of a row is filled up with minus infinity, whose exponential is 0. */
TARGET static float KERNEL(exp_row)(uint16_t *y, const float *x, float most, int n)
{
	vec top = vec_all(most), sum = vec_all(0), e;
	float rest[WIDTH];
	uint16_t half[WIDTH];
	int j = 0;

	for (; j + WIDTH <= n; j += WIDTH) {
		e = KERNEL(exp)(vec_sub(vec_load(x + j), top));
		sum = vec_add(sum, e);
		vec_narrow(y + j, e);
	}
	for (int l = 0; l < WIDTH; l++)
		rest[l] = j + l < n ? x[j + l] : -__builtin_inff();
	e = KERNEL(exp)(vec_sub(vec_load(rest), top));
	vec_narrow(half, e);
	memcpy(y + j, half, (size_t)(n - j) * sizeof *y);
	vec_store(rest, vec_add(sum, e));
	for (int width = WIDTH / 2; width; width /= 2)
		for (int l = 0; l < width; l++)
			rest[l] += rest[l + width];
	return rest[0];
}

#undef LOOP
#undef INLINE
#undef MOST
