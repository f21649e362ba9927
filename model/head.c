/*
 * Final norm, head and loss, of some trained rows at a time: the full (n, V) matrix of logits
 * never exists, and rows without a label cost nothing. The head is frozen, so backward needs
 * nothing but the gradient of the logits. In F32 that is made in place of a few hundred rows of
 * logits (as Liger's fused linear cross-entropy, Hsu et al., 2024); in BF16 one kernel goes from
 * the head's input to its gradient. The input then becomes its own gradient, row by row.
 */
#include "model/block.h"

/* Logits take at most so much. */
#define LOGITS_BYTES ((size_t)160 << 20)
#define ROWS_MOST 256
/* Rows of a chunk without logits: so many that packing the head for it costs nothing. */
#define ROWS_FUSED 2048
/* A chunk is filled up to whole pieces, so that products come in few sizes. */
#define PIECE 64

int head_rows(int n, int vocabulary)
{
	size_t most = LOGITS_BYTES / (sizeof(float) * (size_t)vocabulary) / PIECE * PIECE;
	int rows = most < PIECE ? PIECE : most < ROWS_MOST ? (int)most : ROWS_MOST;

	return rows < n ? rows : n;
}

int head_rows_fused(int n)
{
	return n < ROWS_FUSED ? n : ROWS_FUSED;
}

static int whole_pieces(const struct head *head, int rows)
{
	int whole = (rows + PIECE - 1) / PIECE * PIECE;

	return whole < head->rows ? whole : head->rows;
}

static void norm(const struct run *run, const struct head *head, struct matrix h,
		 struct matrix stats, struct matrix x)
{
	struct matrix none = {0};

	if (run->config->family->gpt2)
		run->dev->k.layer_norm(run->dev, h, none, stats, x, head->norm, head->norm_bias,
				       run->config->norm_epsilon);
	else
		run->dev->k.rms_norm(run->dev, h, none, stats, x, head->norm,
				     run->config->norm_epsilon);
}

static void norm_backward(const struct run *run, const struct head *head, struct matrix dx,
			  struct matrix x, struct matrix d_h, struct matrix stats)
{
	struct device *dev = run->dev;
	struct matrix none = {0};

	dev->k.fill(dev, dx, 0);
	if (run->config->family->gpt2)
		dev->k.layer_norm_backward(dev, dx, none, d_h, x, stats, head->norm);
	else
		dev->k.rms_norm_backward(dev, dx, none, d_h, x, stats, head->norm, true);
}

/* -- gathering ------------------------------------------------------------------------------ */

/*
 * Which rows from *next on are in the next chunk of at most most: trained ones, or all. Returns how
 * many, *next goes on behind them. The chunk's labels are filled up with untrained ones.
 */
static int choose_rows(const struct head *head, const int32_t *labels, int n, bool all, int most,
		       int *next)
{
	int rows = 0, whole;

	for (; *next < n && rows < most; ++*next) {
		if (labels[*next] < 0 && !all)
			continue;
		head->host_labels[rows] = labels[*next];
		head->host_rows[rows++] = *next;
	}
	whole = whole_pieces(head, rows);
	for (int i = rows; i < whole; i++)
		head->host_labels[i] = -100;
	return rows;
}

/* How many of a chunk's rows from i on lie one after the other in x. */
static int run_of_rows(const struct head *head, int rows, int i)
{
	int count = 1;

	while (i + count < rows && head->host_rows[i + count] == head->host_rows[i] + count)
		count++;
	return count;
}

/* Copies the rows of a chunk out of x, or back into it. */
static void move_rows(const struct run *run, const struct head *head, struct matrix chunk,
		      struct matrix x, int rows, bool back)
{
	struct device *dev = run->dev;

	for (int i = 0, count; i < rows; i += count) {
		count = run_of_rows(head, rows, i);

		struct matrix there = matrix_rows(x, head->host_rows[i], count);
		struct matrix here = matrix_rows(chunk, i, count);

		dev->k.copy(dev, back ? there : here, back ? here : there);
	}
}

/* Rows that no chunk holds get no gradient. */
static void clear_untrained(const struct run *run, struct matrix x, const int32_t *labels)
{
	struct device *dev = run->dev;

	for (int i = 0; i < x.rows; i++)
		if (labels[i] < 0)
			dev->k.fill(dev, matrix_rows(x, i, 1), 0);
}

/* -- a chunk -------------------------------------------------------------------------------- */

/* Final norm of the rows of x that were chosen, filled up to whole pieces; returns the head's input. */
static struct matrix chunk_norm(const struct run *run, const struct head *head, struct matrix x,
				int rows)
{
	struct device *dev = run->dev;
	int whole = whole_pieces(head, rows);
	struct matrix in = matrix_rows(head->x, 0, whole), h = matrix_rows(head->h, 0, whole);

	move_rows(run, head, in, x, rows, false);
	if (rows < whole)
		dev->k.fill(dev, matrix_rows(in, rows, whole - rows), 0);
	norm(run, head, h, matrix_rows(head->stats, 0, whole), in);
	return h;
}

/* The logits of a chunk's h. */
static struct matrix chunk_logits(const struct run *run, const struct head *head, struct matrix h)
{
	struct device *dev = run->dev;
	struct matrix logits = matrix_rows(head->logits, 0, h.rows), none = {0};

	dev->k.linear(dev, logits, h, head->w, true, none, 0);
	return logits;
}

/* From a chunk's h to its losses and, with d_h, to its gradient: through logits, or at once. */
static void chunk_loss(const struct run *run, const struct head *head, struct matrix d_h,
		       struct matrix h, float scale)
{
	struct device *dev = run->dev;
	struct matrix gradient = matrix_rows(head->gradient, 0, h.rows), none = {0};

	if (head->fused) {
		dev->k.head_loss(dev, head->losses, d_h, h, head->w, head->labels, scale,
				 head->scratch);
		return;
	}
	dev->k.cross_entropy(dev, head->losses, d_h.data ? gradient : none,
			     chunk_logits(run, head, h), head->labels, scale);
	if (d_h.data)
		dev->k.linear(dev, d_h, gradient, head->w, false, none, 0);
}

/* The rows of x that were chosen; returns the sum of their losses. */
static double chunk_run(const struct run *run, const struct head *head, struct matrix x,
			int rows, const struct micro_batch *micro)
{
	struct device *dev = run->dev;
	int whole = whole_pieces(head, rows);
	struct matrix in = matrix_rows(head->x, 0, whole), none = {0};
	struct matrix d_h = matrix_rows(head->d_h, 0, whole);
	struct matrix dx = matrix_rows(head->dx, 0, whole);
	struct matrix h = chunk_norm(run, head, x, rows);
	double sum = 0;

	dev->upload(dev, head->labels, head->host_labels, (size_t)whole * sizeof(int32_t));
	chunk_loss(run, head, micro->train ? d_h : none, h, micro->loss_scale);
	dev->download(dev, head->host_losses, head->losses, (size_t)rows * sizeof(double));
	for (int i = 0; i < rows; i++)
		sum += head->host_losses[i];
	if (!micro->train)
		return sum;
	norm_backward(run, head, dx, in, d_h, matrix_rows(head->stats, 0, whole));
	move_rows(run, head, dx, x, rows, true);
	return sum;
}

/* What is dumped is computed apart: a row's last bits may depend on where in a product it
 * stands (OpenBLAS on AVX2), and training must not depend on the dump. */
double head_run(const struct run *run, const struct head *head, struct matrix x,
		const struct micro_batch *micro, struct matrix all_logits)
{
	double sum = 0;
	int rows, next = 0;

	while (all_logits.data &&
	       (rows = choose_rows(head, micro->labels, x.rows, true, head->logits.rows,
				   &next)) > 0) {
		struct matrix h = chunk_norm(run, head, x, rows);

		move_rows(run, head, chunk_logits(run, head, h), all_logits, rows, true);
	}
	if (micro->train)
		clear_untrained(run, x, micro->labels);
	next = 0;
	while ((rows = choose_rows(head, micro->labels, x.rows, false, head->rows, &next)) > 0)
		sum += chunk_run(run, head, x, rows, micro);
	return sum;
}

void head_next(const struct run *run, const struct head *head, struct matrix x)
{
	struct matrix h = matrix_rows(head->h, 0, x.rows), none = {0};
	struct matrix stats = matrix_cols(matrix_rows(head->stats, 0, x.rows), 0,
					  run->config->family->gpt2 ? 2 : 1);

	norm(run, head, h, stats, x);
	run->dev->k.few(run->dev, matrix_rows(head->logits, 0, x.rows), h, head->w, true, none, 1, 0);
}

void head_ready(struct device *dev, const struct head *head)
{
	struct matrix none = {0}, h = head->h, gradient = head->gradient, d_h = head->d_h;

	h.data = gradient.data = NULL;
	for (int rows = 1; rows <= head->rows; rows += PIECE) {
		struct matrix logits = matrix_rows(head->logits, 0, whole_pieces(head, rows));

		h.rows = d_h.rows = gradient.rows = logits.rows;
		if (head->fused)
			dev->k.head_loss(dev, NULL, d_h, h, head->w, NULL, 0, NULL);
		if (rows <= head->logits.rows)
			dev->k.linear(dev, logits, h, head->w, true, none, 0);
		if (!head->fused)
			dev->k.linear(dev, d_h, gradient, head->w, false, none, 0);
	}
}
