/*
 * Products on the CPU: OpenBLAS or oneDNN on one thread, tiles of c shared by the pool. The
 * tiles depend on the shape alone and one thread goes through the whole inner dimension of a
 * tile, so that the bits do not depend on the number of threads (OpenBLAS's own threads change
 * them on some of its cores).
 *
 * Every tile packs its rows of a and its columns of b again, so the larger and the squarer the
 * tiles, the better.
 */
#include <cblas.h>

#include "tensor/internal.h"
#include "tensor/onednn.h"
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
 * multiplications and (for some transposes) so many results; thin ones (LoRA) are cut to
 * fit. */
#define SMALL_WORK 1000000
#define SMALL_RESULTS 1200
#define THIN 32
#define ALIGN 16 /* what kernels do at once */
/* Tiles for oneDNN are at most so large: copies of their operands take 12 MiB a thread. */
#define ONEDNN_ROWS 512
#define ONEDNN_COLS 1024
#define ONEDNN_INNER 2048

struct product {
	struct matrix c, a, b, bias;
	bool a_t, b_t;
	float alpha, beta;
	int inner;
	int row_parts, col_parts; /* asked of the sides; rounding may leave fewer tiles */
	int row_step, col_step, row_tiles, col_tiles;
	struct onednn *onednn; /* does the tiles; null: OpenBLAS */
	const struct onednn_layout *layout; /* of b, where that is packed */
};

VECTOR static void add_row(float *restrict y, const float *restrict x, int n)
{
	for (int j = 0; j < n; j++)
		y[j] += x[j];
}

/* Which tile is the index-th, and where its operands begin, in bytes. */
struct place {
	int i, j, rows, cols;
	const char *a, *b;
	char *c;
};

static struct place place_of(const struct product *p, int index)
{
	struct place at = {.i = index / p->col_tiles * p->row_step,
			   .j = index % p->col_tiles * p->col_step};
	size_t ab = dtype_bytes(p->a.dtype), i = (size_t)at.i, j = (size_t)at.j;

	at.rows = at_most(p->c.rows - at.i, p->row_step);
	at.cols = at_most(p->c.cols - at.j, p->col_step);
	at.a = (const char *)p->a.data + i * (p->a_t ? 1 : p->a.ld) * ab;
	at.b = (const char *)p->b.data + (p->layout ? 0 : j * (p->b_t ? p->b.ld : 1) * ab);
	at.c = (char *)p->c.data + (i * p->c.ld + j) * dtype_bytes(p->c.dtype);
	return at;
}

/* The inner dimension in pieces: oneDNN copies all of a tile's operands that it is given. */
static void sgemm_pieces(struct onednn *onednn, int thread, const struct sgemm *whole)
{
	struct sgemm g = *whole;

	for (int l = 0; l < whole->inner; l += ONEDNN_INNER) {
		size_t at = (size_t)l;

		g.inner = at_most(whole->inner - l, ONEDNN_INNER);
		g.a = whole->a + at * (g.a_t ? g.lda : 1);
		g.b = whole->b + at * (g.b_t ? 1 : g.ldb);
		g.beta = l ? 1 : whole->beta;
		onednn_sgemm(onednn, thread, &g);
	}
}

static void tile(void *arg, int index, int thread)
{
	const struct product *p = arg;
	struct place at = place_of(p, index);
	struct sgemm g = {.a_t = p->a_t,
			  .b_t = p->b_t,
			  .rows = at.rows,
			  .cols = at.cols,
			  .inner = p->inner,
			  .alpha = p->alpha,
			  .beta = p->beta,
			  .a = (const float *)at.a,
			  .b = (const float *)at.b,
			  .c = (float *)at.c,
			  .lda = p->a.ld,
			  .ldb = p->b.ld,
			  .ldc = p->c.ld};

	if (p->onednn)
		sgemm_pieces(p->onednn, thread, &g);
	else
		cblas_sgemm(CblasRowMajor, g.a_t ? CblasTrans : CblasNoTrans,
			    g.b_t ? CblasTrans : CblasNoTrans, g.rows, g.cols, g.inner, g.alpha,
			    g.a, (int)g.lda, g.b, (int)g.ldb, g.beta, g.c, (int)g.ldc);
	for (int r = at.i; p->bias.data && r < at.i + at.rows; r++)
		add_row(row_of(p->c, r) + at.j, (float *)p->bias.data + at.j, at.cols);
}

/* One of so many parts of a side, in whole kernels. */
static int part(int side, int parts)
{
	return ((side - 1) / parts / ALIGN + 1) * ALIGN;
}

/* How far to go along the long side of a thin product so that a tile is small; 0 if it
 * cannot. */
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
	if (p->onednn) {
		p->row_step = at_most(p->row_step, ONEDNN_ROWS);
		p->col_step = at_most(p->col_step, part(n, (n - 1) / ONEDNN_COLS + 1));
	}
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

	if (p.inner == 0)
		kernels_ref.matmul(dev, c, a, a_t, b, b_t, alpha, beta);
	else
		run_product(dev, &p);
}

/* -- BF16 ---------------------------------------------------------------------------------- */

/*
 * Rows of a tile: few enough to share among threads and to stay in the second cache, enough
 * that reading the weights again for every tile costs nothing. Columns are cut only where rows
 * are too few to go round; whole rows of c are what oneDNN writes best.
 */
#define BF16_ROWS 128
#define BF16_UNPACKED_ROWS 256 /* they are copied for every tile */
#define BF16_COLS_MOST 4096
#define BF16_TILES 8
#define BF16_COLS 256

static void cut_bf16(struct product *p)
{
	p->row_step = at_most(p->c.rows, p->layout ? BF16_ROWS : BF16_UNPACKED_ROWS);
	p->row_tiles = (p->c.rows - 1) / p->row_step + 1;
	p->col_parts = p->layout ? 1 : (p->c.cols - 1) / BF16_COLS_MOST + 1;
	while (!p->layout && p->row_tiles * p->col_parts < BF16_TILES &&
	       part(p->c.cols, 2 * p->col_parts) >= BF16_COLS)
		p->col_parts *= 2;
	p->col_step = p->col_parts > 1 ? part(p->c.cols, p->col_parts) : p->c.cols;
	p->col_tiles = (p->c.cols - 1) / p->col_step + 1;
}

struct bf16_product {
	struct product product;
	/* of whole tiles; of the last row, the last column, and the last of both */
	struct onednn_product *whole[2][2];
};

static void bf16_tile(void *arg, int index, int thread)
{
	const struct bf16_product *b = arg;
	const struct product *p = &b->product;
	struct place at = place_of(p, index);
	const float *bias = p->bias.data;

	onednn_run(p->onednn, b->whole[at.rows < p->row_step][at.cols < p->col_step], thread,
		   at.c, at.a, at.b, bias ? bias + at.j : NULL);
}

/* Makes ready what the tiles need: at most four shapes. */
static bool bf16_ready(struct bf16_product *b)
{
	const struct product *p = &b->product;
	int rows[2] = {p->row_step, p->c.rows % p->row_step};
	int cols[2] = {p->col_step, p->c.cols % p->col_step};

	for (int i = 0; i < 2; i++)
		for (int j = 0; j < 2; j++) {
			struct onednn_shape shape = {.rows = rows[i],
						     .cols = cols[j],
						     .inner = p->inner,
						     .lda = p->a.ld,
						     .ldb = p->b.ld,
						     .ldc = p->c.ld,
						     .b_t = p->b_t,
						     .bias = p->bias.data,
						     .add = p->beta != 0,
						     .out = p->c.dtype,
						     .layout = p->layout};

			if (rows[i] && cols[j])
				b->whole[i][j] = onednn_product(p->onednn, &shape);
			if (rows[i] && cols[j] && !b->whole[i][j])
				return false;
		}
	return true;
}

static void linear_bf16(struct device *dev, const struct product *p)
{
	struct bf16_product b = {.product = *p};

	cut_bf16(&b.product);
	if (!bf16_ready(&b))
		dev->lacks = true;
	else if (p->a.data)
		pool_run(dev->pool, b.product.row_tiles * b.product.col_tiles, bf16_tile, &b);
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
			    .inner = x.cols,
			    .onednn =
				x.dtype == DTYPE_BF16 || dev->fast_f32 ? dev->onednn : NULL};

	if (y.rows < 1 || y.cols < 1)
		return;
	if (x.cols == 0)	/* libraries differ, and a w without columns looks packed */
		kernels_ref.linear(dev, y, x, w, w_t, bias, beta);
	else if (w.ld == 0 && !(p.layout = onednn_layout(dev->onednn, w.rows, w.cols)))
		dev->lacks = true;
	else if (x.dtype == DTYPE_BF16)
		linear_bf16(dev, &p);
	else if (x.data)
		run_product(dev, &p);
}

static size_t cpu_packed_bytes(int inner, int cols)
{
	return cols % PACK_BLOCK == 0 ? onednn_packed_bytes(inner, cols) : 0;
}

static void cpu_pack(struct device *dev, struct matrix w, int row, int col, struct matrix part,
		     bool part_t)
{
	const struct onednn_layout *layout = onednn_layout(dev->onednn, w.rows, w.cols);

	if (!layout || onednn_pack(dev->onednn, layout, w.data, row, col, part, part_t) < 0)
		dev->lacks = true;
}

void cpu_matmul_slots(struct kernels *k)
{
	k->packed_bytes = cpu_packed_bytes;
	k->pack = cpu_pack;
	k->matmul = cpu_matmul;
	k->linear = cpu_linear;
	k->thin = cpu_matmul;
}
