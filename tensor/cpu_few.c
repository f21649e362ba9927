/*
 * Products of few rows on the CPU: a token at a time, reading the weights is all the work. All
 * threads read, each its own part of the outputs; a weight is read once, is asked for ahead of
 * its turn, and is used for every row while it is in the first cache. Weights and inputs are
 * F32 or BF16, sums F32.
 *
 * Each sum of a row runs in an order that depends on the shape of w and on the dtypes alone, so
 * that a row has the same bits whoever its neighbours are: what is generated does not depend on
 * how prompts are grouped.
 */
#include "tensor/internal.h"
#include "tensor/lanes.h"

enum {
	ROWS = 16,		/* of x whose sums a piece holds together */
	COLS = 128,		/* outputs of a piece, at most */
	PIECE_BYTES = 1 << 16,	/* of w in a piece, about, where rows of w are of outputs */
	AHEAD_BYTES = 1 << 14,	/* of w between what is asked for and what is used, at most */
	OUTS = 4,		/* outputs whose sums are in registers together, */
	TWO = 2,		/* for so many rows of x */
	DEPTH = 16,		/* inputs of a block, where rows of w are of inputs */
	TILE = 4,		/* rows of x whose sums are in registers together then */
};

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

/* Of 2 * LANES numbers of BF16, those at even places and those at odd ones as floats, which
 * takes half of what it takes to widen them in order. They lie where BF16 may lie. */
typedef uint32_t twos __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
#define PAIRS(from) (*(const twos *)(from))
#define EVEN(pairs) ((lanes)((pairs) << 16))
#define ODD(pairs) ((lanes)((pairs) & 0xffff0000u))

/* -- rows of w are of outputs -------------------------------------------------------------- */

/* sum[i][k] = x[i] . w[k], n numbers each. */
INLINE void dots(float sum[TWO][OUTS], const char *const x[TWO], int rows, bool x_half,
		 const char *const w[OUTS], bool w_half, int n, size_t ahead)
{
	lanes a[TWO][OUTS] = {0};
	int j = 0;

	for (; x_half && w_half && j + 2 * LANES <= n; j += 2 * LANES)
		for (int k = 0; k < OUTS; k++) {
			const char *from = w[k] + j * 2;
			words v = PAIRS(from);

			__builtin_prefetch(from + ahead);
			for (int i = 0; i < rows; i++) {
				words u = PAIRS(x[i] + j * 2);

				a[i][k] += EVEN(u) * EVEN(v);
				a[i][k] += ODD(u) * ODD(v);
			}
		}
	for (; j + LANES <= n; j += LANES)
		for (int k = 0; k < OUTS; k++) {
			lanes v = LOAD(w[k], j, w_half);

			__builtin_prefetch(w[k] + j * (w_half ? 2 : 4) + ahead);
			for (int i = 0; i < rows; i++)
				a[i][k] += v * LOAD(x[i], j, x_half);
		}
	for (int i = 0; i < rows; i++)
		for (int k = 0; k < OUTS; k++) {
			float lane[LANES];

			memcpy(lane, &a[i][k], sizeof lane);
			for (int l = 0; j + l < n; l++)
				lane[l] += ONE(x[i], j + l, x_half) * ONE(w[k], j + l, w_half);
			sum[i][k] = lanes_sum(lane);
		}
}

/* Each kind of numbers has a loop of its own. */
INLINE void dots_of(float sum[TWO][OUTS], const char *const x[TWO], int rows, bool x_half,
		    const char *const w[OUTS], bool w_half, int n, size_t ahead)
{
	if (x_half && w_half)
		dots(sum, x, rows, true, w, true, n, ahead);
	else if (x_half)
		dots(sum, x, rows, true, w, false, n, ahead);
	else if (w_half)
		dots(sum, x, rows, false, w, true, n, ahead);
	else
		dots(sum, x, rows, false, w, false, n, ahead);
}

VECTOR static void dots_any(float sum[TWO][OUTS], const char *const x[TWO], int rows,
			    bool x_half, const char *const w[OUTS], bool w_half, int n,
			    size_t ahead)
{
	if (rows == TWO)
		dots_of(sum, x, TWO, x_half, w, w_half, n, ahead);
	else
		dots_of(sum, x, 1, x_half, w, w_half, n, ahead);
}

static void sum_outputs(const struct few *f, float sum[ROWS][COLS], int row, int rows,
			int first, int n)
{
	bool x_half = f->x.dtype == DTYPE_BF16, w_half = f->w.dtype == DTYPE_BF16;
	size_t group = OUTS * f->w.ld * dtype_bytes(f->w.dtype);
	size_t ahead = group < AHEAD_BYTES ? group : AHEAD_BYTES;

	for (int j = 0; j < n; j += OUTS) {
		const char *w[OUTS];
		int some = at_most(n - j, OUTS);

		for (int k = 0; k < OUTS; k++)
			w[k] = at_row(f->w, first + j + (k < some ? k : 0));
		for (int i = 0; i < rows; i += TWO) {
			int both = at_most(rows - i, TWO);
			const char *x[TWO] = {at_row(f->x, row + i),
					      at_row(f->x, row + i + both - 1)};
			float part[TWO][OUTS];

			dots_any(part, x, both, x_half, w, w_half, f->x.cols, ahead);
			for (int r = 0; r < both; r++)
				memcpy(&sum[i + r][j], part[r], (size_t)some * sizeof(float));
		}
	}
}

/* -- rows of w are of inputs --------------------------------------------------------------- */

/* Some inputs of all rows, and the rows of w that they are multiplied with. */
struct block {
	float x[ROWS][DEPTH];
	int rows, count;	/* filled up to whole tiles with zeros; inputs */
	const char *w;
	size_t skip;		/* bytes from one row of w to the next */
	int n;			/* outputs */
};

/* sum[i] += x[i][0] w[0] + x[i][1] w[1] + .. in that order, for vectors of outputs from j on.
 * Sums of BF16 stand in pairs of vectors: those at even places, then those at odd ones. */
INLINE void add_tile(float sum[ROWS][COLS], const struct block *b, int row, int rows, int j,
		     int vectors, bool half)
{
	const char *w = b->w + j * (half ? 2 : 4);
	lanes a[TILE][4];

	for (int i = 0; i < rows; i++)
		for (int v = 0; v < vectors; v++)
			a[i][v] = *(lanes *)(sum[row + i] + j + v * LANES);
	for (int l = 0; l < b->count; l++, w += b->skip)
		for (int v = 0; v < vectors; v += 1 + half) {
			const char *from = w + v * LANES * (half ? 2 : 4);
			words pairs = PAIRS(from);
			lanes even = half ? EVEN(pairs) : (lanes)pairs, odd = ODD(pairs);

			__builtin_prefetch(from + DEPTH * b->skip);
			for (int i = 0; i < rows; i++) {
				a[i][v] += b->x[row + i][l] * even;
				if (half)
					a[i][v + 1] += b->x[row + i][l] * odd;
			}
		}
	for (int i = 0; i < rows; i++)
		for (int v = 0; v < vectors; v++)
			*(lanes *)(sum[row + i] + j + v * LANES) = a[i][v];
}

INLINE void add_block(float sum[ROWS][COLS], const struct block *b, bool half)
{
	int j = 0;

	for (; b->rows == 1 && j + 4 * LANES <= b->n; j += 4 * LANES)
		add_tile(sum, b, 0, 1, j, 4, half);
	for (; b->rows == 1 && j + 2 * LANES <= b->n; j += 2 * LANES)
		add_tile(sum, b, 0, 1, j, 2, half);
	for (; j + 2 * LANES <= b->n; j += 2 * LANES)
		for (int i = 0; i < b->rows; i += TILE)
			add_tile(sum, b, i, TILE, j, 2, half);
	for (int l = 0; j < b->n && l < b->count; l++)
		for (int i = 0; i < b->rows; i++)
			for (int k = j; k < b->n; k++)
				sum[i][k] +=
				    b->x[i][l] * ONE(b->w + (size_t)l * b->skip, k, half);
}

VECTOR static void add_block_any(float sum[ROWS][COLS], const struct block *b, bool half)
{
	if (half)
		add_block(sum, b, true);
	else
		add_block(sum, b, false);
}

/* Sums that stand in pairs of vectors, in order. */
static void put_in_order(float *sum, int n)
{
	float pair[2][LANES];

	for (int j = 0; j + 2 * LANES <= n; j += 2 * LANES) {
		memcpy(pair, sum + j, sizeof pair);
		for (int l = 0; l < 2 * LANES; l++)
			sum[j + l] = pair[l % 2][l / 2];
	}
}

static void sum_inputs(const struct few *f, float sum[ROWS][COLS], int row, int rows, int first,
		       int n)
{
	bool half = f->w.dtype == DTYPE_BF16;
	struct block b = {.rows = rows == 1 ? 1 : (rows + TILE - 1) / TILE * TILE, .n = n};

	b.skip = f->w.ld * dtype_bytes(f->w.dtype);
	memset(sum, 0, (size_t)b.rows * sizeof sum[0]);
	for (int l = 0; l < f->x.cols; l += DEPTH) {
		b.count = at_most(f->x.cols - l, DEPTH);
		b.w = at_row(f->w, l) + (size_t)first * dtype_bytes(f->w.dtype);
		for (int i = 0; i < rows; i++)
			chunk_copy((struct matrix){b.x, ROWS, b.count, DEPTH, DTYPE_F32},
				   matrix_cols(matrix_rows(f->x, row, rows), l, b.count), i, 0,
				   b.count);
		add_block_any(sum, &b, half);
	}
	for (int i = 0; half && i < rows; i++)
		put_in_order(sum[i], n);
}

/* -- the slot ------------------------------------------------------------------------------ */

/* y = alpha sum + bias + beta y, of n outputs of a row. */
VECTOR static void finish(const struct few *f, float *sum, int row, int first, int n)
{
	struct matrix y = matrix_cols(matrix_rows(f->y, row, 1), first, n);
	float before[COLS];

	for (int j = 0; j < n; j++)
		sum[j] *= f->alpha;
	if (f->bias.data)
		for (int j = 0; j < n; j++)
			sum[j] += ((const float *)f->bias.data)[first + j];
	if (f->beta != 0) {
		chunk_copy((struct matrix){before, 1, n, COLS, DTYPE_F32}, y, 0, 0, n);
		for (int j = 0; j < n; j++)
			sum[j] += f->beta * before[j];
	}
	chunk_copy(y, (struct matrix){sum, 1, n, COLS, DTYPE_F32}, 0, 0, n);
}

static void piece(void *arg, int index, int thread)
{
	const struct few *f = arg;
	int first = index * f->step, n = at_most(f->y.cols - first, f->step);

	(void)thread;
	for (int row = 0; row < f->y.rows; row += ROWS) {
		int rows = at_most(f->y.rows - row, ROWS);
		float sum[ROWS][COLS];

		if (f->w_t)
			sum_outputs(f, sum, row, rows, first, n);
		else
			sum_inputs(f, sum, row, rows, first, n);
		for (int i = 0; i < rows; i++)
			finish(f, sum[i], row + i, first, n);
	}
}

static void cpu_few(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		    bool w_t, struct matrix bias, float alpha, float beta)
{
	struct few f = {y, x, w, bias, w_t, alpha, beta, COLS};
	size_t row_bytes = (size_t)x.cols * dtype_bytes(w.dtype);

	if (y.rows < 1 || y.cols < 1)
		return;
	if (w_t)
		f.step = at_most((int)(PIECE_BYTES / (row_bytes + 1) / OUTS + 1) * OUTS, COLS);
	pool_run(dev->pool, (y.cols - 1) / f.step + 1, piece, &f);
}

void cpu_few_slots(struct kernels *k)
{
	k->few = cpu_few;
}
