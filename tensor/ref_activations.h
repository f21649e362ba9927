/*
 * The scalar reference of activations and of dropout.
 */
#ifndef EDGEPIPE_TENSOR_REF_ACTIVATIONS_H
#define EDGEPIPE_TENSOR_REF_ACTIVATIONS_H

#include <math.h>

#include "tensor/ref_values.h"

#define GELU_SLOPE 0.79788456080286535588 /* sqrt(2 / pi) */
#define GELU_CUBE 0.044715

static double gelu_of(double x, enum gelu kind)
{
	if (kind == GELU_EXACT)
		return 0.5 * x * (1 + erf(x * M_SQRT1_2));
	return 0.5 * x * (1 + tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x)));
}

/* x/2 (1 + erf(x/sqrt 2)), whose erf' = 2/sqrt pi exp(-x²/2) / sqrt 2; x/2 (1 + tanh u), whose
 * tanh' = 1 - tanh². */
static double gelu_slope(double x, enum gelu kind)
{
	if (kind == GELU_EXACT)
		return 0.5 * (1 + erf(x * M_SQRT1_2)) +
		       0.5 * x * GELU_SLOPE * exp(-0.5 * x * x);
	double t = tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
	double du = GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x);

	return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * du;
}

static void ref_gelu(UNUSED struct device *dev, struct matrix y, struct matrix x,
		     enum gelu kind)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(y, i, j, gelu_of(value(x, i, j), kind));
}

/* y = gelu_of(x) */
static void ref_gelu_backward(UNUSED struct device *dev, struct matrix dx, struct matrix dy,
			      struct matrix x, enum gelu kind)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(dx, i, j, value(dy, i, j) * gelu_slope(value(x, i, j), kind));
}

static void ref_swiglu(UNUSED struct device *dev, struct matrix y, struct matrix gate,
		       struct matrix up)
{
	for (int i = 0; i < y.rows; i++) {
		for (int j = 0; j < y.cols; j++) {
			double g = value(gate, i, j);

			set(y, i, j, g / (1 + exp(-g)) * value(up, i, j));
		}
	}
}

/* y = g s(g) * up, s the logistic function, s' = s (1 - s). */
static void ref_swiglu_backward(UNUSED struct device *dev, struct matrix dgate,
				struct matrix dup, struct matrix dy, struct matrix gate,
				struct matrix up)
{
	for (int i = 0; i < dy.rows; i++) {
		for (int j = 0; j < dy.cols; j++) {
			double g = value(gate, i, j), u = value(up, i, j);
			double s = 1 / (1 + exp(-g)), d = value(dy, i, j);

			set(dgate, i, j, d * u * s * (1 + g * (1 - s)));
			set(dup, i, j, d * g * s);
		}
	}
}

/* -- dropout ------------------------------------------------------------------------------- */

/* 1 / (1 - p) where channel j of row i is kept, else 0. */
static REAL dropout_factor(struct dropout d, int i, int j)
{
	uint32_t sample = d.first_sample + (uint32_t)(i / d.tokens);
	struct spot at = d.spot ? d.spot[i]
				  : (struct spot){sample, (uint32_t)(i % d.tokens)};
	struct philox counter = {{d.step, at.sample, at.position, (uint32_t)j / 4}};
	uint32_t word = philox(counter, d.key0, d.key1).word[j % 4];

	return philox_unit(word) >= d.p ? 1 / (1 - d.p) : 0;
}

static void ref_dropout(UNUSED struct device *dev, struct matrix y, struct matrix x,
			struct dropout d)
{
	for (int i = 0; i < x.rows; i++)
		for (int j = 0; j < x.cols; j++)
			set(y, i, j, value(x, i, j) * dropout_factor(d, i, j));
}

/* y = x * factor */
static void ref_dropout_backward(UNUSED struct device *dev, struct matrix dx, struct matrix dy,
				 struct dropout d)
{
	for (int i = 0; i < dx.rows; i++) {
		for (int j = 0; j < dx.cols; j++) {
			REAL d_kept = value(dy, i, j) * dropout_factor(d, i, j);

			set(dx, i, j, value(dx, i, j) + d_kept);
		}
	}
}

#endif
