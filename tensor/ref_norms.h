/*
 * The scalar reference of norms.
 */
#ifndef EDGEPIPE_TENSOR_REF_NORMS_H
#define EDGEPIPE_TENSOR_REF_NORMS_H

#include <math.h>

#include "tensor/ref_rows.h"

static void ref_layer_norm(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   struct matrix bias, float epsilon)
{
	const REAL *g = row(gain, 0), *b = row(bias, 0);
	int C = x.cols;

	for (int i = 0; i < x.rows; i++) {
		double mean = 0, variance = 0;

		for (int j = 0; j < C; j++)
			mean += value(x, i, j);
		mean /= C;
		for (int j = 0; j < C; j++)
			variance += (value(x, i, j) - mean) * (value(x, i, j) - mean);
		double rstd = 1 / sqrt(variance / C + epsilon);

		for (int j = 0; j < C; j++)
			set(y, i, j, (value(x, i, j) - mean) * rstd * g[j] + b[j]);
		row(stats, i)[0] = mean;
		row(stats, i)[1] = rstd;
	}
	if (copy.data)
		ref_copy(dev, copy, x);
}

/*
 * y = xhat * g + b, xhat = (x - mean) * rstd. With d = dy * g: mean takes mean(d) away, rstd
 * takes xhat * mean(d * xhat) away.
 */
static void ref_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain)
{
	const REAL *g = row(gain, 0);
	int C = x.cols;

	for (int i = 0; i < x.rows; i++) {
		double mean = row(stats, i)[0], rstd = row(stats, i)[1];
		double sum = 0, sum_xhat = 0;

		for (int j = 0; j < C; j++) {
			double d = value(dy, i, j) * g[j];

			sum += d;
			sum_xhat += d * (value(x, i, j) - mean) * rstd;
		}
		for (int j = 0; j < C; j++) {
			double xhat = (value(x, i, j) - mean) * rstd;
			double d = value(dy, i, j) * g[j] - sum / C - xhat * sum_xhat / C;

			set(dx, i, j, value(dx, i, j) + rstd * d);
		}
	}
	if (copy.data)
		ref_copy(dev, copy, dx);
}

/* Columns at .. at + C - 1 of row i, its part number part. */
static void ref_rms_part(struct matrix y, struct matrix stats, struct matrix x,
			 struct matrix gain, float epsilon, int i, int part)
{
	int C = gain.cols, at = part * C;
	double squares = 0;

	for (int j = 0; j < C; j++)
		squares += value(x, i, at + j) * value(x, i, at + j);
	double rstd = 1 / sqrt(squares / C + epsilon);

	for (int j = 0; j < C; j++)
		set(y, i, at + j, value(x, i, at + j) * rstd * row(gain, 0)[j]);
	row(stats, i)[part] = rstd;
}

static void ref_rms_norm(struct device *dev, struct matrix y, struct matrix copy,
			 struct matrix stats, struct matrix x, struct matrix gain,
			 float epsilon)
{
	for (int i = 0; i < x.rows; i++)
		for (int part = 0; part < x.cols / gain.cols; part++)
			ref_rms_part(y, stats, x, gain, epsilon, i, part);
	if (copy.data)
		ref_copy(dev, copy, x);
}

/* y = x * rstd * g, rstd = (mean(x²) + epsilon)^(-1/2), so d rstd / dx = -rstd³ x / C. */
static void ref_rms_part_backward(struct matrix dx, struct matrix dy, struct matrix x,
				  struct matrix stats, struct matrix gain, bool accumulate,
				  int i, int part)
{
	const REAL *g = row(gain, 0);
	int C = gain.cols, at = part * C;
	double rstd = row(stats, i)[part], sum = 0;

	for (int j = 0; j < C; j++)
		sum += value(dy, i, at + j) * g[j] * value(x, i, at + j);
	for (int j = at; j < at + C; j++) {
		double d = rstd * (value(dy, i, j) * g[j - at] -
				   value(x, i, j) * rstd * rstd * sum / C);

		set(dx, i, j, accumulate ? value(dx, i, j) + d : d);
	}
}

static void ref_rms_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				  struct matrix dy, struct matrix x, struct matrix stats,
				  struct matrix gain, bool accumulate)
{
	for (int i = 0; i < x.rows; i++)
		for (int part = 0; part < x.cols / gain.cols; part++)
			ref_rms_part_backward(dx, dy, x, stats, gain, accumulate, i, part);
	if (copy.data)
		ref_copy(dev, copy, dx);
}

#endif
