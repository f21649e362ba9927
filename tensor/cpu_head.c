/*
 * Head and loss in one on the CPU, for BF16: logits exist a tile at a time, a few hundred
 * kilobytes that a thread makes, uses and forgets in its second cache.
 *
 * Panels of PANEL rows of the head's weights go by one after the other. Each is packed once for
 * both products, while the panel before is in use; then every tile of TILE rows of h multiplies
 * by it, adds exp(logit - most so far) to its rows' sums, and adds what these exponentials
 * times the panel give to its rows of the gradient. Where a row's most grows, what it has so
 * far is scaled (the online softmax of Milakov and Gimelshein, 2018, as in flash attention).
 * The sum and the label come in at the end: d = scale (sum of p_j w_j - w_label).
 */
#include <math.h>
#include <string.h>

#include "tensor/activation.h"
#include "tensor/internal.h"
#include "tensor/onednn.h"
#include "tensor/vector.h"

#define PANEL 1024
#define TILE 128

enum { FORWARD, BACKWARD, DIRECTIONS };

struct head_loss {
	struct matrix h, w, d_h; /* d_h without data: losses alone */
	const int32_t *labels;
	double *losses;
	float scale;
	exp_loop *exps;
	struct onednn *onednn;
	int panels, at; /* at: the panel that is in use */
	/* [rows: a tile's, the last one's][the last panel], and of panel 0, which does not
	 * add */
	struct onednn_product *forward[2][2], *backward[2][2], *first[2];
	struct onednn_packing *packing[DIRECTIONS][2]; /* [the last panel] */
	char *packed[2][DIRECTIONS];		       /* of even and odd panels */
	/* a thread's: logits, then exponentials */
	char *tiles;
	float *most, *picked;			       /* (n): the largest logit, the label's */
	double *sum;				       /* (n) */
};

static const size_t logits_bytes = sizeof(float) * TILE * PANEL;
static const size_t tile_bytes = (sizeof(float) + sizeof(uint16_t)) * TILE * PANEL;

/* All that a call needs besides its matrices; with a null base it is counted only. */
static size_t carve(struct head_loss *a, void *memory, int threads, int rows, int C)
{
	struct slab slab = {.base = memory};

	for (int i = 0; i < 2 * DIRECTIONS; i++)
		a->packed[i / DIRECTIONS][i % DIRECTIONS] =
		    slab_take(&slab, i % DIRECTIONS == FORWARD ? onednn_packed_bytes(C, PANEL)
							       : onednn_packed_bytes(PANEL, C));
	a->tiles = slab_take(&slab, tile_bytes * (size_t)threads);
	a->most = slab_take(&slab, (size_t)rows * sizeof *a->most);
	a->picked = slab_take(&slab, (size_t)rows * sizeof *a->picked);
	a->sum = slab_take(&slab, (size_t)rows * sizeof *a->sum);
	return slab.used;
}

static size_t cpu_head_scratch(int threads, int rows, int C)
{
	struct head_loss a;

	return carve(&a, NULL, threads, rows, C);
}

static int width_of(const struct head_loss *a, int panel)
{
	return at_most(a->w.rows - panel * PANEL, PANEL);
}

/* -- making ready -------------------------------------------------------------------------- */

/* The packings of panels of a width, and the products of tiles of so many rows with them. */
static bool width_ready(struct head_loss *a, int last, int width, const int rows[2])
{
	int C = a->w.cols;
	struct onednn_layout *layout[] = {onednn_layout(a->onednn, C, width),
					  onednn_layout(a->onednn, width, C)};

	for (int d = 0; d < DIRECTIONS; d++)
		if (!layout[d] || !(a->packing[d][last] = onednn_packing(
					a->onednn, layout[d], a->w.ld, d == FORWARD)))
			return false;
	for (int i = 0; i < 2; i++) {
		struct onednn_shape forward = {.rows = rows[i],
					       .cols = width,
					       .inner = C,
					       .lda = a->h.ld,
					       .ldb = (size_t)width,
					       .ldc = (size_t)width,
					       .out = DTYPE_F32,
					       .layout = layout[FORWARD]};
		struct onednn_shape backward = {.rows = rows[i],
						.cols = C,
						.inner = width,
						.lda = (size_t)width,
						.ldb = (size_t)C,
						.ldc = a->d_h.ld,
						.out = DTYPE_F32,
						.layout = layout[BACKWARD]};

		if (!rows[i])
			continue;
		if (!(a->forward[i][last] = onednn_product(a->onednn, &forward)))
			return false;
		if (!a->d_h.cols)
			continue;
		if (width == width_of(a, 0))
			a->first[i] = onednn_product(a->onednn, &backward);
		backward.add = true;
		a->backward[i][last] = onednn_product(a->onednn, &backward);
		if (!a->first[i] || !a->backward[i][last])
			return false;
	}
	return true;
}

static bool head_ready(struct head_loss *a)
{
	int rows[2] = {a->h.rows < TILE ? 0 : TILE, a->h.rows % TILE};

	a->panels = (a->w.rows - 1) / PANEL + 1;
	return (a->panels == 1 || width_ready(a, 0, PANEL, rows)) &&
	       width_ready(a, 1, width_of(a, a->panels - 1), rows);
}

/* -- panels -------------------------------------------------------------------------------- */

static void pack(const struct head_loss *a, int panel, int direction, int thread)
{
	const uint16_t *from = row_of_bf16(a->w, panel * PANEL);

	onednn_packing_run(a->onednn, a->packing[direction][panel == a->panels - 1], thread,
			   a->packed[panel % 2][direction], from);
}

VECTOR static void scale_row(float *x, float factor, int n)
{
	for (int j = 0; j < n; j++)
		x[j] *= factor;
}

/* A larger logit has come: what row i has so far was relative to another. */
static void raise_most(const struct head_loss *a, int i, float most)
{
	float factor = a->at ? expf(a->most[i] - most) : 0;

	a->sum[i] *= (double)factor;
	a->most[i] = most;
	if (a->at && a->d_h.data)
		scale_row(row_of(a->d_h, i), factor, a->d_h.cols);
}

/* The logits of a panel's columns of row i, to exponentials without the label's. */
static void softmax_row(const struct head_loss *a, int i, const float *logits, uint16_t *e,
			int width)
{
	int label = a->labels[i] - a->at * PANEL;
	float most = largest_of(logits, width);

	if (a->labels[i] < 0) {
		memset(e, 0, (size_t)width * sizeof *e);
		return;
	}
	if (!a->at) {
		a->most[i] = -INFINITY;
		a->sum[i] = 0;
	}
	if (most > a->most[i])
		raise_most(a, i, most);
	a->sum[i] += (double)a->exps(e, logits, a->most[i], width);
	if (label >= 0 && label < width) {
		a->picked[i] = logits[label];
		e[label] = 0;
	}
}

static void run_tile(const struct head_loss *a, int first, int thread)
{
	int rows = at_most(a->h.rows - first, TILE), width = width_of(a, a->at);
	int last = a->at == a->panels - 1, small = rows < TILE;
	char *const *packed = a->packed[a->at % 2];
	float *logits = (float *)(a->tiles + (size_t)thread * tile_bytes);
	uint16_t *e = (uint16_t *)((char *)logits + logits_bytes);

	onednn_run(a->onednn, a->forward[small][last], thread, logits, row_of_bf16(a->h, first),
		   packed[FORWARD], NULL);
	for (int i = 0; i < rows; i++)
		softmax_row(a, first + i, logits + (size_t)i * (size_t)width,
			    e + (size_t)i * (size_t)width, width);
	if (a->d_h.data)
		onednn_run(a->onednn, a->at ? a->backward[small][last] : a->first[small],
			   thread, row_of(a->d_h, first), e, packed[BACKWARD], NULL);
}

/* How many pieces of work pack the panel after this one. */
static int packs_of(const struct head_loss *a)
{
	return a->at + 1 == a->panels ? 0 : a->d_h.data ? DIRECTIONS : 1;
}

static void piece(void *arg, int index, int thread)
{
	const struct head_loss *a = arg;
	int packs = packs_of(a);

	if (index < packs)
		pack(a, a->at + 1, index, thread);
	else
		run_tile(a, (index - packs) * TILE, thread);
}

/* -- the end ------------------------------------------------------------------------------- */

/* d = factor d + share w */
VECTOR static void end_row(float *restrict d, const uint16_t *restrict w, float factor,
			   float share, int n)
{
	for (int j = 0; j < n; j++)
		d[j] = factor * d[j] + share * vector_widen(w[j]);
}

/* The loss of a trained row; its gradient gets what it lacks. Others have had zeros added. */
static double end_loss(const struct head_loss *a, int i)
{
	double over = (double)a->picked[i] - (double)a->most[i], sum = a->sum[i];
	float factor = (float)((double)a->scale / sum);
	float share = (float)((exp(over) / sum - 1) * (double)a->scale);

	if (a->d_h.data)
		end_row(row_of(a->d_h, i), row_of_bf16(a->w, a->labels[i]), factor, share,
			a->d_h.cols);
	return log(sum) - over;
}

static void end_rows(const void *arg, int first, int end)
{
	const struct head_loss *a = arg;

	for (int i = first; i < end; i++) {
		a->losses[i] = 0;
		if (a->labels[i] >= 0)
			a->losses[i] = end_loss(a, i);
	}
}

static void cpu_head_loss(struct device *dev, double *losses, struct matrix d_h,
			  struct matrix h, struct matrix w, const int32_t *labels, float scale,
			  void *scratch)
{
	struct head_loss a = {.h = h,
			      .w = w,
			      .d_h = d_h,
			      .labels = labels,
			      .losses = losses,
			      .scale = scale,
			      .exps = exp_loop_best(),
			      .onednn = dev->onednn,
			      .at = -1};

	if (!head_ready(&a)) {
		dev->lacks = true;
		return;
	}
	if (!h.data)
		return;
	carve(&a, scratch, pool_threads(dev->pool), h.rows, h.cols);
	pool_run(dev->pool, packs_of(&a), piece, &a);
	for (a.at = 0; a.at < a.panels; a.at++)
		pool_run(dev->pool, packs_of(&a) + (h.rows - 1) / TILE + 1, piece, &a);
	run_rows(dev, end_rows, &a, h.rows, 2 * (size_t)h.cols);
}

void cpu_head_slots(struct kernels *k)
{
	k->head_loss = cpu_head_loss;
	k->head_scratch = cpu_head_scratch;
}
