/*
 * Layer norm and RMS norm on the CPU: a row stays in the first cache, its sums run in double
 * (they are cheap beside the products, and statistics of rows with a few large channels need
 * it).
 */
#include <math.h>
#include <string.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

struct norm {
	struct matrix y, copy, stats, x, gain, bias; /* forward */
	struct matrix dx, dy;			     /* backward */
	float epsilon;
	bool accumulate;
};

VECTOR static double sum_of(const float *x, int n)
{
	double lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += (double)x[j + l];
	for (int l = 0; j + l < n; l++)
		lane[l] += (double)x[j + l];
	return lanes_sum_double(lane);
}

/* The sum of (x - mean)². */
VECTOR static double spread_of(const float *x, double mean, int n)
{
	double lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += (x[j + l] - mean) * (x[j + l] - mean);
	for (int l = 0; j + l < n; l++)
		lane[l] += (x[j + l] - mean) * (x[j + l] - mean);
	return lanes_sum_double(lane);
}

/* The sum of dy * gain. */
VECTOR static double sum_scaled(const float *dy, const float *gain, int n)
{
	double lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += (double)dy[j + l] * gain[j + l];
	for (int l = 0; j + l < n; l++)
		lane[l] += (double)dy[j + l] * gain[j + l];
	return lanes_sum_double(lane);
}

/* The sum of dy * gain * (x - mean). */
VECTOR static double sum_moment(const float *dy, const float *gain, const float *x, double mean,
				int n)
{
	double lane[LANES] = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES)
		for (int l = 0; l < LANES; l++)
			lane[l] += (double)dy[j + l] * gain[j + l] * (x[j + l] - mean);
	for (int l = 0; j + l < n; l++)
		lane[l] += (double)dy[j + l] * gain[j + l] * (x[j + l] - mean);
	return lanes_sum_double(lane);
}

VECTOR static void normalise(float *restrict y, const float *restrict x,
			     const float *restrict gain, const float *restrict bias, float mean,
			     float rstd, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = (x[j] - mean) * rstd * gain[j] + bias[j];
}

VECTOR static void scale(float *restrict y, const float *restrict x, const float *restrict gain,
			 float rstd, int n)
{
	for (int j = 0; j < n; j++)
		y[j] = x[j] * rstd * gain[j];
}

/* dx = (accumulate ? dx : 0) + rstd (dy gain - middle - (x - mean) slope); dx may be dy, which
 * is why dy is not restrict. */
VECTOR static void spread_gradient(float *dx, const float *dy, const float *x,
				   const float *gain, const float factor[4], int n)
{
	float rstd = factor[0], middle = factor[1], mean = factor[2], slope = factor[3];

	EACH_ALONE
	for (int j = 0; j < n; j++)
		dx[j] = rstd * (dy[j] * gain[j] - middle - (x[j] - mean) * slope);
}

VECTOR static void add_gradient(float *dx, const float *dy, const float *x, const float *gain,
				const float factor[4], int n)
{
	float rstd = factor[0], middle = factor[1], mean = factor[2], slope = factor[3];

	EACH_ALONE
	for (int j = 0; j < n; j++)
		dx[j] += rstd * (dy[j] * gain[j] - middle - (x[j] - mean) * slope);
}

static void keep_row(struct matrix copy, int i, const float *x, int n)
{
	if (copy.data)
		memcpy(row_of(copy, i), x, (size_t)n * sizeof *x);
}

static void layer_norm_rows(const void *arg, int first, int end)
{
	const struct norm *a = arg;
	int C = a->x.cols;

	for (int i = first; i < end; i++) {
		const float *x = row_of(a->x, i);
		double mean = sum_of(x, C) / C;
		double rstd = 1 / sqrt(spread_of(x, mean, C) / C + a->epsilon);

		normalise(row_of(a->y, i), x, a->gain.data, a->bias.data, (float)mean,
			  (float)rstd, C);
		keep_row(a->copy, i, x, C);
		row_of(a->stats, i)[0] = (float)mean;
		row_of(a->stats, i)[1] = (float)rstd;
	}
}

static void cpu_layer_norm(struct device *dev, struct matrix y, struct matrix copy,
			   struct matrix stats, struct matrix x, struct matrix gain,
			   struct matrix bias, float epsilon)
{
	struct norm a = {.y = y,
			 .copy = copy,
			 .stats = stats,
			 .x = x,
			 .gain = gain,
			 .bias = bias,
			 .epsilon = epsilon};

	run_rows(dev, layer_norm_rows, &a, x.rows, (size_t)x.cols);
}

static void layer_norm_gradient_rows(const void *arg, int first, int end)
{
	const struct norm *a = arg;
	const float *gain = a->gain.data;
	int C = a->x.cols;

	for (int i = first; i < end; i++) {
		const float *x = row_of(a->x, i), *dy = row_of(a->dy, i);
		float mean = row_of(a->stats, i)[0], rstd = row_of(a->stats, i)[1];
		double moment = sum_moment(dy, gain, x, mean, C);
		float factor[4] = {rstd, (float)(sum_scaled(dy, gain, C) / C), mean,
				   (float)(moment / C * rstd * rstd)};

		add_gradient(row_of(a->dx, i), dy, x, gain, factor, C);
		keep_row(a->copy, i, row_of(a->dx, i), C);
	}
}

static void cpu_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain)
{
	struct norm a = {
	    .dx = dx, .copy = copy, .dy = dy, .x = x, .stats = stats, .gain = gain};

	run_rows(dev, layer_norm_gradient_rows, &a, x.rows, (size_t)x.cols);
}

static void rms_norm_rows(const void *arg, int first, int end)
{
	const struct norm *a = arg;
	int C = a->x.cols;

	for (int i = first; i < end; i++) {
		const float *x = row_of(a->x, i);
		double rstd = 1 / sqrt(spread_of(x, 0, C) / C + a->epsilon);

		scale(row_of(a->y, i), x, a->gain.data, (float)rstd, C);
		keep_row(a->copy, i, x, C);
		row_of(a->stats, i)[0] = (float)rstd;
	}
}

static void cpu_rms_norm(struct device *dev, struct matrix y, struct matrix copy,
			 struct matrix stats, struct matrix x, struct matrix gain,
			 float epsilon)
{
	struct norm a = {
	    .y = y, .copy = copy, .stats = stats, .x = x, .gain = gain, .epsilon = epsilon};

	run_rows(dev, rms_norm_rows, &a, x.rows, (size_t)x.cols);
}

static void rms_norm_gradient_rows(const void *arg, int first, int end)
{
	const struct norm *a = arg;
	const float *gain = a->gain.data;
	int C = a->x.cols;

	for (int i = first; i < end; i++) {
		const float *x = row_of(a->x, i), *dy = row_of(a->dy, i);
		float rstd = row_of(a->stats, i)[0];
		double moment = sum_moment(dy, gain, x, 0, C);
		float factor[4] = {rstd, 0, 0, (float)(moment / C * rstd * rstd)};

		if (a->accumulate)
			add_gradient(row_of(a->dx, i), dy, x, gain, factor, C);
		else
			spread_gradient(row_of(a->dx, i), dy, x, gain, factor, C);
		keep_row(a->copy, i, row_of(a->dx, i), C);
	}
}

static void cpu_rms_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				  struct matrix dy, struct matrix x, struct matrix stats,
				  struct matrix gain, bool accumulate)
{
	struct norm a = {.dx = dx,
			 .copy = copy,
			 .dy = dy,
			 .x = x,
			 .stats = stats,
			 .gain = gain,
			 .accumulate = accumulate};

	run_rows(dev, rms_norm_gradient_rows, &a, x.rows, (size_t)x.cols);
}

void cpu_norm_slots(struct kernels *k)
{
	k->layer_norm = cpu_layer_norm;
	k->layer_norm_backward = cpu_layer_norm_backward;
	k->rms_norm = cpu_rms_norm;
	k->rms_norm_backward = cpu_rms_norm_backward;
}
