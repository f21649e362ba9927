/*
 * Layer norm and RMS norm on the CPU: a row stays in the first cache, its sums run in double
 * (they are cheap beside the products, and statistics of rows with a few large channels need
 * it).
 */
#include <math.h>

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

/* dx = rstd (dy gain - middle - (x - mean) slope), or dx += that; dx may be dy, which is why dy
 * is not restrict. */
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

/* How much of a row a sum takes at once: all of it where no buffer is needed. */
static int span_of(struct matrix a, struct matrix b)
{
	return a.dtype == DTYPE_BF16 || b.dtype == DTYPE_BF16 ? CHUNK : a.cols;
}

static double sum_row(struct matrix x, int i)
{
	float in[CHUNK];
	double sum = 0;
	int step = span_of(x, x);

	for (int j = 0; j < x.cols; j += step) {
		int n = at_most(x.cols - j, step);

		sum += sum_of(chunk_in(x, i, j, n, in), n);
	}
	return sum;
}

static double spread_row(struct matrix x, int i, double mean)
{
	float in[CHUNK];
	double sum = 0;
	int step = span_of(x, x);

	for (int j = 0; j < x.cols; j += step) {
		int n = at_most(x.cols - j, step);

		sum += spread_of(chunk_in(x, i, j, n, in), mean, n);
	}
	return sum;
}

/* The sums of dy * gain (where it is asked for) and of dy * gain * (x - mean). */
static double moment_row(const struct norm *a, int i, double mean, double *scaled)
{
	const float *gain = a->gain.data;
	float in[2][CHUNK];
	double sum = 0;
	int step = span_of(a->dy, a->x);

	for (int j = 0; j < a->x.cols; j += step) {
		int n = at_most(a->x.cols - j, step);
		const float *dy = chunk_in(a->dy, i, j, n, in[0]);

		sum += sum_moment(dy, gain + j, chunk_in(a->x, i, j, n, in[1]), mean, n);
		if (scaled)
			*scaled += sum_scaled(dy, gain + j, n);
	}
	return sum;
}

/* The gradient of row i, from factors that the sums gave. */
static void gradient_row(const struct norm *a, int i, const float factor[4])
{
	const float *gain = a->gain.data;
	float in[2][CHUNK], out[CHUNK];

	for (int j = 0, n; (n = chunk_of(a->dx, j)) > 0; j += n) {
		const float *dy = chunk_in(a->dy, i, j, n, in[0]);
		const float *x = chunk_in(a->x, i, j, n, in[1]);
		float *dx =
		    a->accumulate ? chunk_in(a->dx, i, j, n, out) : chunk_out(a->dx, i, j, out);

		if (a->accumulate)
			add_gradient(dx, dy, x, gain + j, factor, n);
		else
			spread_gradient(dx, dy, x, gain + j, factor, n);
		chunk_done(a->dx, i, j, n, dx);
		if (a->copy.data)
			chunk_copy(a->copy, a->dx, i, j, n);
	}
}

/* y = (x - mean) * rstd * gain + bias of row i, or x * rstd * gain without a bias; copy = x. */
static void norm_row(const struct norm *a, int i, float mean, float rstd)
{
	const float *gain = a->gain.data, *bias = a->bias.data;
	float in[CHUNK], out[CHUNK];

	for (int j = 0, n; (n = chunk_of(a->x, j)) > 0; j += n) {
		const float *x = chunk_in(a->x, i, j, n, in);
		float *y = chunk_out(a->y, i, j, out);

		if (bias)
			normalise(y, x, gain + j, bias + j, mean, rstd, n);
		else
			scale(y, x, gain + j, rstd, n);
		chunk_done(a->y, i, j, n, y);
		if (a->copy.data)
			chunk_copy(a->copy, a->x, i, j, n);
	}
}

static void layer_norm_rows(const void *arg, int first, int end)
{
	const struct norm *a = arg;

	for (int i = first; i < end; i++) {
		double mean = sum_row(a->x, i) / a->x.cols;
		double rstd = 1 / sqrt(spread_row(a->x, i, mean) / a->x.cols + a->epsilon);

		norm_row(a, i, (float)mean, (float)rstd);
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
	int C = a->x.cols;

	for (int i = first; i < end; i++) {
		float mean = row_of(a->stats, i)[0], rstd = row_of(a->stats, i)[1];
		double scaled = 0, moment = moment_row(a, i, mean, &scaled);
		float factor[4] = {rstd, (float)(scaled / C), mean,
				   (float)(moment / C * rstd * rstd)};

		gradient_row(a, i, factor);
	}
}

static void cpu_layer_norm_backward(struct device *dev, struct matrix dx, struct matrix copy,
				    struct matrix dy, struct matrix x, struct matrix stats,
				    struct matrix gain)
{
	struct norm a = {.dx = dx,
			 .copy = copy,
			 .dy = dy,
			 .x = x,
			 .stats = stats,
			 .gain = gain,
			 .accumulate = true};

	run_rows(dev, layer_norm_gradient_rows, &a, x.rows, (size_t)x.cols);
}

/* Part h of every row, as long as the gain. */
static struct norm part_of(const struct norm *a, int h)
{
	struct norm part = *a;
	struct matrix *of[] = {&part.y, &part.copy, &part.x, &part.dx, &part.dy};
	int C = a->gain.cols;

	for (size_t i = 0; i < sizeof of / sizeof *of; i++)
		if (of[i]->data)
			*of[i] = matrix_cols(*of[i], h * C, C);
	part.stats = matrix_cols(a->stats, h, 1);
	return part;
}

static int parts_of(const struct norm *a)
{
	return a->x.cols / a->gain.cols;
}

static void rms_norm_rows(const void *arg, int first, int end)
{
	for (int h = 0; h < parts_of(arg); h++) {
		struct norm a = part_of(arg, h);

		for (int i = first; i < end; i++) {
			double squares = spread_row(a.x, i, 0);
			double rstd = 1 / sqrt(squares / a.x.cols + a.epsilon);

			norm_row(&a, i, 0, (float)rstd);
			row_of(a.stats, i)[0] = (float)rstd;
		}
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
	for (int h = 0; h < parts_of(arg); h++) {
		struct norm a = part_of(arg, h);

		for (int i = first; i < end; i++) {
			float rstd = row_of(a.stats, i)[0];
			double moment = moment_row(&a, i, 0, NULL);
			float slope = (float)(moment / a.x.cols * rstd * rstd);
			float factor[4] = {rstd, 0, 0, slope};

			gradient_row(&a, i, factor);
		}
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
