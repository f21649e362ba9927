/*
 * Products of few rows on the CPU: a token at a time, reading the weights is all the work. All
 * threads read, each its own part of the outputs; a weight is read once and used for every row
 * while it is in the first cache. Weights and inputs are F32 or BF16, sums F32.
 *
 * Each sum of a row runs in an order that depends on the shape of w alone, so that a row has
 * the same bits whoever its neighbours are: what is generated does not depend on how prompts
 * are grouped.
 */
#include "tensor/internal.h"
#include "tensor/lanes.h"

#define OUTS 4			/* outputs whose sums are in registers together, */
#define INS 4			/* or inputs, where rows of w are of inputs */
#define PIECE_BYTES (1 << 16)	/* of w in a piece, about */
#define COLS 128		/* outputs of a piece, where rows of w are of inputs */

struct few {
	struct matrix y, x, w, bias;
	bool w_t;
	float alpha, beta;
	int step;		/* outputs of a piece */
};

static const char *at_row(struct matrix m, int i)
{
	return (const char *)m.data + (size_t)i * m.ld * dtype_bytes(m.dtype);
}

static void put(const struct few *f, int i, int j, float sum)
{
	float x = f->alpha * sum;

	if (f->bias.data)
		x += ((const float *)f->bias.data)[j];
	if (f->beta != 0)
		x += f->beta * (f->y.dtype == DTYPE_BF16 ? vector_widen(row_of_bf16(f->y, i)[j])
							 : row_of(f->y, i)[j]);
	if (f->y.dtype == DTYPE_BF16)
		row_of_bf16(f->y, i)[j] = vector_narrow(x);
	else
		row_of(f->y, i)[j] = x;
}

/* -- rows of w are of outputs -------------------------------------------------------------- */

/* sum[k] = x . w[k], n numbers each. */
INLINE void dots(float sum[OUTS], const void *x, bool x_half, const char *const w[OUTS],
		 bool w_half, int n)
{
	lanes a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
	int j = 0;

	for (; j + LANES <= n; j += LANES) {
		lanes v = LOAD(x, j, x_half);

		a0 += v * LOAD(w[0], j, w_half);
		a1 += v * LOAD(w[1], j, w_half);
		a2 += v * LOAD(w[2], j, w_half);
		a3 += v * LOAD(w[3], j, w_half);
	}
	for (int l = 0; j + l < n; l++) {
		float v = ONE(x, j + l, x_half);

		a0[l] += v * ONE(w[0], j + l, w_half);
		a1[l] += v * ONE(w[1], j + l, w_half);
		a2[l] += v * ONE(w[2], j + l, w_half);
		a3[l] += v * ONE(w[3], j + l, w_half);
	}
	float lane[OUTS][LANES];

	memcpy(lane[0], &a0, sizeof a0);
	memcpy(lane[1], &a1, sizeof a1);
	memcpy(lane[2], &a2, sizeof a2);
	memcpy(lane[3], &a3, sizeof a3);
	for (int k = 0; k < OUTS; k++)
		sum[k] = lanes_sum(lane[k]);
}

/* Each kind of numbers has a loop of its own. */
VECTOR static void dots_any(float sum[OUTS], const void *x, bool x_half,
			    const char *const w[OUTS], bool w_half, int n)
{
	if (x_half && w_half)
		dots(sum, x, true, w, true, n);
	else if (x_half)
		dots(sum, x, true, w, false, n);
	else if (w_half)
		dots(sum, x, false, w, true, n);
	else
		dots(sum, x, false, w, false, n);
}

static void outputs_piece(void *arg, int index, int thread)
{
	const struct few *f = arg;
	int first = index * f->step, end = first + at_most(f->y.cols - first, f->step);
	float sum[OUTS];

	(void)thread;
	for (int j = first; j < end; j += OUTS) {
		const char *w[OUTS];
		int some = at_most(end - j, OUTS);

		for (int k = 0; k < OUTS; k++)
			w[k] = at_row(f->w, j + (k < some ? k : 0));
		for (int i = 0; i < f->y.rows; i++) {
			dots_any(sum, at_row(f->x, i), f->x.dtype == DTYPE_BF16, w,
				 f->w.dtype == DTYPE_BF16, f->x.cols);
			for (int k = 0; k < some; k++)
				put(f, i, j + k, sum[k]);
		}
	}
}

/* -- rows of w are of inputs --------------------------------------------------------------- */

/* sum += x[0] w[0] + x[1] w[1] + .. of n outputs, in that order. */
INLINE void add_rows(float *sum, const float x[INS], const char *const w[INS], bool half, int n)
{
	int j = 0;

	for (; j + LANES <= n; j += LANES) {
		lanes s = *(lanes *)(sum + j);

		s += x[0] * LOAD(w[0], j, half);
		s += x[1] * LOAD(w[1], j, half);
		s += x[2] * LOAD(w[2], j, half);
		s += x[3] * LOAD(w[3], j, half);
		*(lanes *)(sum + j) = s;
	}
	for (; j < n; j++) {
		sum[j] += x[0] * ONE(w[0], j, half);
		sum[j] += x[1] * ONE(w[1], j, half);
		sum[j] += x[2] * ONE(w[2], j, half);
		sum[j] += x[3] * ONE(w[3], j, half);
	}
}

VECTOR static void add_rows_any(float *sum, const float x[INS], const char *const w[INS],
				bool half, int n)
{
	if (half)
		add_rows(sum, x, w, true, n);
	else
		add_rows(sum, x, w, false, n);
}

enum { ROWS = 16 };		/* of x whose sums are held together */

static void sum_inputs(const struct few *f, float sum[ROWS][COLS], int row, int rows, int first,
		       int n)
{
	bool x_half = f->x.dtype == DTYPE_BF16, w_half = f->w.dtype == DTYPE_BF16;
	size_t skip = (size_t)first * dtype_bytes(f->w.dtype);

	for (int l = 0; l < f->x.cols; l += INS) {
		const char *w[INS];
		int some = at_most(f->x.cols - l, INS);

		for (int k = 0; k < INS; k++)
			w[k] = at_row(f->w, l + (k < some ? k : 0)) + skip;
		for (int i = 0; i < rows; i++) {
			const char *from = at_row(f->x, row + i);
			float x[INS] = {0};

			for (int k = 0; k < some; k++)
				x[k] = ONE(from, l + k, x_half);
			add_rows_any(sum[i], x, w, w_half, n);
		}
	}
}

static void inputs_piece(void *arg, int index, int thread)
{
	const struct few *f = arg;
	int first = index * f->step, n = at_most(f->y.cols - first, f->step);

	(void)thread;
	for (int row = 0; row < f->y.rows; row += ROWS) {
		int rows = at_most(f->y.rows - row, ROWS);
		float sum[ROWS][COLS] = {{0}};

		sum_inputs(f, sum, row, rows, first, n);
		for (int i = 0; i < rows; i++)
			for (int j = 0; j < n; j++)
				put(f, row + i, first + j, sum[i][j]);
	}
}

/* -- the slot ------------------------------------------------------------------------------ */

static void cpu_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		    bool w_t, struct matrix bias, float alpha, float beta)
{
	struct few f = {y, x, w, bias, w_t, alpha, beta, COLS};
	size_t row_bytes = (size_t)x.cols * dtype_bytes(w.dtype);

	if (y.rows < 1 || y.cols < 1)
		return;
	if (w_t)
		f.step =
		    at_most((int)(PIECE_BYTES / (row_bytes + 1) / OUTS + 1) * OUTS, y.cols);
	pool_run(dev->pool, (y.cols - 1) / f.step + 1, w_t ? outputs_piece : inputs_piece, &f);
}

void cpu_few_slots(struct kernels *k)
{
	k->few = cpu_few;
}
