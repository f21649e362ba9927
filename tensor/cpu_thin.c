/*
 * Thin products of BF16 on the CPU: those in which one side is LoRA's rank. They are bound by
 * reading the wide operand, so each is read once, a block at a time, widened in the first cache
 * and multiplied there by the small operand, in F32. All F32 is OpenBLAS's.
 *
 * Three forms, by where the rank is: c's columns (u = x aᵀ, du = s dy b), the rows or columns
 * of a sum over all rows (the gradients of a and b), or the inner side (dx += du a). The rest,
 * and ranks that no buffer holds, are plain loops.
 *
 * Every sum runs in an order that depends on the shape alone; a row of c in the first and the
 * last form depends on its own row of a alone.
 */
#include <string.h>

#include "tensor/internal.h"
#include "tensor/thin.h"
#include "tensor/vector.h"

/* of a piece, in whole groups: they share the packing of the small side */
#define DOT_ROWS 126
#define SUM_ROWS 16  /* of a block of a sum over rows */
#define SUM_RANKS 32 /* of a piece of it */
#define PANEL 256    /* columns of a piece, at most */
#define PANELS 6     /* pieces to aim at */
#define SPREAD_ROWS 64
#define SPREAD_RANKS 256
#define SPREAD 8192 /* numbers of the small side that a piece holds at once */
/* From row to row of a buffer: not a power of two, lest all rows fall on the same cache
 * sets. */
#define DOT_LD (CHUNK + LANES)
#define PANEL_LD (PANEL + LANES)

struct thin {
	struct matrix c, a, b;
	bool b_t;
	bool swapped; /* a sum over rows whose wide side is a: rows of c are its columns */
	float alpha, beta;
	int inner, panel, panels;
	struct thin_loops loops;
};

static int up_to(int x, int whole)
{
	return (x + whole - 1) / whole * whole;
}

/* -- numbers in and out -------------------------------------------------------------------- */

static inline float number(struct matrix m, int i, int j)
{
	return m.dtype == DTYPE_BF16 ? bf16_value(row_of_bf16(m, i)[j]) : row_of(m, i)[j];
}

/* c = alpha sum + beta c */
static inline void put(const struct thin *t, int i, int j, float sum)
{
	float x = t->alpha * sum;

	if (t->beta != 0)
		x += t->beta * number(t->c, i, j);
	if (t->c.dtype == DTYPE_BF16)
		row_of_bf16(t->c, i)[j] = vector_narrow(x);
	else
		row_of(t->c, i)[j] = x;
}

VECTOR static void widen_rows(float *restrict y, size_t ld, const uint16_t *restrict x,
			      size_t x_ld, int rows, int n, int whole)
{
	for (int i = 0; i < rows; i++, x += x_ld, y += ld) {
		for (int j = 0; j < n; j++)
			y[j] = vector_widen(x[j]);
		for (int j = n; j < whole; j++)
			y[j] = 0;
	}
}

/* Columns j..j+n-1 of some rows as floats, ld apart, zeros after them up to a whole STEP. */
static void take_rows(float *to, size_t ld, struct matrix m, int first, int rows, int j, int n)
{
	int whole = up_to(n, STEP);

	if (m.dtype == DTYPE_BF16) {
		widen_rows(to, ld, row_of_bf16(m, first) + j, m.ld, rows, n, whole);
		return;
	}
	for (int i = 0; i < rows; i++, to += ld) {
		memcpy(to, row_of(m, first + i) + j, (size_t)n * sizeof *to);
		memset(to + n, 0, (size_t)(whole - n) * sizeof *to);
	}
}

/* The same of the transpose. */
static void take_columns(float *to, size_t ld, struct matrix m, int first, int cols, int j,
			 int n)
{
	for (int l = 0; l < n; l++)
		for (int i = 0; i < cols; i++)
			to[(size_t)i * ld + (size_t)l] = number(m, j + l, first + i);
	for (int i = 0; i < cols; i++)
		memset(to + (size_t)i * ld + n, 0, (size_t)(up_to(n, STEP) - n) * sizeof *to);
}

VECTOR static void widen_ranks(float *restrict to, const uint16_t *restrict x, size_t ld,
			       int rows)
{
	for (int i = 0; i < rows; i++, to += RANKS, x += ld)
		for (int l = 0; l < RANKS; l++)
			to[l] = vector_widen(x[l]);
}

/* Rows first..first+rows-1 of columns q..q+ranks-1, RANKS to a row, zeros in what is left. */
static void take_ranks(float *to, struct matrix m, int first, int rows, int q, int ranks)
{
	if (m.dtype == DTYPE_BF16 && ranks == RANKS) {
		widen_ranks(to, row_of_bf16(m, first) + q, m.ld, rows);
		return;
	}
	for (int i = 0; i < rows; i++, to += RANKS) {
		for (int l = 0; l < RANKS; l++)
			to[l] = l < ranks ? number(m, first + i, q + l) : 0;
	}
}

/* -- few columns: u = x aᵀ, du = s dy b ---------------------------------------------------- */

/* Adds what columns j..j+n-1 of a give to rows first.. and columns q.. of c. */
static void add_dots(const struct thin *t, float sums[DOT_ROWS][RANKS], int first, int rows,
		     int q, int j, int n)
{
	float w[RANKS * DOT_LD], x[ROWS_AT_ONCE * DOT_LD];

	memset(w, 0, sizeof w);
	memset(x, 0, sizeof x);
	(t->b_t ? take_rows : take_columns)(w, DOT_LD, t->b, q, at_most(t->c.cols - q, RANKS),
					    j, n);
	for (int i = 0; i < rows; i += ROWS_AT_ONCE) {
		take_rows(x, DOT_LD, t->a, first + i, at_most(rows - i, ROWS_AT_ONCE), j, n);
		t->loops.dots(sums + i, x, w, DOT_LD, up_to(n, STEP));
	}
}

static void dots_piece(void *arg, int index, int thread)
{
	const struct thin *t = arg;
	int first = index * DOT_ROWS, rows = at_most(t->c.rows - first, DOT_ROWS);
	float sums[DOT_ROWS][RANKS];

	(void)thread;
	for (int q = 0; q < t->c.cols; q += RANKS) {
		memset(sums, 0, sizeof sums);
		for (int j = 0; j < t->inner; j += CHUNK)
			add_dots(t, sums, first, rows, q, j, at_most(t->inner - j, CHUNK));
		for (int i = 0; i < rows; i++)
			for (int l = 0; l < RANKS && q + l < t->c.cols; l++)
				put(t, first + i, q + l, sums[i][l]);
	}
}

/* -- a sum over rows: the gradients of a and b --------------------------------------------- */

/* y = the sum for columns j..j+n-1 of the wide side and ranks first.. of the other. */
static void sum_rows(const struct thin *t, float *y, int first, int ranks, int j, int n)
{
	struct matrix wide = t->swapped ? t->a : t->b, thin = t->swapped ? t->b : t->a;
	float x[SUM_ROWS * PANEL_LD], d[SUM_ROWS * RANKS];

	for (int i = 0; i < t->inner; i += SUM_ROWS) {
		int rows = at_most(t->inner - i, SUM_ROWS);

		take_rows(x, PANEL_LD, wide, i, rows, j, n);
		for (int q = 0; q < ranks; q += RANKS) {
			take_ranks(d, thin, i, rows, first + q, at_most(ranks - q, RANKS));
			t->loops.outer(y + (size_t)q * PANEL_LD, d, x, PANEL_LD, rows,
				       up_to(n, STEP));
		}
	}
}

static void sum_piece(void *arg, int index, int thread)
{
	const struct thin *t = arg;
	int most = t->swapped ? t->c.cols : t->c.rows,
	    cols = t->swapped ? t->c.rows : t->c.cols;
	int first = index / t->panels * SUM_RANKS, j = index % t->panels * t->panel;
	int ranks = at_most(most - first, SUM_RANKS), n = at_most(cols - j, t->panel);
	float y[SUM_RANKS * PANEL_LD];

	(void)thread;
	memset(y, 0, (size_t)up_to(ranks, RANKS) * PANEL_LD * sizeof *y);
	sum_rows(t, y, first, ranks, j, n);
	for (int q = 0; !t->swapped && q < ranks; q++)
		for (int l = 0; l < n; l++)
			put(t, first + q, j + l, y[q * PANEL_LD + l]);
	for (int l = 0; t->swapped && l < n; l++)
		for (int q = 0; q < ranks; q++)
			put(t, j + l, first + q, y[q * PANEL_LD + l]);
}

/* -- an inner side that is the rank: dx += du a -------------------------------------------- */

VECTOR static void blend(float *c, const float *y, float alpha, float beta, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		c[j] = alpha * y[j] + beta * c[j];
}

VECTOR static void multiply(float *c, const float *y, float alpha, int n)
{
	EACH_ALONE
	for (int j = 0; j < n; j++)
		c[j] = alpha * y[j];
}

static void put_row(const struct thin *t, int i, int j, const float *y, int n)
{
	float buffer[CHUNK],
	    *c = t->beta == 0 ? chunk_out(t->c, i, j, buffer) : chunk_in(t->c, i, j, n, buffer);

	if (t->beta == 0)
		multiply(c, y, t->alpha, n);
	else
		blend(c, y, t->alpha, t->beta, n);
	chunk_done(t->c, i, j, n, c);
}

/* Columns j..j+n-1 of rows first..first+rows-1 of c. */
static void spread_panel(const struct thin *t, int first, int rows, int j, int n)
{
	float x[SPREAD + SPREAD_RANKS * LANES], y[RANKS * PANEL_LD], d[SPREAD_RANKS * RANKS];
	size_t ld = (size_t)t->panel + LANES;

	(t->b_t ? take_columns : take_rows)(x, ld, t->b, 0, t->inner, j, n);
	for (int i = 0; i < rows; i += RANKS) {
		int some = at_most(rows - i, RANKS);

		for (int q = 0; q < t->inner; q++)
			for (int l = 0; l < RANKS; l++)
				d[q * RANKS + l] =
				    l < some ? number(t->a, first + i + l, q) : 0;
		memset(y, 0, sizeof y);
		t->loops.outer(y, d, x, ld, t->inner, up_to(n, STEP));
		for (int l = 0; l < some; l++)
			put_row(t, first + i + l, j, y + (size_t)l * ld, n);
	}
}

static void spread_piece(void *arg, int index, int thread)
{
	const struct thin *t = arg;
	int first = index * SPREAD_ROWS, rows = at_most(t->c.rows - first, SPREAD_ROWS);

	(void)thread;
	for (int j = 0; j < t->c.cols; j += t->panel)
		spread_panel(t, first, rows, j, at_most(t->c.cols - j, t->panel));
}

/* -- the slot ------------------------------------------------------------------------------ */

/* Both sides transposed: nothing in training. */
static void plain_rows(const void *arg, int first, int end)
{
	const struct thin *t = arg;

	for (int i = first; i < end; i++) {
		for (int j = 0; j < t->c.cols; j++) {
			float sum = 0;

			for (int l = 0; l < t->inner; l++)
				sum += number(t->a, l, i) * number(t->b, j, l);
			put(t, i, j, sum);
		}
	}
}

static void run_sums(struct device *dev, struct thin *t)
{
	t->swapped = t->c.rows > t->c.cols;
	int cols = t->swapped ? t->c.rows : t->c.cols,
	    ranks = t->swapped ? t->c.cols : t->c.rows;

	t->panel = at_most(up_to((cols - 1) / PANELS + 1, STEP), PANEL);
	t->panels = (cols - 1) / t->panel + 1;
	pool_run(dev->pool, t->panels * ((ranks - 1) / SUM_RANKS + 1), sum_piece, t);
}

static void run_spread(struct device *dev, struct thin *t)
{
	t->panel = at_most(SPREAD / (t->inner ? t->inner : 1) / STEP * STEP, PANEL);
	pool_run(dev->pool, (t->c.rows - 1) / SPREAD_ROWS + 1, spread_piece, t);
}

static void cpu_thin(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		     struct matrix b, bool b_t, float alpha, float beta)
{
	struct thin t = {.c = c,
			 .a = a,
			 .b = b,
			 .b_t = b_t,
			 .alpha = alpha,
			 .beta = beta,
			 .inner = a_t ? a.rows : a.cols,
			 .loops = thin_loops()};

	if (c.rows < 1 || c.cols < 1)
		return;
	if (c.dtype == DTYPE_F32 && a.dtype == DTYPE_F32 && b.dtype == DTYPE_F32)
		cpu_matmul(dev, c, a, a_t, b, b_t, alpha, beta);
	else if (a_t && b_t)
		run_rows(dev, plain_rows, &t, c.rows, (size_t)c.cols * (size_t)t.inner);
	else if (a_t)
		run_sums(dev, &t);
	else if (t.inner < c.cols && t.inner <= SPREAD_RANKS)
		run_spread(dev, &t);
	else
		pool_run(dev->pool, (c.rows - 1) / DOT_ROWS + 1, dots_piece, &t);
}

void cpu_thin_slots(struct kernels *k)
{
	k->thin = cpu_thin;
}
