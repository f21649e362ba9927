/*
 * Products on the CPU: OpenBLAS on one thread, tiles of c shared by the pool. The tiles depend on
 * the shape alone and the inner dimension is never split, so that the bits do not depend on the
 * number of threads (OpenBLAS's own threads change them on some of its cores).
 *
 * Every tile packs its rows of a and its columns of b again, so tiles are as large and as square
 * as leaves work for eight threads or so.
 */
#include <cblas.h>

#include "tensor/internal.h"

/* The tiles wanted: one for each TILE_WORK floating-point operations, up to MOST_TILES. */
#define TILE_WORK 4e6
#define MOST_TILES 8
/* Sides below which packing costs more than another thread brings. */
#define LEAST_ROWS 128
#define LEAST_COLS 192
/* OpenBLAS has unpacked AVX-512 kernels, about twice as fast, for products of at most so many
 * multiplications and (for some transposes) so many results; thin ones (LoRA) are cut to fit. */
#define SMALL_WORK 1000000
#define SMALL_RESULTS 1200
#define THIN 32
#define ALIGN 16			/* what kernels do at once */

struct product {
	struct matrix c, a, b;
	bool a_t, b_t;
	float alpha, beta;
	int inner;
	int row_step, col_step, col_tiles;
};

static int at_most(int x, int most)
{
	return x < most ? x : most;
}

static void tile(void *arg, int index, int thread)
{
	const struct product *p = arg;
	int i = index / p->col_tiles * p->row_step, j = index % p->col_tiles * p->col_step;
	int rows = at_most(p->c.rows - i, p->row_step), cols = at_most(p->c.cols - j, p->col_step);
	const float *a = p->a.data, *b = p->b.data;

	(void)thread;
	a += (size_t)i * (p->a_t ? 1 : p->a.ld);
	b += (size_t)j * (p->b_t ? p->b.ld : 1);
	cblas_sgemm(CblasRowMajor, p->a_t ? CblasTrans : CblasNoTrans,
		    p->b_t ? CblasTrans : CblasNoTrans, rows, cols, p->inner, p->alpha, a,
		    (int)p->a.ld, b, (int)p->b.ld, p->beta, row_of(p->c, i) + j, (int)p->c.ld);
}

/* One of so many parts of a side, in whole kernels. */
static int part(int side, int parts)
{
	return ((side - 1) / parts / ALIGN + 1) * ALIGN;
}

/* How far to go along the long side of a thin product so that a tile is small; 0 if it cannot. */
static int small_step(int thin, int inner)
{
	if (thin > THIN)
		return 0;
	int step = at_most(SMALL_RESULTS / thin, SMALL_WORK / thin / (inner ? inner : 1));

	return step / ALIGN * ALIGN;
}

/* Halves the longer side of the tiles until there are enough. */
static void cut(struct product *p)
{
	int m = p->c.rows, n = p->c.cols, thin = at_most(m, n), step = small_step(thin, p->inner);
	double wanted = 2.0 * m * n * p->inner / TILE_WORK;
	int rows = 1, cols = 1;

	p->row_step = m;
	p->col_step = n;
	if (step) {
		p->row_step = m > n ? part(m, (m - 1) / step + 1) : m;
		p->col_step = m > n ? n : part(n, (n - 1) / step + 1);
		return;
	}
	while (rows * cols < at_most((int)(wanted < 1e6 ? wanted : 1e6), MOST_TILES)) {
		if (p->row_step >= p->col_step && part(m, 2 * rows) >= LEAST_ROWS)
			p->row_step = part(m, rows *= 2);
		else if (part(n, 2 * cols) >= LEAST_COLS)
			p->col_step = part(n, cols *= 2);
		else if (part(m, 2 * rows) >= LEAST_ROWS)
			p->row_step = part(m, rows *= 2);
		else
			break;
	}
}

static void cpu_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	struct product p = {c, a, b, a_t, b_t, alpha, beta, a_t ? a.rows : a.cols, 0, 0, 0};

	if (c.rows < 1 || c.cols < 1)
		return;
	cut(&p);
	p.col_tiles = (c.cols - 1) / p.col_step + 1;
	pool_run(dev->pool, ((c.rows - 1) / p.row_step + 1) * p.col_tiles, tile, &p);
}

void cpu_matmul_slots(struct kernels *k)
{
	k->matmul = cpu_matmul;
}
