/*
 * Products on the CPU: OpenBLAS on one thread, tiles of c shared by the pool. The tiles depend on
 * the shape alone and the inner dimension is never split, so that the bits do not depend on the
 * number of threads (OpenBLAS's own threads change them on some of its cores).
 */
#include <cblas.h>

#include "tensor/internal.h"

#define TILE_ROWS 256
#define TILE_COLS 768

struct product {
	struct matrix c, a, b;
	bool a_t, b_t;
	float alpha, beta;
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
	int inner = p->a_t ? p->a.rows : p->a.cols;
	const float *a = p->a.data, *b = p->b.data;

	(void)thread;
	a += (size_t)i * (p->a_t ? 1 : p->a.ld);
	b += (size_t)j * (p->b_t ? p->b.ld : 1);
	cblas_sgemm(CblasRowMajor, p->a_t ? CblasTrans : CblasNoTrans,
		    p->b_t ? CblasTrans : CblasNoTrans, rows, cols, inner, p->alpha, a,
		    (int)p->a.ld, b, (int)p->b.ld, p->beta, row_of(p->c, i) + j, (int)p->c.ld);
}

static void cpu_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t,
		       struct matrix b, bool b_t, float alpha, float beta)
{
	struct product p = {c, a, b, a_t, b_t, alpha, beta, TILE_ROWS, TILE_COLS, 0};

	if (!c.rows || !c.cols)
		return;
	p.col_tiles = (c.cols - 1) / p.col_step + 1;
	pool_run(dev->pool, ((c.rows - 1) / p.row_step + 1) * p.col_tiles, tile, &p);
}

void cpu_matmul_slots(struct kernels *k)
{
	k->matmul = cpu_matmul;
}
