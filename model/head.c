/*
 * Final norm, head and loss, a few hundred rows at a time: the full (n, V) matrix of logits never exists. The
 * head is frozen, so backward needs nothing but the gradient of the logits, which is made in place of them
 * while they are in the cache (as Liger's fused linear cross-entropy, Hsu et al., 2024); the input then becomes
 * its own gradient, row by row.
 */
#include "model/block.h"

int head_rows(int n, int vocabulary)
{
	size_t most = ((size_t)64 << 20) / (4 * (size_t)vocabulary);
	int rows = most >= 256 ? 256 : most >= 128 ? 128 : 64;

	return rows < n ? rows : n;
}

static bool any_trained(const int32_t *labels, int rows)
{
	for (int i = 0; i < rows; i++)
		if (labels[i] >= 0)
			return true;
	return false;
}

static void norm(const struct run *run, const struct head *head, struct matrix h,
		 struct matrix stats, struct matrix x)
{
	struct matrix none = {0};

	if (run->config->family->gpt2)
		run->dev->k.layer_norm(run->dev, h, none, stats, x, head->norm, head->norm_bias,
				       run->config->norm_epsilon);
	else
		run->dev->k.rms_norm(run->dev, h, none, stats, x, head->norm, run->config->norm_epsilon);
}

/* d_h becomes the gradient of x, in x's place. */
static void norm_backward(const struct run *run, const struct head *head, struct matrix x,
			  struct matrix d_h, struct matrix stats)
{
	struct device *dev = run->dev;
	struct matrix dx = matrix_rows(head->h, 0, x.rows), none = {0};

	dev->k.fill(dev, dx, 0);
	if (run->config->family->gpt2)
		dev->k.layer_norm_backward(dev, dx, none, d_h, x, stats, head->norm);
	else
		dev->k.rms_norm_backward(dev, dx, none, d_h, x, stats, head->norm, true);
	dev->k.copy(dev, x, dx);
}

/* One chunk of rows, the first of them `first`; returns the sum of its losses. */
static double chunk_run(const struct run *run, const struct head *head, struct matrix x,
			int first, const struct micro_batch *micro, struct matrix all_logits)
{
	struct device *dev = run->dev;
	struct matrix h = matrix_rows(head->h, 0, x.rows);
	struct matrix d_h = matrix_rows(head->d_h, 0, x.rows);
	struct matrix stats = matrix_rows(head->stats, 0, x.rows);
	struct matrix logits = matrix_rows(head->logits, 0, x.rows), none = {0};
	double sum = 0;

	norm(run, head, h, stats, x);
	dev->k.matmul(dev, logits, h, false, head->w, true, 1, 0);
	if (all_logits.data)
		dev->k.copy(dev, matrix_rows(all_logits, first, x.rows), logits);
	dev->k.cross_entropy(dev, head->losses, micro->train ? logits : none, logits,
			     head->labels + first, micro->loss_scale);
	dev->download(dev, head->host_losses, head->losses, (size_t)x.rows * sizeof(double));
	for (int i = 0; i < x.rows; i++)
		sum += head->host_losses[i];
	if (micro->train) {
		dev->k.matmul(dev, d_h, logits, false, head->w, false, 1, 0);
		norm_backward(run, head, x, d_h, stats);
	}
	return sum;
}

double head_run(const struct run *run, const struct head *head, struct matrix x,
		const struct micro_batch *micro, struct matrix all_logits)
{
	struct device *dev = run->dev;
	double sum = 0;

	dev->upload(dev, head->labels, micro->labels, (size_t)x.rows * sizeof(int32_t));
	for (int first = 0; first < x.rows; first += head->rows) {
		int rows = x.rows - first < head->rows ? x.rows - first : head->rows;
		struct matrix chunk = matrix_rows(x, first, rows);

		if (any_trained(micro->labels + first, rows) || all_logits.data)
			sum += chunk_run(run, head, chunk, first, micro, all_logits);
		else if (micro->train)
			dev->k.fill(dev, chunk, 0);
	}
	return sum;
}
