/*
 * Products on the CPU: OpenBLAS on one thread, tiles of c shared by the pool. The tiles depend
 * on the shape alone and the inner dimension is never split, so that the bits do not depend on
 * the number of threads (OpenBLAS's own threads change them on some of its cores).
 *
 * Every tile packs its rows of a and its columns of b again, so the larger and the squarer the
 * tiles, the better.
 */
#include <cblas.h>

#include "tensor/internal.h"
#include "tensor/vector.h"

/* A tile is worth a thread's while from so many floating-point operations on. */
#define TILE_WORK 4e6
/*
 * Tiles are halved until there are enough of them, unless a side fell below the least. First so
 * that eight threads have work, at a cost of 5 % or so; then, where that costs nothing, for
 * more.
 */
static const struct cut_goal {
	int tiles, least_rows, least_cols;
} cut_goals[] = {{8, 256, 192}, {32, 512, 1024}};
/* OpenBLAS has unpacked AVX-512 kernels, about twice as fast, for products of at most so many
 * multiplications and (for some transposes) so many results; thin ones (LoRA) are cut to fit.
 */
#define SMALL_WORK 1000000
#define SMALL_RESULTS 1200
#define THIN 32
#define ALIGN 16 /* what kernels do at once */

struct product {
	struct matrix c, a, b, bias;
	bool a_t, b_t;
	float alpha, beta;
	int inner;
	int row_parts, col_parts; /* asked of the sides; rounding may leave fewer tiles */
	int row_step, col_step, row_tiles, col_tiles;
};

static int at_most(int x, int most)
{
	return x < most ? x : most;
}

VECTOR static void add_row(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] += x[j];
}

static void tile(void *arg, int index, int thread)
{
	const struct product *p = arg;
	int i = index / p->col_tiles * p->row_step, j = index % p->col_tiles * p->col_step;
	int rows = at_most(p->c.rows - i, p->row_step),
	    cols = at_most(p->c.cols - j, p->col_step);
	const float *a = p->a.data, *b = p->b.data;

	(void)thread;
	a += (size_t)i * (p->a_t ? 1 : p->a.ld);
	b += (size_t)j * (p->b_t ? p->b.ld : 1);
	cblas_sgemm(CblasRowMajor, p->a_t ? CblasTrans : CblasNoTrans,
		    p->b_t ? CblasTrans : CblasNoTrans, rows, cols, p->inner, p->alpha, a,
		    (int)p->a.ld, b, (int)p->b.ld, p->beta, row_of(p->c, i) + j, (int)p->c.ld);
	for (int r = i; p->bias.data && r < i + rows; r++)
		add_row(row_of(p->c, r) + j, (float *)p->bias.data + j, cols);
}

/* One of so many parts of a side, in whole kernels. */
static int part(int side, int parts)
{
	return ((side - 1) / parts / ALIGN + 1) * ALIGN;
}

/* How far to go along the long side of a thin product so that a tile is small; 0 if it cannot.
 */
static int small_step(int thin, int inner)
{
	if (thin > THIN)
		return 0;
	int step = at_most(SMALL_RESULTS / thin, SMALL_WORK / thin / (inner ? inner : 1));

	return step / ALIGN * ALIGN;
}

/* Halves the longer side of the tiles, or else the other, until there are enough. A row counts
 * for one and a half: cutting columns costs more, since rows of c are what OpenBLAS streams
 * over. */
static void halve(struct product *p, const struct cut_goal *goal, double most)
{
	int m = p->c.rows, n = p->c.cols;

	while (p->row_parts * p->col_parts < goal->tiles &&
	       p->row_parts * p->col_parts * 2 <= most) {
		bool rows = part(m, 2 * p->row_parts) >= goal->least_rows;
		bool cols = part(n, 2 * p->col_parts) >= goal->least_cols;

		if (rows && (!cols || 3LL * p->row_step >= 2LL * p->col_step))
			p->row_step = part(m, p->row_parts *= 2);
		else if (cols)
			p->col_step = part(n, p->col_parts *= 2);
		else
			break;
	}
}

static void cut(struct product *p)
{
	int m = p->c.rows, n = p->c.cols, step = small_step(at_most(m, n), p->inner);

	p->row_parts = p->col_parts = 1;
	p->row_step = m;
	p->col_step = n;
	if (step && m > n)
		p->row_step = part(m, (m - 1) / step + 1);
	else if (step)
		p->col_step = part(n, (n - 1) / step + 1);
	for (int i = 0; !step && i < 2; i++)
		halve(p, &cut_goals[i], 2.0 * m * n * p->inner / TILE_WORK);
	p->col_tiles = (n - 1) / p->col_step + 1;
	p->row_tiles = (m - 1) / p->row_step + 1;
}

static void run_product(struct device *dev, struct product *p)
{
	if (p->c.rows < 1 || p->c.cols < 1)
		return;
	cut(p);
	pool_run(dev->pool, p->row_tiles * p->col_tiles, tile, p);
}

void cpu_matmul(struct device *dev, struct matrix c, struct matrix a, bool a_t, struct matrix b,
		bool b_t, float alpha, float beta)
{
	struct product p = {.c = c,
			    .a = a,
			    .b = b,
			    .a_t = a_t,
			    .b_t = b_t,
			    .alpha = alpha,
			    .beta = beta,
			    .inner = a_t ? a.rows : a.cols};

	run_product(dev, &p);
}

static void cpu_linear(struct device *dev, struct matrix y, struct matrix x, struct matrix w,
		       bool w_t, struct matrix bias, float beta)
{
	struct product p = {.c = y,
			    .a = x,
			    .b = w,
			    .bias = bias,
			    .b_t = w_t,
			    .alpha = 1,
			    .beta = beta,
			    .inner = x.cols};

	run_product(dev, &p);
}

void cpu_matmul_slots(struct kernels *k)
{
	k->matmul = cpu_matmul;
	k->linear = cpu_linear;
	k->thin = cpu_matmul;
}
